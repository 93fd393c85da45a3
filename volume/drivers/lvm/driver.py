"""Volumes as logical volumes of one volume group, exported by iSCSI (LIO) or NVMe over TCP.

    volume-ID        a volume            _snapshot-ID   a snapshot (LVM keeps names that begin with "snapshot")
    new-…volume-ID   being filled        unmanaged-…    let go of

What is being filled has another name, and gets its own when it is whole: an interrupted copy is never
taken for a volume, and a repeat begins it again.

``thin`` (default): volumes share a pool; snapshots and clones are copy on write, constant time. The pool
zeroes what it hands out, so nobody reads what was there before; a pool that does not is refused.
``thick``: a volume has its space from the start and is filled with zeros before it gets its name. A
snapshot has as much room as its origin; clones and volumes from snapshots are copies. What an extension
adds is zeroed before the extension is told to anyone; a tag on the volume says from where, so that a
crash in between is made good by the repeat, or by the next start.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from oslo_config import cfg

from core import qemu_img
from core.errors import BadRequest, Conflict, DriverError
from volume.drivers.backends import BACKEND_OPTS
from volume.drivers.base import Location, Pool, Progress, Snapshot, Volume, VolumeDriver
from volume.drivers.lvm import commands, targets
from volume.drivers.lvm.commands import Group, Logical

LOG = logging.getLogger(__name__)
_GIB = 1 << 30
_NEW, _UNMANAGED, _TEMPORARY = "new-", "unmanaged-", "copied-"
_ZERO_FROM = "haneul_zero_from_"
_OF = "haneul_of_"
_METADATA_FULL = 95.0
"""percent; at 100 a pool fails, with all that is in it"""
OPTS: list[cfg.Opt] = [
    cfg.StrOpt("volume_group", default="cinder-volumes", help="driver=lvm: the volume group."),
    cfg.StrOpt(
        "lvm_type",
        default="thin",
        choices=["thin", "thick"],
        help="driver=lvm: thin volumes in a pool, or thick ones.",
    ),
    cfg.StrOpt(
        "thin_pool",
        help="driver=lvm: the thin pool (default: VOLUME_GROUP-pool); made with 95 % of the group if missing.",
    ),
    *targets.OPTS,
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """For the sample configuration: the group is the backend's."""
    return [("files", OPTS)]


