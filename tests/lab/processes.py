"""Processes that a test or a benchmark starts: found again by pid, ended by pid.

``start`` runs a program in a session of its own (so that its children can be
ended with it), as another user when it refuses root.  Nothing here knows
pytest; ``bench/`` uses it, too.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


class NotStarted(RuntimeError):
    """A server did not come up; the message ends with the tail of its log."""


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def find_program(name: str, *folders: str) -> Path | None:
    """Where a program is: in the given folders (patterns such as /usr/lib/x/*/bin), or on PATH, sbin included."""
    for folder in folders:
        pattern = folder.strip("/")
        for candidate in sorted(Path("/").glob(f"{pattern}/{name}"), reverse=True):
            if os.access(candidate, os.X_OK):
                return candidate
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    found = shutil.which(name, path=path)
    return Path(found) if found else None


def unprivileged(name: str) -> str | None:
    """The user to run a server as: ``name`` if we are root and it exists, None (ourselves) if not root."""
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(name)
    except KeyError:
        return "nobody"
    return name


def give(path: Path, user: str | None) -> None:
    """Make ``user`` the owner of a folder and of what is in it."""
    if user is None:
        return
    entry = pwd.getpwnam(user)
    for item in [path, *path.rglob("*")]:
        os.chown(item, entry.pw_uid, entry.pw_gid)


def start(
    arguments: Sequence[str | Path],
    *,
    log: Path,
    user: str | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program in its own session, output to ``log``."""
    options: dict[str, object] = {}
    if user is not None:
        entry = pwd.getpwnam(user)
        options = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    with log.open("ab") as output:
        return subprocess.Popen(
            [str(part) for part in arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=None if environment is None else dict(environment),
            cwd=folder or "/",
            **options,  # type: ignore[call-overload]
        )


def run(arguments: Sequence[str | Path], *, log: Path, user: str | None = None, **more: object) -> None:
    """Run a program to its end; its output goes to ``log``.

    :raises NotStarted: it failed.
    """
    process = start(arguments, log=log, user=user, **more)  # type: ignore[arg-type]
    if process.wait() != 0:
        raise NotStarted(f"{arguments[0]} ended with {process.returncode}: {tail(log)}")


def tail(log: Path, lines: int = 8) -> str:
    """The last lines of a log file."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError as failure:
        return f"(no log: {failure})"


def wait_for(
    ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, what: str, timeout_s: float = 60
) -> None:
    """Wait until ``ready()``, unless the process ends or the time is over.

    :raises NotStarted: it never became ready.
    """
    deadline = time.monotonic() + timeout_s
    while not ready():
        if process.poll() is not None:
            raise NotStarted(f"{what} ended with {process.returncode}: {tail(log)}")
        if time.monotonic() > deadline:
            stop_group(process.pid)
            process.wait()
            raise NotStarted(f"{what} was not ready after {timeout_s:.0f} s: {tail(log)}")
        time.sleep(0.05)


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Whether something accepts connections there."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


def alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def command_line(pid: int) -> str:
    """The command line of a process, or "" when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def stop_group(pid: int, timeout_s: float = 15, first: signal.Signals = signal.SIGTERM) -> None:
    """End the session that ``start`` began with this process: ask first, then kill what is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, first)
    deadline = time.monotonic() + timeout_s
    while alive(pid) and time.monotonic() < deadline:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
