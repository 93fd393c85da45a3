"""Server groups: policies by which servers are placed together or apart (global database)."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from core.errors import NotFound
from db.global_schema import server_group_members, server_groups

Row = dict[str, Any]


def _with_members(connection: sa.Connection, rows: Sequence[sa.RowMapping]) -> list[Row]:
    members: dict[str, list[str]] = defaultdict(list)
    if rows:
        statement = (
            sa.select(server_group_members.c.group_id, server_group_members.c.server_id)
            .where(server_group_members.c.group_id.in_([row["id"] for row in rows]))
            .order_by(server_group_members.c.server_id)
        )
        for group_id, server_id in connection.execute(statement):
            members[group_id].append(server_id)
    return [{**row, "members": members[row["id"]]} for row in rows]


def list_(
    connection: sa.Connection, project_id: str | None = None, *, limit: int | None = None, offset: int = 0
) -> list[Row]:
    """Groups of a project, or all, oldest first; two statements."""
    statement = sa.select(server_groups).order_by(server_groups.c.created_at, server_groups.c.id)
    if project_id is not None:
        statement = statement.where(server_groups.c.project_id == project_id)
    if limit is not None:
        statement = statement.limit(limit)
    if offset:
        # SQLite knows OFFSET only behind LIMIT
        statement = statement.limit(limit if limit is not None else 0x7FFFFFFF).offset(offset)
    return _with_members(connection, connection.execute(statement).mappings().all())


def get(connection: sa.Connection, group_id: str) -> Row:
    """:raises NotFound:"""
    rows = connection.execute(sa.select(server_groups).where(server_groups.c.id == group_id)).mappings().all()
    if not rows:
        raise NotFound(f"Instance group {group_id} could not be found.")
    return _with_members(connection, rows)[0]


def create(connection: sa.Connection, values: Mapping[str, Any]) -> Row:
    """``values``: project_id, user_id, name, policy, rules. The caller has checked the quota."""
    group_id = str(uuid.uuid4())
    connection.execute(server_groups.insert().values(id=group_id, **values))
    return get(connection, group_id)


def delete(connection: sa.Connection, group_id: str) -> None:
    """Its servers stay where they are. :raises NotFound:"""
    connection.execute(server_group_members.delete().where(server_group_members.c.group_id == group_id))
    if not connection.execute(server_groups.delete().where(server_groups.c.id == group_id)).rowcount:
        raise NotFound(f"Instance group {group_id} could not be found.")


def add_member(connection: sa.Connection, group_id: str, server_id: str) -> None:
    """Part of creating a server; the caller has checked ``server_group_members``."""
    connection.execute(server_group_members.insert().values(group_id=group_id, server_id=server_id))
