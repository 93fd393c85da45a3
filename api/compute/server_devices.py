"""Block devices that POST /servers names: from either syntax and the image's own mapping to one list.

Only what can be said from the request (and the image) is said here; what the Volume API has to be asked is
in ``server_volume_sources``.  The rules and their words are upstream's.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from api.compute import common
from core import block_devices
from core.block_devices import Device, bare_name
from core.errors import BadRequest

INVALID = "Block Device Mapping is Invalid: "
_SEQUENCE = (
    INVALID + "Boot sequence for the instance and image/block device mapping combination is not valid."
)
_MOST_LOCAL = 3
_BUSES = ("fdc", "ide", "lxc", "none", "sata", "scsi", "usb", "uml", "virtio", "xen")
_TYPES = ("disk", "cdrom", "floppy", "lun", "fs")
Mapped = dict[str, Any]
"""one mapping in the newer syntax"""


@dataclasses.dataclass(frozen=True)
class Devices:
    """What the mappings come to. ``ephemeral_gib``/``swap_mib`` None: the flavor's.

    ``image_id``: whose copy is booted, or whose properties count; None: those of the volume.
    """

    image_id: str | None
    ephemeral_gib: int | None = None
    swap_mib: int | None = None
    listed: tuple[Device, ...] = ()

    @property
    def root(self) -> Device | None:
        """The volume that is booted."""
        return block_devices.root_volume(self.listed)

    @property
    def volumes(self) -> list[Device]:
        return block_devices.volumes(self.listed)


def image_asked(server: Mapping[str, Any]) -> str | None:
    """The image that the request names to boot from; it may say that there are volumes."""
    return server.get("imageRef") or None


def read(
    server: Mapping[str, Any], flavor: Mapping[str, Any], image_properties: Mapping[str, Any] | None = None
) -> Devices:
    """Check imageRef and the block device mappings of a request.

    ``image_properties``: of the image in imageRef.
    :raises BadRequest: names what is wrong.
    """
    legacy, newer = server.get("block_device_mapping"), server.get("block_device_mapping_v2")
    if legacy and newer:
        raise BadRequest("Using different block_device_mapping syntaxes is not allowed in the same request.")
    image_id, properties = image_asked(server), dict(image_properties or {})
    root_name = properties.get("root_device_name") or "/dev/vda"
    asked = _modern(legacy, root_name) if legacy else [dict(device) for device in newer or ()]
    mappings = _merged(_of_image(properties), asked)
    for device in mappings:
        _check(device, bool(legacy))
    booted = [device for device in mappings if _boot_index(device) == 0]
    if any(_goes_to(device) == "volume" for device in booted):
        # the client puts the image into the list, too: the volume is what was meant
        mappings = [device for device in mappings if not _is_root_image(device)]
    _check_boot_order(mappings, bool(image_id))
    image_id = _root_image(mappings, image_id)
    listed = _listed(mappings, flavor)
    if image_id is None and block_devices.root_volume(listed) is None:
        raise BadRequest("Missing imageRef attribute")
    ephemeral, swap = _blanks(listed, flavor)
    return Devices(image_id, ephemeral, swap, tuple(listed))


# -- the syntaxes ----------------------------------------------------------------


def _modern(legacy: Sequence[Mapping[str, Any]], root_name: str) -> list[Mapped]:
    """The older syntax in the newer one."""
    result = []
    for item in legacy:
        device = {
            key: item[key]
            for key in ("device_name", "delete_on_termination", "volume_size", "no_device")
            if key in item
        }
        name = str(item.get("virtual_name") or "")
        if item.get("no_device"):
            result.append(device)
            continue
        if item.get("volume_id"):
            device.update(source_type="volume", destination_type="volume", uuid=item["volume_id"])
        elif item.get("snapshot_id"):
            device.update(source_type="snapshot", destination_type="volume", uuid=item["snapshot_id"])
        elif name == "swap" or name.startswith("ephemeral"):
            device.update(source_type="blank", destination_type="local")
            if name == "swap":
                device["guest_format"] = "swap"
        else:
            raise BadRequest(INVALID + "Unrecognized legacy format.")
        boots = device["source_type"] != "blank" and bare_name(
            str(device.get("device_name") or "")
        ) == bare_name(root_name)
        device["boot_index"] = 0 if boots else -1
        result.append(device)
    return result


def _of_image(properties: Mapping[str, Any]) -> list[Mapped]:
    """What an image of a volume-backed server says of its volumes."""
    told = properties.get("block_device_mapping")
    if not told:
        return []
    try:
        found = json.loads(told) if isinstance(told, str) else told
        listed = [{key: value for key, value in each.items() if value is not None} for each in found]
    except (ValueError, TypeError, AttributeError) as error:
        raise BadRequest(INVALID + "the image's own mapping can't be read.") from error
    if not common.truth(properties.get("bdm_v2", False)):
        return _modern(listed, str(properties.get("root_device_name") or "/dev/vda"))
    keys = ("snapshot_id", "volume_id", "image_id")
    return [{**each, "uuid": next((each[key] for key in keys if each.get(key)), None)} for each in listed]


def _merged(of_image: Sequence[Mapped], asked: Sequence[Mapped]) -> list[Mapped]:
    """The request's over the image's: by name, and in what boots."""
    names = {bare_name(device["device_name"]) for device in asked if device.get("device_name")}
    boots = any(_boot_index(device) == 0 and not _is_root_image(device) for device in asked)
    kept = [
        device
        for device in of_image
        if bare_name(device.get("device_name") or "?") not in names
        and not (boots and _boot_index(device) == 0)
    ]
    return [*kept, *(device for device in asked if not device.get("no_device"))]


# -- checks ----------------------------------------------------------------------


def _goes_to(device: Mapping[str, Any]) -> str:
    default = "volume" if device.get("source_type") in ("volume", "snapshot") else "local"
    return str(device.get("destination_type") or default)


def _is_root_image(device: Mapping[str, Any]) -> bool:
    return device.get("source_type") == "image" and _goes_to(device) == "local"


def _check(device: Mapping[str, Any], legacy: bool) -> None:
    source, goes_to = device.get("source_type"), _goes_to(device)
    if source is None:
        raise BadRequest(INVALID + "Missing source_type field")
    if source != "blank" and not device.get("uuid"):
        raise BadRequest(INVALID + f"Missing device UUID: source_type is {source}.")
    if source == "blank" and device.get("uuid"):
        raise BadRequest(INVALID + "Invalid device UUID.")
    if source in ("volume", "snapshot") and goes_to == "local":
        raise BadRequest(INVALID + f"Mapping {source} to local is not supported.")
    if source == "image" and goes_to == "local" and _boot_index(device) != 0:
        raise BadRequest(INVALID + "Mapping image to local is not supported.")
    size = int(device.get("volume_size") or 0)
    if goes_to == "volume" and not size and source in ("image", "blank"):
        whose = "Images with" if source == "image" else "Blank volumes (source: 'blank', dest: 'volume') need"
        words = "destination_type 'volume' need to have a non-zero size specified"
        raise BadRequest(
            INVALID + (f"{whose} {words}" if source == "image" else f"{whose} to have non-zero size")
        )
    if goes_to == "local" and device.get("volume_type"):
        raise BadRequest(INVALID + "Specifying a volume_type with destination_type=local is not supported.")
    if device.get("disk_bus") and device["disk_bus"] not in _BUSES:
        raise BadRequest(f"{INVALID}The provided disk bus {device['disk_bus']} is not valid.")
    if device.get("device_type") and device["device_type"] not in _TYPES:
        raise BadRequest(f"{INVALID}The provided device type {device['device_type']} is not valid.")
    if device.get("device_name"):
        block_devices.check_name(device["device_name"])


def _boot_index(device: Mapping[str, Any]) -> int | None:
    value = device.get("boot_index")
    return None if value is None else int(value)


def _check_boot_order(mappings: Sequence[Mapping[str, Any]], has_image: bool) -> None:
    """Indexes from 0 on, each once; negative ones and None don't boot."""
    indexes = sorted(
        index for device in mappings if (index := _boot_index(device)) is not None and index >= 0
    )
    if has_image and 0 not in indexes:
        indexes = [0, *indexes]  # the image is what boots
    if indexes != list(range(len(indexes))):
        raise BadRequest(_SEQUENCE)
    if mappings and not indexes:
        raise BadRequest(_SEQUENCE)


