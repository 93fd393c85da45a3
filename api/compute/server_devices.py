"""Block devices that POST /servers names: which image boots, which local disks there are.

Only what lies on the host itself is served here; volumes are refused with the reason.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from api.compute import common
from core.errors import BadRequest

_INVALID = "Block Device Mapping is Invalid: "
_SEQUENCE = (
    _INVALID + "Boot sequence for the instance and image/block device mapping combination is not valid."
)


@dataclasses.dataclass(frozen=True)
class Devices:
    """What the mappings come to. ``ephemeral_gib``/``swap_mib`` None: the flavor's."""

    image_id: str | None
    ephemeral_gib: int | None = None
    swap_mib: int | None = None


def read(server: Mapping[str, Any], flavor: Mapping[str, Any]) -> Devices:
    """Check imageRef and the block device mappings of a request.

    :raises BadRequest: names what is wrong.
    """
    legacy, mappings = server.get("block_device_mapping"), server.get("block_device_mapping_v2")
    if legacy and mappings:
        raise BadRequest("Using different block_device_mapping syntaxes is not allowed in the same request.")
    if legacy:
        _refuse_volumes()
    image_id = server.get("imageRef") or None
    mappings = [device for device in mappings or () if not device.get("no_device")]
    for device in mappings:
        _check(device)
    _check_boot_order(mappings, bool(image_id))
    images = [device for device in mappings if device["source_type"] == "image"]
    for device in images:
        if image_id is not None and device["uuid"] != image_id:
            raise BadRequest(_INVALID + "imageRef and the mapping's image are not the same.")
        image_id = device["uuid"]
    if len(images) > 1:
        raise BadRequest(_INVALID + "the image is mapped more than once.")
    if image_id is None:
        raise BadRequest("Missing imageRef attribute")
    ephemeral, swap = _blanks(mappings, flavor)
    return Devices(image_id, ephemeral, swap)


def _refuse_volumes() -> None:
    raise BadRequest(
        "Servers can't boot from volumes or have volumes attached at creation in this cloud:"
        " give imageRef, and block devices with destination_type local."
    )


def _check(device: Mapping[str, Any]) -> None:
    source = device.get("source_type")
    if source is None:
        if device.get("volume_id") or device.get("snapshot_id"):
            _refuse_volumes()
        raise BadRequest(_INVALID + "source_type is missing.")
    if source in ("volume", "snapshot") or device.get("destination_type") == "volume":
        _refuse_volumes()
    if source == "image" and not device.get("uuid"):
        raise BadRequest(_INVALID + "a mapping with source_type image needs the image's uuid.")
    if source == "image" and _boot_index(device) != 0:
        raise BadRequest(
            _INVALID + "Mapping image to local is not supported unless it is the boot device (boot_index 0)."
        )
    if source == "blank" and device.get("uuid"):
        raise BadRequest(_INVALID + "a mapping with source_type blank takes no uuid.")


def _boot_index(device: Mapping[str, Any]) -> int | None:
    value = device.get("boot_index")
    return None if value is None else int(value)


def _check_boot_order(mappings: Sequence[Mapping[str, Any]], has_image: bool) -> None:
    """Indexes from 0 on, each once; negative ones and None don't boot."""
    indexes = sorted(
        index for device in mappings if (index := _boot_index(device)) is not None and index >= 0
    )
    if indexes != list(range(len(indexes))):
        raise BadRequest(_SEQUENCE)
    if mappings and not indexes and not has_image:
        raise BadRequest(_SEQUENCE)


def _blanks(
    mappings: Sequence[Mapping[str, Any]], flavor: Mapping[str, Any]
) -> tuple[int | None, int | None]:
    """(ephemeral GiB, swap MiB) as the mappings ask for; None where they say nothing."""
    swaps, ephemerals = [], []
    for device in mappings:
        if device["source_type"] != "blank":
            continue
        if device.get("guest_format") == "swap":
            # upstream counts a swap mapping's volume_size in MiB
            size = device.get("volume_size")
            swaps.append(flavor["swap_mib"] if size is None else common.whole(size, "volume_size", 1))
        else:
            size = device.get("volume_size")
            ephemerals.append(
                flavor["ephemeral_gib"] if size is None else common.whole(size, "volume_size", 1)
            )
    if len(swaps) > 1:
        raise BadRequest(_INVALID + "more than one swap drive was requested.")
    if swaps and swaps[0] > flavor["swap_mib"]:
        raise BadRequest(_INVALID + "Swap drive requested is larger than instance type allows.")
    if ephemerals and sum(ephemerals) > flavor["ephemeral_gib"]:
        raise BadRequest(_INVALID + "Ephemeral disks requested are larger than the instance type allows.")
    return (sum(ephemerals) if ephemerals else None), (swaps[0] if swaps else None)
