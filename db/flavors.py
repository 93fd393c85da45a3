"""Flavors, their extra specs and who may use the private ones (global database).

Functions take a connection; rows come back as mappings of ``global_schema.flavors``.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exc

from core.errors import BadRequest, Conflict, NotFound
from db import paging
from db.global_schema import flavor_projects, flavors
from db.types import now

SORT_KEYS = {
    "created_at": "created_at",
    "description": "description",
    "disabled": "disabled",
    "ephemeral_gb": "ephemeral_gib",
    "flavorid": "flavor_id",
    "id": "id",
    "is_public": "is_public",
    "memory_mb": "memory_mib",
    "name": "name",
    "root_gb": "root_gib",
    "rxtx_factor": "rxtx_factor",
    "swap": "swap_mib",
    "updated_at": "updated_at",
    "vcpu_weight": "id",
    "vcpus": "vcpus",
}


@dataclasses.dataclass(frozen=True)
class Filter:
    """``is_public`` None: all flavors. ``project_id``: also private ones it may use."""

    is_public: bool | None = True
    project_id: str | None = None
    include_disabled: bool = True
    min_memory_mib: int = 0
    min_root_gib: int = 0


def _usable(project_id: str | sa.BindParameter[str] | None) -> sa.ColumnElement[bool]:
    granted = sa.exists().where(
        flavor_projects.c.flavor_id == flavors.c.id,
        flavor_projects.c.project_id == ("" if project_id is None else project_id),
    )
    return sa.or_(flavors.c.is_public.is_(True), granted)


# built once: every POST of a server reads its flavor
_GET = sa.select(flavors).where(flavors.c.flavor_id == sa.bindparam("wanted"))
_GET_USABLE = _GET.where(_usable(sa.bindparam("project_id", type_=sa.String)))


def list_(
    connection: sa.Connection,
    wanted: Filter,
    sort: Sequence[tuple[str, str]] = (("flavor_id", "asc"),),
    marker: str | None = None,
    limit: int | None = None,
) -> Sequence[sa.RowMapping]:
    """One page. :raises BadRequest: the marker is no flavor."""
    statement = sa.select(flavors)
    if wanted.is_public is True:
        statement = statement.where(_usable(wanted.project_id))
    elif wanted.is_public is False:
        statement = statement.where(flavors.c.is_public.is_(False))
    if not wanted.include_disabled:
        statement = statement.where(flavors.c.disabled.is_(False))
    if wanted.min_memory_mib:
        statement = statement.where(flavors.c.memory_mib >= wanted.min_memory_mib)
    if wanted.min_root_gib:
        statement = statement.where(flavors.c.root_gib >= wanted.min_root_gib)
    row = None
    if marker is not None:
        row = connection.execute(sa.select(flavors).where(flavors.c.flavor_id == marker)).mappings().first()
        if row is None:
            raise BadRequest(f"marker [{marker}] not found")
    if "flavor_id" not in [key for key, _ in sort]:
        sort = [*sort, ("flavor_id", "asc")]
    statement = paging.after(statement, dict(flavors.c.items()), sort, row, limit)
    return connection.execute(statement).mappings().all()


def get(
    connection: sa.Connection, flavor_id: str, project_id: str | None = None, *, any_project: bool = False
) -> sa.RowMapping:
    """A flavor by its API id, if ``project_id`` may use it (or ``any_project``). :raises NotFound:"""
    asked = {"wanted": flavor_id} if any_project else {"wanted": flavor_id, "project_id": project_id or ""}
    row = connection.execute(_GET if any_project else _GET_USABLE, asked).mappings().first()
    if row is None:
        raise NotFound(f"Flavor {flavor_id} could not be found.")
    return row


def create(connection: sa.Connection, values: Mapping[str, Any]) -> sa.RowMapping:
    """Insert; without ``flavor_id`` it gets a UUID. :raises Conflict: name or id is taken."""
    values = {"extra_specs": {}, **values, "flavor_id": values.get("flavor_id") or str(uuid.uuid4())}
    taken = connection.execute(
        sa.select(flavors.c.flavor_id, flavors.c.name).where(
            sa.or_(flavors.c.flavor_id == values["flavor_id"], flavors.c.name == values["name"])
        )
    ).all()
    for flavor_id, _ in taken:
        if flavor_id == values["flavor_id"]:
            raise Conflict(f"Flavor with ID {flavor_id} already exists.")
    if taken:
        raise Conflict(f"Flavor with name {values['name']} already exists.")
    try:
        connection.execute(flavors.insert().values(**values))
    except db_exc.DBDuplicateEntry as error:
        # another transaction took the name or the id since we looked
        raise Conflict(f"Flavor with name {values['name']} already exists.", cause=error) from error
    return get(connection, values["flavor_id"], any_project=True)


def update(connection: sa.Connection, flavor_id: str, values: Mapping[str, Any]) -> sa.RowMapping:
    """:raises NotFound:"""
    connection.execute(
        flavors.update().where(flavors.c.flavor_id == flavor_id).values(updated_at=now(), **values)
    )
    return get(connection, flavor_id, any_project=True)


def delete(connection: sa.Connection, flavor_id: str) -> None:
    """Servers keep the copy of the flavor that they were made with. :raises NotFound:"""
    if not connection.execute(flavors.delete().where(flavors.c.flavor_id == flavor_id)).rowcount:
        raise NotFound(f"Flavor {flavor_id} could not be found.")


def change_extra_specs(
    connection: sa.Connection, flavor_id: str, set_: Mapping[str, str], remove: Sequence[str] = ()
) -> dict[str, str]:
    """Set and remove keys; the row is locked, so that two changes at once both last.

    :raises NotFound: no such flavor, or a key to remove that it does not have.
    """
    row = (
        connection.execute(sa.select(flavors).where(flavors.c.flavor_id == flavor_id).with_for_update())
        .mappings()
        .first()
    )
    if row is None:
        raise NotFound(f"Flavor {flavor_id} could not be found.")
    specs = {**row["extra_specs"], **set_}
    for key in remove:
        if key not in specs:
            raise NotFound(f"Flavor {flavor_id} has no extra specs with key {key}.")
        del specs[key]
    connection.execute(
        flavors.update()
        .where(flavors.c.id == row["id"])
        .values(extra_specs=specs, updated_at=now(), generation=flavors.c.generation + 1)
    )
    return specs


def projects(connection: sa.Connection, row: sa.RowMapping) -> list[str]:
    """The projects that may use a private flavor."""
    statement = sa.select(flavor_projects.c.project_id).where(flavor_projects.c.flavor_id == row["id"])
    return list(connection.execute(statement.order_by(flavor_projects.c.project_id)).scalars())


def add_project(connection: sa.Connection, row: sa.RowMapping, project_id: str) -> None:
    """:raises Conflict: it may already."""
    try:
        connection.execute(flavor_projects.insert().values(flavor_id=row["id"], project_id=project_id))
    except db_exc.DBDuplicateEntry as error:
        raise Conflict(
            f"Flavor access already exists for flavor {row['flavor_id']} and project {project_id} combination."
        ) from error


def remove_project(connection: sa.Connection, row: sa.RowMapping, project_id: str) -> None:
    """:raises NotFound: it may not."""
    removed = connection.execute(
        flavor_projects.delete().where(
            flavor_projects.c.flavor_id == row["id"], flavor_projects.c.project_id == project_id
        )
    ).rowcount
    if not removed:
        raise NotFound(f"Flavor access not found for {row['flavor_id']} / {project_id} combination.")
