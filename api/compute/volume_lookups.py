"""Volumes that a request names, looked up at the Volume API with the asker's own token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from api.common.operations import Call
from core import block_devices
from core.block_devices import Device
from core.errors import BadRequest, NotFound


def seen_volume(call: Call, volume_id: str) -> dict[str, Any]:
    """As the asker sees it. :raises NotFound:"""
    if not call.services.volumes.configured:
        raise BadRequest("There is no volume service: servers can't have volumes.")
    try:
        found: dict[str, Any] = call.services.volumes.volume(
            volume_id, token=call.context.auth_token or "", project_id=call.context.project_id
        )
    except NotFound as error:
        raise NotFound(f"Volume {volume_id} could not be found.") from error
    return found


def usable(call: Call, volume_id: str, devices: Sequence[Device] = ()) -> dict[str, Any]:
    """A volume that may be attached now (the Volume API has the last word when it is reserved).

    :raises NotFound: none that the asker may see. :raises BadRequest: it is not free.
    """
    volume = seen_volume(call, volume_id)
    if block_devices.find(devices or (), volume_id):
        raise BadRequest(f"Invalid volume: volume {volume_id} already attached")
    shared = bool(volume.get("multiattach"))
    if shared and not call.since("2.60"):
        raise BadRequest(
            f"Volume {volume_id} has 'multiattach' set, which is not supported for instances with this"
            " microversion: at least 2.60 is needed."
        )
    may = ("available", "in-use") if shared else ("available",)
    if volume["status"] not in may:
        raise BadRequest(
            f"Invalid volume: Volume {volume_id} status must be {' or '.join(may)} to reserve, but the current"
            f" status is {volume['status']}."
        )
    return volume
