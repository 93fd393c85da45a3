"""What the state of a host's ports and that of its routers share: addresses, bandwidth."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from db.network_base import TABLES
from db.rows import select_in
from lifecycle.host_network import Address, Bandwidth

subnets = TABLES["subnets"]
allocations = TABLES["ip_allocations"]
qos_rules = TABLES["qos_rules"]


def addresses_of(connection: sa.Connection, port_ids: Collection[str]) -> dict[str, tuple[Address, ...]]:
    """Ports' addresses, in their order."""
    result: dict[str, list[Address]] = {}
    statement = (
        sa.select(allocations, subnets.c.cidr, subnets.c.gateway_ip)
        .join(subnets, subnets.c.id == allocations.c.subnet_id)
        .order_by(allocations.c.position, allocations.c.ip_address)
    )
    for row in select_in(connection, statement, allocations.c.port_id, port_ids):
        result.setdefault(row["port_id"], []).append(
            Address(
                row["ip_address"],
                row["subnet_id"],
                int(row["cidr"].rpartition("/")[2]),
                row["gateway_ip"],
            )
        )
    return {port_id: tuple(some) for port_id, some in result.items()}


def bandwidths(connection: sa.Connection, policy_ids: Collection[str]) -> dict[str, tuple[Bandwidth, ...]]:
    """QoS policies' bandwidth limits."""
    result: dict[str, list[Bandwidth]] = {}
    statement = sa.select(qos_rules).where(qos_rules.c.type == "bandwidth_limit").order_by("direction")
    for row in select_in(connection, statement, qos_rules.c.qos_policy_id, policy_ids):
        values = row["values"]
        result.setdefault(row["qos_policy_id"], []).append(
            Bandwidth(row["direction"], int(values["max_kbps"]), int(values.get("max_burst_kbps") or 0))
        )
    return {policy_id: tuple(some) for policy_id, some in result.items()}
