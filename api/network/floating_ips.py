"""Floating IPs and port forwarding."""

from __future__ import annotations

import ipaddress
import uuid
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.network import attributes as a
from api.network import common
from api.network.attributes import MISSING, Attr
from api.network.networks import check_qos
from api.network.resource import ResourceController, Row
from core.errors import Forbidden
from db import floating_ips as db_floating_ips
from db import network_base as base
from db import networks as db_networks
from db import ports as db_ports
from db import routing
from db import subnets as db_subnets
from db.network_errors import bad_request, conflict
from db.sessions import retrying

_ONCE: dict[str, Any] = {"put": False}
_IPV4 = {"type": "string", "format": "ipv4"}
ATTRIBUTES: dict[str, Attr] = {
    **{key: attr for key, attr in a.STANDARD.items() if key != "name"},
    "floating_network_id": Attr(a.UUID, default=MISSING, **_ONCE),
    "floating_ip_address": Attr(a.or_null(_IPV4), create_rule=True, **_ONCE),
    "subnet_id": Attr(a.or_null(a.UUID), hidden=True, **_ONCE),
    "port_id": Attr(a.or_null(a.UUID)),
    "fixed_ip_address": Attr(a.or_null(_IPV4)),
    "router_id": a.read_only(),
    "status": a.read_only(),
    "port_details": a.read_only(),
    "port_forwardings": a.read_only(),
    "qos_policy_id": a.reference(),
    "dns_name": Attr(a.or_null(a.string()), default="", convert=a.blank, **_ONCE),
    "dns_domain": Attr(a.or_null(a.string()), default="", convert=a.blank, **_ONCE),
}


class FloatingIpsController(ResourceController):
    """Floating IPs: addresses of an external network that lead to a port."""

    name, collection, path = "floatingip", "floatingips", "/floatingips"
    attributes = ATTRIBUTES
    model = db_floating_ips.MODEL
    quota = "floatingip"

    def insert(self, call: Call, connection: sa.Connection, values: Row, asked: Row) -> str:
        row = dict(values)
        subnet_id, port_id = row.pop("subnet_id"), row.pop("port_id")
        fixed, address = row.pop("fixed_ip_address"), row.pop("floating_ip_address")
        network_id = row["floating_network_id"]
        viewer = base.Viewer(row["project_id"], common.is_elevated(call))
        network = base.find(connection, db_networks.MODEL, network_id, viewer)
        if not network["external"]:
            raise db_floating_ips.bad(f"Network {network_id} is not a valid external network")
        check_qos(connection, row["qos_policy_id"], row["project_id"])
        subnets = [each for each in db_subnets.of_network(connection, network_id) if each["ip_version"] == 4]
        if not subnets:
            raise db_floating_ips.bad(f"Network {network_id} does not contain any IPv4 subnet")
        wanted = {key: value for key, value in (("subnet_id", subnet_id), ("ip_address", address)) if value}
        identifier = str(uuid.uuid4())
        holder = db_ports.create(
            connection,
            {
                "project_id": "",
                "network_id": network_id,
                "device_id": identifier,
                "device_owner": routing.FLOATING,
                "port_security_enabled": False,
                "status": "N/A",
            },
            subnets,
            [wanted] if wanted else None,
            (),
            self.services.options.base_mac,
        )
        table = db_ports.ip_allocations
        row["floating_ip_address"] = connection.execute(
            sa.select(table.c.ip_address).where(table.c.port_id == holder)
        ).scalar_one()
        base.insert(connection, self.model.table, {**row, "id": identifier, "floating_port_id": holder})
        if port_id is not None:
            self._associate(call, connection, {**row, "id": identifier}, port_id, fixed)
        elif fixed is not None:
            raise db_floating_ips.bad("fixed_ip_address cannot be specified without a port_id")
        return identifier

    def _associate(
        self, call: Call, connection: sa.Connection, row: Row, port_id: str, fixed: str | None
    ) -> None:
        viewer = base.Viewer(row["project_id"], common.is_elevated(call))
        port = base.find(connection, db_ports.MODEL, port_id, viewer, lock=True)
        if db_floating_ips.forwardings(connection, row["id"]):
            raise conflict(
                "FipInUseByPortForwarding", f"Floating IP {row['id']} in use by Port Forwarding resources."
            )
        subnet_id, address = db_floating_ips.fixed_address(connection, port, fixed)
        router_id = db_floating_ips.router_for(connection, row["floating_network_id"], port, subnet_id)
        db_floating_ips.associate(connection, row["id"], port_id, address, router_id)

    def modify(
        self, call: Call, connection: sa.Connection, row: Row, values: Row, revision: int | None
    ) -> None:
        fixed = values.pop("fixed_ip_address", None)
        check_qos(connection, values.get("qos_policy_id"), row["project_id"])
        if "port_id" in values or fixed is not None:
            port_id = values.pop("port_id", row["port_id"])
            if port_id is None:
                if fixed is not None:
                    raise db_floating_ips.bad("fixed_ip_address cannot be specified without a port_id")
                if row["port_id"] is not None:
                    db_floating_ips.disassociate(connection, row["id"])
            else:
                self._associate(call, connection, row, port_id, fixed)
        base.change(connection, self.model.table, row["id"], values, revision)

    def remove(self, call: Call, connection: sa.Connection, row: Row) -> None:
        db_floating_ips.delete(connection, row)


