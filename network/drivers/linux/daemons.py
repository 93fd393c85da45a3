"""Small daemons in namespaces (dnsmasq, radvd): started, told to read again, ended, found again.

They outlive the agent, so that a restart of it costs no guest its lease. A daemon is
known by its pid file *and* by its command line, which names a file of ours: a pid that
was given to somebody else meanwhile is never signalled. One that was begun from another state
folder (a cloud that was thrown away) is known by living in the namespace and by the same end of that file's name.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from network.drivers.linux.namespaces import Namespaces

_END_S = 3.0
_TELLING_PARTS = 4
"""of a file's path: network/dhcp/<network id>/conf"""


def write(path: Path, text: str) -> bool:
    """Write a file whole or not at all, readable by the daemon's user; True if its content is new."""
    with contextlib.suppress(FileNotFoundError):
        if path.read_text() == text:
            return False
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text(text)
    temporary.chmod(0o644)
    temporary.replace(path)
    return True


class Daemon:
    """One daemon; ``config`` is the file of ours that its command line names."""

    def __init__(self, namespaces: Namespaces, namespace: str, config: Path, pid_file: Path) -> None:
        self._namespaces = namespaces
        self._namespace = namespace
        self._config = config
        self._pid_file = pid_file

    def pid(self) -> int | None:
        """Its pid if it lives."""
        try:
            pid = int(self._pid_file.read_text())
        except (OSError, ValueError):
            return None
        return pid if _names(pid, os.fsencode(self._config)) else None

    def ensure(self, arguments: Sequence[str], *, restart: bool, reload: bool) -> None:
        """Have it run: begun if it doesn't, begun anew with ``restart``, told to read again with ``reload``.

        :raises DriverError: it can't be started.
        """
        pid = self.pid()
        if pid is not None and restart:
            self.end()
            pid = None
        if pid is None:
            self._end_of_others()
            self._pid_file.unlink(missing_ok=True)
            self._namespaces.run(self._namespace, arguments)
        elif reload:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGHUP)

    def end(self) -> None:
        """Gone when this returns."""
        pid = self.pid()
        if pid is not None:
            _end(pid, os.fsencode(self._config))
        self._end_of_others()
        self._pid_file.unlink(missing_ok=True)

    def _end_of_others(self) -> None:
        """Those in the namespace that name a file like ours: they hold the ports that ours needs."""
        ending = os.fsencode("/" + "/".join(self._config.parts[-_TELLING_PARTS:]))
        for pid in self._namespaces.pids(self._namespace):
            _end(pid, ending)


def _names(pid: int, ending: bytes) -> bool:
    """Is there a process of this pid whose command line names a file that ends like this?"""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return any(argument.endswith(ending) for argument in command.split(b"\0"))


def _end(pid: int, ending: bytes) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + _END_S
        if not _names(pid, ending):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        while _names(pid, ending) and time.monotonic() < deadline:
            time.sleep(0.01)
