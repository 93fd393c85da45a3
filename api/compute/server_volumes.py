"""os-volume_attachments: the volumes of a server; attaching, changing and detaching them.

The device is written into the server's row in the same transaction as the intent, before anything
is reserved: while the Volume API has an attachment of the server's, this API shows it
(``core.block_devices``).  An attach is answered when the host has reserved the volume at the Volume
API, which may refuse; what follows goes on behind, as upstream's does.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.compute import common, server_access, server_create
from api.compute.schemas.servers import TAG
from api.compute.volume_lookups import seen_volume, usable
from core import block_devices
from core.block_devices import Device
from core.errors import BadRequest, Conflict, Forbidden, HaneulError, NotFound, OverQuota, Unavailable
from core.intents import FINISHED, IntentState
from db import intents, servers
from db.servers import Located
from db.sessions import retrying
from lifecycle.states import check_server

_PATH = "/servers/{server_id}/os-volume_attachments"
_ONE = _PATH + "/{volume_id}"
_WAIT_S = 60.0
_FIRST_S, _MOST_S = 0.02, 0.25
_FINISHED = {state.value for state in FINISHED}
_DEVICE = {"type": ["string", "null"], "pattern": r"(^/dev/x{0,1}[a-z]{0,1}d{0,1})([a-z]+)[0-9]*$"}
_NEW: dict[str, Any] = {"volumeId": v.UUID, "device": _DEVICE}


def _body(fields: dict[str, Any]) -> dict[str, Any]:
    return v.obj({"volumeAttachment": v.obj(fields, ["volumeId"])}, ["volumeAttachment"])


ATTACH = (
    ("2.1", _body(_NEW)),
    ("2.49", _body({**_NEW, "tag": TAG})),
    ("2.79", _body({**_NEW, "tag": TAG, "delete_on_termination": v.BOOLEAN})),
)
_ALL = {
    "volumeId": v.UUID,
    "device": _DEVICE,
    "tag": {**TAG, "type": ["string", "null"]},
    "delete_on_termination": v.BOOLEAN,
    "serverId": v.UUID,
    "id": v.UUID,
}
UPDATE = (("2.1", _body({"volumeId": v.UUID})), ("2.85", _body(_ALL)))
_PAGE = {name: {"type": ["string", "integer"], "pattern": "^[0-9]*$"} for name in ("limit", "offset")}
LIST = (("2.1", v.query(_PAGE, additional=True)), ("2.75", v.query(_PAGE, additional=False)))


class ServerVolumesController(Controller):
    """List, show, attach, change, detach."""

    @operation("GET", _PATH, policy="os_compute_api:os-volumes-attachments:index", query=LIST)
    def index(self, call: Call) -> dict[str, Any]:
        """List the volumes of a server."""
        found = server_access.find(call)
        devices = [device for device in found.row["block_devices"] or [] if device.get("volume_id")]
        limit, offset = common.limit_of(call), int(call.first("offset") or 0)
        return {"volumeAttachments": [view(call, found.id, each) for each in devices[offset:][:limit]]}

    @operation("GET", _ONE, policy="os_compute_api:os-volumes-attachments:show")
    def show(self, call: Call) -> dict[str, Any]:
        """Show one volume of a server."""
        found = server_access.find(call)
        return {"volumeAttachment": view(call, found.id, device_of(found, call.params["volume_id"]))}

    @operation("POST", _PATH, policy="os_compute_api:os-volumes-attachments:create", body=ATTACH)
    def attach(self, call: Call) -> dict[str, Any]:
        """Attach a volume to a server."""
        asked = call.body["volumeAttachment"]
        found = server_access.find(call)
        server_access.refuse_locked(call, found.row)
        check_server("server.attach_volume", found.id, found.row["vm_state"], found.row["task_state"])
        volume = usable(call, asked["volumeId"], found.row["block_devices"])
        new = block_devices.new_device(
            source_type="volume",
            destination_type="volume",
            volume_id=volume["id"],
            size_gib=volume["size"],
            multiattach=bool(volume.get("multiattach")),
            tag=asked.get("tag"),
            delete_on_termination=common.truth(asked.get("delete_on_termination", False)),
        )

        def arguments(call: Call, found: Located) -> dict[str, Any]:
            return {"guest": guest(call, found), "device": _named(found, new, asked.get("device"))}

        def values(_call: Call, found: Located) -> dict[str, Any]:
            return {"block_devices": [*found.row["block_devices"], _named(found, new, asked.get("device"))]}

        started = server_access.start(call, "server.attach_volume", arguments, values)
        _until_reserved(found, started.intent_id)
        device = block_devices.find(started.row["block_devices"], volume["id"]) or new
        shown = {"id": volume["id"], **view(call, found.id, device)}
        # as upstream's: what 2.89 has changed of the others is not changed here
        kept = ("id", "volumeId", "serverId", "device", "tag", "delete_on_termination")
        return {"volumeAttachment": {key: shown[key] for key in kept if key in shown}}

    @operation(
        "PUT",
        _ONE,
        policy="os_compute_api:os-volumes-attachments:swap",
        status=202,
        body=UPDATE,
        late_policy=True,
    )
    def update(self, call: Call) -> None:
        """Put another volume in its place, or (2.85) change whether it goes with the server."""
        found = server_access.find(call, authorize=False)
        old, asked = call.params["volume_id"], call.body["volumeAttachment"]
        swaps = not call.since("2.85") or asked["volumeId"] != old
        if swaps:
            call.authorize({}, "os_compute_api:os-volumes-attachments:swap")
        else:
            call.authorize(server_access.target_of(found.row), "os_compute_api:os-volumes-attachments:update")
        if call.since("2.85"):
            self._change(call, asked)
        if swaps:
            _swap(call, found, old, asked["volumeId"])

    @retrying
    def _change(self, call: Call, asked: Mapping[str, Any]) -> None:
        found = server_access.find(call, authorize=False)
        device = device_of(found, call.params["volume_id"])
        for field, now_ in (
            ("id", device["volume_id"]),
            ("serverId", found.id),
            ("device", device["device_name"]),
            ("tag", device["tag"]),
        ):
            if field in asked and asked[field] != now_:
                raise BadRequest(f"The {field} property is not mutable")
        if "delete_on_termination" not in asked:
            return
        goes = common.truth(asked["delete_on_termination"])
        devices = [
            {**each, "delete_on_termination": goes} if each["id"] == device["id"] else each
            for each in found.row["block_devices"]
        ]
        with found.database.write() as connection:
            servers.stay(connection, found)
            servers.change(connection, found.database, found.row, {"block_devices": devices})

    @operation("DELETE", _ONE, policy="os_compute_api:os-volumes-attachments:delete", status=202)
    def detach(self, call: Call) -> None:
        """Detach a volume from a server."""
        found, volume_id = server_access.find(call), call.params["volume_id"]
        device = device_of(found, volume_id)
        if device["boot_index"] == 0:
            raise BadRequest("Cannot detach a root device volume")
        server_access.refuse_locked(call, found.row)
        check_server("server.detach_volume", found.id, found.row["vm_state"], found.row["task_state"])
        try:
            status = seen_volume(call, volume_id)["status"]
        except NotFound:
            status = "in-use"  # vanished: the guest is to let go of it all the same
        if status not in ("in-use", "detaching", "available"):
            raise BadRequest(f"Invalid volume: Volume {volume_id} status must be 'in-use'. It is {status}.")

        def arguments(call: Call, found: Located) -> dict[str, Any]:
            return {"guest": guest(call, found), "device": device_of(found, volume_id)}

        server_access.start(call, "server.detach_volume", arguments)


def view(call: Call, server_id: str, device: Mapping[str, Any]) -> dict[str, Any]:
    """A device as upstream shows it, by microversion."""
    shown = {"volumeId": device["volume_id"], "serverId": server_id, "device": device["device_name"]}
    if call.since("2.70"):
        shown["tag"] = device.get("tag")
    if call.since("2.79"):
        shown["delete_on_termination"] = bool(device.get("delete_on_termination"))
    if call.since("2.89"):
        return {**shown, "attachment_id": device.get("attachment_id"), "bdm_uuid": device["id"]}
    return {"id": device["volume_id"], **shown}


def device_of(found: Located, volume_id: str) -> Device:
    """:raises NotFound: the server has no such volume."""
    device = block_devices.find(found.row["block_devices"] or [], volume_id)
    if device is None:
        raise NotFound(f"Instance {found.id} is not attached to volume {volume_id}")
    return device


def guest(call: Call, found: Located) -> dict[str, Any]:
    """What a host is told of a server whose volumes change; its user data is of no use for it."""
    return server_create.guest_of(call, {**found.row, "user_data": None}).to_dict()


def _named(found: Located, device: Device, asked: str | None) -> Device:
    """With the name that was asked for, or the next that is free. :raises Conflict: it is taken."""
    row = found.row
    devices: Sequence[Device] = row["block_devices"] or []
    flavor = row["flavor"] or {}
    local = 0
    if not any(each.get("destination_type") == "local" and each.get("boot_index") != 0 for each in devices):
        local = bool(row["ephemeral_gib"]) + bool(flavor.get("swap_mib"))
    taken = block_devices.taken_names(devices, row["root_device_name"], local)
    if asked:
        name = block_devices.check_name(asked)
        if block_devices.bare_name(name) in taken:
            raise Conflict(f"The supplied device path ({name}) is in use.")
    else:
        prefix = block_devices.prefix_of(device.get("disk_bus"), row["root_device_name"])
        try:
            name = block_devices.next_name(prefix, taken)
        except BadRequest as error:
            raise Forbidden(error.message) from error
    return {**device, "device_name": name}


def _swap(call: Call, found: Located, old_id: str, new_id: str) -> None:
    old_volume = seen_volume(call, old_id)
    device = device_of(found, old_id)
    try:
        new_volume = seen_volume(call, new_id)
    except NotFound as error:
        raise BadRequest(error.message) from error
    if old_volume.get("multiattach") and len(old_volume.get("attachments") or ()) > 1:
        raise BadRequest(
            "Swapping multi-attach volumes with more than one read/write attachment is not supported."
        )
    if new_volume["size"] < old_volume["size"]:
        raise BadRequest("Invalid volume: Old volume is larger than the new one.")
    if device["volume_id"] != old_id:
        raise Conflict(f"Volume {device['volume_id']} is being replaced by {old_id}: wait for it.")
    usable(call, new_id, found.row["block_devices"])
    swap_to = {
        "volume_id": new_id,
        "size_gib": new_volume["size"],
        "multiattach": bool(new_volume.get("multiattach")),
    }

    def arguments(call: Call, found: Located) -> dict[str, Any]:
        return {"guest": guest(call, found), "device": {**device_of(found, old_id), "swap_to": swap_to}}

    def values(_call: Call, found: Located) -> dict[str, Any]:
        about = device_of(found, old_id)["id"]
        return {
            "block_devices": [
                {**each, "swap_to": swap_to} if each["id"] == about else each
                for each in found.row["block_devices"]
            ]
        }

    server_access.start(call, "server.swap_volume", arguments, values)


def _until_reserved(found: Located, intent_id: str) -> None:
    """Wait until the host has reserved the volume. :raises HaneulError: it could not."""
    table = intents.table(found.database)
    statement = sa.select(table.c.state, table.c.results, table.c.error).where(table.c.id == intent_id)
    deadline, pause = time.monotonic() + _WAIT_S, _FIRST_S
    while time.monotonic() < deadline:
        with found.database.read() as connection:
            state, results, error = connection.execute(statement).one()
        if state == IntentState.DONE.value or (results or {}).get("reserve"):
            return
        if state in _FINISHED:
            raise _failure(error or {})
        time.sleep(pause)
        pause = min(pause * 1.5, _MOST_S)
    raise Unavailable(
        "The server's host has not reserved the volume yet: look at the server's volumes later."
    )


def _failure(error: Mapping[str, Any]) -> HaneulError:
    code, message = str(error.get("code", "")), str(error.get("message", ""))
    if code == "haneul.cancelled":
        return Conflict("The server is being deleted.")
    if code == "volume.OverQuota":
        return OverQuota(message)
    if code == "volume.404":
        return NotFound(message)
    if code.startswith("volume.4"):
        return BadRequest(message)
    return HaneulError(f"Failed to attach the volume: {message}", cause=error.get("details"))
