"""The ports that belong to a server, and letting go of them.

A port belongs to a server by its ``device_id``, an owner ``compute:ZONE`` and the
server's project: the same marks that Nova sets, so that Neutron and its agents know
them.  Ports that haneul made go with the server; those that its owner made before
(*kept* ones) are only unbound.  Both compute agents (undo, delete) and conductors
(servers whose host is gone) let go, so it repeats harmlessly at any point.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from core.errors import NotFound, StaleGeneration
from lifecycle.network_client import NetworkClient

LOG = logging.getLogger(__name__)
Port = dict[str, Any]
_OWNER = "compute:"
_TRIES = 5


def of_server(
    client: NetworkClient, server_id: str, project_id: str | None, fields: Collection[str] = ()
) -> list[Port]:
    """The server's ports, in a fixed order.

    Only those of its project: anyone may write any server's id into a port of their own.
    """
    answer = client.get(
        "/ports", device_id=server_id, project_id=project_id, fields=sorted(fields) if fields else None
    )
    ports = [port for port in answer["ports"] if str(port.get("device_owner") or _OWNER).startswith(_OWNER)]
    return sorted(ports, key=lambda port: (port.get("created_at") or "", port["id"]))


def release(
    client: NetworkClient,
    server_id: str,
    project_id: str | None,
    kept: Collection[str],
    *,
    only: Collection[str] | None = None,
    others: Collection[str] = (),
    host: str | None = None,
) -> None:
    """Delete the server's ports, unbind those in ``kept``.

    ``only``: no more than these; ``others``: these not. ``host``: only what is bound to that host (or to none),
    and as it was when looked at: the server may be moving to another host meanwhile.
    """
    fields = ("id", "device_id", "device_owner", "binding:host_id", "revision_number", "created_at")
    for _ in range(_TRIES):
        ports = of_server(client, server_id, project_id, fields)
        if only is not None:
            ports = [port for port in ports if port["id"] in only]
        ports = [port for port in ports if port["id"] not in others]
        if host is not None:
            ports = [port for port in ports if port.get("binding:host_id") in (host, "", None)]
        try:
            for port in ports:
                revision = port.get("revision_number") if host is not None else None
                _let_go(client, port["id"], port["id"] in kept, revision)
            return
        except StaleGeneration as error:
            last = error  # somebody changed one meanwhile: is it still ours to release?
    raise last


def _let_go(client: NetworkClient, port_id: str, keep: bool, revision: int | None) -> None:
    try:
        if keep:
            free = {"device_id": "", "device_owner": "", "binding:host_id": ""}
            client.call("PUT", f"/ports/{port_id}", {"port": free}, revision=revision)
        else:
            client.call("DELETE", f"/ports/{port_id}", revision=revision)
    except NotFound:
        LOG.debug("port %s is gone already", port_id)


def kept_ports(requests: Collection[dict[str, Any]], network_info: Collection[dict[str, Any]]) -> list[str]:
    """Ports that the owner made: asked for by id at create, or attached by id since."""
    asked = {request["port_id"] for request in requests if request.get("port_id")}
    return sorted(asked | {nic["port_id"] for nic in network_info if nic.get("preserve_on_delete")})
