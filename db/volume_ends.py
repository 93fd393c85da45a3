"""What the end of an intent on block storage writes: the resource by its state table, and a message.

Called in the transaction that ends the intent (``conductor.direct_journal``).
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from core.intents import IntentState
from core.volume_states import GONE, PREVIOUS, TABLES, Transition
from db.volume_base import (
    Row,
    attachments,
    backups,
    group_snapshots,
    groups,
    messages,
    new_id,
    snapshots,
    transfers,
    volumes,
)
from db.volume_moves import MOVING

MESSAGE_TTL = datetime.timedelta(days=30)
RESOURCES = {
    "volume": volumes,
    "snapshot": snapshots,
    "backup": backups,
    "group": groups,
    "group_snapshot": group_snapshots,
}
_OUTCOME = {
    "volume": (
        "provider_location",
        "image_metadata",
        "bootable",
        "encryption_key_id",
        "size_gib",
        "host",
        "type_id",
        "multiattach",
        "shared_targets",
    ),
    "snapshot": ("provider_location", "size_gib"),
    "backup": (
        "encryption_key_id",
        "service_metadata",
        "object_count",
        "container",
        "service",
        "host",
        "size_gib",
    ),
    "group": ("host",),
    "group_snapshot": (),
}
"""Columns that the last step may say."""


def end(
    connection: sa.Connection,
    intent: Row,
    state: str,
    outcome: Row,
    error: Row | None,
    moment: datetime.datetime,
) -> None:
    """See ``conductor.direct_journal.EndResource``."""
    type_ = intent["resource_type"]
    transition = TABLES[type_][intent["kind"]]
    table = RESOURCES[type_]
    done, failed = state == IntentState.DONE.value, state == IntentState.FAILED.value
    if failed and error is not None:
        _tell(connection, intent, error, moment)
    if done and transition.done == GONE:
        _remove(connection, type_, intent)
        return
    values: Row = {"updated_at": moment}
    if done:
        values.update({name: outcome[name] for name in _OUTCOME[type_] if name in outcome})
    # what was overtaken leaves the status to what overtook it
    if not intent["cancel_requested"] and (done or failed):
        values.update(_status(connection, table, transition, intent, done))
    if type_ == "volume":
        values["generation"] = volumes.c.generation + 1
        values.update(_volume(intent, done))
    elif type_ == "snapshot" and done:
        values["progress"] = 100
    elif type_ == "backup" and failed and error is not None:
        values["fail_reason"] = error.get("message")
    elif intent["kind"] == "backup.restore" and done:
        values["restored_at"] = moment
    connection.execute(sa.update(table).where(table.c.id == intent["resource_id"]).values(**values))
    _others(connection, intent, done)
    _members(connection, intent, done, outcome, moment)


def _status(
    connection: sa.Connection, table: sa.Table, transition: Transition, intent: Row, done: bool
) -> Row:
    to = transition.done if done else transition.failed
    if to is None:
        return {}
    if to != PREVIOUS:
        return {"status": to, "previous_status": None} if "previous_status" in table.c else {"status": to}
    previous = sa.select(table.c.previous_status).where(table.c.id == intent["resource_id"])
    status = connection.execute(previous).scalar_one_or_none()
    if status is None and transition.shows is None:
        return {}  # it showed nothing of its own: what came meanwhile (an attachment) stands
    return {"status": status or "available", "previous_status": None}


def _volume(intent: Row, done: bool) -> Row:
    """What kinds do beyond the state table."""
    kind, arguments = intent["kind"], intent["arguments"]
    if kind == "volume.extend" and not done:
        return {"size_gib": arguments["previous_gib"]}
    if kind == "volume.retype":
        status = volumes.c.migration_status
        # only one that had to move has begun to
        moved = sa.case((status.in_(MOVING), "success" if done else "error"), else_=status)
        typed = {key: arguments[key] for key in ("type_id", "multiattach")} if done else {}
        return {"migration_status": moved, **typed}
    if kind == "volume.migrate":
        return {"migration_status": "success" if done else "error"}
    if kind == "volume.reimage" and done:
        return {"image_metadata": arguments["image_metadata"], "bootable": True}
    if kind in ("volume.create", "volume.manage") and done:
        return {"launched_at": intent["updated_at"]}
    return {}


def _others(connection: sa.Connection, intent: Row, done: bool) -> None:
    """Resources that an intent on another one concerns."""
    kind, arguments = intent["kind"], intent["arguments"]
    if kind == "volume.revert":
        restored = sa.and_(snapshots.c.id == arguments["snapshot_id"], snapshots.c.status == "restoring")
        connection.execute(sa.update(snapshots).where(restored).values(status="available"))
    elif kind in ("backup.create", "backup.restore"):
        shown = "backing-up" if kind == "backup.create" else "restoring-backup"
        status: Any = sa.func.coalesce(volumes.c.previous_status, "available")
        if kind == "backup.restore" and not done:
            status = "error_restoring"
        connection.execute(
            sa.update(volumes)
            .where(volumes.c.id == arguments["volume_id"], volumes.c.status == shown)
            .values(status=status, previous_status=None, generation=volumes.c.generation + 1)
        )
        if arguments.get("snapshot_id"):
            busy = sa.and_(snapshots.c.id == arguments["snapshot_id"], snapshots.c.status == "backing-up")
            connection.execute(sa.update(snapshots).where(busy).values(status="available"))


def _members(
    connection: sa.Connection, intent: Row, done: bool, outcome: Row, moment: datetime.datetime
) -> None:
    """The volumes of a group and the snapshots of a group snapshot end with it."""
    kind, arguments = intent["kind"], intent["arguments"]
    locations, keys = outcome.get("members") or {}, outcome.get("keys") or {}
    if kind == "group.create":
        table, ids = volumes, [each["id"] for each in arguments["volume_ids"]]
    elif kind == "group.delete":
        table, ids = volumes, arguments["volume_ids"]
    elif kind in ("group_snapshot.create", "group_snapshot.delete"):
        table, ids = snapshots, arguments["snapshot_ids"]
    else:
        return
    for identifier in ids:
        values: Row = {"updated_at": moment, "status": "available" if done else "error"}
        if not done and kind.endswith(".delete"):
            values["status"] = "error_deleting"
        if done:
            values["provider_location"] = locations.get(identifier)
            values["launched_at" if table is volumes else "progress"] = moment if table is volumes else 100
        if done and identifier in keys:
            values["encryption_key_id"] = keys[identifier]
        if table is volumes:
            values["generation"] = volumes.c.generation + 1
        connection.execute(sa.update(table).where(table.c.id == identifier).values(**values))


def _remove(connection: sa.Connection, type_: str, intent: Row) -> None:
    identifier = intent["resource_id"]
    if type_ == "volume":
        for table in (attachments, transfers, snapshots):
            connection.execute(sa.delete(table).where(table.c.volume_id == identifier))
    elif type_ == "group":
        for volume_id in intent["arguments"].get("volume_ids", []):
            _remove(connection, "volume", {"resource_id": volume_id})
        connection.execute(sa.update(volumes).where(volumes.c.group_id == identifier).values(group_id=None))
    elif type_ == "group_snapshot":
        connection.execute(sa.delete(snapshots).where(snapshots.c.group_snapshot_id == identifier))
    table = RESOURCES[type_]
    connection.execute(sa.delete(table).where(table.c.id == identifier))


def _tell(connection: sa.Connection, intent: Row, error: Row, moment: datetime.datetime) -> None:
    """What was tried, and why it failed."""
    type_, kind = intent["resource_type"], intent["kind"]
    said = f"{TABLES[type_][kind].doing} {type_}: {error.get('message') or 'failed'}"
    event = f"VOLUME_{type_.upper()}_{kind.partition('.')[2].upper()}"
    tell(connection, intent, type_, intent["resource_id"], event, said, moment)


def tell(
    connection: sa.Connection,
    asked: Mapping[str, Any],
    type_: str,
    resource_id: str,
    event: str,
    message: str,
    moment: datetime.datetime,
) -> None:
    """A user message to who asked: "project_id" and "request_id" are of ``asked``."""
    connection.execute(
        messages.insert().values(
            id=new_id(),
            project_id=asked["project_id"],
            request_id=asked["request_id"],
            resource_type=type_.upper(),
            resource_id=resource_id,
            event_id=event,
            message=message,
            level="ERROR",
            created_at=moment,
            expires_at=moment + MESSAGE_TTL,
        )
    )
