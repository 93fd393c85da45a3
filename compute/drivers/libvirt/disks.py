"""A guest's folder on the host: root, ephemeral and swap disks, config drive, console log.

    INSTANCES/SERVER_ID/root.qcow2 | root.raw, ephemeral.raw, swap.raw, config.iso, console.log

Files are made under another name and renamed: whoever sees one sees a whole one.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from oslo_config import cfg

from compute.drivers.base import GuestSpec
from compute.drivers.libvirt import config_drive
from compute.drivers.libvirt.images import ImageCache, image_info, qemu_img, run_tool
from core.errors import BadRequest, Rebuildable

_GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Disk:
    """One disk of a guest, as the domain needs it."""

    role: str
    """root, ephemeral, swap or config"""
    path: Path
    format: str
    read_only: bool = False


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
        self._root(guest, folder)
        if guest.ephemeral_gib:
            self._formatted(
                folder / "ephemeral.raw",
                guest.ephemeral_gib * _GIB,
                "mkfs.ext4",
                "-q",
                "-F",
                "-L",
                "ephemeral0",
            )
        if guest.swap_mib:
            self._formatted(folder / "swap.raw", guest.swap_mib << 20, "mkswap")
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
            virtual = int(image_info(self._conf, base, base_format)["virtual-size"])
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
        run_tool(*command, str(part))
        part.replace(target)

    def of(self, server_id: str) -> list[Disk]:
        """The disks that are there, in the order in which the guest sees them."""
        folder = self.folder(server_id)
        names = (
            ("root", "root.qcow2", "qcow2"),
            ("root", "root.raw", "raw"),
            ("ephemeral", "ephemeral.raw", "raw"),
            ("swap", "swap.raw", "raw"),
            ("config", "config.iso", "raw"),
        )
        return [
            Disk(role, folder / name, fmt, read_only=role == "config")
            for role, name, fmt in names
            if (folder / name).exists()
        ]

    def remove(self, server_id: str) -> None:
        """Remove a guest's folder; content when there is none."""
        folder = self.folder(server_id)
        if folder.exists():
            shutil.rmtree(folder)

    def bases_in_use(self) -> set[str]:
        """Paths of cached images that a root disk stands on."""
        used = set()
        for path in self._instances.glob("*/root.qcow2"):
            backing = image_info(self._conf, path, "qcow2").get("full-backing-filename")
            if backing:
                used.add(str(backing))
        return used
