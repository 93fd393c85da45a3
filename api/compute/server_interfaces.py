"""os-interface: the ports of a server; attaching one waits until it is done, as in upstream.

What is shown comes from the server's row, which the host's agent keeps current
(``compute.network_watch``): no list of servers waits for the Network API.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.compute import server_access, server_create
from api.compute.schemas.servers import TAG
from api.compute.server_networks import Finder, Request
from core.errors import BadRequest, Conflict, HaneulError, NotFound, OverQuota, Unavailable
from core.intents import FINISHED, IntentState
from db import intents
from db.servers import Located

_PATH = "/servers/{server_id}/os-interface"
_WAIT_S = 60.0
_FIRST_S, _MOST_S = 0.02, 0.25
_FINISHED = {state.value for state in FINISHED}
_ATTACHMENT: dict[str, Any] = {
    "net_id": v.UUID,
    "port_id": v.UUID,
    "fixed_ips": {
        "type": "array",
        "minItems": 1,
        "maxItems": 1,
        "items": v.obj({"ip_address": {"type": "string", "format": "ip"}}, ["ip_address"]),
    },
}
ATTACH = (
    ("2.1", v.obj({"interfaceAttachment": v.obj(_ATTACHMENT)})),
    ("2.49", v.obj({"interfaceAttachment": v.obj({**_ATTACHMENT, "tag": TAG})})),
)


class ServerInterfacesController(Controller):
    """List, show, attach, detach."""

    @operation("GET", _PATH, policy="os_compute_api:os-attach-interfaces:list")
    def index(self, call: Call) -> dict[str, Any]:
        """List the ports of a server."""
        nics = server_access.find(call).row["network_info"]
        return {"interfaceAttachments": [view(call, nic) for nic in nics]}

    @operation("GET", _PATH + "/{port_id}", policy="os_compute_api:os-attach-interfaces:show")
    def show(self, call: Call) -> dict[str, Any]:
        """Show one port of a server."""
        found = server_access.find(call)
        return {"interfaceAttachment": view(call, _nic(found, call.params["port_id"]))}

    @operation("POST", _PATH, policy="os_compute_api:os-attach-interfaces:create", body=ATTACH)
    def attach(self, call: Call) -> dict[str, Any]:
        """Attach a port, or a network by a new one."""
        asked = call.body.get("interfaceAttachment") or {}
        if asked.get("net_id") and asked.get("port_id"):
            raise BadRequest("Must not input both network_id and port_id")
        if asked.get("fixed_ips") and not asked.get("net_id"):
            raise BadRequest("Must input network_id when request IP address")
        found = server_access.find(call)
        server_access.refuse_locked(call, found.row)
        if not call.services.networks.configured:
            raise BadRequest("There is no network service: servers can't be attached to networks.")
        request = _request(call, asked)

        def arguments(call: Call, found: Located) -> dict[str, Any]:
            guest = server_create.guest_of(call, {**found.row, "user_data": None})
            return {"guest": guest.to_dict(), "networks": [request], "security_groups": None}

        def values(_call: Call, found: Located) -> dict[str, Any]:
            # that its owner made it is written down before anything can go wrong with it
            others = [each for each in found.row["networks"] if each["port_id"] != request["port_id"]]
            return {"networks": [*others, request]} if request["port_id"] else {}

        before = {nic["port_id"] for nic in found.row["network_info"]}
        started = server_access.start(call, "server.attach_interface", arguments, values)
        _finished(found, started.intent_id)
        after = server_access.find(call).row["network_info"]
        for nic in after:
            if nic["port_id"] == request["port_id"] or (
                not request["port_id"] and nic["port_id"] not in before
            ):
                return {"interfaceAttachment": view(call, nic)}
        raise Conflict("The interface was detached again meanwhile.")

    @operation(
        "DELETE", _PATH + "/{port_id}", policy="os_compute_api:os-attach-interfaces:delete", status=202
    )
    def detach(self, call: Call) -> None:
        """Detach a port; one that was made for the server is deleted."""
        _nic(server_access.find(call), call.params["port_id"])
        server_access.start(
            call,
            "server.detach_interface",
            lambda call, found: {"nic": _nic(found, call.params["port_id"])},
        )


def _nic(found: Located, port_id: str) -> Mapping[str, Any]:
    for nic in found.row["network_info"]:
        if nic["port_id"] == port_id:
            return dict(nic)
    raise NotFound(f"Instance {found.id} does not have port with id {port_id}")


def view(call: Call, nic: Mapping[str, Any]) -> dict[str, Any]:
    """A NIC as upstream shows it (tag since 2.70)."""
    shown = {
        "port_state": "ACTIVE" if nic["active"] else "DOWN",
        "net_id": nic["network_id"],
        "port_id": nic["port_id"],
        "mac_addr": nic["mac_address"],
        "fixed_ips": [
            {"subnet_id": each["subnet_id"], "ip_address": each["address"]}
            for each in nic["addresses"]
            if each["type"] == "fixed"
        ],
    }
    if call.since("2.70"):
        shown["tag"] = nic["tag"]
    return shown


def _request(call: Call, asked: Mapping[str, Any]) -> Request:
    """What is asked for, checked at the Network API. :raises NotFound, Conflict, BadRequest, OverQuota:"""
    finder, tag = Finder(call), asked.get("tag")
    if asked.get("port_id"):
        port_id = asked["port_id"]
        found = {port["id"]: port for port in finder.get("/ports", id=port_id)["ports"]}
        if port_id not in found:
            raise NotFound(f"Port {port_id} could not be found.")
        port = finder.check_port(port_id, found)
        return {"network_id": port["network_id"], "port_id": port_id, "fixed_ip": None, "tag": tag}
    network_id = asked.get("net_id")
    if network_id is None:
        try:
            network_id = finder.only_network(allocate=False)
        except Conflict as error:
            raise BadRequest(error.message) from error
        if network_id is None:
            raise BadRequest("No specific network was requested and none are available for the project.")
    else:
        networks = finder.networks(id=network_id)
        if not networks:
            raise NotFound(f"Network {network_id} could not be found.")
        finder.check_network(networks[0])
    fixed_ip = asked["fixed_ips"][0]["ip_address"] if asked.get("fixed_ips") else None
    request = {"network_id": network_id, "port_id": None, "fixed_ip": fixed_ip, "tag": tag}
    if fixed_ip:
        try:
            finder.check_free(request)
        except BadRequest as error:
            raise Conflict(error.message) from error
    finder.admitted(1, 1, 1)
    return request


def _finished(found: Located, intent_id: str) -> None:
    """Wait until the intent is over. :raises HaneulError: it failed; Unavailable: it is not over yet."""
    table = intents.table(found.database)
    statement = sa.select(table.c.state, table.c.error).where(table.c.id == intent_id)
    deadline, pause = time.monotonic() + _WAIT_S, _FIRST_S
    while time.monotonic() < deadline:
        with found.database.read() as connection:
            state, error = connection.execute(statement).one()
        if state in _FINISHED:
            if state == IntentState.DONE.value:
                return
            raise _failure(error or {})
        time.sleep(pause)
        pause = min(pause * 1.5, _MOST_S)
    raise Unavailable("The interface is still being attached: look at the server's interfaces later.")


def _failure(error: Mapping[str, Any]) -> HaneulError:
    code, message = str(error.get("code", "")), str(error.get("message", ""))
    if code == "haneul.cancelled":
        return Conflict("The server is being deleted.")
    if code == "network.OverQuota":
        return OverQuota(message)
    if code == "haneul.conflict":
        return Conflict(message)
    if code.startswith("network.") or code in ("haneul.bad_request", "haneul.not_found"):
        return BadRequest(message)
    return HaneulError(f"Failed to attach the interface: {message}", cause=error.get("details"))
