"""Routers."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from api.common import validation as v
from api.common.operations import Call, operation
from api.network import attributes as a
from api.network import common, router_interfaces
from api.network.attributes import Attr
from api.network.networks import check_qos, zones_of
from api.network.resource import ResourceController, Row
from core.errors import Forbidden
from db import addresses, routing
from db import network_base as base
from db import networks as db_networks
from db import ports as db_ports
from db import routers as db_routers
from db import subnets as db_subnets
from db.network_errors import bad_request, conflict
from db.sessions import retrying

_EXTERNAL_IP = {
    "type": "object",
    "properties": {"subnet_id": a.or_null(a.UUID), "ip_address": a.or_null(a.IP)},
    "additionalProperties": False,
}
_GATEWAY = {
    "type": "object",
    "properties": {
        "network_id": a.or_null(a.UUID),
        "enable_snat": a.BOOLEAN,
        "qos_policy_id": a.or_null(a.UUID),
        "external_fixed_ips": a.or_null(a.array(_EXTERNAL_IP, 20)),
    },
    "additionalProperties": False,
}
_ROUTE = {
    "type": "object",
    "properties": {"destination": a.CIDR, "nexthop": a.IP},
    "required": ["destination", "nexthop"],
    "additionalProperties": False,
}
_ROUTES = a.array(_ROUTE)
_EXTRA = v.obj({"router": v.obj({"routes": _ROUTES}, ["routes"])}, ["router"])
_ADMIN: dict[str, Any] = {"create_rule": True, "update_rule": True}
ATTRIBUTES: dict[str, Attr] = {
    **a.STANDARD,
    "admin_state_up": a.boolean(True),
    "status": a.read_only(),
    "external_gateway_info": Attr(a.or_null(_GATEWAY), **_ADMIN),
    "routes": Attr(a.or_null(_ROUTES), post=False, default=[], convert=a.listed),
    "distributed": a.boolean(False, get_rule=True, **_ADMIN),
    "ha": a.boolean(False, get_rule=True, **_ADMIN),
    "availability_zone_hints": Attr(a.array(a.string()), put=False, default=[]),
    "availability_zones": a.read_only(),
    "flavor_id": Attr(a.NULL, put=False, hidden=False),
}


class RoutersController(ResourceController):
    """Routers: between subnets, and to external networks."""

    name, collection, path = "router", "routers", "/routers"
    attributes = ATTRIBUTES
    model = db_routers.MODEL
    quota = "router"

    def enforce(self, call: Call, verb: str, target: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        super().enforce(call, verb, target, given)
        for key in ("network_id", "enable_snat", "external_fixed_ips"):
            if key in (given.get("external_gateway_info") or {}):
                rule = self.rule(verb, f"external_gateway_info:{key}")
                if not call.allowed(rule, target):
                    raise Forbidden(f"rule:{rule} is disallowed by policy")

    def decorate(self, call: Call, row: Row, view: Row) -> None:
        view["availability_zones"] = zones_of(self.services, row)
        view["external_gateway_info"] = None
        if row["gateway_network_id"]:
            view["external_gateway_info"] = {
                "network_id": row["gateway_network_id"],
                "enable_snat": row["enable_snat"],
                "qos_policy_id": row["qos_policy_id"],
                "external_fixed_ips": row["gateway_ips"],
            }

    def _check_kind(self, values: Mapping[str, Any]) -> None:
        for key in ("distributed", "ha"):
            if values.get(key):
                raise db_routers.bad(f"haneul's routers can't be {key}")

    def insert(self, call: Call, connection: sa.Connection, values: Row, asked: Row) -> str:
        row = dict(values)
        self._check_kind(row)
        gateway = row.pop("external_gateway_info")
        row.pop("flavor_id")
        identifier = base.insert(connection, self.model.table, row)
        if gateway:
            self._set_gateway(
                call, connection, base.find(connection, self.model, identifier, base.GOD), gateway
            )
        return identifier

    def modify(
        self, call: Call, connection: sa.Connection, row: Row, values: Row, revision: int | None
    ) -> None:
        self._check_kind(values)
        if "external_gateway_info" in values:
            self._set_gateway(call, connection, row, values.pop("external_gateway_info") or {})
            row = base.find(connection, self.model, row["id"], base.GOD)
        if "routes" in values:
            values["routes"] = self._routes(connection, row, values["routes"])
        base.change(connection, self.model.table, row["id"], values, revision)

    def remove(self, call: Call, connection: sa.Connection, row: Row) -> None:
        db_routers.delete(connection, row)

    # -- gateway ---------------------------------------------------------------

    def _set_gateway(
        self, call: Call, connection: sa.Connection, router: Row, asked: Mapping[str, Any]
    ) -> None:
        network_id = asked.get("network_id")
        if asked and network_id is None and asked.get("external_fixed_ips"):
            raise db_routers.bad("network_id is needed with external_fixed_ips")
        if network_id is None:
            self._clear_gateway(connection, router)
            return
        values: Row = {"enable_snat": a.truth(asked.get("enable_snat", True))}
        if "qos_policy_id" in asked or router["gateway_network_id"] != network_id:
            values["qos_policy_id"] = asked.get("qos_policy_id")
            check_qos(connection, values["qos_policy_id"], router["project_id"])
        fixed_ips = asked.get("external_fixed_ips")
        if router["gateway_network_id"] == network_id:
            if fixed_ips:
                port = base.find(connection, db_ports.MODEL, router["gateway_port_id"], base.GOD)
                subnets = db_subnets.of_network(connection, network_id)
                addresses.reallocate(connection, port, subnets, _given(fixed_ips), port["mac_address"])
            base.change(connection, self.model.table, router["id"], values)
            return
        self._check_external(call, connection, router, network_id)
        self._clear_gateway(connection, router)
        values["gateway_port_id"] = db_ports.create(
            connection,
            {
                # nobody's: the project has no say over the external network's ports
                "project_id": "",
                "network_id": network_id,
                "device_id": router["id"],
                "device_owner": routing.GATEWAY,
                "port_security_enabled": False,
            },
            db_subnets.of_network(connection, network_id),
            _given(fixed_ips) if fixed_ips else None,
            (),
            self.services.options.base_mac,
        )
        values["gateway_network_id"] = network_id
        base.change(connection, self.model.table, router["id"], values)

    def _check_external(self, call: Call, connection: sa.Connection, router: Row, network_id: str) -> None:
        viewer = base.Viewer(router["project_id"], common.is_elevated(call))
        network = base.find(connection, db_networks.MODEL, network_id, viewer)
        if not network["external"]:
            raise db_routers.bad(f"Network {network_id} is not an external network")
        mine = db_routers.attached(connection, router["id"])
        for subnet in db_subnets.of_network(connection, network_id):
            db_routers.check_no_overlap(subnet, mine)

    def _clear_gateway(self, connection: sa.Connection, router: Row) -> None:
        if router["gateway_port_id"] is None:
            return
        if db_routers.floating_ips_of(connection, router["id"]):
            raise conflict(
                "RouterExternalGatewayInUseByFloatingIp",
                f"Gateway cannot be updated for router {router['id']}, since a gateway to external network"
                f" {router['gateway_network_id']} is required by one or more floating IPs.",
            )
        values = {
            "gateway_port_id": None,
            "gateway_network_id": None,
            "enable_snat": True,
            "qos_policy_id": None,
        }
        base.change(connection, self.model.table, router["id"], values)
        base.delete(connection, db_ports.ports, router["gateway_port_id"])

    # -- routes ------------------------------------------------------------------

    def _routes(self, connection: sa.Connection, router: Row, routes: Sequence[Row]) -> list[Row]:
        most = self.services.options.max_routes
        unique: list[Row] = []
        for route in routes:
            try:
                destination = str(ipaddress.ip_network(route["destination"], strict=False))
            except ValueError:
                raise bad_request("InvalidRoutes", f"'{route['destination']}' is not a valid CIDR.") from None
            entry = {"destination": destination, "nexthop": str(ipaddress.ip_address(route["nexthop"]))}
            if entry in unique:
                raise bad_request("HTTPBadRequest", f"Invalid input for routes. Duplicate: {entry}.")
            unique.append(entry)
        if len(unique) > most:
            raise bad_request(
                "RoutesExhausted",
                f"Unable to complete operation for {router['id']}. The number of routes exceeds the maximum"
                f" {most}.",
            )
        db_routers.check_routes(connection, router, unique)
        return unique

    def _extra_routes(self, call: Call, *, add: bool) -> Row:
        asked = call.body["router"]["routes"]

        def run() -> Row:
            viewer = common.viewer_of(call)
            with self.database.write() as connection:
                row = base.find(connection, self.model, self._id(call), viewer, lock=True)
                if not call.allowed(call.operation.policy, row):
                    raise Forbidden(f"rule:{call.operation.policy} is disallowed by policy")
                if add:
                    new = [*row["routes"], *(route for route in asked if route not in row["routes"])]
                    new = self._routes(connection, row, new)
                else:
                    new = [route for route in row["routes"] if route not in asked]
                base.change(connection, self.model.table, row["id"], {"routes": new})
                return self.view(call, base.show(connection, self.model, row["id"], viewer))

        return {"router": retrying(run)()}

    @operation(
        "PUT", "/routers/{id}/add_extraroutes", policy="add_extraroutes", body=_EXTRA, late_policy=True
    )
    def add_extraroutes(self, call: Call) -> Row:
        """Add routes; those that are there stay."""
        return self._extra_routes(call, add=True)

    @operation(
        "PUT", "/routers/{id}/remove_extraroutes", policy="remove_extraroutes", body=_EXTRA, late_policy=True
    )
    def remove_extraroutes(self, call: Call) -> Row:
        """Remove routes; those that are not there don't matter."""
        return self._extra_routes(call, add=False)

    # -- interfaces --------------------------------------------------------------

    def _interface(self, call: Call, change: Any) -> Row:
        def run() -> Row:
            with self.database.write() as connection:
                viewer = common.viewer_of(call)
                router = base.find(connection, self.model, self._id(call), viewer, lock=True)
                if not call.allowed(call.operation.policy, router):
                    raise Forbidden(f"rule:{call.operation.policy} is disallowed by policy")
                found: Row = change(connection, router, call.body, viewer)
                base.change(connection, self.model.table, router["id"], {})
                project_id = router["project_id"]
                return {"id": router["id"], "project_id": project_id, "tenant_id": project_id, **found}

        return retrying(run)()

    @operation(
        "PUT",
        "/routers/{id}/add_router_interface",
        policy="add_router_interface",
        body=router_interfaces.BODY,
        late_policy=True,
    )
    def add_router_interface(self, call: Call) -> Row:
        """Put the router into a subnet: with its gateway address, or with a port."""
        return self._interface(call, router_interfaces.Interfaces(self.services).add)

    @operation(
        "PUT",
        "/routers/{id}/remove_router_interface",
        policy="remove_router_interface",
        body=router_interfaces.BODY,
        late_policy=True,
    )
    def remove_router_interface(self, call: Call) -> Row:
        """Take the router out of a subnet."""
        return self._interface(call, router_interfaces.Interfaces(self.services).remove)


def _given(fixed_ips: Sequence[Row]) -> list[Row]:
    return [{key: value for key, value in each.items() if value is not None} for each in fixed_ips]
