"""Images, their properties, tags and members (global database).

An image is handed out as a dict: the columns of its row, ``properties`` {name:
value}, ``tags`` (sorted), ``locations`` (rows of active objects), and ``is_member``:
whether the asker is a member of it.

Changes are optimistic: ``update`` names the generation that was read, and raises
StaleGeneration when someone else was faster.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exc

from core.errors import BadRequest, Conflict, NotFound, StaleGeneration
from db import intents as db_intents
from db import paging
from db.global_schema import (
    image_locations,
    image_members,
    image_properties,
    image_tags,
    images,
    intents,
)
from db.image_filters import Asker, conditions, listed, visible
from db.image_schema import PROPERTY_KEY_LENGTH
from db.types import now

Image = dict[str, Any]
KEY_POLICY = "cinder_encryption_key_deletion_policy"
"""The property that says whether an encrypted image's key goes with it."""
_COLUMNS: dict[str, sa.ColumnElement[Any]] = {column.name: column for column in images.c}


def create(
    connection: sa.Connection, values: Mapping[str, Any], properties: Mapping[str, Any], tags: Iterable[str]
) -> Image:
    """A new image in status queued. :raises Conflict: the id was used before."""
    moment = now()
    row = {"status": "queued", "created_at": moment, "updated_at": moment, **values}
    try:
        connection.execute(images.insert().values(**row))
    except db_exc.DBDuplicateEntry as error:
        raise Conflict(f"Image ID {row['id']} already exists!") from error
    _write_properties(connection, row["id"], properties)
    _write_tags(connection, row["id"], tags)
    return get(connection, row["id"], Asker(None, is_admin=True))


def get(connection: sa.Connection, image_id: str, asker: Asker) -> Image:
    """:raises NotFound: there is none, or none that the asker may see."""
    statement = sa.select(images).where(images.c.id == image_id, images.c.deleted.is_(False), visible(asker))
    row = connection.execute(statement).mappings().first()
    if row is None:
        raise NotFound(f"No image found with ID {image_id}")
    return _complete(connection, [row], asker)[0]


def checksums(connection: sa.Connection, image_ids: Sequence[str]) -> dict[str, str | None]:
    """{image id: md5} of those that exist."""
    statement = sa.select(images.c.id, images.c.checksum).where(images.c.id.in_(image_ids))
    return {row.id: row.checksum for row in connection.execute(statement)}


def list_(
    connection: sa.Connection,
    asker: Asker,
    *,
    filters: Mapping[str, str],
    tags: Sequence[str] = (),
    visibility: str | None = None,
    member_status: str = "accepted",
    sort: Sequence[tuple[str, str]],
    marker: str | None,
    limit: int,
) -> list[Image]:
    """A page of images; the number of statements does not depend on how many there are.

    ``sort``: ((column, "asc" | "desc"), …), ending in id.
    :raises BadRequest: a filter's value can't be, or the marker is not to be seen.
    """
    statement = sa.select(images).where(
        images.c.deleted.is_(False),
        visible(asker, member_status),
        listed(asker, visibility),
        *conditions(filters, tags),
    )
    after = None
    if marker is not None:
        found = sa.select(images).where(images.c.id == marker, images.c.deleted.is_(False), visible(asker))
        after = connection.execute(found).mappings().first()
        if after is None:
            raise BadRequest(f"No image found with ID {marker}: it can't be the marker.")
    statement = paging.after(statement, _COLUMNS, sort, after, limit)
    return _complete(connection, connection.execute(statement).mappings().all(), asker)


