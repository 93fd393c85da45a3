"""Volumes: writing them with their intents, lists, counts, sums."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from core import volume_states
from core.context import RequestContext
from core.errors import BadRequest, StaleGeneration
from db import intents as db_intents
from db.types import now
from db.volume_base import (
    Condition,
    Row,
    Sort,
    attachments,
    by_ids,
    count,
    find,
    intents,
    new_id,
    page,
    snapshots,
    volumes,
)


def get(connection: sa.Connection, identifier: str, *where: Condition) -> Row:
    """:raises NotFound:"""
    return find(connection, volumes, "Volume", identifier, *where)


def list_(
    connection: sa.Connection,
    conditions: Sequence[Condition],
    sort: Sort,
    marker: str | None,
    limit: int | None,
    offset: int = 0,
) -> list[Row]:
    """One page. :raises NotFound: the marker is no volume."""
    return page(connection, volumes, conditions, sort, marker, limit, offset, "Volume")


def count_(connection: sa.Connection, conditions: Sequence[Condition]) -> int:
    return count(connection, volumes, conditions)


def summary(connection: sa.Connection, conditions: Sequence[Condition]) -> tuple[int, int]:
    """(how many, GiB in all)"""
    size = sa.func.coalesce(sa.func.sum(volumes.c.size_gib), 0)
    number, total = connection.execute(sa.select(sa.func.count(), size).where(*conditions)).one()
    return int(number), int(total)


def metadata_values(connection: sa.Connection, conditions: Sequence[Condition]) -> dict[str, list[str]]:
    """{key: values} over all volumes that fit."""
    found: dict[str, list[str]] = {}
    statement = sa.select(volumes.c.metadata).where(*conditions)
    for (metadata,) in connection.execute(statement.order_by(volumes.c.created_at, volumes.c.id)):
        for key, value in metadata.items():
            values = found.setdefault(key, [])
            if value not in values:
                values.append(value)
    return found


def new_row(context: RequestContext, values: Mapping[str, Any]) -> Row:
    """A volume not yet written, with every column."""
    row: Row = {column.name: None for column in volumes.columns}
    row.update(
        id=new_id(),
        project_id=context.project_id,
        user_id=context.user_id,
        status="creating",
        bootable=False,
        multiattach=False,
        encrypted=False,
        use_quota=True,
        metadata={},
        admin_metadata={},
        image_metadata={},
        generation=0,
        created_at=now(),
    )
    return {**row, **values}


def insert(connection: sa.Connection, rows: Sequence[Row]) -> None:
    connection.execute(volumes.insert(), list(rows))


def update(connection: sa.Connection, identifier: str, values: Mapping[str, Any]) -> None:
    """Change columns without an intent."""
    connection.execute(
        volumes.update()
        .where(volumes.c.id == identifier)
        .values(updated_at=now(), generation=volumes.c.generation + 1, **values)
    )


def move(
    connection: sa.Connection,
    row: Mapping[str, Any],
    to: str,
    values: Mapping[str, Any] | None = None,
    *,
    also_if: Sequence[str] = (),
) -> None:
    """The status from what was read to ``to``, unless someone else changed it meanwhile.

    :raises StaleGeneration: it is not what it was.
    """
    statuses = [row["status"], *also_if]
    done = connection.execute(
        volumes.update()
        .where(
            volumes.c.id == row["id"],
            volumes.c.status.in_(statuses),
            volumes.c.generation == row["generation"],
        )
        .values(status=to, updated_at=now(), generation=volumes.c.generation + 1, **(values or {}))
    )
    if done.rowcount != 1:
        raise StaleGeneration(f"Volume {row['id']} was changed meanwhile. Try again.")


def begin(
    connection: sa.Connection,
    context: RequestContext,
    row: Mapping[str, Any],
    kind: str,
    arguments: Mapping[str, Any],
    *,
    values: Mapping[str, Any] | None = None,
    shows: str | None = None,
    target: str | None = None,
) -> Row:
    """Write an intent on a volume and what the volume shows meanwhile; returns the intent.

    The state table is asked first. ``shows`` instead of the table's.

    :raises BadRequest: the status forbids it. :raises Conflict: something runs already.
    """
    transition = volume_states.check("volume", kind, row["id"], row["status"])
    if transition.overtakes:
        db_intents.overtake(connection, intents, row["id"])
    intent = db_intents.row(
        kind,
        "volume",
        row["id"],
        context,
        arguments,
        target=target if target is not None else service_of(row["host"]),
        project_id=row["project_id"],
    )
    db_intents.insert(connection, intents, [intent])
    shown = shows or transition.shows or row["status"]
    before = row["previous_status"] if row["status"] == shown else row["status"]
    move(connection, row, shown, {"previous_status": before, **(values or {})})
    return intent


def service_of(pool: str | None) -> str | None:
    """``host@backend`` of ``host@backend#pool``."""
    return None if pool is None else pool.partition("#")[0]


def attachments_of(connection: sa.Connection, ids: Iterable[str]) -> dict[str, list[Row]]:
    """{volume id: its attachments, oldest first}"""
    found: dict[str, list[Row]] = {}
    rows = by_ids(connection, attachments, ids, "volume_id")
    for row in sorted(rows, key=lambda each: (each["created_at"], each["id"])):
        found.setdefault(row["volume_id"], []).append(row)
    return found


def snapshots_of(connection: sa.Connection, identifier: str) -> list[Row]:
    statement = sa.select(snapshots).where(snapshots.c.volume_id == identifier)
    rows = connection.execute(statement.order_by(snapshots.c.created_at)).mappings()
    return [dict(row) for row in rows]


def refuse_attached(connection: sa.Connection, identifier: str) -> None:
    """:raises BadRequest: something is attached or about to be."""
    statement = sa.select(attachments.c.id).where(
        attachments.c.volume_id == identifier,
        attachments.c.status.not_in(["detached", "error_attaching"]),
    )
    if connection.execute(statement.limit(1)).first() is not None:
        raise BadRequest(
            f"Invalid volume: volume {identifier} is attached: detach it first.",
            code="haneul.volume.attached",
        )
