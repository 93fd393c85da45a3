"""Metadata, tags and actions of servers, in the database that a server lives in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from core.errors import BadRequest
from db import intents, servers
from db.servers import Located, Row
from db.sessions import Database, Databases

MAX_TAGS = 50


def replace_tags(connection: sa.Connection, database: Database, server_id: str, tags: Sequence[str]) -> None:
    """These tags and no others."""
    table = servers.tags_table(database)
    connection.execute(sa.delete(table).where(table.c.server_id == server_id))
    if tags:
        connection.execute(sa.insert(table), [{"server_id": server_id, "tag": tag} for tag in tags])


def add_tag(connection: sa.Connection, database: Database, server_id: str, tag: str) -> bool:
    """True: it is new. :raises BadRequest: there are too many already."""
    table = servers.tags_table(database)
    present = set(connection.execute(sa.select(table.c.tag).where(table.c.server_id == server_id)).scalars())
    if tag in present:
        return False
    if len(present) >= MAX_TAGS:
        raise BadRequest(f"The number of tags exceeded the per-server limit {MAX_TAGS}")
    connection.execute(sa.insert(table), [{"server_id": server_id, "tag": tag}])
    return True


def remove_tag(connection: sa.Connection, database: Database, server_id: str, tag: str) -> bool:
    """False: there was none."""
    table = servers.tags_table(database)
    return bool(
        connection.execute(
            sa.delete(table).where(table.c.server_id == server_id, table.c.tag == tag)
        ).rowcount
    )


def actions(
    found: Located,
    *,
    marker: str | None = None,
    limit: int | None = None,
    since: Any = None,
    before: Any = None,
) -> list[Row]:
    """A server's intents, newest first, without their arguments and results.

    :raises BadRequest: the marker is no request of this server.
    """
    table = intents.table(found.database)
    columns = [column for column in table.columns if column.name not in ("arguments", "results")]
    statement = (
        sa.select(*columns)
        .where(table.c.resource_id == found.id)
        .order_by(table.c.created_at.desc(), table.c.id.desc())
    )
    if since is not None:
        statement = statement.where(table.c.updated_at >= since)
    if before is not None:
        statement = statement.where(table.c.updated_at <= before)
    with found.database.read() as connection:
        if marker is not None:
            last = connection.execute(
                sa.select(table.c.created_at, table.c.id)
                .where(table.c.resource_id == found.id, table.c.request_id == marker)
                .order_by(table.c.created_at, table.c.id)
            ).first()
            if last is None:
                raise BadRequest(f"marker [{marker}] not found")
            statement = statement.where(
                sa.or_(
                    table.c.created_at < last[0], sa.and_(table.c.created_at == last[0], table.c.id < last[1])
                )
            )
        if limit is not None:
            statement = statement.limit(limit)
        return [dict(row) for row in connection.execute(statement).mappings()]


def action(found: Located, request_id: str) -> Row | None:
    """The newest intent that this request wrote for the server."""
    table = intents.table(found.database)
    statement = (
        sa.select(table)
        .where(table.c.resource_id == found.id, table.c.request_id == request_id)
        .order_by(table.c.created_at.desc(), table.c.id.desc())
    )
    with found.database.read() as connection:
        row = connection.execute(statement).mappings().first()
        return dict(row) if row is not None else None


def decisions(databases: Databases, server_id: str, limit: int = 100) -> list[Row]:
    """The schedulers' decisions about a server, oldest first; of many the newest ``limit``."""
    from db.global_schema import decisions as table

    statement = (
        sa.select(table)
        .where(table.c.server_id == server_id)
        .order_by(table.c.created_at.desc(), table.c.attempt.desc())
        .limit(limit)
    )
    with databases.global_.read() as connection:
        return [dict(row) for row in connection.execute(statement).mappings()][::-1]