def _complete(connection: sa.Connection, rows: Sequence[sa.RowMapping], asker: Asker) -> list[Image]:
    """Add properties, tags, locations and membership: four statements for any number of images."""
    found: dict[str, Image] = {
        row["id"]: {**row, "properties": {}, "tags": [], "locations": [], "is_member": False} for row in rows
    }
    if not found:
        return []
    ids = list(found)
    for image_id, name, value in connection.execute(
        sa.select(image_properties.c.image_id, image_properties.c.name, image_properties.c.value).where(
            image_properties.c.image_id.in_(ids)
        )
    ):
        found[image_id]["properties"][name] = value
    for image_id, tag in connection.execute(
        sa.select(image_tags.c.image_id, image_tags.c.tag)
        .where(image_tags.c.image_id.in_(ids))
        .order_by(image_tags.c.tag)
    ):
        found[image_id]["tags"].append(tag)
    for location in connection.execute(
        sa.select(image_locations)
        .where(image_locations.c.image_id.in_(ids), image_locations.c.status == "active")
        .order_by(image_locations.c.created_at, image_locations.c.id)
    ).mappings():
        found[location["image_id"]]["locations"].append(dict(location))
    if asker.project_id is not None:
        member = sa.select(image_members.c.image_id).where(
            image_members.c.image_id.in_(ids), image_members.c.member_id == asker.project_id
        )
        for image_id in connection.execute(member).scalars():
            found[image_id]["is_member"] = True
    return list(found.values())


def update(
    connection: sa.Connection,
    image: Image,
    values: Mapping[str, Any],
    properties: Mapping[str, Any] | None = None,
    tags: Iterable[str] | None = None,
) -> None:
    """Change an image that was read at ``image["generation"]``.

    ``properties`` and ``tags`` replace all there were, unless None.
    :raises StaleGeneration: it was changed or deleted meanwhile.
    """
    statement = (
        images.update()
        .where(
            images.c.id == image["id"],
            images.c.generation == image["generation"],
            images.c.deleted.is_(False),
        )
        .values(**values, generation=image["generation"] + 1, updated_at=now())
    )
    if not connection.execute(statement).rowcount:
        raise StaleGeneration(f"Image {image['id']} was changed meanwhile.")
    if properties is not None and properties != image["properties"]:
        connection.execute(image_properties.delete().where(image_properties.c.image_id == image["id"]))
        _write_properties(connection, image["id"], properties)
    if tags is not None:
        connection.execute(image_tags.delete().where(image_tags.c.image_id == image["id"]))
        _write_tags(connection, image["id"], tags)


def _write_properties(connection: sa.Connection, image_id: str, properties: Mapping[str, Any]) -> None:
    rows = [
        {
            "image_id": image_id,
            "name": name,
            "value": value,
            "value_key": None if value is None else value[:PROPERTY_KEY_LENGTH],
        }
        for name, value in properties.items()
    ]
    if rows:
        try:
            connection.execute(image_properties.insert(), rows)
        except db_exc.DBDuplicateEntry as error:
            # MariaDB takes names that differ in trailing blanks for the same
            raise BadRequest("Two properties have the same name.") from error


def _write_tags(connection: sa.Connection, image_id: str, tags: Iterable[str]) -> None:
    rows = [{"image_id": image_id, "tag": tag} for tag in sorted(set(tags))]
    if rows:
        try:
            connection.execute(image_tags.insert(), rows)
        except db_exc.DBDuplicateEntry as error:
            raise BadRequest("Two tags are the same.") from error


def add_tag(connection: sa.Connection, image: Image, tag: str) -> None:
    if tag not in image["tags"]:
        update(connection, image, {}, tags=[*image["tags"], tag])


def remove_tag(connection: sa.Connection, image: Image, tag: str) -> None:
    """:raises NotFound: the image has no such tag."""
    if tag not in image["tags"]:
        raise NotFound(f"Image {image['id']} has no tag {tag}.")
    update(connection, image, {}, tags=[found for found in image["tags"] if found != tag])


def delete(connection: sa.Connection, image: Image) -> None:
    """Delete an image; its objects are marked to be removed in the same transaction.

    An upload that goes on keeps its location: whoever sends it, or the janitor
    after it, ends it.
    :raises StaleGeneration: it was changed or deleted meanwhile.
    """
    moment = now()
    update(connection, image, {"status": "deleted", "deleted": True, "deleted_at": moment, "upload_id": None})
    # what says that a key goes with the image stays until the key is gone (``keys_to_remove``)
    kept = image_properties.c.name != KEY_POLICY
    connection.execute(image_properties.delete().where(image_properties.c.image_id == image["id"], kept))
    for table in (image_tags, image_members):
        connection.execute(table.delete().where(table.c.image_id == image["id"]))
    connection.execute(
        image_locations.update()
        .where(image_locations.c.image_id == image["id"], image_locations.c.status.in_(("active", "staged")))
        .values(status="deleted")
    )
    db_intents.overtake(connection, intents, image["id"])


