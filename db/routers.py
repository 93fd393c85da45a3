"""Routers: interfaces, gateways, routes (global database)."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exc

from db import network_base as base
from db import network_changes
from db.network_base import TABLES
from db.network_errors import bad_request, conflict, not_found
from db.routing import INTERFACE, floating_ips, interfaces, ip_allocations, routers

ports = TABLES["ports"]
subnets = TABLES["subnets"]


def _expand(connection: sa.Connection, rows: Sequence[dict[str, Any]], _viewer: base.Viewer) -> None:
    by_port = {row["gateway_port_id"]: row for row in rows if row["gateway_port_id"]}
    agents = TABLES["network_agents"]
    zones: dict[str, str | None] = {}
    if hosts := {row["host"] for row in rows if row["host"]}:
        statement = sa.select(agents.c.host, agents.c.availability_zone).where(
            agents.c.agent_type == "L3 agent", agents.c.host.in_(hosts)
        )
        zones = dict(connection.execute(statement).tuples().all())
    for row in rows:
        row["gateway_ips"] = []
        row["zones"] = [zones[row["host"]]] if row["host"] in zones else []
    if not by_port:
        return
    statement = (
        sa.select(ip_allocations)
        .where(ip_allocations.c.port_id.in_(list(by_port)))
        .order_by(ip_allocations.c.position)
    )
    for address in connection.execute(statement).mappings():
        by_port[address["port_id"]]["gateway_ips"].append(
            {"subnet_id": address["subnet_id"], "ip_address": address["ip_address"]}
        )


MODEL = base.Model(
    name="router",
    noun="Router",
    not_found_type="RouterNotFound",
    table=routers,
    columns={
        **base.columns_of(routers, "gateway_network_id", "gateway_port_id", "host", "qos_policy_id"),
        "gw_port_id": routers.c.gateway_port_id,
        "external_gateway_info": routers.c.gateway_network_id,
    },
    expand=_expand,
)


def bad(message: str) -> Exception:
    return bad_request("BadRequest", f"Bad router request: {message}.")


def attached(connection: sa.Connection, router_id: str) -> list[dict[str, Any]]:
    """The subnets at a router: rows of ``subnets`` with ``port_id`` of the interface."""
    statement = (
        sa.select(subnets, interfaces.c.port_id)
        .join(interfaces, interfaces.c.subnet_id == subnets.c.id)
        .where(interfaces.c.router_id == router_id)
    )
    return [dict(row) for row in connection.execute(statement).mappings()]


def check_no_overlap(
    new: Mapping[str, Any], others: Sequence[Mapping[str, Any]], *, same_is: str | None = None
) -> None:
    """:raises BadRequest: the router is on some of these addresses already."""
    cidr = ipaddress.ip_network(new["cidr"])
    for other in others:
        if other["id"] == new["id"]:
            if same_is:
                raise bad(same_is)
            continue
        if cidr.overlaps(ipaddress.ip_network(other["cidr"])):
            raise bad(
                f"Cidr {new['cidr']} of subnet {new['id']} overlaps with cidr {other['cidr']} of subnet"
                f" {other['id']}"
            )


def attach(connection: sa.Connection, router_id: str, subnet_id: str, port_id: str) -> None:
    """:raises BadRequest: another request put the subnet at this router meanwhile."""
    network_changes.note(routers=[router_id])
    try:
        with connection.begin_nested():
            connection.execute(
                interfaces.insert().values(router_id=router_id, subnet_id=subnet_id, port_id=port_id)
            )
    except db_exc.DBDuplicateEntry as error:
        raise bad(f"Router already has a port on subnet {subnet_id}") from error


def check_detachable(connection: sa.Connection, router: Mapping[str, Any], subnet: Mapping[str, Any]) -> None:
    """:raises Conflict: floating IPs or routes go through this interface."""
    used = (
        sa.select(floating_ips.c.id)
        .join(ip_allocations, ip_allocations.c.port_id == floating_ips.c.port_id)
        .where(
            floating_ips.c.router_id == router["id"],
            ip_allocations.c.ip_address == floating_ips.c.fixed_ip_address,
            ip_allocations.c.subnet_id == subnet["id"],
        )
    )
    if connection.execute(used.limit(1)).first() is not None:
        raise conflict(
            "RouterInterfaceInUseByFloatingIP",
            f"Router interface for subnet {subnet['id']} on router {router['id']} cannot be deleted, as it"
            " is required by one or more floating IPs.",
        )
    cidr = ipaddress.ip_network(subnet["cidr"])
    for route in router["routes"]:
        if ipaddress.ip_address(route["nexthop"]) in cidr:
            raise conflict(
                "RouterInterfaceInUseByRoute",
                f"Router interface for subnet {subnet['id']} on router {router['id']} cannot be deleted, as"
                " it is required by one or more routes.",
            )


def interface_missing(
    router_id: str, *, port_id: str | None = None, subnet_id: str | None = None
) -> Exception:
    if port_id is not None:
        return not_found(
            "RouterInterfaceNotFound", f"Router {router_id} does not have an interface with id", port_id
        )
    return not_found(
        "RouterInterfaceNotFoundForSubnet", f"Router {router_id} has no interface on subnet", str(subnet_id)
    )


def floating_ips_of(connection: sa.Connection, router_id: str) -> int:
    statement = sa.select(sa.func.count()).where(floating_ips.c.router_id == router_id)
    return int(connection.execute(statement).scalar_one())


def check_routes(
    connection: sa.Connection, router: Mapping[str, Any], routes: Sequence[Mapping[str, str]]
) -> None:
    """Every next hop is a neighbour, and not the router itself. :raises BadRequest:"""
    gateway = router.get("gateway_network_id")
    near = [ipaddress.ip_network(subnet["cidr"]) for subnet in attached(connection, router["id"])]
    if gateway:
        statement = sa.select(subnets.c.cidr).where(subnets.c.network_id == gateway)
        near += [ipaddress.ip_network(cidr) for cidr in connection.execute(statement).scalars()]
    mine = set(
        connection.execute(
            sa.select(ip_allocations.c.ip_address)
            .join(ports, ports.c.id == ip_allocations.c.port_id)
            .where(ports.c.device_id == router["id"])
        ).scalars()
    )
    for route in routes:
        hop = ipaddress.ip_address(route["nexthop"])
        if not any(hop in cidr for cidr in near):
            raise _bad_routes(routes, "the nexthop is not connected with router")
        if str(hop) in mine:
            raise _bad_routes(routes, "the nexthop is used by router")
        if ipaddress.ip_network(route["destination"], strict=False).version != hop.version:
            raise _bad_routes(routes, "destination and nexthop are of different IP versions")


def _bad_routes(routes: Sequence[Mapping[str, str]], reason: str) -> Exception:
    return bad_request("InvalidRoutes", f"Invalid format for routes: {list(routes)}, {reason}.")


def delete(connection: sa.Connection, router: Mapping[str, Any]) -> None:
    """:raises Conflict: it has interfaces."""
    used = sa.select(ports.c.id).where(ports.c.device_id == router["id"], ports.c.device_owner == INTERFACE)
    if connection.execute(used.limit(1)).first() is not None:
        raise conflict("RouterInUse", f"Router {router['id']} still has ports.")
    if floating_ips_of(connection, router["id"]):
        raise conflict("RouterInUse", f"Router {router['id']} still has floating IPs.")
    try:
        base.delete(connection, routers, router["id"])
    except db_exc.DBReferenceError as error:
        raise conflict("RouterInUse", f"Router {router['id']} still has ports.") from error
    if router["gateway_port_id"]:
        base.delete(connection, ports, router["gateway_port_id"])
