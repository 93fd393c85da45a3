"""Metadata definitions: namespaces, what they define, and for which resource types (global database).

A namespace is handed out as a dict of its row with ``associations`` (rows by name).
What it defines are items of a kind, ``OBJECT``, ``PROPERTY`` or ``TAG``: each a dict
of its row, with all that the API shows in ``body``.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exc

from core.errors import BadRequest, Conflict, NotFound
from db import paging
from db.global_schema import (
    metadef_associations,
    metadef_items,
    metadef_namespaces,
    metadef_resource_types,
)
from db.image_filters import Asker
from db.types import now

Row = dict[str, Any]
OBJECT, PROPERTY, TAG = "object", "property", "tag"
WELL_KNOWN_TYPES = (
    "OS::Cinder::Volume",
    "OS::Glance::Image",
    "OS::Nova::Aggregate",
    "OS::Nova::Flavor",
    "OS::Nova::Server",
    "OS::Trove::Instance",
)
"""Resource types that definitions are commonly written for; there without being made."""
NAMESPACE_SORT_KEYS = ("created_at", "updated_at", "namespace", "display_name", "owner", "visibility", "id")
ITEM_SORT_KEYS = ("created_at", "updated_at", "name", "id")
_COLUMNS: dict[str, sa.ColumnElement[Any]] = {column.name: column for column in metadef_namespaces.c}
_ITEM_COLUMNS: dict[str, sa.ColumnElement[Any]] = {column.name: column for column in metadef_items.c}


@dataclasses.dataclass(frozen=True)
class Page:
    """Which part of a list: ``marker`` is the name of the last one that was shown before."""

    sort_key: str = "created_at"
    sort_dir: str = "desc"
    marker: str | None = None
    limit: int | None = None

    def sort(self) -> list[tuple[str, str]]:
        keys = [self.sort_key] if self.sort_key == "id" else [self.sort_key, "id"]
        return [(key, self.sort_dir) for key in keys]


# -- namespaces ----------------------------------------------------------------


def _visible(asker: Asker) -> sa.ColumnElement[bool]:
    if asker.is_admin:
        return sa.true()
    public = metadef_namespaces.c.visibility == "public"
    return public if asker.project_id is None else public | (metadef_namespaces.c.owner == asker.project_id)


def create(connection: sa.Connection, values: Mapping[str, Any]) -> Row:
    """:raises Conflict: there is a namespace of this name, if only in another project."""
    moment = now()
    row = {"id": str(uuid.uuid4()), "created_at": moment, "updated_at": moment, **values}
    try:
        connection.execute(metadef_namespaces.insert().values(**row))
    except db_exc.DBDuplicateEntry as error:
        raise Conflict(f"The metadata definition namespace={values['namespace']} already exists.") from error
    return get(connection, values["namespace"], Asker(None, is_admin=True))


def get(connection: sa.Connection, name: str, asker: Asker) -> Row:
    """:raises NotFound: there is none, or none that the asker may see."""
    statement = sa.select(metadef_namespaces).where(metadef_namespaces.c.namespace == name, _visible(asker))
    row = connection.execute(statement).mappings().first()
    if row is None:
        raise NotFound(f"Metadata definition namespace={name} was not found.")
    return _with_associations(connection, [row])[0]


def list_(
    connection: sa.Connection,
    asker: Asker,
    page: Page,
    visibility: str | None = None,
    resource_types: Sequence[str] = (),
) -> list[Row]:
    """A page of namespaces, with two or three statements. :raises BadRequest: the marker is unknown."""
    statement = sa.select(metadef_namespaces).where(_visible(asker))
    if visibility is not None:
        statement = statement.where(metadef_namespaces.c.visibility == visibility)
    if resource_types:
        meant = sa.select(metadef_associations.c.namespace_id).where(
            metadef_associations.c.name.in_(resource_types)
        )
        statement = statement.where(metadef_namespaces.c.id.in_(meant))
    after = None
    if page.marker is not None:
        found = sa.select(metadef_namespaces).where(
            metadef_namespaces.c.namespace == page.marker, _visible(asker)
        )
        after = connection.execute(found).mappings().first()
        if after is None:
            raise BadRequest(f"No namespace found with name {page.marker}: it can't be the marker.")
    statement = paging.after(statement, _COLUMNS, page.sort(), after, page.limit)
    return _with_associations(connection, connection.execute(statement).mappings().all())


def _with_associations(connection: sa.Connection, rows: Sequence[sa.RowMapping]) -> list[Row]:
    found: dict[str, Row] = {row["id"]: {**row, "associations": []} for row in rows}
    if found:
        statement = (
            sa.select(metadef_associations)
            .where(metadef_associations.c.namespace_id.in_(list(found)))
            .order_by(metadef_associations.c.name)
        )
        for row in connection.execute(statement).mappings():
            found[row["namespace_id"]]["associations"].append(dict(row))
    return list(found.values())


def update(connection: sa.Connection, namespace: Row, values: Mapping[str, Any]) -> Row:
    """:raises Conflict: another namespace has the new name."""
    statement = metadef_namespaces.update().where(metadef_namespaces.c.id == namespace["id"])
    try:
        connection.execute(statement.values(**values, updated_at=now()))
    except db_exc.DBDuplicateEntry as error:
        raise Conflict(f"The metadata definition namespace={values['namespace']} already exists.") from error
    name = values.get("namespace", namespace["namespace"])
    return get(connection, name, Asker(None, is_admin=True))


def delete(connection: sa.Connection, namespace: Row) -> None:
    """The namespace and all that it defines."""
    # not left to ON DELETE: SQLite keeps foreign keys only when it is asked to
    for table in (metadef_items, metadef_associations):
        connection.execute(table.delete().where(table.c.namespace_id == namespace["id"]))
    connection.execute(metadef_namespaces.delete().where(metadef_namespaces.c.id == namespace["id"]))


# -- what a namespace defines --------------------------------------------------


def items(connection: sa.Connection, namespace: Row, kind: str, page: Page | None = None) -> list[Row]:
    """A page of a namespace's items of one kind, or all in the order in which they were made.

    :raises BadRequest: the marker is unknown.
    """
    page = page or Page(sort_dir="asc")
    after = None
    if page.marker is not None:
        after = _item(connection, namespace, kind, page.marker)
        if after is None:
            raise BadRequest(f"No {kind} found with name {page.marker}: it can't be the marker.")
    statement = sa.select(metadef_items).where(
        metadef_items.c.namespace_id == namespace["id"], metadef_items.c.kind == kind
    )
    statement = paging.after(statement, _ITEM_COLUMNS, page.sort(), after, page.limit)
    return [dict(row) for row in connection.execute(statement).mappings()]


def _item(connection: sa.Connection, namespace: Row, kind: str, name: str) -> Row | None:
    statement = sa.select(metadef_items).where(
        metadef_items.c.namespace_id == namespace["id"],
        metadef_items.c.kind == kind,
        metadef_items.c.name == name,
    )
    row = connection.execute(statement).mappings().first()
    return None if row is None else dict(row)


def item(connection: sa.Connection, namespace: Row, kind: str, name: str) -> Row:
    """:raises NotFound:"""
    found = _item(connection, namespace, kind, name)
    if found is None:
        raise NotFound(
            f"The metadata definition {kind} with name={name} was not found in"
            f" namespace={namespace['namespace']}."
        )
    return found


def add_items(
    connection: sa.Connection, namespace: Row, kind: str, bodies: Iterable[tuple[str, Mapping[str, Any]]]
) -> None:
    """Define (name, body) pairs. :raises Conflict: one of the names is taken."""
    moment = now()
    rows = [
        {
            "id": str(uuid.uuid4()),
            "namespace_id": namespace["id"],
            "kind": kind,
            "name": name,
            "body": dict(body),
            "created_at": moment,
            "updated_at": moment,
        }
        for name, body in bodies
    ]
    if not rows:
        return
    try:
        connection.execute(metadef_items.insert(), rows)
    except db_exc.DBDuplicateEntry as error:
        raise Conflict(_taken(kind, rows[0]["name"] if len(rows) == 1 else None, namespace)) from error


def update_item(connection: sa.Connection, namespace: Row, found: Row, name: str, body: Row) -> Row:
    """Replace an item. :raises Conflict: the new name is taken."""
    statement = metadef_items.update().where(metadef_items.c.id == found["id"])
    try:
        connection.execute(statement.values(name=name, body=body, updated_at=now()))
    except db_exc.DBDuplicateEntry as error:
        raise Conflict(_taken(found["kind"], name, namespace)) from error
    return item(connection, namespace, found["kind"], name)


def _taken(kind: str, name: str | None, namespace: Row) -> str:
    which = f" with name={name}" if name else ""
    return f"A metadata definition {kind}{which} already exists in namespace={namespace['namespace']}."


def delete_items(connection: sa.Connection, namespace: Row, kind: str, name: str | None = None) -> None:
    """One item or all of a kind. :raises NotFound: there is none of that name."""
    statement = metadef_items.delete().where(
        metadef_items.c.namespace_id == namespace["id"], metadef_items.c.kind == kind
    )
    if name is None:
        connection.execute(statement)
        return
    found = item(connection, namespace, kind, name)
    connection.execute(statement.where(metadef_items.c.id == found["id"]))


# -- resource types ------------------------------------------------------------


def resource_types(connection: sa.Connection) -> list[Row]:
    """All that were named, and the well-known ones, by name."""
    statement = sa.select(metadef_resource_types)
    found: dict[str, Row] = {name: {"name": name} for name in WELL_KNOWN_TYPES}
    found |= {row["name"]: dict(row) for row in connection.execute(statement).mappings()}
    return [found[name] for name in sorted(found)]


def associate(connection: sa.Connection, namespace: Row, values: Mapping[str, Any]) -> Row:
    """Say that the namespace is for a resource type; a type that nobody has named yet is made.

    :raises Conflict: it was said already.
    """
    moment, name = now(), values["name"]
    known = sa.select(metadef_resource_types.c.name).where(metadef_resource_types.c.name == name)
    if connection.execute(known).first() is None:
        new = metadef_resource_types.insert().values(name=name, created_at=moment, updated_at=moment)
        try:
            with connection.begin_nested():
                connection.execute(new)
        except db_exc.DBDuplicateEntry:
            pass  # someone else named it in this moment
    row = {"namespace_id": namespace["id"], "created_at": moment, "updated_at": moment, **values}
    try:
        connection.execute(metadef_associations.insert().values(**row))
    except db_exc.DBDuplicateEntry as error:
        raise Conflict(
            f"The metadata definition resource-type association of resource-type={name} to"
            f" namespace={namespace['namespace']} already exists."
        ) from error
    return row


def dissociate(connection: sa.Connection, namespace: Row, name: str) -> None:
    """:raises NotFound: it was not associated."""
    statement = metadef_associations.delete().where(
        metadef_associations.c.namespace_id == namespace["id"], metadef_associations.c.name == name
    )
    if not connection.execute(statement).rowcount:
        raise NotFound(
            f"The metadata definition resource-type association of resource-type={name} to"
            f" namespace={namespace['namespace']} was not found."
        )
