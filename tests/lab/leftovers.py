"""What labs leave on a machine, and its end: processes, mounts, network namespaces, folders.

A folder and a namespace of a lab bear the pid of the process that made them. ``remove`` clears up behind
one lab; ``remove_left_behind`` behind processes that were killed, at the start of each test run (this
module is a pytest plugin) and of each lab. A run that is asked to end (SIGTERM) ends as if
by Ctrl-C: its fixtures clear up, where it would otherwise just stop.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType

import pytest
from pyroute2 import netns

from tests.lab import processes

RUN = Path("/var/run/netns")
_PREFIXES = ("hh", "hh-host-", "hh-bench-")
_FOLDER = re.compile(rf"^(?:{'|'.join(_PREFIXES)})(\d+)-\w+$")
_NAMESPACE = re.compile(r"^hl(\d+)-")
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


def make_folder(prefix: str) -> Path:
    """A folder of this process's, with a short path: sockets may lie in it."""
    assert prefix in _PREFIXES
    return Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-"))


def mounts_below(folder: Path) -> list[str]:
    """Mount points in a folder (itself included), as often as something is mounted there; the last ones first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        if point == str(folder) or point.startswith(f"{folder}/"):
            found.append(point)
    return found[::-1]


def remove(folder: Path) -> None:
    """End who names the folder, unmount what is mounted in it, delete it."""
    named = str(folder).encode()
    _end(lambda pid: named in _command(pid))
    for point in mounts_below(folder):
        _libc.umount2(os.fsencode(point), _MNT_DETACH)
    shutil.rmtree(folder, ignore_errors=True)


def remove_namespaces(names: Iterable[str]) -> None:
    """With the processes that live in them."""
    gone = set()
    for name in names:
        with contextlib.suppress(OSError):
            entry = (RUN / name).stat()
            gone.add((entry.st_dev, entry.st_ino))
    if gone:
        _end(lambda pid: _namespace_of(pid) in gone)
    for name in names:
        with contextlib.suppress(OSError):
            netns.remove(name)


def remove_left_behind() -> None:
    """What processes that are gone have left."""
    if os.geteuid() != 0:
        return
    remove_namespaces([each.name for each in RUN.glob("hl*-*") if _orphaned(_NAMESPACE, each)])
    for folder in Path(tempfile.gettempdir()).glob("hh*"):
        if _orphaned(_FOLDER, folder):
            remove(folder)


def _orphaned(pattern: re.Pattern[str], path: Path) -> bool:
    match = pattern.match(path.name)
    return match is not None and not processes.alive(int(match[1]))


def _command(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _namespace_of(pid: int) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        entry = Path(f"/proc/{pid}/ns/net").stat()
        return entry.st_dev, entry.st_ino
    return None


def _end(concerned: Callable[[int], bool]) -> None:
    """Ask the processes to end, then make them."""
    mine = os.getpid()
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            pids = [int(each.name) for each in Path("/proc").glob("[0-9]*")]
            found = [pid for pid in pids if pid != mine and concerned(pid) and processes.alive(pid)]
            if not found:
                return
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            time.sleep(0.05)


def clear_up_when_ended() -> None:
    """SIGTERM becomes KeyboardInterrupt: ``finally`` is obeyed. Only in a process's main thread."""
    mine = os.getpid()

    def interrupt(number: int, _frame: FrameType | None) -> None:
        if os.getpid() != mine:
            # a child that was forked (pyroute2 does, and ends them so): what is to be cleared up is its parent's
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        raise KeyboardInterrupt("asked to end")

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, interrupt)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    clear_up_when_ended()
    if not hasattr(config, "workerinput"):
        remove_left_behind()
