"""Volume types: who may see which, extra specs, access, encryption, QoS, defaults.

``visible`` says which types a project may use: public ones, and private ones that
it was given access to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exc

from core.errors import BadRequest, Conflict, NotFound
from db.types import now
from db.volume_base import (
    Condition,
    Row,
    Sort,
    by_ids,
    default_types,
    encryptions,
    find,
    new_id,
    page,
    qos_specs,
    type_projects,
    types,
    volumes,
)

DEFAULT_NAME = "__DEFAULT__"
"""The type of volumes for which nobody asked for one: upstream's name for it."""


def visible(project_id: str | None) -> Condition:
    """The types that a project may see."""
    given = sa.exists().where(type_projects.c.type_id == types.c.id, type_projects.c.project_id == project_id)
    return sa.or_(types.c.is_public.is_(True), given)


def get(connection: sa.Connection, identifier: str, *where: Condition) -> Row:
    """A type by id. :raises NotFound:"""
    return find(connection, types, "Volume type", identifier, *where)


def by_name_or_id(connection: sa.Connection, text: str, *where: Condition) -> Row:
    """A type as requests name it. :raises NotFound:"""
    statement = sa.select(types).where(sa.or_(types.c.id == text, types.c.name == text), *where)
    found = connection.execute(statement).mappings().all()
    if not found:
        raise NotFound(f"Volume type with name {text} could not be found.")
    # an id wins over another type that carries it as its name
    return dict(min(found, key=lambda row: row["id"] != text))


def names(connection: sa.Connection, ids: Sequence[str]) -> dict[str, str]:
    """{type id: name}"""
    return {row["id"]: row["name"] for row in by_ids(connection, types, ids)}


def list_(
    connection: sa.Connection,
    conditions: Sequence[Condition],
    sort: Sort,
    marker: str | None,
    limit: int | None,
    offset: int = 0,
) -> list[Row]:
    return page(connection, types, conditions, sort, marker, limit, offset, "Volume type")


def create(connection: sa.Connection, values: Mapping[str, Any], projects: Sequence[str] = ()) -> Row:
    """:raises Conflict: there is a type of this name."""
    row = {"id": new_id(), "created_at": now(), "qos_specs_id": None, "updated_at": None, **values}
    try:
        connection.execute(types.insert(), [row])
    except db_exc.DBDuplicateEntry as error:
        raise Conflict(f"Volume Type {values['name']} already exists.", cause=error) from error
    for project_id in projects:
        connection.execute(type_projects.insert().values(type_id=row["id"], project_id=project_id))
    return row


def ensure_default(connection: sa.Connection) -> Row:
    """The type of volumes that name none; made when there is none yet."""
    statement = sa.select(types).where(types.c.name == DEFAULT_NAME)
    row = connection.execute(statement).mappings().first()
    if row is not None:
        return dict(row)
    values = {
        "name": DEFAULT_NAME,
        "description": "Default Volume Type",
        "is_public": True,
        "extra_specs": {},
    }
    try:
        with connection.begin_nested():
            return create(connection, values)
    except Conflict:
        return dict(connection.execute(statement).mappings().one())


def change(connection: sa.Connection, identifier: str, values: Mapping[str, Any]) -> None:
    """:raises Conflict: the new name is another type's."""
    try:
        connection.execute(types.update().where(types.c.id == identifier).values(updated_at=now(), **values))
    except db_exc.DBDuplicateEntry as error:
        raise Conflict(f"Volume Type {values['name']} already exists.", cause=error) from error


def in_use(connection: sa.Connection, identifier: str) -> bool:
    """Has any volume this type?"""
    statement = sa.select(sa.literal(1)).select_from(volumes).where(volumes.c.type_id == identifier).limit(1)
    return connection.execute(statement).first() is not None


def delete(connection: sa.Connection, identifier: str) -> None:
    """:raises BadRequest: volumes have it, or it is somebody's default."""
    if in_use(connection, identifier):
        raise BadRequest("Target volume type is still in use.")
    defaults = sa.select(default_types).where(default_types.c.type_id == identifier).limit(1)
    if connection.execute(defaults).first() is not None:
        raise BadRequest(f"Volume type {identifier} is the default of a project: unset that first.")
    try:
        connection.execute(types.delete().where(types.c.id == identifier))
    except db_exc.DBReferenceError as error:
        raise BadRequest("Target volume type is still in use.", cause=error) from error


# -- access ------------------------------------------------------------------


def projects_of(connection: sa.Connection, identifier: str) -> list[str]:
    statement = sa.select(type_projects.c.project_id).where(type_projects.c.type_id == identifier)
    return list(connection.execute(statement.order_by(type_projects.c.project_id)).scalars())


def may_use(connection: sa.Connection, row: Mapping[str, Any], project_id: str) -> bool:
    return bool(row["is_public"]) or project_id in projects_of(connection, row["id"])


