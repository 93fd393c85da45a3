"""Subnets."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from api.common.operations import Call
from api.network import attributes as a
from api.network import common, subnet_rules
from api.network.attributes import MISSING, Attr
from api.network.networks import network_target
from api.network.resource import ResourceController, Row
from db import network_base as base
from db import networks as db_networks
from db import ports as db_ports
from db import subnet_pools as db_subnet_pools
from db import subnets as db_subnets
from db.network_errors import bad_request, invalid_input

_MODES = a.or_null({"enum": ["slaac", "dhcpv6-stateful", "dhcpv6-stateless"]})
_POOL = {
    "type": "object",
    "properties": {"start": a.IP, "end": a.IP},
    "required": ["start", "end"],
    "additionalProperties": False,
}
_ROUTE = {
    "type": "object",
    "properties": {"destination": a.CIDR, "nexthop": a.IP},
    "required": ["destination", "nexthop"],
    "additionalProperties": False,
}
_ADMIN: dict[str, Any] = {"create_rule": True, "update_rule": True}
_ONCE: dict[str, Any] = {"put": False, "hidden": True}
ATTRIBUTES: dict[str, Attr] = {
    **a.STANDARD,
    "network_id": Attr(a.UUID, put=False, default=MISSING),
    "ip_version": Attr({"enum": [4, 6, "4", "6", None]}, put=False, convert=a.whole),
    "cidr": Attr(a.or_null(a.string(64)), put=False),
    "gateway_ip": Attr(a.or_null(a.IP)),
    "allocation_pools": Attr(a.or_null(a.array(_POOL, 100)), default=[]),
    "dns_nameservers": Attr(a.or_null(a.array(a.IP, 100)), default=[], convert=a.listed),
    "host_routes": Attr(a.or_null(a.array(_ROUTE, 100)), default=[], convert=a.listed),
    "enable_dhcp": a.boolean(True),
    "ipv6_ra_mode": Attr(_MODES, put=False),
    "ipv6_address_mode": Attr(_MODES, put=False),
    "subnetpool_id": Attr(a.or_null(a.string(36)), put=False),
    "use_default_subnetpool": a.boolean(False, **_ONCE),
    "prefixlen": Attr(a.or_null(a.integer(0, 128)), convert=a.whole, **_ONCE),
    "service_types": Attr(a.array(a.string()), default=[], **_ADMIN),
    "segment_id": Attr(a.NULL, put=False, get_rule=True, **_ADMIN),
    "dns_publish_fixed_ip": a.boolean(False),
    "router:external": a.read_only(),
}


class SubnetsController(ResourceController):
    """Subnets: the addresses of a network, of IPv4 or IPv6."""

    name, collection, path = "subnet", "subnets", "/subnets"
    attributes = ATTRIBUTES
    model = db_subnets.MODEL
    quota = "subnet"

    def target(self, call: Call, connection: sa.Connection, row: Mapping[str, Any]) -> Row:
        found = network_target(call, connection, row)
        return {**super().target(call, connection, row), **found, "shared": found.get("network:shared")}

    def insert(self, call: Call, connection: sa.Connection, values: Row, asked: Row) -> str:
        db_networks.lock(connection, values["network_id"])
        row = self._with_cidr(call, connection, values)
        gateway_given = "gateway_ip" in asked
        pools_given = bool(asked.get("allocation_pools"))
        cidr = subnet_rules.network_of(row["cidr"])
        subnet_rules.complete(row, cidr, gateway_given=gateway_given, pools_given=pools_given)
        identifier = db_subnets.create(connection, row)
        if db_subnets.is_auto(row):
            db_ports.add_automatic_addresses(connection, {**row, "id": identifier})
        return identifier

    def _with_cidr(self, call: Call, connection: sa.Connection, values: Row) -> Row:
        """The row with a CIDR: as given, or from a subnet pool."""
        row = dict(values)
        row.pop("segment_id", None)
        use_default, prefixlen = row.pop("use_default_subnetpool"), row.pop("prefixlen")
        pool_id = row["subnetpool_id"]
        if pool_id is not None and use_default:
            raise bad_request(
                "BadRequest",
                "Bad subnets request: subnetpool_id and use_default_subnetpool cannot both be specified.",
            )
        if use_default:
            pool_id = db_subnet_pools.default(connection, row["ip_version"] or 4)
            if pool_id is None:
                raise bad_request(
                    "BadRequest",
                    f"Bad subnets request: No default subnetpool found for IPv{row['ip_version']}.",
                )
        if row["cidr"] is not None:
            if prefixlen is not None:
                raise bad_request(
                    "BadRequest", "Bad subnets request: cidr and prefixlen must not be supplied together."
                )
            row["cidr"] = str(subnet_rules.network_of(row["cidr"]))
        elif pool_id is None:
            raise bad_request(
                "BadRequest",
                "Bad subnets request: a subnetpool must be specified in the absence of a cidr.",
            )
        row["subnetpool_id"] = pool_id
        if pool_id is not None:
            viewer = base.Viewer(row["project_id"], common.is_elevated(call))
            pool = base.find(connection, db_subnet_pools.MODEL, pool_id, viewer)
            row["ip_version"] = row["ip_version"] or pool["ip_version"]
            if row["ip_version"] != pool["ip_version"]:
                raise invalid_input(
                    f"Cannot allocate IPv{row['ip_version']} subnet from IPv{pool['ip_version']} subnet pool"
                )
            row["cidr"] = db_subnet_pools.allocate(
                connection, pool, row["project_id"], prefixlen, row["cidr"]
            )
        if row["ip_version"] is None:
            raise bad_request(
                "HTTPBadRequest", "Failed to parse request. Required attribute 'ip_version' not specified"
            )
        return row

    def modify(
        self, call: Call, connection: sa.Connection, row: Row, values: Row, revision: int | None
    ) -> None:
        db_networks.lock(connection, row["network_id"])
        cidr = ipaddress.ip_network(row["cidr"])
        if values.get("allocation_pools") is None:
            values.pop("allocation_pools", None)
        merged = {**row, **values}
        subnet_rules.check_modes(merged, cidr)
        subnet_rules.check_lists(merged)
        if "allocation_pools" in values:
            values["allocation_pools"] = subnet_rules.checked_pools(cidr, values["allocation_pools"])
        if "gateway_ip" in values:
            if values["gateway_ip"] is not None:
                values["gateway_ip"] = str(ipaddress.ip_address(values["gateway_ip"]))
                subnet_rules.check_gateway(cidr, values["gateway_ip"])
            if values["gateway_ip"] != row["gateway_ip"] and row["gateway_ip"] is not None:
                db_subnets.check_gateway_free(connection, row)
        merged = {**row, **values}
        subnet_rules.check_gateway_outside(merged["allocation_pools"], merged["gateway_ip"])
        base.change(connection, self.model.table, row["id"], values, revision)

    def remove(self, call: Call, connection: sa.Connection, row: Row) -> None:
        db_subnets.delete(connection, row)
