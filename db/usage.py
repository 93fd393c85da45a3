"""What servers used in a period, those that are gone included. One statement per cell."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from core.errors import BadRequest
from db import scatter
from db.cell_schema import servers
from db.sessions import Databases

Row = dict[str, Any]
_COLUMNS = (
    *("id", "project_id", "name", "vm_state", "vcpus", "memory_mib", "root_gib", "ephemeral_gib"),
    *("flavor", "launched_at", "terminated_at", "created_at"),
)


def servers_between(
    databases: Databases,
    start: datetime.datetime,
    end: datetime.datetime,
    *,
    project_id: str | None = None,
    marker: str | None = None,
    limit: int | None = None,
) -> list[Row]:
    """Servers that ran at some time between ``start`` and ``end``, oldest first.

    :raises BadRequest: ``marker`` is no server's id.
    """
    columns = servers.c
    statement = sa.select(*(columns[name] for name in _COLUMNS)).where(
        columns.launched_at.is_not(None),
        columns.launched_at < end,
        sa.or_(columns.terminated_at.is_(None), columns.terminated_at > start),
    )
    if project_id is not None:
        statement = statement.where(columns.project_id == project_id)
    if marker is not None:
        after = _place_of(databases, marker)
        statement = statement.where(
            sa.or_(
                columns.created_at > after["created_at"],
                sa.and_(columns.created_at == after["created_at"], columns.id > marker),
            )
        )
    statement = statement.order_by(columns.created_at, columns.id)
    if limit is not None:
        statement = statement.limit(limit)
    found, _ = scatter.gather(databases, lambda connection: connection.execute(statement).mappings().all())
    rows = sorted(
        (dict(row) for _, part in found for row in part), key=lambda row: (row["created_at"], row["id"])
    )
    return rows if limit is None else rows[:limit]


def _place_of(databases: Databases, marker: str) -> Mapping[str, Any]:
    statement = sa.select(servers.c.created_at).where(servers.c.id == marker)
    found, _ = scatter.gather(databases, lambda connection: connection.execute(statement).mappings().first())
    for _, row in found:
        if row is not None:
            return dict(row)
    raise BadRequest(f"marker [{marker}] not found")
