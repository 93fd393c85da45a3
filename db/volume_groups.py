"""Groups of volumes and their snapshots: writing them with their intents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from core import volume_states
from core.context import RequestContext
from core.errors import StaleGeneration
from db import intents as db_intents
from db.types import now
from db.volume_base import Row, by_ids, group_snapshots, groups, intents, new_id, volumes
from db.volumes import service_of


def members(connection: sa.Connection, group_ids: Sequence[str]) -> dict[str, list[Row]]:
    """{group id: its volumes, oldest first}"""
    found: dict[str, list[Row]] = {}
    rows = by_ids(connection, volumes, group_ids, "group_id")
    for row in sorted(rows, key=lambda each: (each["created_at"], each["id"])):
        found.setdefault(row["group_id"], []).append(row)
    return found


def new_row(context: RequestContext, table: sa.Table, values: Mapping[str, Any]) -> Row:
    """A group or group snapshot not yet written, with every column."""
    row: Row = {column.name: None for column in table.columns}
    row.update(
        id=new_id(),
        project_id=context.project_id,
        user_id=context.user_id,
        status="creating",
        created_at=now(),
    )
    return {**row, **values}


def insert(
    connection: sa.Connection,
    context: RequestContext,
    type_: str,
    row: Row,
    arguments: Mapping[str, Any],
    host: str | None,
) -> Row:
    """Write a group ("group") or group snapshot ("group_snapshot") with its intent; returns the intent."""
    connection.execute((groups if type_ == "group" else group_snapshots).insert(), [row])
    return _intent(connection, context, type_, f"{type_}.create", row, arguments, host)


def begin_delete(
    connection: sa.Connection,
    context: RequestContext,
    type_: str,
    row: Row,
    arguments: Mapping[str, Any],
    host: str | None,
) -> Row:
    """Write the intent that deletes it.

    :raises BadRequest: the status forbids it. :raises StaleGeneration: changed meanwhile.
    """
    kind = f"{type_}.delete"
    transition = volume_states.check(type_, kind, row["id"], row["status"])
    table = groups if type_ == "group" else group_snapshots
    done = connection.execute(
        table.update()
        .where(table.c.id == row["id"], table.c.status == row["status"])
        .values(status=transition.shows, updated_at=now())
    )
    if done.rowcount != 1:
        raise StaleGeneration(f"{type_} {row['id']} was changed meanwhile. Try again.")
    return _intent(connection, context, type_, kind, row, arguments, host)


def _intent(
    connection: sa.Connection,
    context: RequestContext,
    type_: str,
    kind: str,
    row: Row,
    arguments: Mapping[str, Any],
    host: str | None,
) -> Row:
    intent = db_intents.row(
        kind, type_, row["id"], context, arguments, target=service_of(host), project_id=row["project_id"]
    )
    db_intents.insert(connection, intents, [intent])
    return intent
