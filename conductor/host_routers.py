"""The routers of a host, as its agent needs to know them; see ``conductor.host_networks``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa

from conductor.host_parts import addresses_of, bandwidths
from db.network_base import TABLES
from db.routing import GATEWAY, INTERFACE
from db.rows import rows_of, select_in
from lifecycle.host_network import Address, FloatingIp, PortForwarding, Router, RouterPort, legs_of

ports = TABLES["ports"]
routers = TABLES["routers"]
floating_ips = TABLES["floating_ips"]
forwardings = TABLES["port_forwardings"]


def of_host(connection: sa.Connection, host: str, ids: Collection[str] | None) -> dict[str, Router]:
    """The routers whose namespace is on ``host``; ``ids``: of these only."""
    statement = sa.select(routers).where(routers.c.host == host)
    if ids is None:
        rows = rows_of(connection, statement)
    else:
        rows = list(select_in(connection, statement, routers.c.id, ids))
    mine = [row["id"] for row in rows]
    legs = _legs(connection, mine)
    fips = list(select_in(connection, sa.select(floating_ips).order_by("id"), floating_ips.c.router_id, mine))
    policies = {row["qos_policy_id"] for row in (*rows, *fips) if row["qos_policy_id"]}
    limits = bandwidths(connection, policies)
    leading: dict[str, list[FloatingIp]] = {}
    for fip in fips:
        if fip["fixed_ip_address"]:
            leading.setdefault(fip["router_id"], []).append(
                FloatingIp(
                    id=fip["id"],
                    floating_ip_address=fip["floating_ip_address"],
                    fixed_ip_address=fip["fixed_ip_address"],
                    bandwidth=limits.get(fip["qos_policy_id"] or "", ()),
                )
            )
    forwarded = _forwardings(connection, mine)
    return {
        row["id"]: Router(
            id=row["id"],
            project_id=row["project_id"],
            admin_state_up=row["admin_state_up"],
            enable_snat=row["enable_snat"],
            gateway=next(
                (leg for owner, leg in legs.get(row["id"], ()) if leg.port_id == row["gateway_port_id"]), None
            ),
            interfaces=tuple(leg for owner, leg in legs.get(row["id"], ()) if owner == INTERFACE),
            routes=tuple(row["routes"]),
            floating_ips=tuple(leading.get(row["id"], ())),
            port_forwardings=tuple(forwarded.get(row["id"], ())),
            bandwidth=limits.get(row["qos_policy_id"] or "", ()),
        )
        for row in rows
    }


def networks_of(router: Router) -> set[str]:
    """The networks that a router has a leg in."""
    return {leg.network_id for leg in legs_of(router)}


def _legs(connection: sa.Connection, router_ids: Collection[str]) -> dict[str, list[tuple[str, RouterPort]]]:
    """Each router's interfaces and gateway: (owner, port), oldest first."""
    statement = (
        sa.select(
            ports.c.id, ports.c.device_id, ports.c.device_owner, ports.c.network_id, ports.c.mac_address
        )
        .where(ports.c.device_owner.in_([INTERFACE, GATEWAY]))
        .order_by(ports.c.created_at, ports.c.id)
    )
    rows = list(select_in(connection, statement, ports.c.device_id, router_ids))
    addresses = addresses_of(connection, [row["id"] for row in rows])
    result: dict[str, list[tuple[str, RouterPort]]] = {}
    for row in rows:
        leg = _leg(row, addresses)
        result.setdefault(row["device_id"], []).append((row["device_owner"], leg))
    return result


def _leg(row: Mapping[str, Any], addresses: Mapping[str, tuple[Address, ...]]) -> RouterPort:
    return RouterPort(row["id"], row["network_id"], row["mac_address"], addresses.get(row["id"], ()))


def _forwardings(connection: sa.Connection, router_ids: Collection[str]) -> dict[str, list[PortForwarding]]:
    statement = (
        sa.select(forwardings, floating_ips.c.floating_ip_address, floating_ips.c.router_id)
        .join(floating_ips, floating_ips.c.id == forwardings.c.floatingip_id)
        .order_by(forwardings.c.id)
    )
    result: dict[str, list[PortForwarding]] = {}
    for row in select_in(connection, statement, floating_ips.c.router_id, router_ids):
        result.setdefault(row["router_id"], []).append(PortForwarding.from_dict(row))
    return result
