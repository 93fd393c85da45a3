"""Agents on hosts, as they report themselves, and what a port's host can do (global database)."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from db import network_base as base
from db.network_base import TABLES
from db.types import now

agents = TABLES["network_agents"]
L2_AGENT = "Linux bridge agent"

MODEL = base.Model(
    name="agent",
    noun="Agent",
    not_found_type="AgentNotFound",
    table=agents,
    columns=base.columns_of(agents),
    visible=lambda _viewer: sa.false(),
    tagged=False,
)


def report(connection: sa.Connection, values: Mapping[str, Any]) -> str:
    """A sign of life: insert or refresh the agent of (agent_type, host); its id.

    ``values``: agent_type, binary, host, topic, availability_zone, configurations.
    """
    mine = sa.and_(agents.c.agent_type == values["agent_type"], agents.c.host == values["host"])
    found = connection.execute(sa.select(agents.c.id).where(mine)).scalar()
    if found is None:
        found = str(uuid.uuid4())
        connection.execute(agents.insert().values(**{**values, "id": found}))
    else:
        connection.execute(agents.update().where(mine).values(**{**values, "heartbeat_timestamp": now()}))
    return str(found)


def alive_since(down_time_s: int) -> datetime.datetime:
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
    row = (
        connection.execute(
            sa.select(agents.c.configurations).where(
                agents.c.host == host,
                agents.c.agent_type == L2_AGENT,
                agents.c.admin_state_up.is_(True),
                agents.c.heartbeat_timestamp >= alive_since(down_time_s),
            )
        )
        .mappings()
        .first()
    )
    if row is None:
        return {"vif_type": "binding_failed", "vif_details": {}}
    physical = network["physical_network"]
    if physical is not None and physical not in (row["configurations"].get("interface_mappings") or {}):
        return {"vif_type": "binding_failed", "vif_details": {}}
    return {"vif_type": "bridge", "vif_details": {"port_filter": True, "connectivity": "l2"}}
