"""What the tables of the Network API share: finding, listing, tags, sharing, revisions.

A ``Model`` says for one kind of object which attribute of the API is which column
or SQL condition; ``page`` turns filters, sort keys and markers into one statement.
Children (tags, addresses, rules, …) are read with one more statement per kind of
child, however long the page: ``Model.expand``.
"""

from __future__ import annotations

import dataclasses
import datetime
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from core.errors import Conflict
from db import network_changes, paging
from db.global_schema import global_metadata
from db.network_errors import bad_request, not_found
from db.types import now

TABLES = global_metadata.tables
tags = TABLES["network_tags"]
rbac_policies = TABLES["network_rbac_policies"]

Row = Mapping[str, Any]
Condition = sa.ColumnElement[bool]
SHARED, EXTERNAL = "access_as_shared", "access_as_external"
EVERYONE = "*"
_SLICE = 5000
"""Ids that one statement names: databases bound the number of a statement's parameters."""
_TRUE, _FALSE = {"true", "1", "t", "yes", "on"}, {"false", "0", "f", "no", "off"}


class RevisionMismatch(Conflict):
    """If-Match named a revision that is not the present one."""

    code = "network.RevisionNumberConstraintFailed"
    http_status = 412


@dataclasses.dataclass(frozen=True)
class Viewer:
    """Who looks: ``everything`` for administrators and services."""

    project_id: str
    everything: bool = False


Expand = Callable[[sa.Connection, Sequence[dict[str, Any]], Viewer], None]
"""Adds children to the rows of a page, in place."""


@dataclasses.dataclass(frozen=True)
class Model:
    """One kind of object.

    ``columns``: attribute → column, for filters and sort keys. ``filters``: attributes that
    are no columns. ``visible``: what others than the project may see. ``rbac_type``: its
    name in RBAC policies.
    """

    name: str
    noun: str
    not_found_type: str
    table: sa.Table
    columns: Mapping[str, sa.ColumnElement[Any]]
    filters: Mapping[str, Callable[[Sequence[str], Viewer], Condition]] = dataclasses.field(
        default_factory=dict
    )
    expand: Expand | None = None
    visible: Callable[[Viewer], Condition] | None = None
    rbac_type: str | None = None
    tagged: bool = True

    def missing(self, identifier: str) -> Exception:
        return not_found(self.not_found_type, self.noun, identifier)


def columns_of(table: sa.Table, *hidden: str, **renamed: str) -> dict[str, sa.ColumnElement[Any]]:
    """The table's columns by their names in the API. ``renamed``: API name=column."""
    result: dict[str, sa.ColumnElement[Any]] = {
        column.name: column
        for column in table.columns
        if column.name not in hidden and column.name not in renamed.values()
    }
    result.update({name: table.c[column] for name, column in renamed.items()})
    if "project_id" in result:
        result["tenant_id"] = result["project_id"]
    return result


# -- visibility ---------------------------------------------------------------


def granted(object_type: str, column: sa.ColumnElement[Any], viewer: Viewer, *actions: str) -> Condition:
    """Is the object shared with the viewer's project, or everyone?"""
    return sa.exists().where(
        rbac_policies.c.object_id == column,
        rbac_policies.c.object_type == object_type,
        rbac_policies.c.action.in_(actions or (SHARED,)),
        rbac_policies.c.target_project.in_([EVERYONE, viewer.project_id]),
    )


def visible_to(model: Model, viewer: Viewer) -> Condition:
    if viewer.everything:
        return sa.true()
    if "project_id" not in model.table.c:
        # what is nobody's is the administrators' (agents), unless the model says otherwise
        return model.visible(viewer) if model.visible is not None else sa.false()
    own: Condition = model.table.c.project_id == viewer.project_id
    if model.visible is not None:
        return sa.or_(own, model.visible(viewer))
    if model.rbac_type is not None:
        return sa.or_(own, granted(model.rbac_type, model.table.c.id, viewer))
    return own


def add_shared(connection: sa.Connection, rows: Sequence[dict[str, Any]], viewer: Viewer, kind: str) -> None:
    """Set ``shared`` on each row: with everyone, or with the viewer's project."""
    found = set(
        connection.execute(
            sa.select(rbac_policies.c.object_id).where(
                rbac_policies.c.object_id.in_([row["id"] for row in rows]),
                rbac_policies.c.object_type == kind,
                rbac_policies.c.action == SHARED,
                rbac_policies.c.target_project.in_([EVERYONE, viewer.project_id]),
            )
        ).scalars()
    )
    for row in rows:
        row["shared"] = row["id"] in found


