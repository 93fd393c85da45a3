"""Lists of servers over the global database and all cells.

One keyset-paged query per database, merged by the sort keys.  A cell that does
not answer is left out and named in the result; the others' servers are shown.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import re
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson
import sqlalchemy as sa
from oslo_db import exception as db_exc

from core.errors import BadRequest, NotFound
from db import cell_schema, global_schema, paging, scatter, servers
from db.global_schema import server_mappings
from db.servers import Row
from db.sessions import Database, Databases

_HEAVY = frozenset({"user_data", "image"})
_NEVER = frozenset({"public_key", "networks"})
_PLAIN = re.compile(r"^[\w @%/:,-]*$")
_WARNINGS = threading.Lock()
"""catch_warnings changes a list that all threads share."""
Sort = Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class StateFilter:
    """vm_state with these task_states (``only``), or with any but these (``but``)."""

    vm_state: str
    only: tuple[str, ...] = ()
    but: tuple[str, ...] = ()


@dataclasses.dataclass
class Filter:
    """What a list is narrowed to; None or empty: no condition.

    ``equal``/``one_of``: column → value(s). ``matches``: column → regular expression.
    ``states`` are alternatives. ``row_test`` is asked for what SQL can't say (addresses).
    """

    project_id: str | None = None
    deleted: bool | None = False
    equal: dict[str, Any] = dataclasses.field(default_factory=dict)
    one_of: dict[str, Sequence[Any]] = dataclasses.field(default_factory=dict)
    matches: dict[str, str] = dataclasses.field(default_factory=dict)
    states: list[StateFilter] | None = None
    changed_since: datetime.datetime | None = None
    changed_before: datetime.datetime | None = None
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)
    locked: bool | None = None
    tags: tuple[str, ...] = ()
    tags_any: tuple[str, ...] = ()
    not_tags: tuple[str, ...] = ()
    not_tags_any: tuple[str, ...] = ()
    has_address: bool = False
    row_test: Callable[[Row], bool] | None = None

    @property
    def plain(self) -> bool:
        """Is nothing asked for but a project's servers that are not deleted?"""
        return self == Filter(project_id=self.project_id)


@dataclasses.dataclass
class Listed:
    """One page, each row with ``tagged``. ``down``: ids of the cells that did not answer."""

    rows: list[tuple[Database, Row]]
    down: list[int]


def pattern(text: str, field: str) -> str:
    """A regular expression as a list may be asked for. :raises BadRequest: it is none."""
    try:
        with _WARNINGS, warnings.catch_warnings():
            # "[[:alpha:]]" is the database's to understand: what Python may read into it one day is no matter
            warnings.simplefilter("ignore", FutureWarning)
            re.compile(text)
    except re.error as error:
        # upstream's databases read "*" as a wildcard or as itself: a name that contains the text
        if text.strip("*") == text:
            raise BadRequest(f"Invalid filter {field}: {text!r} is no regular expression: {error}") from error
        return re.escape(text.strip("*"))
    return text


def _matching(column: sa.ColumnElement[Any], expression: str) -> sa.ColumnElement[bool]:
    if _PLAIN.match(expression):
        return column.contains(expression, autoescape=True)
    return column.regexp_match(expression)


def _states(table: sa.Table, states: Iterable[StateFilter]) -> sa.ColumnElement[bool]:
    alternatives: list[sa.ColumnElement[bool]] = [sa.false()]
    for state in states:
        parts = [table.c.vm_state == state.vm_state]
        if state.only:
            parts.append(table.c.task_state.in_(state.only))
        if state.but:
            parts.append(sa.or_(table.c.task_state.is_(None), table.c.task_state.not_in(state.but)))
        alternatives.append(sa.and_(*parts))
    return sa.or_(*alternatives)


@dataclasses.dataclass(frozen=True)
class _Tables:
    """The tables of one kind of database."""

    servers: sa.Table
    tags: sa.Table


_GLOBAL = _Tables(global_schema.servers, global_schema.server_tags)
_CELL = _Tables(cell_schema.servers, cell_schema.server_tags)


def _tag_conditions(tables: _Tables, wanted: Filter) -> list[sa.ColumnElement[bool]]:
    table, tags = tables.servers, tables.tags

    def any_of(names: Sequence[str]) -> sa.ColumnElement[bool]:
        return sa.exists().where(tags.c.server_id == table.c.id, tags.c.tag.in_(names))

    conditions = [any_of([tag]) for tag in wanted.tags]
    if wanted.tags_any:
        conditions.append(any_of(wanted.tags_any))
    if wanted.not_tags:
        conditions.append(sa.not_(sa.and_(*[any_of([tag]) for tag in wanted.not_tags])))
    if wanted.not_tags_any:
        conditions.append(sa.not_(any_of(wanted.not_tags_any)))
    return conditions


