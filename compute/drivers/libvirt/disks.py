"""A guest's folder on the host: root, ephemeral and swap disks, config drive, console log.

    INSTANCES/SERVER_ID/root.qcow2 | root.raw, ephemeral.raw, swap.raw, blank.raw, config.iso, console.log

Further disks of a kind are numbered: ephemeral1.raw. A guest that boots from a volume has no root disk.

Files are made under another name and renamed: whoever sees one sees a whole one.
"""

from __future__ import annotations

import collections
import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oslo_config import cfg

from compute.drivers.base import GuestSpec
from compute.drivers.libvirt import config_drive
from compute.drivers.libvirt.images import ImageCache, run_tool
from core.errors import BadRequest, DriverError, Rebuildable
from core.qemu_img import info, qemu_img

_GIB = 1 << 30
_KINDS = ("ephemeral", "swap", "blank")
_MAKERS = {
    "ext4": ("-q", "-F", "-L"),
    "ext3": ("-q", "-F", "-L"),
    "ext2": ("-q", "-F", "-L"),
    "xfs": ("-q", "-f", "-L"),
    "vfat": ("-n",),
}
"""file systems → arguments, before the label"""


@dataclasses.dataclass(frozen=True)
class Disk:
    """One disk of a guest, as the domain needs it."""

    role: str
    """root, ephemeral, swap, blank or config"""
    path: Path
    format: str
    read_only: bool = False
    wishes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """``compute.volumes.LocalDisk``: bus, device type and name that were asked for"""


class Disks:
    """Makes and removes guests' folders."""

    def __init__(self, conf: cfg.ConfigOpts, instances: Path, cache: ImageCache) -> None:
        self._conf = conf
        self._instances = instances
        self._cache = cache

    def folder(self, server_id: str) -> Path:
        return self._instances / server_id

    def console_log(self, server_id: str) -> Path:
        return self.folder(server_id) / "console.log"

    def snapshot(self, server_id: str, snapshot_id: str) -> Path:
        """Where a copy of the root disk stands until it is uploaded."""
        return self.folder(server_id) / f"snapshot-{snapshot_id}.qcow2"

    def create(self, guest: GuestSpec) -> None:
        """Have all disks; those that are there are kept."""
        folder = self.folder(guest.server_id)
        folder.mkdir(parents=True, exist_ok=True)
        if guest.boots_locally:
            self._root(guest, folder)
        for number, name, disk in _numbered(guest):
            self._formatted(folder / name, int(disk["size_mib"]) << 20, *_format_command(disk, number))
        if guest.config_drive:
            config_drive.write(folder / "config.iso", guest)

    def _root(self, guest: GuestSpec, folder: Path) -> None:
        fmt = self._conf.libvirt.images_type
        target = folder / f"root.{fmt}"
        if target.exists():
            return
        part = folder / "root.part"
        part.unlink(missing_ok=True)
        size = guest.root_gib * _GIB
        if guest.image is None:
            qemu_img(self._conf, "create", "-q", "-f", fmt, str(part), str(size or _GIB))
        else:
            base, base_format = self._cache.base(guest.image)
            virtual = int(info(self._conf, base, base_format)["virtual-size"])
            if size and virtual > size:
                raise BadRequest(
                    f"The image needs a disk of {-(-virtual // _GIB)} GiB, the flavor's root disk has {guest.root_gib}."
                )
            self._free_space_for(virtual if fmt == "raw" else 0)
            if fmt == "qcow2":
                command = (
                    "create",
                    "-q",
                    "-f",
                    "qcow2",
                    "-b",
                    str(base),
                    "-F",
                    base_format,
                    str(part),
                    str(size or virtual),
                )
                qemu_img(self._conf, *command)
            else:
                qemu_img(self._conf, "convert", "-f", base_format, "-O", "raw", str(base), str(part))
                if size > virtual:
                    qemu_img(self._conf, "resize", "-q", "-f", "raw", str(part), str(size))
        part.replace(target)

    def _free_space_for(self, size: int) -> None:
        free = shutil.disk_usage(self._instances).free
        if size > free:
            raise Rebuildable(
                f"this host has {free // _GIB} GiB of disk left, the disk needs {-(-size // _GIB)}"
            )

    @staticmethod
    def _formatted(target: Path, size: int, *command: str) -> None:
        if target.exists():
            return
        part = target.with_suffix(".part")
        with part.open("wb") as file:
            file.truncate(size)
        if command:
            run_tool(*command, str(part))
        part.replace(target)

    def of(self, guest: GuestSpec) -> list[Disk]:
        """The disks in the order in which the guest sees them. :raises DriverError: one is missing."""
        folder = self.folder(guest.server_id)
        found = [
            Disk(str(disk["kind"]), folder / name, "raw", wishes=disk) for _, name, disk in _numbered(guest)
        ]
        if guest.boots_locally:
            root = self.root(guest.server_id)
            found.insert(0, root or Disk("root", folder / "root", "raw"))
        if guest.config_drive:
            found.append(Disk("config", folder / "config.iso", "raw", read_only=True))
        for disk in found:
            if not disk.path.exists():
                raise DriverError(f"server {guest.server_id} has no {disk.role} disk on this host")
        return found

    def root(self, server_id: str) -> Disk | None:
        """The root disk, if it lies here."""
        for fmt in ("qcow2", "raw"):
            path = self.folder(server_id) / f"root.{fmt}"
            if path.exists():
                return Disk("root", path, fmt)
        return None

    def has_config_drive(self, server_id: str) -> bool:
        return (self.folder(server_id) / "config.iso").exists()

    def remove(self, server_id: str) -> None:
        """Remove a guest's folder; content when there is none."""
        folder = self.folder(server_id)
        if folder.exists():
            shutil.rmtree(folder)

    def bases_in_use(self) -> set[str]:
        """Paths of cached images that a root disk stands on."""
        used = set()
        for path in self._instances.glob("*/root.qcow2"):
            backing = info(self._conf, path, "qcow2").get("full-backing-filename")
            if backing:
                used.add(str(backing))
        return used


def _numbered(guest: GuestSpec) -> list[tuple[int, str, dict[str, Any]]]:
    """(number among its kind, file name, disk) of the disks beside the root disk."""
    counts: collections.Counter[str] = collections.Counter()
    found = []
    for disk in guest.disks_beside_root():
        kind = str(disk["kind"])
        if kind not in _KINDS:
            raise BadRequest(f"There is no local disk of kind {kind!r}.")
        number = counts[kind]
        counts[kind] += 1
        found.append((number, f"{kind}{number or ''}.raw", disk))
    return found


def _format_command(disk: Mapping[str, Any], number: int) -> tuple[str, ...]:
    """What makes the file system that was asked for; empty: none. :raises BadRequest: it is not offered."""
    asked = str(disk.get("guest_format") or "").lower()
    if disk["kind"] == "swap" or asked == "swap":
        return ("mkswap",)
    if not asked and disk["kind"] == "blank":
        return ()
    fmt, label = asked or "ext4", f"ephemeral{number}"
    if fmt not in _MAKERS:
        raise BadRequest(
            f"A disk can't be formatted as {fmt!r}: one of {', '.join(_MAKERS)}, swap is expected."
        )
    return (f"mkfs.{fmt}", *_MAKERS[fmt], label)
