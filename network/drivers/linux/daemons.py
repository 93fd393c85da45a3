"""Small daemons in namespaces (dnsmasq, radvd): started, told to read again, ended, found again.

They outlive the agent, so that a restart of it costs no guest its lease. A daemon is
known by its pid file *and* by its command line, which names a file of ours: a pid that
was given to somebody else meanwhile is never signalled.
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
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if os.fsencode(self._config) in command else None

    def ensure(self, arguments: Sequence[str], *, restart: bool, reload: bool) -> None:
        """Have it run: begun if it doesn't, begun anew with ``restart``, told to read again with ``reload``.

        :raises DriverError: it can't be started.
        """
        pid = self.pid()
        if pid is not None and restart:
            self.end()
            pid = None
        if pid is None:
            self._pid_file.unlink(missing_ok=True)
            self._namespaces.run(self._namespace, arguments)
        elif reload:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGHUP)

    def end(self) -> None:
        """Gone when this returns."""
        pid = self.pid()
        for number in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + _END_S
            if pid is None or self.pid() != pid:
                break
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            while self.pid() == pid and time.monotonic() < deadline:
                time.sleep(0.01)
        self._pid_file.unlink(missing_ok=True)
