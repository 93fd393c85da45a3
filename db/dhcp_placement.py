"""Which hosts serve DHCP to a network beside those where its guests are (global database).

Every host serves DHCP and metadata to the guests that it has. Administrators may let another host
serve a network, too, and may forbid it to a host; and a network whose ports are on no host yet is
served by one, so that it is ready when a guest, or a machine outside, comes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa

from core.errors import NotFound
from db import network_agents, network_changes
from db import network_base as base
from db import networks as db_networks
from db.network_base import TABLES
from db.network_errors import conflict
from db.network_hosts import hosts_of
from db.routing import GATEWAY, INTERFACE
from db.rows import select_in

Row = Mapping[str, Any]
placements = TABLES["dhcp_placements"]
networks = TABLES["networks"]
subnets = TABLES["subnets"]
ports = TABLES["ports"]
bindings = TABLES["port_bindings"]
routers = TABLES["routers"]


def serving(connection: sa.Connection, network_ids: Collection[str]) -> dict[str, set[str]]:
    """The hosts that serve DHCP to each network: those where it is, except where that was forbidden."""
    found = hosts_of(connection, network_ids)
    for network_id, host in forbidden(connection, network_ids):
        found.get(network_id, set()).discard(host)
    return found


def forbidden(connection: sa.Connection, network_ids: Collection[str]) -> set[tuple[str, str]]:
    """(network, host): taken off this host by hand."""
    statement = sa.select(placements.c.network_id, placements.c.host).where(placements.c.serves.is_(False))
    rows = select_in(connection, statement, placements.c.network_id, network_ids)
    return {(row["network_id"], row["host"]) for row in rows}


def placed_on(connection: sa.Connection, host: str, network_ids: Collection[str]) -> set[str]:
    """Of these networks those that were put on the host, whether it has ports of theirs or not."""
    statement = sa.select(placements.c.network_id).where(
        placements.c.host == host, placements.c.serves.is_(True)
    )
    return {
        row["network_id"] for row in select_in(connection, statement, placements.c.network_id, network_ids)
    }


def all_placed_on(connection: sa.Connection, host: str) -> set[str]:
    """All networks that were put on the host."""
    statement = sa.select(placements.c.network_id).where(
        placements.c.host == host, placements.c.serves.is_(True)
    )
    return set(connection.execute(statement).scalars())


def not_on(host: str) -> sa.Select[Any]:
    """The ids of the networks that were taken off a host, as a statement."""
    return sa.select(placements.c.network_id).where(placements.c.host == host, placements.c.serves.is_(False))


def put(connection: sa.Connection, network: Row, agent: Row, down_time_s: int) -> None:
    """Let the agent's host serve a network; the network's row is locked.

    :raises Conflict: it does so already, or does not reach the network.
    """
    host = agent["host"]
    if host in serving(connection, [network["id"]]).get(network["id"], ()):
        raise conflict(
            "NetworkHostedByDHCPAgent",
            f"The network {network['id']} has been already hosted by the DHCP Agent {agent['id']}.",
        )
    if network_agents.vif_for(connection, host, network, down_time_s)["vif_type"] != "bridge":
        raise conflict(
            "DHCPAgentSchedulingFailed",
            f"The network {network['id']} can't be served by the DHCP Agent {agent['id']}: it is down, or its"
            " host does not reach the network.",
        )
    _set(connection, network["id"], host, serves=True)


def take_off(connection: sa.Connection, network: Row, agent: Row) -> None:
    """Forbid the agent's host to serve a network; the network's row is locked.

    :raises Conflict: it does not serve it.
    """
    host = agent["host"]
    if host not in serving(connection, [network["id"]]).get(network["id"], ()):
        raise conflict(
            "NetworkNotHostedByDhcpAgent",
            f"The network {network['id']} is not hosted by the DHCP agent {agent['id']}.",
        )
    _set(connection, network["id"], host, serves=False)
    network_changes.note_elsewhere(host, networks=[network["id"]])


def forget_host(connection: sa.Connection, host: str) -> None:
    """What was said of a host whose agent is deleted is forgotten."""
    mine = sa.select(placements.c.network_id).where(placements.c.host == host)
    network_changes.note(networks=connection.execute(mine).scalars())
    connection.execute(placements.delete().where(placements.c.host == host))


def unserved(
    connection: sa.Connection, living: Collection[str], network_ids: Collection[str] | None = None
) -> set[str]:
    """Networks (``network_ids``: of these) with DHCP and ports, that are on no host, and on no ``living`` one by hand.

    Those that an administrator took off a host are left alone.
    """
    mine = placements.c.network_id == ports.c.network_id
    placed = sa.exists().where(
        mine, sa.or_(placements.c.serves.is_(False), placements.c.host.in_(sorted(living)))
    )
    other = ports.alias("other")
    plugged = sa.exists().where(
        other.c.network_id == ports.c.network_id,
        bindings.c.port_id == other.c.id,
        bindings.c.vif_type == "bridge",
        other.c.device_owner.not_like("network:%"),
    )
    routed = sa.exists().where(
        other.c.network_id == ports.c.network_id,
        other.c.device_owner.in_([INTERFACE, GATEWAY]),
        routers.c.id == other.c.device_id,
        routers.c.host != "",
    )
    served = sa.exists().where(subnets.c.network_id == ports.c.network_id, subnets.c.enable_dhcp.is_(True))
    statement = (
        sa.select(ports.c.network_id)
        .distinct()
        .where(
            ports.c.binding_host == "",
            ports.c.device_owner.not_like("network:%"),
            served,
            ~placed,
            ~plugged,
            ~routed,
        )
    )
    if network_ids is None:
        return set(connection.execute(statement).scalars())
    return {row["network_id"] for row in select_in(connection, statement, ports.c.network_id, network_ids)}


def place(
    connection: sa.Connection, down_time_s: int, network_ids: Collection[str] | None = None
) -> dict[str, str]:
    """Give each unserved network (``network_ids``: of these) the living host that reaches it and serves the fewest.

    Returns {network: host}. The network's row is locked meanwhile: of several conductors one does it.
    """
    living = network_agents.living(connection, network_agents.DHCP_AGENT, down_time_s)
    hosts = {agent["host"]: agent["configurations"].get("interface_mappings") or {} for agent in living}
    wanted = unserved(connection, hosts, network_ids) if hosts else set()
    if not wanted:
        return {}
    counted = (
        sa.select(placements.c.host, sa.func.count()).where(placements.c.serves).group_by(placements.c.host)
    )
    load: dict[str, int] = dict(connection.execute(counted).tuples().all())
    result = {}
    for network_id in sorted(wanted):
        try:
            network = base.find(connection, db_networks.MODEL, network_id, base.GOD, lock=True)
        except NotFound:  # deleted meanwhile
            continue
        physical = network["physical_network"]
        fitting = [host for host, mappings in hosts.items() if physical is None or physical in mappings]
        if not fitting or not unserved(connection, hosts, [network_id]):
            continue
        host = min(fitting, key=lambda each: (load.get(each, 0), each))
        load[host] = load.get(host, 0) + 1
        _set(connection, network_id, host, serves=True)
        result[network_id] = host
    return result


def _set(connection: sa.Connection, network_id: str, host: str, *, serves: bool) -> None:
    mine = sa.and_(placements.c.network_id == network_id, placements.c.host == host)
    if not connection.execute(placements.update().where(mine).values(serves=serves)).rowcount:
        connection.execute(placements.insert().values(network_id=network_id, host=host, serves=serves))
    network_changes.note(networks=[network_id])