def shared_filter(kind: str, column: sa.ColumnElement[Any]) -> Callable[[Sequence[str], Viewer], Condition]:
    """A filter ``shared=True``."""

    def condition(values: Sequence[str], viewer: Viewer) -> Condition:
        there = granted(kind, column, viewer)
        return either([there if truth(value) else sa.not_(there) for value in values])

    return condition


# -- filters --------------------------------------------------------------------


def truth(text: str) -> bool:
    """:raises BadRequest: neither true nor false."""
    if text.lower() in _TRUE or text.lower() in _FALSE:
        return text.lower() in _TRUE
    raise bad_request("InvalidInput", f"'{text}' is not true or false.")


def either(conditions: Iterable[Condition]) -> Condition:
    return sa.or_(sa.false(), *conditions)


def _parsed(column: sa.ColumnElement[Any], text: str) -> Any:
    """:raises ValueError: no row can have this value."""
    if isinstance(column.type, sa.Boolean):
        return truth(text)
    if isinstance(column.type, sa.Integer):
        return int(text)
    if isinstance(column.type, sa.types.TypeDecorator) and "Time" in type(column.type).__name__:
        return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).replace(tzinfo=None)
    return text


def matches(column: sa.ColumnElement[Any], values: Sequence[str]) -> Condition:
    """Is the column one of the values? An empty value or "null" also finds NULL."""
    wanted, nothing = [], False
    for text in values:
        if text in ("", "null", "None"):
            nothing = True
        try:
            wanted.append(_parsed(column, text))
        except ValueError:
            continue
    found: Condition = column.in_(wanted)
    return sa.or_(found, column.is_(None)) if nothing else found


def _tag_condition(column: sa.ColumnElement[Any], key: str, values: Sequence[str]) -> Condition:
    names = [name for value in values for name in value.split(",") if name]
    having = [
        sa.exists().where(tags.c.resource_id == column, tags.c.tag == name) for name in dict.fromkeys(names)
    ]
    found = either(having) if key.endswith("-any") else sa.and_(sa.true(), *having)
    return sa.not_(found) if key.startswith("not-") else found


TAG_KEYS = ("tags", "tags-any", "not-tags", "not-tags-any")


def conditions(model: Model, query: Mapping[str, Sequence[str]], viewer: Viewer) -> list[Condition]:
    """The filters of a query; repeated keys mean any of the values.

    :raises BadRequest: an attribute that can't be filtered on.
    """
    result = []
    for key, values in query.items():
        if key in model.filters:
            result.append(model.filters[key](values, viewer))
        elif key in TAG_KEYS and model.tagged:
            result.append(_tag_condition(model.table.c.id, key, values))
        elif key == "changed_since" and "updated_at" in model.columns:
            result.append(model.columns["updated_at"] >= _moment(values[0]))
        elif key in model.columns:
            result.append(matches(model.columns[key], values))
        else:
            raise bad_request("HTTPBadRequest", f"[{key!r}] is invalid attribute for filtering")
    return result


def _moment(text: str) -> datetime.datetime:
    try:
        return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).replace(tzinfo=None)
    except ValueError:
        raise bad_request("InvalidInput", f"'{text}' is no time, such as 2026-01-31T12:00:00.") from None


# -- reading ---------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Window:
    """Which rows of a list: ``sort`` ((attribute, "asc" | "desc"), …); ``reverse``: those before the marker."""

    sort: tuple[tuple[str, str], ...] = ()
    limit: int | None = None
    marker: str | None = None
    reverse: bool = False


def page(
    connection: sa.Connection,
    model: Model,
    viewer: Viewer,
    query: Mapping[str, Sequence[str]] | None = None,
    window: Window | None = None,
    extra: Sequence[Condition] = (),
) -> list[dict[str, Any]]:
    """The visible rows that the query asks for, with their children.

    :raises BadRequest: an unknown filter, sort key or marker.
    """
    window = window or Window()
    statement = sa.select(model.table).where(
        visible_to(model, viewer), *conditions(model, query or {}, viewer), *extra
    )
    sort = []
    for key, direction in window.sort:
        if key not in model.columns:
            raise bad_request("HTTPBadRequest", f"{key!r} is no attribute to sort by")
        sort.append((key, direction))
    if "id" not in [key for key, _ in sort]:
        sort.append(("id", "asc"))
    if window.reverse:
        sort = [(key, "asc" if direction == "desc" else "desc") for key, direction in sort]
    marker = None
    if window.marker is not None:
        marker = _marker_row(connection, model, window.marker)
    statement = paging.after(statement, dict(model.columns), sort, marker, window.limit)
    rows = [dict(row) for row in connection.execute(statement).mappings()]
    if window.reverse:
        rows.reverse()
    return expanded(connection, model, rows, viewer)


