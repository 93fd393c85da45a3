"""Volumes that move to another backend: the row of the new place, and the moment in which the two change places.

As upstream's, a move has a second row: the *destination*, with an id of its own, made by the scheduler and
the worker of its backend like any volume, hidden from who may not see migrations. The new data are
named after it, so they never meet the old ones, even if both backends are one and the same storage. ``switch``
exchanges what the two rows say about data (``data_id`` remembers whose name they have); what was the destination
then stands for the old data, and is deleted by an ordinary intent that is written in the same transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from core.context import RequestContext
from core.errors import BadRequest, Conflict, NotFound
from core.intents import IntentState
from db import intents as db_intents
from db import volumes as db_volumes
from db.volume_base import Row, attachments, intents, pools, services, snapshots, volumes

STARTING, MIGRATING, COMPLETING = "starting", "migrating", "completing"
MOVING = (STARTING, MIGRATING, COMPLETING)
LOCKED = ("maintenance", "retyping")
"""Statuses in which nobody else can touch a volume's data."""
_TARGET = "target:"
_DATA = ("host", "provider_location", "availability_zone", "type_id", "multiattach")
"""What belongs to the data, and goes with them."""


def data_id(row: Mapping[str, Any]) -> str:
    """Whose name a volume's data have on their backend."""
    return str(row["data_id"] or row["id"])


def is_destination(row: Mapping[str, Any]) -> bool:
    return str(row["migration_status"] or "").startswith(_TARGET)


def not_destinations() -> sa.ColumnElement[bool]:
    """A condition: volumes that are more than the new place of another."""
    status = volumes.c.migration_status
    return sa.or_(status.is_(None), status.not_like(_TARGET + "%"))


def begin(connection: sa.Connection, volume_id: str) -> Row:
    """The move has begun; the row as it is from now on. Repeats harmlessly.

    :raises BadRequest: it has snapshots, which can't go with it.
    """
    row = db_volumes.get(connection, volume_id)
    if has_snapshots(connection, volume_id):
        raise BadRequest(f"Invalid volume: Volume {volume_id} has snapshots: they can't be moved with it.")
    if row["migration_status"] != MIGRATING:
        db_volumes.update(connection, volume_id, {"migration_status": MIGRATING})
    return db_volumes.get(connection, volume_id)


def has_snapshots(connection: sa.Connection, volume_id: str) -> bool:
    found = sa.select(snapshots.c.id).where(snapshots.c.volume_id == volume_id).limit(1)
    return connection.execute(found).first() is not None


def is_attached(connection: sa.Connection, volume_id: str) -> bool:
    """Also: reserved to be."""
    found = sa.select(attachments.c.id).where(
        attachments.c.volume_id == volume_id, attachments.c.status.not_in(["detached", "error_attaching"])
    )
    return connection.execute(found.limit(1)).first() is not None


def add_destination(
    connection: sa.Connection,
    context: RequestContext,
    row: Mapping[str, Any],
    new_id: str,
    *,
    pool: str | None,
    values: Mapping[str, Any] | None = None,
) -> None:
    """Write the destination and the intent that makes it, unless they are there.

    ``pool``: where it has to be (None: where the scheduler wants). ``values``: what it has of a new type.
    """
    if connection.execute(sa.select(volumes.c.id).where(volumes.c.id == new_id)).first() is not None:
        return
    same = ("name", "description", "size_gib", "type_id", "multiattach", "encrypted", "availability_zone")
    new = db_volumes.new_row(
        context,
        {
            **{key: row[key] for key in (*same, "project_id", "user_id")},
            "id": new_id,
            "use_quota": False,
            "migration_status": f"{_TARGET}{row['id']}",
            **(values or {}),
        },
    )
    if pool is not None:
        new["availability_zone"] = _zone_of(connection, pool) or new["availability_zone"]
    arguments = {
        "size_gib": row["size_gib"],
        "source": {"kind": "migration", "volume_id": row["id"]},
        "scheduler_hints": {},
        "availability_zone": new["availability_zone"],
        "pool": pool,
        # never the place that it is to leave
        "excluded": [row["host"]],
    }
    intent = db_intents.row(
        "volume.create", "volume", new_id, context, arguments, project_id=row["project_id"]
    )
    db_volumes.insert(connection, [new])
    db_intents.insert(connection, intents, [intent])


