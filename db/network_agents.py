"""Agents on hosts, as they report themselves, and what a port's host can do (global database)."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa
from oslo_config import cfg
from oslo_db import exception as db_exc

from db import network_base as base
from db.network_base import TABLES
from db.rows import select_in
from db.types import now

agents = TABLES["network_agents"]
L2_AGENT, L3_AGENT, DHCP_AGENT = "Linux bridge agent", "L3 agent", "DHCP agent"
"""What upstream calls the parts of haneul's one agent; clients look for them by these names."""

GROUP = "network_api"
OPTS = [
    cfg.StrOpt(
        "base_mac",
        default="fa:16:3e:00:00:00",
        regex="^([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$",
        help="MAC addresses of ports begin with its first three octets, or four if the fourth is not 00.",
    ),
    cfg.IntOpt(
        "agent_down_time", default=75, min=1, help="Seconds without a report after which an agent is down."
    ),
]
"""Read by the Network API and by conductors."""

MODEL = base.Model(
    name="agent",
    noun="Agent",
    not_found_type="AgentNotFound",
    table=agents,
    columns=base.columns_of(agents, "cell_id"),
    visible=lambda _viewer: sa.false(),
    # upstream's usual database compares without regard to case, and its clients ask for "DHCP Agent"
    filters={
        "agent_type": lambda values, _viewer: sa.func.lower(agents.c.agent_type).in_(
            [value.lower() for value in values]
        )
    },
    tagged=False,
)


def report(connection: sa.Connection, values: Mapping[str, Any]) -> str:
    """A sign of life: insert or refresh the agent of (agent_type, host); its id.

    ``values``: agent_type, binary, host, topic, availability_zone, configurations, and
    started_at when the agent has just begun.
    """
    mine = sa.and_(agents.c.agent_type == values["agent_type"], agents.c.host == values["host"])
    refresh = agents.update().where(mine).values(**{**values, "heartbeat_timestamp": now()})
    if not connection.execute(refresh).rowcount:
        try:
            with connection.begin_nested():
                return base.insert(connection, agents, values)
        except db_exc.DBDuplicateEntry:
            # another conductor heard the same agent at the same moment
            connection.execute(refresh)
    return str(connection.execute(sa.select(agents.c.id).where(mine)).scalar_one())


def living(connection: sa.Connection, agent_type: str, down_time_s: float) -> list[dict[str, Any]]:
    """Agents of a type that report and are not switched off, by host."""
    statement = sa.select(agents).where(
        agents.c.agent_type == agent_type,
        agents.c.admin_state_up.is_(True),
        agents.c.heartbeat_timestamp >= alive_since(down_time_s),
    )
    return [dict(row) for row in connection.execute(statement.order_by(agents.c.host)).mappings()]


def hosts_of_cell(
    connection: sa.Connection, cell_id: int | None, hosts: Collection[str], down_time_s: float
) -> set[str]:
    """Of ``hosts`` those with a living agent that a cell's conductors reach; the others ask when they are back."""
    statement = sa.select(agents.c.host).where(
        agents.c.agent_type == L2_AGENT,
        agents.c.cell_id == cell_id,
        agents.c.heartbeat_timestamp >= alive_since(down_time_s),
    )
    return {row["host"] for row in select_in(connection, statement, agents.c.host, hosts)}


def cell_of(connection: sa.Connection, host: str) -> int | None:
    """Whose conductors reach a host's agent."""
    statement = sa.select(agents.c.cell_id).where(agents.c.agent_type == L2_AGENT, agents.c.host == host)
    found: int | None = connection.execute(statement).scalar()
    return found


def alive_since(down_time_s: float) -> datetime.datetime:
    """Who reported after this moment is alive."""
    return now() - datetime.timedelta(seconds=down_time_s)


def vif_for(
    connection: sa.Connection, host: str, network: Mapping[str, Any], down_time_s: int
) -> dict[str, Any]:
    """How a port of ``network`` is plugged on ``host``: {"vif_type", "vif_details"}.

    Without a living agent that reaches the network's segment the binding has failed:
    nothing would plug it.
    """
    if not host:
        return {"vif_type": "unbound", "vif_details": {}}
    statement = sa.select(agents.c.configurations).where(
        agents.c.host == host,
        agents.c.agent_type == L2_AGENT,
        agents.c.admin_state_up.is_(True),
        agents.c.heartbeat_timestamp >= alive_since(down_time_s),
    )
    configurations = connection.execute(statement).scalar()
    if configurations is None:
        return {"vif_type": "binding_failed", "vif_details": {}}
    physical = network["physical_network"]
    if physical is not None and physical not in (configurations.get("interface_mappings") or {}):
        return {"vif_type": "binding_failed", "vif_details": {}}
    return {"vif_type": "bridge", "vif_details": {"port_filter": True, "connectivity": "l2"}}