def _conditions(tables: _Tables, wanted: Filter) -> list[sa.ColumnElement[bool]]:
    table = tables.servers
    found: list[sa.ColumnElement[bool]] = []
    if wanted.deleted is not None:
        found.append(table.c.deleted == int(wanted.deleted))
    if wanted.project_id is not None:
        found.append(table.c.project_id == wanted.project_id)
    found += [table.c[name] == value for name, value in wanted.equal.items()]
    found += [table.c[name].in_(list(values)) for name, values in wanted.one_of.items()]
    found += [_matching(table.c[name], text) for name, text in wanted.matches.items()]
    if wanted.states is not None:
        found.append(_states(table, wanted.states))
    if wanted.changed_since is not None:
        found.append(table.c.updated_at >= wanted.changed_since)
    if wanted.changed_before is not None:
        found.append(table.c.updated_at <= wanted.changed_before)
    for key, value in wanted.metadata.items():
        # the column holds compact JSON: "key":"value" stands there in exactly this form
        member = f"{orjson.dumps(key).decode()}:{orjson.dumps(value).decode()}"
        found.append(sa.type_coerce(table.c.metadata, sa.Text).contains(member, autoescape=True))
    if wanted.locked is not None:
        found.append(table.c.locked_by.is_not(None) if wanted.locked else table.c.locked_by.is_(None))
    if wanted.has_address:
        found.append(sa.type_coerce(table.c.network_info, sa.Text) != "[]")
    return found + _tag_conditions(tables, wanted)


def _page(
    connection: sa.Connection,
    tables: _Tables,
    wanted: Filter,
    sort: Sort,
    marker: Mapping[str, Any] | None,
    limit: int,
    heavy: bool,
) -> list[Row]:
    table = tables.servers
    left_out = _NEVER if heavy else _NEVER | _HEAVY
    columns: list[sa.ColumnElement[Any]] = [each for each in table.columns if each.name not in left_out]
    names = [*(column.name for column in columns), "tagged"]
    columns.append(servers.tagged(table))
    conditions = _conditions(tables, wanted)
    found: list[Row] = []
    while True:
        statement = sa.select(*columns).where(*conditions)
        statement = paging.after(statement, dict(table.c.items()), sort, marker, limit)
        rows = [dict(zip(names, row, strict=True)) for row in connection.execute(statement)]
        found += [row for row in rows if wanted.row_test is None or wanted.row_test(row)]
        # only with a test beyond SQL may a page come out short before the end
        if wanted.row_test is None or len(rows) < limit or len(found) >= limit:
            return found[:limit]
        marker = rows[-1]


def _compare(sort: Sort) -> Callable[[tuple[Database, Row], tuple[Database, Row]], int]:
    def compare(one: tuple[Database, Row], other: tuple[Database, Row]) -> int:
        for name, direction in sort:
            a, b = one[1][name], other[1][name]
            if a == b:
                continue
            # NULL is the smallest, as in db.paging
            less = a is None or (b is not None and a < b)
            return -1 if less == (direction == "asc") else 1
        return 0

    return compare


def _marker(databases: Databases, marker_id: str | None) -> Row | None:
    if marker_id is None:
        return None
    try:
        return servers.find(databases, marker_id, deleted=True).row
    except NotFound:
        raise BadRequest(f"marker [{marker_id}] not found") from None


def page(
    databases: Databases,
    wanted: Filter,
    sort: Sort,
    marker_id: str | None,
    limit: int,
    *,
    heavy: bool = False,
) -> Listed:
    """One page over all databases. ``heavy``: with user_data and image.

    :raises BadRequest: the marker is no server, or the database can't read a regular expression.
    """
    if limit == 0:
        return Listed([], [])
    try:
        return _merged(databases, wanted, sort, marker_id, limit, heavy)
    except (db_exc.DBConnectionError, db_exc.DBDeadlock):
        raise
    except (db_exc.DBError, sa.exc.OperationalError) as error:
        if not wanted.matches:
            raise
        # what Python takes for a regular expression a database may not
        fields = ", ".join(sorted(wanted.matches))
        raise BadRequest(
            f"Invalid filter {fields}: the database does not take this regular expression.", cause=error
        ) from error


def _merged(
    databases: Databases, wanted: Filter, sort: Sort, marker_id: str | None, limit: int, heavy: bool
) -> Listed:
    marker = _marker(databases, marker_id)
    # the global database first: a server that moves to its cell meanwhile is then
    # seen in one of them at least, and twice is once
    with databases.global_.read() as connection:
        own = _page(connection, _GLOBAL, wanted, sort, marker, limit, heavy)
    seen = {row["id"]: (databases.global_, row) for row in own}
    answers, down = scatter.gather(
        databases, lambda connection: _page(connection, _CELL, wanted, sort, marker, limit, heavy)
    )
    for database, rows in answers:
        seen.update((row["id"], (database, row)) for row in rows)
    merged = sorted(seen.values(), key=functools.cmp_to_key(_compare(sort)))
    return Listed(merged[:limit], [int(cell.cell_id or 0) for cell in down])


def mapped(databases: Databases, cell_ids: Sequence[int], project_id: str | None, limit: int) -> list[Row]:
    """What the global database knows of servers in these cells, newest first."""
    statement = sa.select(server_mappings).where(
        server_mappings.c.cell_id.in_(cell_ids), server_mappings.c.deleted.is_(False)
    )
    if project_id is not None:
        statement = statement.where(server_mappings.c.project_id == project_id)
    statement = statement.order_by(server_mappings.c.created_at.desc()).limit(limit)
    with databases.global_.read() as connection:
        return [dict(row) for row in connection.execute(statement).mappings()]
