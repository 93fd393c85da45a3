"""Snapshots of volumes: writing them with their intents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from core import volume_states
from core.context import RequestContext
from core.errors import Conflict
from db import intents as db_intents
from db import volumes as db_volumes
from db.types import now
from db.volume_base import Row, find, intents, new_id, snapshots


def get(connection: sa.Connection, identifier: str) -> Row:
    """:raises NotFound:"""
    return find(connection, snapshots, "Snapshot", identifier)


def new_row(context: RequestContext, volume: Mapping[str, Any], values: Mapping[str, Any]) -> Row:
    """A snapshot of a volume, not yet written, with every column."""
    row: Row = {column.name: None for column in snapshots.columns}
    row.update(
        id=new_id(),
        project_id=volume["project_id"],
        user_id=context.user_id,
        volume_id=volume["id"],
        type_id=volume["type_id"],
        size_gib=volume["size_gib"],
        encryption_key_id=volume["encryption_key_id"],
        status="creating",
        progress=0,
        use_quota=True,
        metadata={},
        created_at=now(),
    )
    return {**row, **values}


def insert(
    connection: sa.Connection,
    context: RequestContext,
    volume: Mapping[str, Any],
    row: Row,
    kind: str = "snapshot.create",
    arguments: Mapping[str, Any] | None = None,
) -> Row:
    """Write a snapshot with its intent; returns the intent."""
    connection.execute(snapshots.insert(), [row])
    return _intent(connection, context, volume, row, kind, arguments or {})


def begin(
    connection: sa.Connection,
    context: RequestContext,
    row: Mapping[str, Any],
    kind: str,
) -> Row:
    """Write an intent on a snapshot and the status that it shows meanwhile; returns the intent.

    :raises BadRequest: the status forbids it. :raises Conflict: something runs already.
    """
    transition = volume_states.check("snapshot", kind, row["id"], row["status"])
    if transition.overtakes:
        db_intents.overtake(connection, intents, row["id"])
    volume = db_volumes.get(connection, row["volume_id"])
    intent = _intent(connection, context, volume, row, kind, {})
    done = connection.execute(
        snapshots.update()
        .where(snapshots.c.id == row["id"], snapshots.c.status == row["status"])
        .values(status=transition.shows, updated_at=now())
    )
    if done.rowcount != 1:
        raise Conflict(f"Snapshot {row['id']} was changed meanwhile. Try again.")
    return intent


def _intent(
    connection: sa.Connection,
    context: RequestContext,
    volume: Mapping[str, Any],
    row: Mapping[str, Any],
    kind: str,
    arguments: Mapping[str, Any],
) -> Row:
    intent = db_intents.row(
        kind,
        "snapshot",
        row["id"],
        context,
        {"volume_id": volume["id"], **arguments},
        target=db_volumes.service_of(volume["host"]),
        project_id=row["project_id"],
    )
    db_intents.insert(connection, intents, [intent])
    return intent
