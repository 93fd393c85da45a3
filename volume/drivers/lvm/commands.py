"""LVM's commands, with argument lists, and what their JSON reports say.

One object per volume group.  A name that does not exist is no error to whoever removes it;
everything else that LVM refuses is a DriverError with its last words.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import mmap
import os
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from core.errors import DriverError

MIB = 1 << 20
_ZERO_CHUNK = 256 * MIB
_PIECE = MIB
_BLKZEROOUT = 0x127F  # linux/fs.h
_BUSY_TRIES, _BUSY_PAUSE_S = 10, 0.5
_MISSING = ("failed to find logical volume", "not found in volume group")


@dataclasses.dataclass(frozen=True)
class Logical:
    """One logical volume as ``lvs`` reports it."""

    name: str
    size_bytes: int
    pool: str
    origin: str
    open: bool
    tags: frozenset[str]
    kind: str
    """the first letter of lv_attr: V thin, t thin pool, s snapshot, o origin, - thick, …"""
    data_percent: float
    metadata_percent: float = 0


@dataclasses.dataclass(frozen=True)
class Space:
    """Bytes of a volume group or of a thin pool."""

    total_bytes: int
    free_bytes: int


def run(*arguments: str) -> str:
    """One command of LVM's. :raises DriverError: with its last words."""
    environment = {**os.environ, "LC_ALL": "C", "LVM_SUPPRESS_FD_WARNINGS": "1"}
    environment["PATH"] = environment.get("PATH", "") + ":/usr/sbin:/sbin"
    try:
        # without a function to run in the child: the worker's memory need not be copied for it
        done = subprocess.run(
            arguments, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise DriverError(f"{arguments[0]} is missing on this host: install lvm2", cause=error) from error
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip() or "it said nothing"
        raise DriverError(f"{arguments[0]} failed: {said.splitlines()[-1].strip()}", cause=said)
    return done.stdout


def report(text: str, kind: str) -> list[dict[str, str]]:
    """The rows of a JSON report: ``kind`` is lv, vg or pv."""
    rows: list[dict[str, str]] = json.loads(text)["report"][0].get(kind, [])
    return rows


def logical_of(row: dict[str, str]) -> Logical:
    """A row of ``lvs`` with FIELDS."""
    return Logical(
        name=row["lv_name"].strip("[]"),
        size_bytes=int(row["lv_size"]),
        pool=row["pool_lv"],
        origin=row["origin"].strip("[]"),
        open=row["lv_device_open"] == "open",
        tags=frozenset(filter(None, row["lv_tags"].split(","))),
        kind=row["lv_attr"][:1],
        data_percent=float(row["data_percent"] or 0),
        metadata_percent=float(row["metadata_percent"] or 0),
    )


FIELDS = "lv_name,lv_size,pool_lv,origin,lv_device_open,lv_tags,lv_attr,data_percent,metadata_percent"


class Group:
    """One volume group."""

    def __init__(self, name: str, execute: Callable[..., str] = run) -> None:
        self.name = name
        self._run = execute

    def device(self, name: str) -> Path:
        return Path("/dev") / self.name / name

    def _path(self, name: str) -> str:
        return f"{self.name}/{name}"

    # -- looking -----------------------------------------------------------------

    def space(self) -> Space:
        """:raises DriverError: there is no such group."""
        text = self._run(
            "vgs", "--reportformat", "json", "--units", "b", "--nosuffix", "-o", "vg_size,vg_free", self.name
        )
        (row,) = report(text, "vg")
        return Space(int(row["vg_size"]), int(row["vg_free"]))

    def volumes(self) -> dict[str, Logical]:
        """All of the group, by name."""
        text = self._run(
            "lvs", "--reportformat", "json", "--units", "b", "--nosuffix", "-a", "-o", FIELDS, self.name
        )
        return {found.name: found for found in map(logical_of, report(text, "lv"))}

    def find(self, name: str) -> Logical | None:
        return self.volumes().get(name)

    def zeroes(self, pool: str) -> bool:
        """Does a thin pool zero what it hands out?"""
        text = self._run("lvs", "--reportformat", "json", "-o", "zero", self._path(pool))
        (row,) = report(text, "lv")
        return row["zero"] not in ("", "0", "unknown")

    # -- making ------------------------------------------------------------------

    def make_pool(self, name: str, percent: int) -> None:
        self._run(
            "lvcreate", "--yes", "--type", "thin-pool", "--zero", "y", "-l", f"{percent}%FREE",
            "-n", name, self.name,
        )  # fmt: skip

    def make_thick(self, name: str, size_bytes: int) -> None:
        self._run(
            "lvcreate", "--yes", "--wipesignatures", "n", "--zero", "n", "-L", f"{size_bytes}b",
            "-n", name, self.name,
        )  # fmt: skip

    def make_thin(self, name: str, size_bytes: int, pool: str) -> None:
        self._run(
            "lvcreate", "--yes", "--type", "thin", "--wipesignatures", "n", "-V", f"{size_bytes}b",
            "--thinpool", pool, "-n", name, self.name,
        )  # fmt: skip

    def snapshot_thin(self, name: str, origin: str, *tags: str) -> None:
        """Copy on write, of any depth, constant time; active like any other."""
        self._run(
            "lvcreate", "--yes", "-s", "-kn", "-ay", *_tagged(tags), "-n", name, self._path(origin)
        )  # fmt: skip

    def snapshot_thick(self, name: str, origin: str, *tags: str) -> None:
        """With room for all of its origin: it can't overflow, which would destroy it.

        In percent, since only then does LVM add what the table of copied chunks takes. A snapshot with
        its origin's size in bytes is lost when the whole origin is written, as reverting to it does.
        """
        self._run(
            "lvcreate", "--yes", "-s", "-l", "100%ORIGIN", *_tagged(tags), "-n", name, self._path(origin)
        )  # fmt: skip

    # -- changing ----------------------------------------------------------------

    def activate(self, name: str) -> Path:
        """Its device. :raises DriverError: there is no such logical volume."""
        device = self.device(name)
        if not device.exists():  # what is active has one
            self._run("lvchange", "--yes", "-K", "-ay", self._path(name))
        return device

    def rename(self, old: str, new: str) -> None:
        self._run("lvrename", self.name, old, new)

    def extend(self, name: str, size_bytes: int) -> None:
        self._run("lvextend", "-L", f"{size_bytes}b", self._path(name))

    def tag(self, name: str, tag: str) -> None:
        self._run("lvchange", "--addtag", tag, self._path(name))

    def untag(self, name: str, tag: str) -> None:
        self._run("lvchange", "--deltag", tag, self._path(name))

    def remove(self, name: str) -> None:
        """Content when there is none. What looks at new devices for a moment (udev) is waited for."""
        for left in reversed(range(_BUSY_TRIES)):
            try:
                self._run("lvremove", "--force", "--yes", self._path(name))
                return
            except DriverError as error:
                said = str(error.cause).lower()
                if any(words in said for words in _MISSING):
                    return
                if not left or ("in use" not in said and "open" not in said and "busy" not in said):
                    raise
            time.sleep(_BUSY_PAUSE_S)


def _tagged(tags: Sequence[str]) -> list[str]:
    return [part for tag in tags for part in ("--addtag", tag)]


def zero(device: Path, begin: int) -> None:
    """Zeros on a device from ``begin`` (bytes) to its end, written to it when this returns.

    Its end is not the size that was asked for: LVM rounds up to whole extents, and a host sees those too.
    In pieces: one call for all of it can't be interrupted, not even by the end of the process.
    """
    descriptor = os.open(device, os.O_WRONLY | os.O_CLOEXEC)
    try:
        end = os.lseek(descriptor, 0, os.SEEK_END)
        for start in range(begin, end, _ZERO_CHUNK):
            length = min(_ZERO_CHUNK, end - start)
            fcntl.ioctl(descriptor, _BLKZEROOUT, struct.pack("QQ", start, length))
        os.fsync(descriptor)
    except OSError as error:
        raise DriverError(
            f"{device.name} could not be filled with zeros: {error.strerror}", cause=error
        ) from error
    finally:
        os.close(descriptor)


def equal(source: Path, device: Path) -> None:
    """Make a device's content the source's, as far as both go, written to it when this returns.

    Only what differs is written: whatever is written to a volume with snapshots is copied to each of them first.

    :raises DriverError: reading or writing failed.
    """
    direct = os.O_CLOEXEC | os.O_DIRECT
    with contextlib.ExitStack() as held:
        there, ours = os.open(source, os.O_RDONLY | direct), os.open(device, os.O_RDWR | direct)
        for each in (there, ours):
            held.callback(os.close, each)
        # what is read past the cache goes to memory that begins with a page
        wanted, found = mmap.mmap(-1, _PIECE), mmap.mmap(-1, _PIECE)
        end = min(os.lseek(each, 0, os.SEEK_END) for each in (there, ours))
        try:
            for at in range(0, end, _PIECE):
                length = min(_PIECE, end - at)
                for descriptor, piece in ((there, wanted), (ours, found)):
                    _all(os.preadv(descriptor, [memoryview(piece)[:length]], at), length)
                if wanted[:length] != found[:length]:
                    _all(os.pwrite(ours, memoryview(wanted)[:length], at), length)
            os.fsync(ours)
        except OSError as error:
            raise DriverError(
                f"{device.name} could not be written over: {error.strerror}", cause=error
            ) from error


def _all(done: int, asked: int) -> None:
    """Devices do a whole piece, or say why not."""
    if done != asked:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


__all__: list[Any] = [
    "FIELDS",
    "MIB",
    "Group",
    "Logical",
    "Space",
    "equal",
    "logical_of",
    "report",
    "run",
    "zero",
]