_PORT = a.integer(1, 65535)
_RANGE = {"type": "string", "pattern": "^[0-9]{1,5}(:[0-9]{1,5})?$"}
_FIELDS = {
    "protocol": {"enum": ["tcp", "udp", "TCP", "UDP", "sctp", "icmp"]},
    "external_port": _PORT,
    "internal_port": _PORT,
    "external_port_range": _RANGE,
    "internal_port_range": _RANGE,
    "internal_port_id": a.UUID,
    "internal_ip_address": a.or_null(_IPV4),
    "description": a.string(),
    "project_id": a.string(),
    "tenant_id": a.string(),
}
CREATE = v.obj({"port_forwarding": v.obj(_FIELDS, ["protocol", "internal_port_id"])}, ["port_forwarding"])
UPDATE = v.obj({"port_forwarding": v.obj(_FIELDS)}, ["port_forwarding"])
_ALL = "/floatingips/{id}/port_forwardings"
_ONE = _ALL + "/{forwarding_id}"
_RULE = "{}_floatingip_port_forwarding"


def _ports(asked: Row, which: str, old: Row | None) -> tuple[int, int]:
    """(first, last) port of a side. :raises BadRequest: none given, or out of bounds."""
    if asked.get(f"{which}_port") is not None:
        first = last = int(asked[f"{which}_port"])
    elif asked.get(f"{which}_port_range") is not None:
        low, _, high = asked[f"{which}_port_range"].partition(":")
        first, last = int(low), int(high or low)
    elif old is not None:
        return old[f"{which}_port"], old[f"{which}_port_last"]
    else:
        raise bad_request("HTTPBadRequest", f"{which}_port or {which}_port_range is needed.")
    if not 1 <= first <= last <= 65535:
        raise bad_request("HTTPBadRequest", f"{which} ports {first}:{last} are not within 1 to 65535.")
    return first, last


