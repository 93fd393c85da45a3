"""A server's block devices as plain data: what the drivers are given, and what follows from it.

Two kinds. A *volume* belongs to the Volume API: it is connected to the host (``connect_volume``), then
attached to the guest; its shape is :class:`Volume`, and the list stands in ``GuestSpec.volumes``. A *local
disk* lies on the hypervisor host and goes with the server: :class:`LocalDisk`, in ``GuestSpec.local_disks``.

Order as the guest sees it: the disk that it boots from, local disks, the other volumes by device name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypedDict

DISK_BUSES = ("virtio", "scsi", "sata", "ide", "usb")
DEVICE_TYPES = ("disk", "cdrom", "lun")
PREFIXES = {"virtio": "vd", "scsi": "sd", "sata": "sd", "usb": "sd", "ide": "hd"}


class Encryption(TypedDict):
    """How the content of a volume is to be decrypted, by QEMU. Never logged, never stored."""

    format: Literal["luks"]
    secret: str
    """the passphrase"""


class Volume(TypedDict, total=False):
    """A volume of a guest; everything but the first three keys has a default."""

    volume_id: str
    attachment_id: str
    connection_info: dict[str, Any]
    """as the Volume API's attachment shows it: ``driver_volume_type``, and the driver's data beside it"""
    boot_index: int | None
    """0: the guest boots from it; None or negative: never booted from"""
    device_type: Literal["disk", "cdrom", "lun"]
    disk_bus: str | None
    """one of DISK_BUSES; None: as the image says"""
    device_name: str | None
    """/dev/vdb: what the API shows; guests name their disks themselves"""
    tag: str | None
    size_gib: int
    mode: Literal["rw", "ro"]
    multiattach: bool
    delete_on_termination: bool
    encryption: Encryption | None


class LocalDisk(TypedDict, total=False):
    """A disk on the hypervisor host beside the root disk; everything but the first two keys has a default."""

    kind: Literal["ephemeral", "swap", "blank"]
    size_mib: int
    guest_format: str | None
    """file system of an ephemeral disk (default ext4); a blank one has none unless it is named"""
    disk_bus: str | None
    device_type: Literal["disk", "cdrom"]
    device_name: str | None
    tag: str | None


def boot_index(device: Mapping[str, Any]) -> int | None:
    """None: the guest never boots from it."""
    index = device.get("boot_index")
    return None if index is None or int(index) < 0 else int(index)


def boot_volume(volumes: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The volume which stands in the place of the root disk."""
    return next((volume for volume in volumes if boot_index(volume) == 0), None)


def in_order(volumes: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The boot volume first, the others by device name: the same order at every start."""

    def key(volume: Mapping[str, Any]) -> tuple[bool, bool, int, str, str]:
        name = str(volume.get("device_name") or "")
        return boot_index(volume) != 0, not name, len(name), name, str(volume["volume_id"])

    return sorted(volumes, key=key)


def is_read_only(volume: Mapping[str, Any]) -> bool:
    """Asked for so, or allowed no more by the Volume API, or a CD."""
    info = volume.get("connection_info") or {}
    return "ro" in (volume.get("mode"), info.get("access_mode")) or volume.get("device_type") == "cdrom"


def device_letters(number: int) -> str:
    """0 → a, 25 → z, 26 → aa: how disks are counted."""
    letters = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("a") + rest) + letters
    return letters
