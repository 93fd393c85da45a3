"""The state folder: everything that ``haneul up`` keeps on this machine, in one place.

haneul.conf          configuration; written once, kept when edited
passwords.json       0600: what was generated once
clouds.yaml, admin-openrc   0600: for clients
db/                  SQLite files: global.sqlite, one per cell
identity/            embedded Keystone: configuration, database, keys
images/, instances/  image store; disks of servers
log/                 one file per process
run/                 pid files: "PID START-TIME", so that a reused pid is never taken for ours
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import time
from pathlib import Path
from typing import Any

from core.errors import Unavailable

CHECKOUT = Path(__file__).resolve().parent.parent
ENVIRONMENT = "HANEUL_STATE"


def default_folder() -> Path:
    """HANEUL_STATE, else ``.haneul`` in the checkout, else in the working directory."""
    named = os.environ.get(ENVIRONMENT)
    if named:
        return Path(named).expanduser().resolve()
    root = CHECKOUT if (CHECKOUT / "pyproject.toml").exists() else Path.cwd()
    return root / ".haneul"


def write_file(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file whole or not at all; it never exists with a wider mode than ``mode``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    temporary.rename(path)


def started_at(pid: int) -> str | None:
    """When a process started (clock ticks since boot), which tells it from a later one of the same pid."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


class StateFolder:
    """One state folder; makes the sub-folders that are asked for."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = (path or default_folder()).resolve()

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def folder(self, name: str, mode: int = 0o755) -> Path:
        path = self.path / name
        path.mkdir(parents=True, exist_ok=True, mode=mode)
        return path

    @property
    def config_file(self) -> Path:
        return self.path / "haneul.conf"

    def exists(self) -> bool:
        return self.config_file.exists()

    def read_json(self, name: str) -> dict[str, Any]:
        """The content of a JSON file here; {} when there is none."""
        try:
            content: dict[str, Any] = json.loads((self.path / name).read_text())
        except FileNotFoundError:
            return {}
        return content

    def write_json(self, name: str, content: dict[str, Any], mode: int = 0o644) -> None:
        write_file(self.path / name, json.dumps(content, indent=1, sort_keys=True) + "\n", mode)

    def password(self, name: str) -> str:
        """The password of that name, generated when first asked for."""
        passwords = self.read_json("passwords.json")
        if name not in passwords:
            passwords[name] = secrets.token_urlsafe(18)
            self.write_json("passwords.json", passwords, 0o600)
        return str(passwords[name])

    # pid files

    def write_pid(self, name: str, pid: int) -> None:
        write_file(self.path / "run" / f"{name}.pid", f"{pid} {started_at(pid)}\n")

    def pid(self, name: str) -> int | None:
        """The pid of a process that runs, None when it does not."""
        try:
            pid, start = (self.path / "run" / f"{name}.pid").read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        return int(pid) if started_at(int(pid)) == start else None

    def stop(self, name: str, timeout_s: float = 30) -> bool:
        """End a process by its pid file: ask, wait, then kill. False when it did not run.

        :raises Unavailable: it can't be ended (another user's).
        """
        pid = self.pid(name)
        if pid is not None:
            try:
                os.kill(pid, signal.SIGTERM)
                deadline = time.monotonic() + timeout_s
                while self.pid(name) == pid and time.monotonic() < deadline:
                    time.sleep(0.05)
                if self.pid(name) == pid:
                    os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it ended between the look and the signal
            except PermissionError as failure:
                raise Unavailable(f"{name} (pid {pid}) belongs to another user", cause=failure) from failure
        (self.path / "run" / f"{name}.pid").unlink(missing_ok=True)
        return pid is not None
