"""Intents: writing them with the resource that they change, and reading them back.

A row is written in the same transaction as its resource.  The moves of a row
from then on are the journal's (``conductor.journal``).
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exc

from core.context import RequestContext, admin_context
from core.errors import Conflict
from core.intents import CLEANUP_OF, UNFINISHED, IntentState
from db import cell_schema, global_schema
from db.sessions import Database
from db.types import now

Row = dict[str, Any]


def table(database: Database) -> sa.Table:
    """The intents table of a database: the global one or a cell's."""
    return global_schema.intents if database.cell_id is None else cell_schema.intents


def row(
    kind: str,
    resource_type: str,
    resource_id: str,
    context: RequestContext,
    arguments: Mapping[str, Any],
    *,
    target: str | None = None,
    exclusive: bool = True,
    project_id: str | None = None,
    message: str | None = None,
) -> Row:
    """A new intent as a row, not yet written. ``project_id``: the resource's, for lists."""
    moment = now()
    return {
        "id": str(uuid.uuid4()),
        "kind": kind,
        "resource_type": resource_type,
        "resource_id": resource_id,
        "exclusive_key": resource_id if exclusive else None,
        "project_id": project_id or context.project_id,
        "user_id": context.user_id,
        "request_id": context.request_id,
        "target": target,
        "arguments": dict(arguments),
        "state": IntentState.WAITING.value,
        "results": {},
        "events": [],
        "cancel_requested": False,
        "attempts": 0,
        "message": message,
        "created_at": moment,
        "updated_at": moment,
    }


def insert(connection: sa.Connection, intents: sa.Table, rows: Sequence[Row]) -> None:
    """Write new intents.

    :raises Conflict: an exclusive one of the same resource is unfinished.
    """
    try:
        connection.execute(sa.insert(intents), list(rows))
    except db_exc.DBDuplicateEntry as error:
        raise Conflict(
            "Another operation on this resource is not finished yet: wait for it, or delete the resource.",
            code="haneul.intent_running",
            cause=error,
        ) from error


def finished_row(
    kind: str, resource_type: str, resource_id: str, context: RequestContext, message: str | None = None
) -> Row:
    """An intent that was carried out at once (lock, reset state): for the record of actions."""
    moment = now()
    return {
        **row(kind, resource_type, resource_id, context, {}, exclusive=False, message=message),
        "state": IntentState.DONE.value,
        "started_at": moment,
        "finished_at": moment,
    }


def overtake(connection: sa.Connection, intents: sa.Table, resource_id: str) -> list[Row]:
    """Ask every unfinished intent of a resource to stop, and give up their exclusiveness.

    Waiting ones that have nothing on a host are cancelled at once; the others stop at
    their next step boundary and undo what they did. Returns those (id, target, attempts).
    """
    moment = now()
    of_resource = sa.and_(intents.c.resource_id == resource_id, intents.c.exclusive_key == resource_id)
    if connection.execute(sa.select(intents.c.id).where(of_resource).limit(1)).first() is None:
        return []  # as most often; what is written meanwhile meets the caller's own exclusive intent
    unbegun = sa.and_(
        of_resource,
        intents.c.state == IntentState.WAITING.value,
        sa.or_(intents.c.attempts == 0, intents.c.target.is_(None)),
    )
    _clean_up_after(connection, intents, unbegun)
    connection.execute(
        sa.update(intents)
        .where(unbegun)
        .values(state=IntentState.CANCELLED.value, exclusive_key=None, finished_at=moment, updated_at=moment)
    )
    running = [
        dict(found)
        for found in connection.execute(
            sa.select(
                intents.c.id, intents.c.target, intents.c.attempts, intents.c.kind, intents.c.state
            ).where(of_resource, intents.c.state.in_([state.value for state in UNFINISHED]))
        ).mappings()
    ]
    if running:
        connection.execute(
            sa.update(intents)
            .where(of_resource, intents.c.state.in_([state.value for state in UNFINISHED]))
            .values(cancel_requested=True, exclusive_key=None, available_at=None, updated_at=moment)
        )
    return running


def _clean_up_after(connection: sa.Connection, intents: sa.Table, where: sa.ColumnElement[bool]) -> None:
    """What was made outside for intents that will never begin (an image without data) is removed."""
    statement = sa.select(intents).where(where, intents.c.kind == "server.create_image")
    for found in connection.execute(statement).mappings().all():
        cleanup = row(
            CLEANUP_OF[found["kind"]],
            found["resource_type"],
            found["resource_id"],
            admin_context(found["request_id"]),
            found["arguments"],
            target=found["target"],
            exclusive=False,
            project_id=found["project_id"],
        )
        insert(connection, intents, [cleanup])


def of_resource(connection: sa.Connection, intents: sa.Table, resource_id: str) -> list[Row]:
    """All intents of a resource, newest first."""
    statement = (
        sa.select(intents)
        .where(intents.c.resource_id == resource_id)
        .order_by(intents.c.created_at.desc(), intents.c.id.desc())
    )
    return [dict(found) for found in connection.execute(statement).mappings()]


def age_s(row_: Mapping[str, Any]) -> float:
    """Seconds since an intent was written."""
    created: datetime.datetime = row_["created_at"]
    return (now() - created).total_seconds()
