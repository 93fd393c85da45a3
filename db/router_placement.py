"""Which host each router's namespace is on (global database).

A router that has a leg somewhere lives on one host whose agent holds routers and reaches the
router's external network; of those the one with the fewest routers. It moves when that
agent is dead or no longer fits. Every write says where the router was before: of several
conductors that place at the same time one wins, and only that one rings.

Administrators may put a router on a host by hand, and take it off: then it is nowhere
(``unscheduled``) until they put it somewhere again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa

from db import network_agents, network_changes
from db.network_base import TABLES
from db.network_errors import conflict
from db.routing import floating_ips, interfaces, routers
from db.rows import rows_of, select_in

networks = TABLES["networks"]


def _needing(connection: sa.Connection, ids: Collection[str] | None) -> list[dict[str, Any]]:
    """Routers with a gateway or interfaces, and which physical network each needs."""
    has_leg = sa.exists().where(interfaces.c.router_id == routers.c.id)
    statement = (
        sa.select(routers.c.id, routers.c.host, networks.c.physical_network)
        .outerjoin(networks, networks.c.id == routers.c.gateway_network_id)
        .where(sa.or_(routers.c.gateway_network_id.is_not(None), has_leg), routers.c.unscheduled.is_(False))
        .order_by(routers.c.id)
    )
    if ids is None:
        return rows_of(connection, statement)
    return list(select_in(connection, statement, routers.c.id, ids))


def _reaches(agent: Mapping[str, Any], physical_network: str | None) -> bool:
    mappings = agent["configurations"].get("interface_mappings") or {}
    return physical_network is None or physical_network in mappings


def place(
    connection: sa.Connection, down_time_s: float, ids: Collection[str] | None = None
) -> dict[str, str]:
    """Give a host to routers (``ids``: of these only) that have none, or one that is down or unfit.

    Returns {router id: new host}. What no living agent can hold stays where it is.
    """
    rows = _needing(connection, ids)
    if not rows:
        return {}
    agents = {
        row["host"]: row for row in network_agents.living(connection, network_agents.L3_AGENT, down_time_s)
    }
    counted = sa.select(routers.c.host, sa.func.count()).where(routers.c.host != "").group_by(routers.c.host)
    load: dict[str, int] = dict(connection.execute(counted).tuples().all())
    placed: dict[str, str] = {}
    for row in rows:
        fitting = [host for host, agent in agents.items() if _reaches(agent, row["physical_network"])]
        if row["host"] in fitting or not fitting:
            continue
        host = min(fitting, key=lambda each: (load.get(each, 0), each))
        if _move(connection, row["id"], row["host"], host):
            load[host] = load.get(host, 0) + 1
            placed[row["id"]] = host
    return placed


def put(connection: sa.Connection, router: Mapping[str, Any], agent: Mapping[str, Any], alive: bool) -> None:
    """Put a router on an L3 agent's host. Already there: nothing to do.

    :raises Conflict: it is on another host, or the agent can't hold it.
    """
    if router["host"] == agent["host"]:
        return
    if router["host"]:
        raise conflict(
            "RouterHostedByL3Agent",
            f"The router {router['id']} has been already hosted by the L3 Agent on host {router['host']}.",
        )
    statement = sa.select(networks.c.physical_network).where(networks.c.id == router["gateway_network_id"])
    outside = connection.execute(statement).scalar()
    if not alive or not _reaches(agent, outside):
        raise conflict(
            "RouterSchedulingFailed",
            f"Failed scheduling router {router['id']} to the L3 Agent {agent['id']}: the agent is down, or its"
            " host does not reach the router's external network.",
        )
    if not _move(connection, router["id"], "", agent["host"]):
        raise conflict("RouterSchedulingFailed", f"The router {router['id']} was just put on another host.")


def take_off(connection: sa.Connection, router: Mapping[str, Any], agent: Mapping[str, Any]) -> None:
    """Take a router off its host: it passes nothing on until it is put somewhere.

    :raises Conflict: it is not there.
    """
    there = router["host"] == agent["host"]
    if not there or not _move(connection, router["id"], router["host"], "", unscheduled=True):
        raise conflict(
            "RouterNotHostedByL3Agent",
            f"The router {router['id']} is not hosted by L3 agent {agent['id']}.",
        )
    # (no agent is left that could say so)
    connection.execute(
        floating_ips.update().where(floating_ips.c.router_id == router["id"]).values(status="DOWN")
    )


def _move(
    connection: sa.Connection, router_id: str, old: str, new: str, *, unscheduled: bool = False
) -> bool:
    """False: somebody else has moved it meanwhile."""
    done = connection.execute(
        routers.update()
        .where(routers.c.id == router_id, routers.c.host == old)
        .values(host=new, unscheduled=unscheduled)
    ).rowcount
    if done:
        network_changes.note(routers=[router_id])
        network_changes.note_elsewhere(old, routers=[router_id])
    return bool(done)
