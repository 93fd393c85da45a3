"""What the state of a host's ports and that of its routers share: rows by ids, addresses, bandwidth."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import sqlalchemy as sa

from db.network_base import TABLES
from lifecycle.host_network import Address, Bandwidth

subnets = TABLES["subnets"]
allocations = TABLES["ip_allocations"]
qos_rules = TABLES["qos_rules"]
_SLICE = 5000
"""Ids that one statement names: databases bound the number of a statement's parameters."""


def rows_of(connection: sa.Connection, statement: sa.Select[Any]) -> list[dict[str, Any]]:
    """All rows."""
    result = connection.execute(statement)
    # as mappings() would, for a fifth of the price: a host has thousands of rows
    keys = tuple(result.keys())
    return [dict(zip(keys, row, strict=True)) for row in result.all()]


def select_in(
    connection: sa.Connection, statement: sa.Select[Any], column: sa.ColumnElement[Any], ids: Collection[str]
) -> Iterator[dict[str, Any]]:
    """The rows whose ``column`` is one of ``ids``; no ids: no statement."""
    wanted = sorted(ids)
    for start in range(0, len(wanted), _SLICE):
        yield from rows_of(connection, statement.where(column.in_(wanted[start : start + _SLICE])))


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