def add_project(connection: sa.Connection, identifier: str, project_id: str) -> None:
    """:raises Conflict: it has access already."""
    try:
        connection.execute(type_projects.insert().values(type_id=identifier, project_id=project_id))
    except db_exc.DBDuplicateEntry as error:
        raise Conflict(
            f"Volume type access for {identifier} / {project_id} combination already exists.", cause=error
        ) from error


def remove_project(connection: sa.Connection, identifier: str, project_id: str) -> None:
    """:raises NotFound: it has none."""
    where = sa.and_(type_projects.c.type_id == identifier, type_projects.c.project_id == project_id)
    if not connection.execute(type_projects.delete().where(where)).rowcount:
        raise NotFound(f"Volume type access not found for {identifier} / {project_id} combination.")


# -- encryption --------------------------------------------------------------


def encryption(connection: sa.Connection, type_id: str) -> Row | None:
    found = (
        connection.execute(sa.select(encryptions).where(encryptions.c.type_id == type_id)).mappings().first()
    )
    return None if found is None else dict(found)


def encryptions_of(connection: sa.Connection, type_ids: Sequence[str]) -> dict[str, Row]:
    """{type id: encryption}"""
    return {row["type_id"]: row for row in by_ids(connection, encryptions, type_ids, "type_id")}


def create_encryption(connection: sa.Connection, type_id: str, values: Mapping[str, Any]) -> Row:
    """:raises BadRequest: there is one."""
    row = {"id": new_id(), "type_id": type_id, "created_at": now(), "updated_at": None, **values}
    try:
        connection.execute(encryptions.insert(), [row])
    except db_exc.DBDuplicateEntry as error:
        raise BadRequest(f"Volume type encryption for type {type_id} already exists.", cause=error) from error
    return row


def change_encryption(connection: sa.Connection, type_id: str, values: Mapping[str, Any]) -> None:
    statement = encryptions.update().where(encryptions.c.type_id == type_id)
    connection.execute(statement.values(updated_at=now(), **values))


def delete_encryption(connection: sa.Connection, type_id: str) -> None:
    connection.execute(encryptions.delete().where(encryptions.c.type_id == type_id))


# -- defaults ----------------------------------------------------------------


def defaults(connection: sa.Connection, project_id: str | None = None) -> dict[str, str]:
    """{project id: type id}"""
    statement = sa.select(default_types.c.project_id, default_types.c.type_id)
    if project_id is not None:
        statement = statement.where(default_types.c.project_id == project_id)
    rows = connection.execute(statement.order_by(default_types.c.project_id)).tuples()
    return dict(rows.all())


def set_default(connection: sa.Connection, project_id: str, type_id: str | None) -> None:
    """None: unset."""
    connection.execute(default_types.delete().where(default_types.c.project_id == project_id))
    if type_id is not None:
        connection.execute(default_types.insert().values(project_id=project_id, type_id=type_id))


# -- QoS specs ---------------------------------------------------------------


def qos(connection: sa.Connection, identifier: str) -> Row:
    return find(connection, qos_specs, "QoS specs", identifier)


def list_qos(
    connection: sa.Connection,
    conditions: Sequence[Condition],
    sort: Sort,
    marker: str | None,
    limit: int | None,
    offset: int = 0,
) -> list[Row]:
    return page(connection, qos_specs, conditions, sort, marker, limit, offset, "QoS specs")


def create_qos(connection: sa.Connection, values: Mapping[str, Any]) -> Row:
    """:raises Conflict: the name is taken."""
    row = {"id": new_id(), "created_at": now(), "updated_at": None, **values}
    try:
        connection.execute(qos_specs.insert(), [row])
    except db_exc.DBDuplicateEntry as error:
        raise Conflict(f"QoS Specs {values['name']} already exists.", cause=error) from error
    return row


def change_qos(connection: sa.Connection, identifier: str, values: Mapping[str, Any]) -> None:
    connection.execute(
        qos_specs.update().where(qos_specs.c.id == identifier).values(updated_at=now(), **values)
    )


def associated(connection: sa.Connection, qos_id: str) -> list[Row]:
    """The types with these QoS specs."""
    statement = sa.select(types).where(types.c.qos_specs_id == qos_id).order_by(types.c.name)
    return [dict(row) for row in connection.execute(statement).mappings()]


def disassociate_all(connection: sa.Connection, qos_id: str) -> None:
    connection.execute(types.update().where(types.c.qos_specs_id == qos_id).values(qos_specs_id=None))


def delete_qos(connection: sa.Connection, identifier: str, force: bool) -> None:
    """:raises BadRequest: types have it and ``force`` is not given."""
    if associated(connection, identifier):
        if not force:
            raise BadRequest(f"QoS Specs {identifier} is still associated with entities.")
        disassociate_all(connection, identifier)
    connection.execute(qos_specs.delete().where(qos_specs.c.id == identifier))
