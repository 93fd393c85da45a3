"""On which hosts networks are (global database)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from db.network_agents import L2_AGENT, agents
from db.network_base import TABLES
from db.routing import GATEWAY, INTERFACE
from db.rows import select_in

ports = TABLES["ports"]
bindings = TABLES["port_bindings"]
routers = TABLES["routers"]
placements = TABLES["dhcp_placements"]

PLUGGED = sa.and_(bindings.c.vif_type == "bridge", ports.c.device_owner.not_like("network:%"))
"""Ports that an agent makes a device for: haneul's own (DHCP, routers) live in namespaces."""


def hosts_of(connection: sa.Connection, network_ids: Collection[str]) -> dict[str, set[str]]:
    """Where networks are: hosts with ports of theirs, of routers that have a leg in them, and where they were put."""
    result: dict[str, set[str]] = {}
    plugged = (
        sa.select(ports.c.network_id, bindings.c.host)
        .join(bindings, bindings.c.port_id == ports.c.id)
        .where(PLUGGED)
        .distinct()
    )
    routed = (
        sa.select(ports.c.network_id, routers.c.host)
        .join(routers, routers.c.id == ports.c.device_id)
        .where(ports.c.device_owner.in_([INTERFACE, GATEWAY]), routers.c.host != "")
        .distinct()
    )
    put = sa.select(placements.c.network_id, placements.c.host).where(placements.c.serves.is_(True))
    for statement, column in (
        (plugged, ports.c.network_id),
        (routed, ports.c.network_id),
        (put, placements.c.network_id),
    ):
        for row in select_in(connection, statement, column, network_ids):
            result.setdefault(row["network_id"], set()).add(row["host"])
    return result


def network_ids_of(host: str) -> sa.CompoundSelect[Any]:
    """The ids of the networks that are on a host, as a statement."""
    plugged = (
        sa.select(ports.c.network_id)
        .join(bindings, bindings.c.port_id == ports.c.id)
        .where(bindings.c.host == host, PLUGGED)
    )
    routed = (
        sa.select(ports.c.network_id)
        .join(routers, routers.c.id == ports.c.device_id)
        .where(ports.c.device_owner.in_([INTERFACE, GATEWAY]), routers.c.host == host)
    )
    put = sa.select(placements.c.network_id).where(placements.c.host == host, placements.c.serves.is_(True))
    return plugged.union(routed, put)


def tunnel_addresses(connection: sa.Connection, hosts: Collection[str]) -> dict[str, str]:
    """host → the address under which its tunnels are reached, for hosts that have told one."""
    statement = sa.select(agents.c.host, agents.c.configurations).where(agents.c.agent_type == L2_AGENT)
    found = select_in(connection, statement, agents.c.host, hosts)
    pairs = ((row["host"], row["configurations"].get("tunneling_ip")) for row in found)
    return {host: address for host, address in pairs if address}
