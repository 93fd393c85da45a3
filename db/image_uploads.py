"""Uploads of image data, as rows: begun, kept alive, ended once (global database).

An upload is no intent of the journal: its bytes come from a client's connection, so
no other worker could go on with it.  What it shares with one is the record that is
written before the outside effect (a row of ``image_locations``), a lease, and a
fence: the image names the upload that may end it, and an end by any other changes
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from core.errors import Conflict
from db.global_schema import image_locations, images
from db.images import Image, deadline
from db.types import now


def begin(
    connection: sa.Connection,
    image: Image,
    upload_id: str,
    store: str,
    name: str,
    lease_seconds: float,
    status: str = "saving",
) -> None:
    """queued → saving, or uploading if the data is to be staged. :raises Conflict: the image is not queued (any more)."""
    moment = now()
    changed = connection.execute(
        images.update()
        .where(images.c.id == image["id"], images.c.status == "queued", images.c.deleted.is_(False))
        .values(status=status, upload_id=upload_id, updated_at=moment, generation=images.c.generation + 1)
    ).rowcount
    if not changed:
        raise Conflict(f"Image status transition from {image['status']} to {status} is not allowed.")
    connection.execute(
        image_locations.insert().values(
            id=upload_id,
            image_id=image["id"],
            store=store,
            name=name,
            status="saving",
            metadata={"store": store},
            lease_until=deadline(lease_seconds),
            created_at=moment,
        )
    )


def renew(connection: sa.Connection, image_id: str, upload_id: str, lease_seconds: float) -> bool:
    """Keep an upload alive; False: the image no longer waits for it."""
    waiting = connection.execute(sa.select(images.c.id).where(_mine(image_id, upload_id))).first()
    renewed = connection.execute(
        image_locations.update()
        .where(image_locations.c.id == upload_id, image_locations.c.status == "saving")
        .values(lease_until=deadline(lease_seconds))
    ).rowcount
    return waiting is not None and bool(renewed)


def finish(connection: sa.Connection, image_id: str, upload_id: str, values: Mapping[str, Any]) -> bool:
    """saving → active with what was measured; False: the image no longer waits for it."""
    changed = connection.execute(
        images.update()
        .where(_mine(image_id, upload_id))
        .values(
            status="active",
            upload_id=None,
            updated_at=now(),
            generation=images.c.generation + 1,
            **values,
        )
    ).rowcount
    if not changed:
        return False
    connection.execute(
        image_locations.update()
        .where(image_locations.c.id == upload_id)
        .values(status="active", lease_until=None)
    )
    return True


def fail(connection: sa.Connection, image_id: str, upload_id: str) -> None:
    """saving → queued; the object, or what there is of it, is to be removed. Harmless twice."""
    connection.execute(
        images.update()
        .where(_mine(image_id, upload_id))
        .values(
            status="queued",
            upload_id=None,
            size=None,
            virtual_size=None,
            updated_at=now(),
            generation=images.c.generation + 1,
        )
    )
    connection.execute(
        image_locations.update()
        .where(image_locations.c.id == upload_id, image_locations.c.status == "saving")
        .values(status="deleted", lease_until=None)
    )


def abandoned(connection: sa.Connection, limit: int = 100) -> list[dict[str, Any]]:
    """Locations of uploads whose lease ran out."""
    statement = (
        sa.select(image_locations)
        .where(image_locations.c.status == "saving", image_locations.c.lease_until < now())
        .order_by(image_locations.c.lease_until)
        .limit(limit)
    )
    return [dict(row) for row in connection.execute(statement).mappings()]


def to_remove(
    connection: sa.Connection, image_id: str | None = None, limit: int = 100
) -> list[dict[str, Any]]:
    """Locations whose object is to be removed."""
    statement = sa.select(image_locations).where(image_locations.c.status == "deleted").limit(limit)
    if image_id is not None:
        statement = statement.where(image_locations.c.image_id == image_id)
    return [dict(row) for row in connection.execute(statement).mappings()]


def forget(connection: sa.Connection, location_id: str) -> None:
    """The object is gone: drop its row."""
    connection.execute(
        image_locations.delete().where(
            image_locations.c.id == location_id, image_locations.c.status == "deleted"
        )
    )


def _mine(image_id: str, upload_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(
        images.c.id == image_id,
        images.c.upload_id == upload_id,
        images.c.status.in_(("saving", "uploading")),
        images.c.deleted.is_(False),
    )
