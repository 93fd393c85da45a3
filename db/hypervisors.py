"""Hypervisors of all cells, with what their servers use. Lists cost two statements per cell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from core.errors import BadRequest, NotFound
from db import scatter
from db.cell_schema import hypervisors, servers, services
from db.services import COMPUTE
from db.sessions import Databases

Row = dict[str, Any]
_SERVICE = {
    "service_id": services.c.id,
    "service_uuid": services.c.uuid,
    "disabled": services.c.disabled,
    "disabled_reason": services.c.disabled_reason,
    "forced_down": services.c.forced_down,
    "last_seen_at": services.c.last_seen_at,
}
_SERVERS = servers.c.deleted == 0


def _select() -> sa.Select[Any]:
    """Hypervisors whose service is known, with what is shown of the service."""
    return (
        sa.select(hypervisors, *(column.label(name) for name, column in _SERVICE.items()))
        .join(services, sa.and_(services.c.host == hypervisors.c.host, services.c.binary == COMPUTE))
        .order_by(hypervisors.c.id)
    )


def _with_usage(connection: sa.Connection, rows: Sequence[sa.RowMapping], with_servers: bool) -> list[Row]:
    names = [row["host"] for row in rows]
    used: dict[str, Any] = {}
    if names:
        disk = servers.c.root_gib + servers.c.ephemeral_gib
        statement = (
            sa.select(
                servers.c.host,
                sa.func.count().label("servers"),
                sa.func.coalesce(sa.func.sum(servers.c.vcpus), 0).label("vcpus"),
                sa.func.coalesce(sa.func.sum(servers.c.memory_mib), 0).label("memory_mib"),
                sa.func.coalesce(sa.func.sum(disk), 0).label("disk_gib"),
                sa.func.count(servers.c.task_state).label("busy"),
            )
            .where(servers.c.host.in_(names), _SERVERS)
            .group_by(servers.c.host)
        )
        used = {row["host"]: row for row in connection.execute(statement).mappings()}
    hosted: dict[str, list[Row]] = defaultdict(list)
    if names and with_servers:
        listed = sa.select(servers.c.host, servers.c.id, servers.c.name).where(
            servers.c.host.in_(names), _SERVERS
        )
        for row in connection.execute(listed.order_by(servers.c.created_at, servers.c.id)).mappings():
            hosted[row["host"]].append({"uuid": row["id"], "name": row["name"]})
    nothing = dict.fromkeys(("servers", "vcpus", "memory_mib", "disk_gib", "busy"), 0)
    result = []
    for found in rows:
        numbers = used.get(found["host"], nothing)
        usage = {key: int(numbers[key]) for key in nothing}
        result.append({**found, "used": usage, "servers": hosted[found["host"]]})
    return result


def list_(
    databases: Databases,
    *,
    pattern: str | None = None,
    marker: Callable[[Mapping[str, Any]], bool] | None = None,
    limit: int | None = None,
    with_servers: bool = False,
) -> list[Row]:
    """Hypervisors by cell and id. ``pattern``: part of the hostname. ``marker`` knows the last of the
    page before. :raises BadRequest: nothing is the marker."""
    statement = _select()
    if pattern is not None:
        statement = statement.where(hypervisors.c.hypervisor_hostname.contains(pattern, autoescape=True))

    def fetch(connection: sa.Connection) -> list[Row]:
        rows = connection.execute(statement).mappings().all()
        return _with_usage(connection, rows, with_servers)

    found, _ = scatter.gather(databases, fetch)
    rows = [row for _, part in found for row in part]
    if marker is not None:
        position = next((index for index, row in enumerate(rows) if marker(row)), None)
        if position is None:
            raise BadRequest("marker not found")
        rows = rows[position + 1 :]
    return rows if limit is None else rows[:limit]


def get(databases: Databases, identifier: str, *, with_servers: bool = False) -> Row:
    """By UUID, or by number (until 2.52). :raises NotFound:"""
    if identifier.isdigit():
        wanted = hypervisors.c.id == int(identifier) if len(identifier) < 10 else sa.false()
    else:
        wanted = hypervisors.c.uuid == identifier
    statement = _select().where(wanted)

    def fetch(connection: sa.Connection) -> list[Row]:
        return _with_usage(connection, connection.execute(statement).mappings().all(), with_servers)

    found, _ = scatter.gather(databases, fetch)
    rows = [row for _, part in found for row in part]
    if not rows:
        raise NotFound(f"Hypervisor with ID '{identifier}' could not be found.")
    if len(rows) > 1:
        raise BadRequest(f"Hypervisor ID {identifier} is in several cells. Use its UUID (from 2.53).")
    return rows[0]


def occupied_hosts(databases: Databases, names: Sequence[str]) -> set[str]:
    """Those of the hosts that have servers; one statement per cell."""
    if not names:
        return set()
    statement = sa.select(servers.c.host).where(servers.c.host.in_(names), _SERVERS).distinct()
    found, _ = scatter.gather(databases, lambda connection: connection.execute(statement).scalars().all())
    return {host for _, part in found for host in part}