class PortForwardingsController(Controller):
    """Single ports of a floating IP that lead to ports of servers."""

    def _floating_ip(self, call: Call, connection: sa.Connection, *, lock: bool = False) -> Row:
        row = base.find(
            connection, db_floating_ips.MODEL, call.params["id"], common.viewer_of(call), lock=lock
        )
        if not call.allowed(call.operation.policy, row):
            raise Forbidden(f"rule:{call.operation.policy} is disallowed by policy")
        return row

    def _write(self, call: Call, change: Callable[[sa.Connection, Row], Any]) -> Any:
        def run() -> Any:
            with self.services.databases.global_.write() as connection:
                return change(connection, self._floating_ip(call, connection, lock=True))

        return retrying(run)()

    def _row(self, call: Call, connection: sa.Connection, fip: Row, asked: Row, old: Row | None) -> Row:
        """The row that a body asks for, with the router that will forward set on the floating IP."""
        merged = {**(old or {}), **{key: value for key, value in asked.items() if value is not None}}
        if "internal_port_id" in asked and "internal_ip_address" not in asked:
            merged.pop("internal_ip_address", None)
        port = base.find(
            connection, db_ports.MODEL, merged["internal_port_id"], common.viewer_of(call), lock=True
        )
        subnet_id, address = db_floating_ips.fixed_address(
            connection, port, merged.get("internal_ip_address")
        )
        router_id = db_floating_ips.router_for(connection, fip["floating_network_id"], port, subnet_id)
        others = [
            each
            for each in db_floating_ips.forwardings(connection, fip["id"])
            if each["id"] != (old or {}).get("id")
        ]
        if others and fip["router_id"] not in (None, router_id):
            raise bad_request(
                "BadRequest",
                f"Bad port_forwarding request: floating IP {fip['id']} forwards through another router.",
            )
        db_floating_ips.set_router(connection, fip["id"], router_id)
        external, internal = _ports(asked, "external", old), _ports(asked, "internal", old)
        if internal[1] - internal[0] not in (0, external[1] - external[0]):
            raise bad_request("HTTPBadRequest", "Internal and external port ranges differ in length.")
        return {
            "internal_port_id": port["id"],
            "internal_ip_address": str(ipaddress.ip_address(address)),
            "protocol": merged["protocol"].lower(),
            "external_port": external[0],
            "external_port_last": external[1],
            "internal_port": internal[0],
            "internal_port_last": internal[1],
            "description": merged.get("description", ""),
        }

    @operation("GET", _ALL, policy=_RULE.format("get"), late_policy=True)
    def index(self, call: Call) -> Row:
        """List what a floating IP forwards."""
        with self.services.databases.global_.read() as connection:
            rows = db_floating_ips.forwardings(connection, self._floating_ip(call, connection)["id"])
        views = [db_floating_ips.forwarding_view(row) for row in rows]
        wanted = common.filters_of(call)
        found = [
            view for view in views if all(str(view.get(key)) in values for key, values in wanted.items())
        ]
        return {"port_forwardings": [common.only_fields(call, view) for view in found]}

    @operation("GET", _ONE, policy=_RULE.format("get"), late_policy=True)
    def show(self, call: Call) -> Row:
        """Show one."""
        with self.services.databases.global_.read() as connection:
            fip = self._floating_ip(call, connection)
            row = db_floating_ips.forwarding(connection, fip["id"], call.params["forwarding_id"])
        return {"port_forwarding": db_floating_ips.forwarding_view(row)}

    @operation("POST", _ALL, policy=_RULE.format("create"), body=CREATE, status=201, late_policy=True)
    def create(self, call: Call) -> Row:
        """Forward a port, or a range."""

        def change(connection: sa.Connection, fip: Row) -> Row:
            if fip["port_id"] is not None:
                raise conflict(
                    "FipAssociated",
                    f"Floating IP {fip['id']} is associated with port {fip['port_id']} and can't forward ports.",
                )
            row = self._row(call, connection, fip, call.body["port_forwarding"], None)
            identifier = db_floating_ips.set_forwarding(connection, fip, row, None)
            return db_floating_ips.forwarding(connection, fip["id"], identifier)

        return {"port_forwarding": db_floating_ips.forwarding_view(self._write(call, change))}

    @operation("PUT", _ONE, policy=_RULE.format("update"), body=UPDATE, late_policy=True)
    def update(self, call: Call) -> Row:
        """Change one."""

        def change(connection: sa.Connection, fip: Row) -> Row:
            old = db_floating_ips.forwarding(connection, fip["id"], call.params["forwarding_id"])
            row = self._row(call, connection, fip, call.body["port_forwarding"], old)
            db_floating_ips.set_forwarding(connection, fip, row, old["id"])
            return db_floating_ips.forwarding(connection, fip["id"], old["id"])

        return {"port_forwarding": db_floating_ips.forwarding_view(self._write(call, change))}

    @operation("DELETE", _ONE, policy=_RULE.format("delete"), status=204, late_policy=True)
    def delete(self, call: Call) -> None:
        """End one."""

        def change(connection: sa.Connection, fip: Row) -> None:
            old = db_floating_ips.forwarding(connection, fip["id"], call.params["forwarding_id"])
            db_floating_ips.delete_forwarding(connection, old["id"])
            if not db_floating_ips.forwardings(connection, fip["id"]):
                db_floating_ips.set_router(connection, fip["id"], None)

        self._write(call, change)
