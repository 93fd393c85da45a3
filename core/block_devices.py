"""The block devices of a server, as its row keeps them (``servers.block_devices``), and what follows from them.

A device is there from the moment when a volume is going to be reserved for the server until its
attachment is deleted: the Volume API asks the Compute API whether a server uses a volume before
it lets anybody else delete an attachment (CVE-2023-2088).  One device:

    {"id": UUID of the mapping, "source_type": "volume" | "image" | "snapshot" | "blank",
     "destination_type": "volume" | "local", "boot_index": 0 is what boots; None, -1: nothing does,
     "device_name": "/dev/vdb", "device_type": "disk" | "cdrom" | "lun", "disk_bus", "guest_format",
     "tag", "size_gib" (swap: "size_mib"), "image_id", "snapshot_id", "volume_type",
     "volume_id", "attachment_id": None until it is attached, "multiattach", "delete_on_termination",
     "swap_to": the volume that is going to replace this one, while it is swapped}

How a host reaches a volume (``connection_info``, with secrets) is in no row of a server's: who needs
it asks the Volume API for the attachment.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from core.errors import BadRequest

Device = dict[str, Any]
_NAME = re.compile(r"^/dev/(?P<prefix>x?[a-z]*[dD])(?P<letters>[a-z]+)[0-9]*$")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
MOST_VOLUMES = 26 * 27
PREFIXES = {"virtio": "vd", "scsi": "sd", "usb": "sd", "sata": "sd", "ide": "hd", "fdc": "fd", "xen": "xvd"}
_DRIVER_KEYS = (
    "volume_id",
    "attachment_id",
    "boot_index",
    "device_type",
    "disk_bus",
    "device_name",
    "tag",
) + (
    "size_gib",
    "multiattach",
    "delete_on_termination",
)
_DEFAULTS: Device = {
    "boot_index": None,
    "device_name": None,
    "device_type": "disk",
    "disk_bus": None,
    "guest_format": None,
    "tag": None,
    "size_gib": None,
    "volume_id": None,
    "attachment_id": None,
    "multiattach": False,
    "delete_on_termination": False,
}


def new_device(**values: Any) -> Device:
    """A device with an id of its own."""
    return {"id": str(uuid.uuid4()), **_DEFAULTS, **values}


def volumes(devices: Iterable[Mapping[str, Any]]) -> list[Device]:
    """Those that are volumes."""
    return [dict(device) for device in devices if device.get("destination_type") == "volume"]


def find(devices: Iterable[Mapping[str, Any]], volume_id: str) -> Device | None:
    """The device of this volume, also of one that is going to replace another."""
    for device in devices:
        if volume_id in (device.get("volume_id"), (device.get("swap_to") or {}).get("volume_id")):
            return dict(device)
    return None


def root_volume(devices: Iterable[Mapping[str, Any]]) -> Device | None:
    """The volume that the server boots from; None: it boots from an image's copy on its host."""
    return next((device for device in volumes(devices) if device.get("boot_index") == 0), None)


def doomed(devices: Iterable[Mapping[str, Any]]) -> list[str]:
    """Volumes that go with their server."""
    return [
        device["volume_id"]
        for device in volumes(devices)
        if device["volume_id"] and device["delete_on_termination"]
    ]


def of_deletion(devices: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """{"volumes": {"doomed": […]}}: what a deletion is told; {} of a server without volumes."""
    found = volumes(devices)
    return {"volumes": {"doomed": doomed(found)}} if found else {}


def driver_volume(device: Mapping[str, Any]) -> dict[str, Any]:
    """What a hypervisor driver is told of a volume, but for how the host reaches it."""
    return {key: device.get(key) for key in _DRIVER_KEYS}


def local_disks(devices: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The disks on the host as a driver is told of them, but for the image's copy: the image says it."""
    return [
        _local_disk(device)
        for device in devices
        if device.get("destination_type") == "local" and device.get("source_type") == "blank"
    ]


def _local_disk(device: Mapping[str, Any]) -> dict[str, Any]:
    swap = device.get("guest_format") == "swap"
    size_mib = device.get("size_mib") if swap else int(device.get("size_gib") or 0) * 1024
    return {
        "kind": "swap" if swap else "ephemeral",
        "size_mib": size_mib,
        **{key: device.get(key) for key in ("guest_format", "disk_bus", "device_type", "device_name", "tag")},
    }


def bare_name(name: str) -> str:
    """/dev/vdb → b: two names with the same letters would be one disk to the guest."""
    match = _NAME.match(name if name.startswith("/dev/") else f"/dev/{name}")
    return match["letters"] if match else name


def check_name(name: str) -> str:
    """A device name that was asked for, whole. :raises BadRequest:"""
    whole = name if name.startswith("/dev/") else f"/dev/{name}"
    if not _NAME.match(whole):
        raise BadRequest(f"The supplied device path ({name}) is invalid.")
    return whole


def next_name(prefix: str, taken: Collection[str]) -> str:
    """The first name that is free. ``taken``: letters (``bare_name``)."""
    for number in range(MOST_VOLUMES):
        first, last = divmod(number, 26)
        letters = (_LETTERS[first - 1] if first else "") + _LETTERS[last]
        if letters not in taken:
            return f"/dev/{prefix}{letters}"
    raise BadRequest("No free disk device names for prefix 'vd'")


def prefix_of(disk_bus: str | None, root_name: str | None) -> str:
    """How the names of disks on a bus begin; without a bus, as the root disk's does."""
    if disk_bus in PREFIXES:
        return PREFIXES[disk_bus]
    match = _NAME.match(root_name or "")
    return match["prefix"] if match else "vd"


def taken_names(devices: Sequence[Mapping[str, Any]], root_name: str | None, local: int = 0) -> set[str]:
    """Letters that a server's disks have. ``local``: ephemeral and swap disks that no device stands for."""
    taken = {bare_name(device["device_name"]) for device in devices if device.get("device_name")}
    taken.add(bare_name(root_name or "/dev/vda"))
    for number in range(local):
        taken.add(_LETTERS[number + 1])
    return taken


def name_all(devices: Sequence[Device], root_name: str, local: int) -> None:
    """Give those without a name one, in their order; what boots has the root disk's."""
    for device in devices:
        if device.get("boot_index") == 0 and not device.get("device_name"):
            device["device_name"] = root_name
    taken = taken_names(devices, root_name, local)
    for device in devices:
        if not device.get("device_name"):
            device["device_name"] = next_name(prefix_of(device.get("disk_bus"), root_name), taken)
            taken.add(bare_name(device["device_name"]))
