"""Attachments: who uses a volume, and the volume's status that follows from it.

Every change takes the volume's row first (by a conditional update on its
generation), so two of them on one volume follow one another: a volume that is
not multi-attach is never reserved twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from core.errors import BadRequest
from core.volume_states import ATTACHMENT, AttachmentStatus, volume_status_of
from db import volumes as db_volumes
from db.types import now
from db.volume_base import Row, attachments, find, new_id, update
from db.volume_base import volumes as volumes_table

_FREE = (AttachmentStatus.DETACHED,)
_FOLLOWS = ("available", "reserved", "attaching", "in-use", "detaching", "error_attaching", "error_detaching")
"""Statuses of volumes that say nothing but how they are attached."""


def get(connection: sa.Connection, identifier: str) -> Row:
    """:raises NotFound:"""
    return find(connection, attachments, "Volume attachment", identifier)


def of_volume(connection: sa.Connection, volume_id: str) -> list[Row]:
    """Attachments of a volume that count, oldest first."""
    statement = (
        sa.select(attachments)
        .where(attachments.c.volume_id == volume_id, attachments.c.status.not_in(_FREE))
        .order_by(attachments.c.created_at, attachments.c.id)
    )
    return [dict(row) for row in connection.execute(statement).mappings()]


def reserve(
    connection: sa.Connection,
    volume: Mapping[str, Any],
    values: Mapping[str, Any],
) -> Row:
    """A new attachment of a volume that is free, multi-attach, or the same server's already.

    :raises BadRequest: the volume can't be attached now. :raises Conflict: changed meanwhile.
    """
    mine = values.get("instance_id")
    others = of_volume(connection, volume["id"])
    status = volume["status"]
    same = bool(others) and mine is not None and all(each["instance_id"] == mine for each in others)
    may = (
        ("available", "downloading") if not volume["multiattach"] else ("available", "downloading", "in-use")
    )
    # the status may have been reset by hand: what is attached counts, not what is shown
    taken = bool(others) and not same and not volume["multiattach"]
    if taken or (status not in may and not (same and status in ("in-use", "reserved", "attaching"))):
        raise BadRequest(
            f"Invalid volume: Volume {volume['id']} status must be {' or '.join(may)} to reserve, but it is"
            f" {'attached' if taken else status}.",
            code="haneul.volume.status",
        )
    row: Row = {
        **{column.name: None for column in attachments.columns},
        "id": new_id(),
        "project_id": volume["project_id"],
        "volume_id": volume["id"],
        "status": AttachmentStatus.RESERVED,
        "created_at": now(),
        **values,
    }
    connection.execute(attachments.insert(), [row])
    _follow(connection, volume)
    return row


def move(
    connection: sa.Connection,
    volume: Mapping[str, Any],
    row: Mapping[str, Any],
    to: str,
    values: Mapping[str, Any] | None = None,
) -> None:
    """An attachment to another status. :raises BadRequest: the table of states forbids it."""
    if to != row["status"] and to not in ATTACHMENT[row["status"]]:
        raise BadRequest(
            f"Invalid attachment: attachment {row['id']} is {row['status']} and can't become {to}."
        )
    update(connection, attachments, row["id"], {"status": to, "updated_at": now(), **(values or {})})
    _follow(connection, volume)


def remove(
    connection: sa.Connection, volume: Mapping[str, Any], identifier: str, *, repairs: bool = False
) -> None:
    """The attachment is no more; the volume shows what is left.

    ``repairs``: an administrator detaches by force: what shows ``error``, too, follows its attachments again.
    """
    connection.execute(attachments.delete().where(attachments.c.id == identifier))
    _follow(connection, volume, (*_FOLLOWS, "error") if repairs else _FOLLOWS)


def _follow(
    connection: sa.Connection, volume: Mapping[str, Any], follows: tuple[str, ...] = _FOLLOWS
) -> None:
    """The volume shows what its attachments say; while an intent runs on it, as soon as that has ended."""
    status = volume_status_of(each["status"] for each in of_volume(connection, volume["id"]))
    if volume["status"] in follows:
        db_volumes.move(connection, volume, status)
    else:
        db_volumes.move(connection, volume, volume["status"], {"previous_status": status})


def others_on_host(connection: sa.Connection, row: Mapping[str, Any]) -> bool:
    """Does another attachment of the same volume need the same host's connection?"""
    if not row["attached_host"]:
        return False
    statement = sa.select(attachments.c.id).where(
        attachments.c.volume_id == row["volume_id"],
        attachments.c.id != row["id"],
        attachments.c.attached_host == row["attached_host"],
        attachments.c.status.not_in(_FREE),
    )
    return connection.execute(statement.limit(1)).first() is not None


def volume_for_update(connection: sa.Connection, volume_id: str) -> Row:
    """The volume as ``move`` will find it again, or refuse."""
    return find(connection, volumes_table, "Volume", volume_id)