def _zone_of(connection: sa.Connection, pool: str) -> str | None:
    statement = (
        sa.select(services.c.availability_zone)
        .select_from(pools.join(services, services.c.host == pools.c.service_host))
        .where(pools.c.name == pool)
        .limit(1)
    )
    zone: str | None = connection.execute(statement).scalar()
    return zone


def failure_of(connection: sa.Connection, volume_id: str) -> str:
    """Why a volume could not be made, in the words of its intent."""
    statement = (
        sa.select(intents.c.error)
        .where(intents.c.resource_id == volume_id, intents.c.error.is_not(None))
        .order_by(intents.c.created_at.desc())
        .limit(1)
    )
    error: Row = connection.execute(statement).scalar() or {}
    return str(error.get("message") or "its backend could not make it")


def hold(connection: sa.Connection, new_id: str) -> Row:
    """The destination is made: nobody but the move may use it. :raises Conflict: it is gone or changed."""
    try:
        row = db_volumes.get(connection, new_id)
    except NotFound:
        raise Conflict("The volume's new place was deleted meanwhile.") from None
    if row["status"] == "available" and is_destination(row):
        db_volumes.move(connection, row, "maintenance")
        return db_volumes.get(connection, new_id)
    if row["status"] != "maintenance" or not is_destination(row):
        raise Conflict(f"The volume's new place is {row['status']}: somebody changed it.")
    return row


def switched(source: Mapping[str, Any], new_id: str) -> bool:
    """Have the rows changed places?"""
    return bool(source["data_id"] == new_id)


def switch(
    connection: sa.Connection,
    context: RequestContext,
    noted: Mapping[str, Any],
    new_id: str,
    values: Mapping[str, Any] | None = None,
) -> None:
    """The volume's row names the new data, the destination's the old ones, which are deleted. Repeats harmlessly.

    ``noted``: {"id", "generation"} from before the copy began. ``values``: of a new type.
    :raises Conflict: somebody may have written to the volume since: the copy is not to be used.
    """
    source = db_volumes.get(connection, noted["id"])
    if switched(source, new_id):
        return
    _refuse_changed(connection, source, noted)
    new = hold(connection, new_id)
    moved = {key: new[key] for key in _DATA}
    db_volumes.move(
        connection, source, source["status"], {**moved, **(values or {}), "data_id": data_id(new)}
    )
    old = {**{key: source[key] for key in _DATA}, "data_id": data_id(source), "migration_status": None}
    db_volumes.move(connection, new, "error", old)
    left = {**db_volumes.get(connection, new_id)}
    db_volumes.begin(
        connection,
        context,
        left,
        "volume.delete",
        {"cascade": False, "snapshot_ids": []},
        values={"migration_status": "deleting"},
    )
    # what waits for the end of the move was written for the old place
    waiting = sa.and_(intents.c.resource_id == source["id"], intents.c.state == IntentState.WAITING.value)
    connection.execute(sa.update(intents).where(waiting).values(target=db_volumes.service_of(moved["host"])))


def _refuse_changed(connection: sa.Connection, source: Row, noted: Mapping[str, Any]) -> None:
    locked = source["status"] in LOCKED and noted["status"] == source["status"]
    if (
        source["migration_status"] != MIGRATING  # an administrator has reset it
        or (not locked and source["generation"] != noted["generation"])
        or is_attached(connection, source["id"])
        or has_snapshots(connection, source["id"])
    ):
        raise Conflict("The volume was changed while it was copied; it stays where it was. Try again.")


def give_up(connection: sa.Connection, context: RequestContext, new_id: str) -> str | None:
    """The destination is deleted, if it has not taken the volume's place; its backend's service, to be rung."""
    try:
        row = db_volumes.get(connection, new_id)
    except NotFound:
        return None
    if not is_destination(row) or row["status"] == "deleting":
        return None  # it stands for the old data, or goes already
    arguments = {"cascade": False, "snapshot_ids": []}
    intent = db_volumes.begin(connection, context, row, "volume.force_delete", arguments)
    target: str | None = intent["target"]
    return target


__all__ = [
    "LOCKED",
    "MOVING",
    "add_destination",
    "begin",
    "data_id",
    "failure_of",
    "give_up",
    "has_snapshots",
    "hold",
    "is_attached",
    "is_destination",
    "not_destinations",
    "switch",
    "switched",
]
