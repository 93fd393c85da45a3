"""Bindings of a port to hosts: a second, inactive one while a server moves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.network import attributes as a
from api.network import common
from core.errors import Forbidden
from db import network_agents
from db import network_base as base
from db import networks as db_networks
from db import ports as db_ports
from db.network_errors import conflict, not_found
from db.sessions import retrying

_ALL = "/ports/{port_id}/bindings"
_ONE = _ALL + "/{host}"
_FIELDS = {
    "profile": a.or_null({"type": "object"}),
    "vnic_type": a.string(32),
}
CREATE = v.obj({"binding": v.obj({**_FIELDS, "host": a.string()}, ["host"])}, ["binding"])
UPDATE = v.obj({"binding": v.obj(_FIELDS)}, ["binding"])
_SHOWN = ("host", "status", "vif_type", "vif_details", "vnic_type", "profile")


def view(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in _SHOWN} | {"project_id": row.get("project_id", "")}


class PortBindingsController(Controller):
    """List, show, create, change, activate and delete."""

    def _port(self, call: Call, connection: sa.Connection, *, lock: bool = False) -> dict[str, Any]:
        row = base.find(connection, db_ports.MODEL, call.params["port_id"], common.viewer_of(call), lock=lock)
        if not call.allowed(call.operation.policy, row):
            raise Forbidden(f"rule:{call.operation.policy} is disallowed by policy")
        return row

    def _binding(self, connection: sa.Connection, port_id: str, host: str) -> dict[str, Any]:
        for row in db_ports.bindings(connection, port_id):
            if row["host"] == host:
                return row
        raise not_found("PortBindingNotFound", f"Binding for port {port_id} on host", host)

    def _write(self, call: Call, change: Callable[[sa.Connection, dict[str, Any]], Any]) -> Any:
        def run() -> Any:
            with self.services.databases.global_.write() as connection:
                return change(connection, self._port(call, connection, lock=True))

        return retrying(run)()

    @operation("GET", _ALL, policy="get_port_binding", late_policy=True)
    def index(self, call: Call) -> dict[str, Any]:
        """List a port's bindings."""
        with self.services.databases.global_.read() as connection:
            port = self._port(call, connection)
            rows = db_ports.bindings(connection, port["id"])
        return {"bindings": [view({**row, "project_id": port["project_id"]}) for row in rows]}

    @operation("GET", _ONE, policy="get_port_binding", late_policy=True)
    def show(self, call: Call) -> dict[str, Any]:
        """Show the binding to one host."""
        with self.services.databases.global_.read() as connection:
            port = self._port(call, connection)
            return {"binding": view(self._binding(connection, port["id"], call.params["host"]))}

    @operation("POST", _ALL, policy="create_port_binding", body=CREATE, status=201, late_policy=True)
    def create(self, call: Call) -> dict[str, Any]:
        """Bind the port to a further host: inactive, unless it is the first."""
        asked = call.body["binding"]

        def change(connection: sa.Connection, port: dict[str, Any]) -> dict[str, Any]:
            network = base.find(connection, db_networks.MODEL, port["network_id"], base.GOD)
            vif = network_agents.vif_for(
                connection, asked["host"], network, self.services.options.agent_down_time
            )
            if vif["vif_type"] == "binding_failed":
                raise conflict(
                    "PortBindingError", f"Binding for port {port['id']} on host {asked['host']} failed."
                )
            active = any(row["status"] == "ACTIVE" for row in db_ports.bindings(connection, port["id"]))
            values = {
                **vif,
                "host": asked["host"],
                "vnic_type": asked.get("vnic_type") or port["vnic_type"],
                "profile": asked.get("profile") or {},
                "status": "INACTIVE" if active else "ACTIVE",
            }
            db_ports.add_binding(connection, port["id"], values)
            if not active:
                db_ports.update(connection, port, {"binding_host": asked["host"]})
            return self._binding(connection, port["id"], asked["host"])

        return {"binding": view(self._write(call, change))}

    @operation("PUT", _ONE, policy="update_port", body=UPDATE, late_policy=True)
    def update(self, call: Call) -> dict[str, Any]:
        """Change a binding's profile or vNIC type."""
        asked = {key: value for key, value in call.body["binding"].items() if value is not None}

        def change(connection: sa.Connection, port: dict[str, Any]) -> dict[str, Any]:
            if not call.allowed("update_port:binding:profile", port):
                raise Forbidden("rule:update_port:binding:profile is disallowed by policy")
            self._binding(connection, port["id"], call.params["host"])
            if asked:
                db_ports.change_binding(connection, port["id"], call.params["host"], asked)
            return self._binding(connection, port["id"], call.params["host"])

        return {"binding": view(self._write(call, change))}

    @operation("PUT", _ONE + "/activate", policy="activate", late_policy=True)
    def activate(self, call: Call) -> dict[str, Any]:
        """Make this the active binding; the other becomes inactive."""
        host = call.params["host"]

        def change(connection: sa.Connection, port: dict[str, Any]) -> dict[str, Any]:
            binding = self._binding(connection, port["id"], host)
            if binding["status"] == "ACTIVE":
                raise conflict(
                    "PortBindingAlreadyActive",
                    f"Binding for port {port['id']} on host {host} is already active.",
                )
            for row in db_ports.bindings(connection, port["id"]):
                status = "ACTIVE" if row["host"] == host else "INACTIVE"
                db_ports.change_binding(connection, port["id"], row["host"], {"status": status})
            # the new host has plugged nothing yet
            values = {"binding_host": host, "binding_profile": binding["profile"], "status": "DOWN"}
            db_ports.update(connection, port, {**values, "vnic_type": binding["vnic_type"]})
            return self._binding(connection, port["id"], host)

        return {"binding": view(self._write(call, change))}

    @operation("DELETE", _ONE, policy="delete_port_binding", status=204, late_policy=True)
    def delete(self, call: Call) -> None:
        """Delete a binding."""
        host = call.params["host"]

        def change(connection: sa.Connection, port: dict[str, Any]) -> None:
            binding = self._binding(connection, port["id"], host)
            db_ports.delete_binding(connection, port["id"], host)
            if binding["status"] == "ACTIVE":
                db_ports.update(connection, port, {"binding_host": "", "status": "DOWN"})

        self._write(call, change)
