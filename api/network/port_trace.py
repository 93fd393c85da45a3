"""The path of a port's packets, asked of the agent on its host: haneul's own, for ``haneul network trace``."""

from __future__ import annotations

from typing import Any

import oslo_messaging

from api.common.operations import Call, Controller, operation
from api.network import common
from core.errors import Conflict, HaneulError, NotFound, Unavailable
from db import network_agents
from db import network_base as base
from db import ports as db_ports


class PortTraceController(Controller):
    """Tap, bridge, rules with their counters, tunnel, router and NAT, as the host really has them."""

    @operation("GET", "/ports/{id}/trace", policy="get_port_trace")
    def show(self, call: Call) -> dict[str, Any]:
        """Show the path of a port's packets. :raises Conflict: it is on no host."""
        with self.services.databases.global_.read() as connection:
            viewer = common.viewer_of(call)
            found = base.find(connection, db_ports.MODEL, call.params["id"], viewer)
            # with its children: a router's port is where the router is
            (port,) = base.expanded(connection, db_ports.MODEL, [found], viewer)
            host = port["binding_host"]
            cell_id = network_agents.cell_of(connection, host) if host else None
        if not host:
            raise Conflict(f"Port {port['id']} is bound to no host.")
        hops = self._ask(cell_id, host, port["id"])
        return {"trace": {"port_id": port["id"], "host": host, "status": port["status"], "hops": hops}}

    def _ask(self, cell_id: int | None, host: str, port_id: str) -> list[dict[str, Any]]:
        try:
            hops: list[dict[str, Any]] = self.services.doorbells.agent(cell_id).trace(host, port_id)
        except NotFound as error:
            raise Conflict(f"The agent of host {host} does not have port {port_id} (yet).") from error
        except oslo_messaging.RemoteError as error:
            if error.exc_type == "NotFound":
                raise Conflict(f"The agent of host {host} does not have port {port_id} (yet).") from error
            raise HaneulError(
                "The host could not answer the question about the port.", cause=error
            ) from error
        except (oslo_messaging.MessagingTimeout, oslo_messaging.MessageDeliveryFailure) as error:
            raise Unavailable(
                f"The network agent of host {host} does not answer now.", cause=error
            ) from error
        return hops