class LvmDriver(VolumeDriver):
    """See the module."""

    def __init__(self, conf: cfg.ConfigOpts, group: str) -> None:
        conf.register_opts([*BACKEND_OPTS, *OPTS], group=group)
        self._conf = conf
        self._options = conf[group]
        self._group = Group(self._options.volume_group)
        self._thin = self._options.lvm_type == "thin"
        self._pool = self._options.thin_pool or f"{self._options.volume_group}-pool"
        self._lock = threading.Lock()
        self._target = targets.make(conf, group)
        self.protocol = self._target.protocol

    def start(self) -> None:
        space = self._group.space()
        found = self._group.volumes()
        if self._thin:
            if self._pool not in found:
                LOG.info("thin pool %s is made in %d MiB", self._pool, space.free_bytes // commands.MIB)
                self._group.make_pool(self._pool, 95)
            if not self._group.zeroes(self._pool):
                raise DriverError(
                    f"thin pool {self._pool} does not zero what it hands out:"
                    f" lvchange --zero y {self._group.name}/{self._pool}"
                )
        for each in found.values():
            if each.name.startswith("volume-"):
                self._finish_extension(each)
        # not every machine activates all that it has at its start
        self._target.start(found, self._group.activate)

    def close(self) -> None:
        """Nothing is held; exports stay."""

    def pools(self) -> list[Pool]:
        if self._thin:
            pool = self._group.find(self._pool)
            if pool is None:
                raise DriverError(f"thin pool {self._pool} is gone")
            total = pool.size_bytes
            free = int(total * (100 - pool.data_percent) / 100)
            if pool.metadata_percent >= _METADATA_FULL:
                LOG.error("thin pool %s needs room for metadata: lvextend --poolmetadatasize", self._pool)
                free = 0  # it takes no more, whatever room there is for data
        else:
            space = self._group.space()
            total, free = space.total_bytes, space.free_bytes
        return [
            Pool(
                name=self._group.name,
                total_gib=round(total / _GIB, 2),
                free_gib=round(free / _GIB, 2),
                thin=self._thin,
                multiattach=True,
                online_extend=True,
                max_over_subscription_ratio=self._options.max_over_subscription_ratio,
                reserved_percentage=self._options.reserved_percentage,
                capabilities={"storage_protocol": self.protocol, "vendor_name": self.vendor},
            )
        ]

    # -- names -----------------------------------------------------------------------

    @staticmethod
    def _name(thing: Volume | Snapshot) -> str:
        return f"_{thing.name}" if isinstance(thing, Snapshot) else thing.name

    def _location(self, volume: Volume) -> Location:
        return {"volume_group": self._group.name, "name": self._name(volume)}

    def exists(self, volume: Volume) -> bool:
        return self._group.find(self._name(volume)) is not None

    @contextlib.contextmanager
    def _filled(self, volume: Volume, source: str | None = None) -> Iterator[tuple[str, Path]]:
        """A new logical volume to be filled; at the end of the block it is whole and gets its name.

        ``source``: a thin one to begin with, copy on write.
        """
        # a name of this attempt's own: one whose lease ran out must not name what another has half filled
        new = f"{_NEW}{uuid.uuid4().hex[:8]}-{self._name(volume)}"
        with self._lock:
            for left in _unfinished(self._group.volumes(), self._name(volume)):  # what a crash left
                self._group.remove(left)
            if source is not None:
                self._group.snapshot_thin(new, source)
            elif self._thin:
                self._group.make_thin(new, volume.size_bytes, self._pool)
            else:
                self._group.make_thick(new, volume.size_bytes)
        try:
            yield new, self._group.device(new)
            self._group.rename(new, self._name(volume))
        except BaseException:
            self._group.remove(new)
            raise

    # -- volumes ---------------------------------------------------------------------

    def create(self, volume: Volume) -> Location:
        if self.exists(volume):
            return self._location(volume)
        if self._thin:
            # whole as soon as it is there
            self._group.make_thin(self._name(volume), volume.size_bytes, self._pool)
        else:
            with self._filled(volume) as (_, device):
                commands.zero(device, 0)
        return self._location(volume)

    def create_from_snapshot(self, volume: Volume, snapshot: Snapshot) -> Location:
        if not self.exists(volume):
            if self._group.find(self._name(snapshot)) is None:
                raise DriverError(f"the data of snapshot {snapshot.id} is gone")
            self._copy(volume, self._name(snapshot), snapshot.volume.bytes_of(snapshot.size_gib))
        return self._location(volume)

    def clone(self, volume: Volume, source: Volume) -> Location:
        if self.exists(volume):
            return self._location(volume)
        if self._thin:
            self._copy(volume, self._name(source), source.size_bytes)
            return self._location(volume)
        # the source may be written to meanwhile: a snapshot stands still
        still = _TEMPORARY + volume.name
        with self._lock:
            self._group.remove(still)
            self._group.snapshot_thick(still, self._name(source))
        try:
            self._copy(volume, still, source.size_bytes)
        finally:
            self._group.remove(still)
        return self._location(volume)

    def _copy(self, volume: Volume, source: str, source_bytes: int) -> None:
        """``volume`` with the content of a logical volume that stands still, or is thin."""
        if self._thin:
            with self._filled(volume, source) as (new, _):
                if volume.size_bytes > source_bytes:
                    self._group.extend(new, volume.size_bytes)
            return
        origin = self._group.activate(source)
        with self._filled(volume) as (_, device):
            self._write(origin, "raw", device)
            commands.zero(device, source_bytes)

    def _write(
        self,
        source: Path,
        qemu_format: str,
        device: Path,
        *,
        is_zero: bool = False,
        watch: Callable[[], None] | None = None,
    ) -> None:
        """Everything that the source holds, its zeros too: the device may hold old bytes.

        ``is_zero``: it holds none. Zeros that were written would take a thin pool's space.
        """
        empty = ["--target-is-zero"] if is_zero else []
        qemu_img.qemu_img(
            self._conf, "convert", "-q", "-n", *empty, "-W", "-t", "none", "-T", "none" if _is_device(source) else "writeback",
            "-f", qemu_format, "-O", "raw", str(source), str(device), watch=watch,
        )  # fmt: skip

    def write_image(self, volume: Volume, path: Path, qemu_format: str, progress: Progress) -> Location:
        if self.exists(volume):
            return self._location(volume)
        size = int(qemu_img.info(self._conf, path, qemu_format)["virtual-size"])
        if size > volume.size_bytes:
            raise BadRequest(
                f"The image's disk of {-(-size // _GIB)} GiB is larger than the volume of {volume.size_gib} GiB."
            )
        with self._filled(volume) as (_, device):
            self._write(
                path, qemu_format, device,
                is_zero=self._thin, watch=lambda: progress(min(size, _written(device))),
            )  # fmt: skip
            if not self._thin:
                commands.zero(device, -(-size // 512) * 512)
            progress(size)
        return self._location(volume)

    def delete(self, volume: Volume) -> None:
        name, found = self._name(volume), self._group.volumes()
        # a volume that was reverted is another logical volume: LVM does not call it the origin of older ones
        if any(
            each.name.startswith("_snapshot-") and (each.origin == name or _OF + volume.id in each.tags)
            for each in found.values()
        ):
            raise Conflict(f"Volume {volume.id} still has snapshots.")
        self._target.remove(name)
        for left in (*_unfinished(found, name), _TEMPORARY + name, "old-" + name, name):
            if left in found:
                self._group.remove(left)

    # -- larger ----------------------------------------------------------------------

    def extend(self, volume: Volume, size_gib: int) -> None:
        found = self._group.find(self._name(volume))
        if found is None:
            raise DriverError(f"the data of volume {volume.id} is gone")
        self._finish_extension(found)
        if found.size_bytes < volume.bytes_of(size_gib):
            if self._thin:
                self._group.extend(found.name, volume.bytes_of(size_gib))
            else:
                self._extend_thick(found, volume.bytes_of(size_gib))
        # after a repeat too: a crash may have come between the growing and the telling
        self._target.resized(found.name)

    def _extend_thick(self, found: Logical, size_bytes: int) -> None:
        if found.kind in "oO":
            # its snapshots would grow with it, show the old bytes there, and run out of room
            raise Conflict("A thick volume with snapshots can't be extended.")
        tag = f"{_ZERO_FROM}{found.size_bytes}"
        self._group.tag(found.name, tag)
        try:
            self._group.extend(found.name, size_bytes)
        except DriverError:
            self._group.untag(found.name, tag)
            raise
        grown = self._group.find(found.name)
        assert grown is not None
        self._finish_extension(grown)

    def _finish_extension(self, found: Logical) -> None:
        """Zeros in what an extension has added, if that was not done yet."""
        for tag in found.tags:
            if tag.startswith(_ZERO_FROM):
                begin = int(tag.removeprefix(_ZERO_FROM))
                if found.size_bytes > begin:
                    commands.zero(self._group.activate(found.name), begin)
                self._group.untag(found.name, tag)

    # -- snapshots -------------------------------------------------------------------

    def create_snapshot(self, snapshot: Snapshot) -> Location:
        name = self._name(snapshot)
        with self._lock:
            if self._group.find(name) is None:
                if self._thin:
                    self._group.snapshot_thin(name, self._name(snapshot.volume), _OF + snapshot.volume.id)
                else:
                    self._group.snapshot_thick(name, self._name(snapshot.volume), _OF + snapshot.volume.id)
        return {"volume_group": self._group.name, "name": name}

    def delete_snapshot(self, snapshot: Snapshot) -> None:
        self._group.remove(self._name(snapshot))

    def revert(self, volume: Volume, snapshot: Snapshot) -> Location:
        if volume.in_use:
            raise Conflict("A volume can't be reverted while it is attached.")
        if self._group.find(self._name(snapshot)) is None:
            raise DriverError(f"the data of snapshot {snapshot.id} is gone")
        if not self._thin:
            # merging would use the snapshot up, which upstream keeps; and a repeat would find none
            device = self._group.activate(self._name(volume))
            commands.equal(self._group.activate(self._name(snapshot)), device)
            commands.zero(device, volume.bytes_of(snapshot.size_gib))
            return self._location(volume)
        name = self._name(volume)
        new, old = _NEW + name, "old-" + name
        self._target.remove(name)
        self._group.remove(new)
        self._group.snapshot_thin(new, self._name(snapshot))
        if volume.size_gib > snapshot.size_gib:
            self._group.extend(new, volume.size_bytes)
        if self._group.find(name) is not None:
            self._group.remove(old)
            self._group.rename(name, old)
        self._group.rename(new, name)
        self._group.remove(old)
        return self._location(volume)

    # -- data ------------------------------------------------------------------------

    @contextlib.contextmanager
    def connect(self, volume: Volume | Snapshot, write: bool = False) -> Iterator[Path]:
        if write and isinstance(volume, Snapshot):
            raise DriverError(f"snapshot {volume.id} can't be written")
        path = self._group.activate(self._name(volume))
        yield path
        if write:
            # what a backup or an image has written is on the disk before anybody is told
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    # -- hypervisors -----------------------------------------------------------------

    def initialize_connection(
        self, volume: Volume, connector: Mapping[str, Any], mode: str
    ) -> dict[str, Any]:
        name = self._name(volume)
        return self._target.connect(volume.id, name, self._group.activate(name), connector, mode)

    def terminate_connection(self, volume: Volume, connector: Mapping[str, Any] | None) -> None:
        if connector is None:
            self._target.remove(self._name(volume))
        else:
            self._target.disconnect(self._name(volume), connector)

    # -- what administrators do ------------------------------------------------------

    def manageable_volumes(self) -> list[dict[str, Any]]:
        return [
            {
                "reference": {"source-name": each.name},
                "size": -(-each.size_bytes // _GIB),
                "safe_to_manage": not each.open,
                "reason_not_safe": "it is open" if each.open else None,
            }
            for each in sorted(self._group.volumes().values(), key=lambda each: each.name)
            if self._foreign(each)
        ]

    def _foreign(self, found: Logical) -> bool:
        """May it be taken over? Not what is ours, and not a part of something."""
        ours = ("volume-", "_snapshot-", _NEW, _TEMPORARY, "old-")
        if found.name.startswith(ours):
            return False
        # of this backend's own kind: snapshots of another would be made in another way
        return found.pool == self._pool if self._thin else found.kind in ("-", "o")

    def manage(self, volume: Volume, reference: Mapping[str, Any]) -> tuple[Location, int]:
        """A logical volume of the group that is none of ours. :raises BadRequest:"""
        name, volumes = str(reference.get("source-name") or ""), self._group.volumes()
        if (managed := volumes.get(self._name(volume))) is not None:  # a repeat
            return self._location(volume), self._rounded_up(volume, managed)
        found = volumes.get(name)
        if found is None or not self._foreign(found):
            raise BadRequest(
                f"There is no logical volume {name!r} that could be managed in {self._group.name} (source-name)."
            )
        if found.open:
            raise BadRequest(f"Logical volume {name!r} is in use (source-name).")
        self._group.rename(name, self._name(volume))
        return self._location(volume), self._rounded_up(volume, found)

    def _rounded_up(self, volume: Volume, found: Logical) -> int:
        """Its size in whole GiB, which it has then."""
        size_gib = -(-found.size_bytes // _GIB)
        if found.size_bytes < size_gib * _GIB:
            self.extend(volume, size_gib)
        return size_gib

    def unmanage(self, volume: Volume) -> None:
        name = self._name(volume)
        self._target.remove(name)
        if self._group.find(name) is not None:
            self._group.rename(name, _UNMANAGED + name)


def _unfinished(found: Iterable[str], name: str) -> list[str]:
    """What attempts to fill a logical volume of this name have left."""
    return [each for each in found if each.startswith(_NEW) and each.endswith(name)]


def _written(device: Path) -> int:
    """Bytes that were written to a device since it was made active (sysfs: sectors, the seventh field)."""
    number = device.stat().st_rdev
    fields = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/stat").read_text().split()
    return int(fields[6]) * 512


def _is_device(path: Path) -> bool:
    return str(path).startswith("/dev/")