def _marker_row(connection: sa.Connection, model: Model, marker: str) -> dict[str, Any]:
    row = connection.execute(sa.select(model.table).where(model.table.c.id == marker)).mappings().first()
    if row is None:
        raise bad_request("HTTPBadRequest", f"Marker {marker} could not be found.")
    return {name: row[column.name] for name, column in model.columns.items() if column.name in row}


def expanded(
    connection: sa.Connection, model: Model, rows: list[dict[str, Any]], viewer: Viewer
) -> list[dict[str, Any]]:
    """``rows`` with their children."""
    if len(rows) > _SLICE:
        for start in range(0, len(rows), _SLICE):
            expanded(connection, model, rows[start : start + _SLICE], viewer)
        return rows
    if not rows:
        return rows
    if model.tagged:
        mine: dict[str, list[str]] = {row["id"]: [] for row in rows}
        found = connection.execute(
            sa.select(tags).where(tags.c.resource_id.in_(list(mine))).order_by(tags.c.tag)
        )
        for resource_id, tag in found:
            mine[resource_id].append(tag)
        for row in rows:
            row["tags"] = mine[row["id"]]
    if model.expand is not None:
        model.expand(connection, rows, viewer)
    return rows


def find(
    connection: sa.Connection, model: Model, identifier: str, viewer: Viewer, *, lock: bool = False
) -> dict[str, Any]:
    """One row without children, if the viewer may see it. :raises NotFound:"""
    statement = sa.select(model.table).where(model.table.c.id == identifier, visible_to(model, viewer))
    if lock:
        statement = statement.with_for_update()
    row = connection.execute(statement).mappings().first()
    if row is None:
        raise model.missing(identifier)
    return dict(row)


def show(connection: sa.Connection, model: Model, identifier: str, viewer: Viewer) -> dict[str, Any]:
    """One row with its children. :raises NotFound:"""
    return expanded(connection, model, [find(connection, model, identifier, viewer)], viewer)[0]


GOD = Viewer("", everything=True)
"""For what haneul itself has to find, whosever it is."""


# -- writing -----------------------------------------------------------------------


def insert(connection: sa.Connection, table: sa.Table, values: Row) -> str:
    """Insert with a new id unless given; returns the id."""
    identifier = str(values.get("id") or uuid.uuid4())
    row = {**values, "id": identifier}
    if "revision_number" in table.c:
        row.setdefault("revision_number", 1)
    connection.execute(table.insert().values(**row))
    network_changes.inserted(table, row)
    return identifier


def change(
    connection: sa.Connection, table: sa.Table, identifier: str, values: Row, revision: int | None = None
) -> None:
    """Update, count the revision up; ``revision``: only if it is still this one.

    :raises RevisionMismatch:
    """
    statement = table.update().where(table.c.id == identifier)
    if revision is not None:
        statement = statement.where(table.c.revision_number == revision)
    more: dict[str, Any] = {}
    if "revision_number" in table.c:
        more = {"revision_number": table.c.revision_number + 1, "updated_at": now()}
    done = connection.execute(statement.values(**values, **more)).rowcount
    if not done and revision is not None:
        raise RevisionMismatch(f"Constrained to {revision}, but the object has another revision by now.")
    network_changes.changed(table, identifier, values)


def delete(connection: sa.Connection, table: sa.Table, identifier: str) -> None:
    """The row, its tags and its RBAC policies."""
    network_changes.deleting(connection, table, identifier)
    connection.execute(tags.delete().where(tags.c.resource_id == identifier))
    connection.execute(rbac_policies.delete().where(rbac_policies.c.object_id == identifier))
    connection.execute(table.delete().where(table.c.id == identifier))


def replace_tags(connection: sa.Connection, resource_id: str, names: Iterable[str]) -> None:
    connection.execute(tags.delete().where(tags.c.resource_id == resource_id))
    rows = [{"resource_id": resource_id, "tag": name} for name in dict.fromkeys(names)]
    if rows:
        connection.execute(tags.insert(), rows)
