"""Imports of image data, as rows: staged data, the intent ``image.import``, and its end (global database).

| image.status | what it means here |
|---|---|
| uploading | data is being staged (a location ``saving``), or is staged (a location ``staged``) |
| importing | an unfinished intent ``image.import``; a copy to further stores leaves the image active |

Each object that an import writes has a location ``saving`` with a lease, as an upload's:
what a killed worker leaves is found by the janitor, and the next attempt begins with a
location of its own.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from core.context import RequestContext
from core.intents import IntentState
from db import intents as db_intents
from db.global_schema import image_locations, image_properties, images, intents
from db.image_filters import Asker
from db.images import Image, deadline, get, update
from db.types import now

Row = dict[str, Any]
KIND, TARGET = "image.import", "image"
IMPORTING, FAILED = "os_glance_importing_to_stores", "os_glance_failed_import"
_FORMATS = ("disk_format", "container_format")
_MEASURED = ("size", "virtual_size", "checksum", "os_hash_algo", "os_hash_value")


def staged(connection: sa.Connection, image_id: str) -> Row | None:
    """The location of an image's staged data."""
    statement = sa.select(image_locations).where(
        image_locations.c.image_id == image_id, image_locations.c.status == "staged"
    )
    row = connection.execute(statement).mappings().first()
    return None if row is None else dict(row)


def finish_staging(connection: sa.Connection, image_id: str, upload_id: str, size: int) -> bool:
    """The data is all there; False: the image was deleted meanwhile."""
    changed = connection.execute(
        images.update()
        .where(images.c.id == image_id, images.c.upload_id == upload_id, images.c.deleted.is_(False))
        .values(upload_id=None, size=size, updated_at=now(), generation=images.c.generation + 1)
    ).rowcount
    if changed:
        connection.execute(
            image_locations.update()
            .where(image_locations.c.id == upload_id)
            .values(status="staged", lease_until=None)
        )
    return bool(changed)


def begin(
    connection: sa.Connection,
    image: Image,
    context: RequestContext,
    request: Mapping[str, Any],
    stores: Sequence[str],
    injected: Mapping[str, str] | None = None,
    signature: Mapping[str, Any] | None = None,
) -> Row:
    """Write the intent; the image shows it. :raises Conflict: another import of it is not finished.

    ``request``: the body of the call; ``stores``: where the data is to go, none of which has it.
    ``injected``: properties that the image gets with it. ``signature``: what its data is verified with,
    {"properties": of the signature, "certificate": base64}.
    :raises StaleGeneration: the image was changed since it was read.
    """
    method = request["method"]["name"]
    row = db_intents.row(
        KIND,
        "image",
        image["id"],
        context,
        {
            "method": method,
            "uri": request["method"].get("uri"),
            "stores": list(stores),
            "must_succeed": bool(request.get("all_stores_must_succeed", True)),
            "request": dict(request),
            # plug-ins change them, and a failure is to change nothing
            "formats": {name: image[name] for name in _FORMATS},
            "signature": signature,
        },
        target=TARGET,
        project_id=image["owner"],
    )
    properties = {**image["properties"], **(injected or {}), IMPORTING: ",".join(stores), FAILED: ""}
    values = {} if method == "copy-image" else {"status": "importing"}
    update(connection, image, values, properties)
    db_intents.insert(connection, intents, [row])
    return row


def add_location(
    connection: sa.Connection, image_id: str, location_id: str, store: str, name: str, lease_s: float
) -> None:
    """Before the first byte: what is going to be in which store."""
    connection.execute(
        image_locations.insert().values(
            id=location_id,
            image_id=image_id,
            store=store,
            name=name,
            status="saving",
            metadata={"store": store},
            lease_until=deadline(lease_s),
            created_at=now(),
        )
    )


def renew(connection: sa.Connection, location_id: str, lease_s: float) -> bool:
    """False: the janitor has given the object up."""
    return bool(
        connection.execute(
            image_locations.update()
            .where(image_locations.c.id == location_id, image_locations.c.status == "saving")
            .values(lease_until=deadline(lease_s))
        ).rowcount
    )