def _root_image(mappings: Sequence[Mapping[str, Any]], image_id: str | None) -> str | None:
    """Whose copy is booted, or (of a volume that is made from one) whose properties count."""
    images = [device for device in mappings if _is_root_image(device)]
    if len(images) > 1:
        raise BadRequest(INVALID + "the image is mapped more than once.")
    for device in images:
        if image_id is not None and device["uuid"] != image_id:
            raise BadRequest(INVALID + "imageRef and the mapping's image are not the same.")
        return str(device["uuid"])
    for device in mappings:
        if _boot_index(device) == 0 and device["source_type"] == "image":
            return str(device["uuid"])
    return image_id


def _listed(mappings: Sequence[Mapped], flavor: Mapping[str, Any]) -> list[Device]:
    listed = []
    for device in mappings:
        source, goes_to = device["source_type"], _goes_to(device)
        if _is_root_image(device):
            continue
        size = device.get("volume_size")
        new = block_devices.new_device(
            source_type=source,
            destination_type=goes_to,
            boot_index=_boot_index(device),
            device_name=block_devices.check_name(device["device_name"])
            if device.get("device_name")
            else None,
            device_type=device.get("device_type") or "disk",
            disk_bus=device.get("disk_bus"),
            guest_format=device.get("guest_format"),
            tag=device.get("tag"),
            volume_type=device.get("volume_type"),
            size_gib=None if size is None else common.whole(size, "volume_size", 1),
            # what lies on the host always goes with the server
            delete_on_termination=goes_to == "local"
            or common.truth(device.get("delete_on_termination", False)),
            **({} if source == "blank" else {f"{source}_id": device["uuid"]}),
        )
        listed.append(_sized(new, flavor) if goes_to == "local" else new)
    local = [device for device in listed if device["destination_type"] == "local"]
    if len(local) > _MOST_LOCAL:
        raise BadRequest(INVALID + "You specified more local devices than the limit allows")
    ids = [device["volume_id"] for device in listed if device["volume_id"]]
    if len(set(ids)) < len(ids):
        raise BadRequest(INVALID + "a volume is mapped more than once.")
    return [*listed, *_unmentioned(local, flavor)]