def keys_to_remove(connection: sa.Connection, image_id: str | None = None) -> list[tuple[str, bool]]:
    """Of deleted images that had a key: (id, does the key go with the image?)."""
    statement = (
        sa.select(images.c.id, image_properties.c.value)
        .select_from(image_properties.join(images, image_properties.c.image_id == images.c.id))
        .where(image_properties.c.name == KEY_POLICY, images.c.deleted.is_(True))
    )
    if image_id is not None:
        statement = statement.where(images.c.id == image_id)
    return [(row.id, row.value == "on_image_deletion") for row in connection.execute(statement)]


def forget_key(connection: sa.Connection, image_id: str) -> None:
    """The key of a deleted image is gone, or stays for good."""
    connection.execute(image_properties.delete().where(image_properties.c.image_id == image_id))


def usage(connection: sa.Connection, project_id: str) -> dict[str, int]:
    """What a project has: ``images``, ``uploading``, ``bytes`` in stores, and bytes that are ``staged``."""
    own = sa.and_(images.c.owner == project_id, images.c.deleted.is_(False))
    counted = connection.execute(
        sa.select(
            sa.func.count(),
            sa.func.coalesce(
                sa.func.sum(sa.case((images.c.status.in_(("saving", "uploading", "importing")), 1), else_=0)),
                0,
            ),
        ).where(own)
    ).one()
    sizes = connection.execute(
        sa.select(image_locations.c.status, sa.func.coalesce(sa.func.sum(images.c.size), 0))
        .select_from(images.join(image_locations, image_locations.c.image_id == images.c.id))
        .where(own, image_locations.c.status.in_(("active", "staged")))
        .group_by(image_locations.c.status)
    )
    stored = {status: int(size) for status, size in sizes}
    return {
        "images": int(counted[0]),
        "uploading": int(counted[1]),
        "bytes": stored.get("active", 0),
        "staged": stored.get("staged", 0),
    }


def members(connection: sa.Connection, image_id: str, only: str | None = None) -> list[dict[str, Any]]:
    """The members of an image, oldest first; ``only`` that project."""
    statement = (
        sa.select(image_members)
        .where(image_members.c.image_id == image_id)
        .order_by(image_members.c.created_at, image_members.c.member_id)
    )
    if only is not None:
        statement = statement.where(image_members.c.member_id == only)
    return [dict(row) for row in connection.execute(statement).mappings()]


def add_member(connection: sa.Connection, image_id: str, member_id: str) -> dict[str, Any]:
    """:raises Conflict: it is one already."""
    moment = now()
    row = {
        "image_id": image_id,
        "member_id": member_id,
        "status": "pending",
        "created_at": moment,
        "updated_at": moment,
    }
    try:
        connection.execute(image_members.insert().values(**row))
    except db_exc.DBDuplicateEntry as error:
        raise Conflict(f"Member {member_id} is duplicated for image {image_id}") from error
    return row


def set_member_status(
    connection: sa.Connection, image_id: str, member_id: str, status: str
) -> dict[str, Any]:
    """:raises NotFound: it is no member."""
    connection.execute(
        image_members.update()
        .where(image_members.c.image_id == image_id, image_members.c.member_id == member_id)
        .values(status=status, updated_at=now())
    )
    found = members(connection, image_id, member_id)
    if not found:
        raise NotFound(f"{member_id} not found in the member list of the image {image_id}.")
    return found[0]


def remove_member(connection: sa.Connection, image_id: str, member_id: str) -> None:
    """:raises NotFound: it is no member."""
    statement = image_members.delete().where(
        image_members.c.image_id == image_id, image_members.c.member_id == member_id
    )
    if not connection.execute(statement).rowcount:
        raise NotFound(f"{member_id} not found in the member list of the image {image_id}.")


def deadline(seconds: float) -> datetime.datetime:
    """The moment in so many seconds, as ``Time`` columns hold it."""
    return now() + datetime.timedelta(seconds=seconds)