def finish_location(connection: sa.Connection, image_id: str, location_id: str, measured: Row) -> bool:
    """The object is the image's data now; False: the image is deleted, or the janitor was faster."""
    mine = sa.and_(image_locations.c.id == location_id, image_locations.c.status == "saving")
    alive = (
        images.update()
        .where(images.c.id == image_id, images.c.deleted.is_(False))
        .values(**measured, updated_at=now(), generation=images.c.generation + 1)
    )
    done = connection.execute(image_locations.update().where(mine).values(status="active", lease_until=None))
    return bool(done.rowcount) and bool(connection.execute(alive).rowcount)


def drop(
    connection: sa.Connection,
    image_id: str,
    *,
    stores: Sequence[str] = (),
    location_id: str | None = None,
    statuses: Sequence[str] = ("active",),
) -> int:
    """Objects that are not wanted (any more) are to be removed; returns how many."""
    statement = image_locations.update().where(
        image_locations.c.image_id == image_id, image_locations.c.status.in_(statuses)
    )
    if stores:
        statement = statement.where(image_locations.c.store.in_(stores))
    if location_id is not None:
        statement = statement.where(image_locations.c.id == location_id)
    return int(connection.execute(statement.values(status="deleted", lease_until=None)).rowcount)


def end(
    connection: sa.Connection,
    intent: Row,
    state: str,
    outcome: Row,
    error: Row | None,
    moment: datetime.datetime,
) -> None:
    """What the end of an import does to its image: see ``conductor.direct_journal.EndResource``."""
    image_id, arguments = intent["resource_id"], intent["arguments"]
    done = state == IntentState.DONE.value
    values: Row = {"updated_at": moment, "generation": images.c.generation + 1}
    if arguments["method"] != "copy-image":
        values["status"] = "active"
        if not done:
            # what is staged stays: it can be imported again
            direct = arguments["method"] == "glance-direct"
            values["status"] = "uploading" if direct else "queued"
            values |= dict.fromkeys(name for name in _MEASURED if name != "size" or not direct)
            values |= arguments.get("formats", {})
    alive = sa.and_(images.c.id == image_id, images.c.deleted.is_(False))
    if not connection.execute(images.update().where(alive).values(**values)).rowcount:
        return
    if done:
        drop(connection, image_id, statuses=("staged",))
    failed = outcome.get("failed", []) if done else arguments["stores"]
    for name, text in ((IMPORTING, ""), (FAILED, ",".join(failed))):
        connection.execute(
            image_properties.update()
            .where(image_properties.c.image_id == image_id, image_properties.c.name == name)
            .values(value=text, value_key=text[:255])
        )


def remove_from_store(connection: sa.Connection, image: Image, store: str) -> None:
    """One of several stores gives the data up. :raises StaleGeneration: the image was changed."""
    update(connection, image, {})
    drop(connection, image["id"], stores=[store])


def tasks(
    connection: sa.Connection,
    *,
    image_id: str | None = None,
    project_id: str | None = None,
    task_id: str | None = None,
    marker: str | None = None,
    limit: int | None = None,
) -> list[Row]:
    """Intents of imports, newest first; ``marker``: the id of the last one that was shown before."""
    statement = sa.select(intents).where(intents.c.kind == KIND)
    for column, value in (
        (intents.c.resource_id, image_id),
        (intents.c.project_id, project_id),
        (intents.c.id, task_id),
    ):
        if value is not None:
            statement = statement.where(column == value)
    if marker is not None:
        after = sa.select(intents.c.created_at).where(intents.c.id == marker).scalar_subquery()
        same = sa.and_(intents.c.created_at == after, intents.c.id < marker)
        statement = statement.where(sa.or_(intents.c.created_at < after, same))
    statement = statement.order_by(intents.c.created_at.desc(), intents.c.id.desc()).limit(limit)
    return [dict(row) for row in connection.execute(statement).mappings()]


def of_worker(connection: sa.Connection, image_id: str) -> Image:
    """The image as the worker sees it. :raises NotFound: it is deleted."""
    return get(connection, image_id, Asker(None, is_admin=True))