def _sized(device: Device, flavor: Mapping[str, Any]) -> Device:
    """Without a size it is the flavor's; that of a swap disk counts in MiB, as upstream has it."""
    size = device["size_gib"]
    if device["guest_format"] == "swap":
        return {**device, "size_gib": None, "size_mib": flavor["swap_mib"] if size is None else size}
    return {**device, "size_gib": flavor["ephemeral_gib"] if size is None else size}


def _unmentioned(local: Sequence[Device], flavor: Mapping[str, Any]) -> list[Device]:
    """The flavor's other disks, where the request lists only some of them."""
    if not local:
        return []
    more = []
    kind = {"source_type": "blank", "destination_type": "local", "delete_on_termination": True}
    if flavor["ephemeral_gib"] and not any(device["guest_format"] != "swap" for device in local):
        more.append(block_devices.new_device(**kind, size_gib=flavor["ephemeral_gib"]))
    if flavor["swap_mib"] and not any(device["guest_format"] == "swap" for device in local):
        more.append(block_devices.new_device(**kind, guest_format="swap", size_mib=flavor["swap_mib"]))
    return more


def _blanks(listed: Sequence[Device], flavor: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """(ephemeral GiB, swap MiB) as the mappings ask for; None where they say nothing."""
    local = [device for device in listed if device["destination_type"] == "local"]
    swaps = [int(device["size_mib"]) for device in local if device["guest_format"] == "swap"]
    ephemerals = [int(device["size_gib"]) for device in local if device["guest_format"] != "swap"]
    if len(swaps) > 1:
        raise BadRequest(INVALID + "more than one swap drive was requested.")
    if swaps and swaps[0] > flavor["swap_mib"]:
        raise BadRequest(INVALID + "Swap drive requested is larger than instance type allows.")
    if ephemerals and sum(ephemerals) > flavor["ephemeral_gib"]:
        raise BadRequest(INVALID + "Ephemeral disks requested are larger than the instance type allows.")
    return (sum(ephemerals) if ephemerals else None), (swaps[0] if swaps else None)
