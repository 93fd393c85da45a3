"""What the queries of the Volume API share: the tables by name, pages, filters, metadata.

``page`` turns filters, sort keys and a marker into one statement; what belongs to the
rows of a page (attachments, type names) is read with one more statement per kind.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
import sqlalchemy as sa

from core.errors import NotFound
from db import paging
from db.global_schema import global_metadata

TABLES = global_metadata.tables
attachments = TABLES["volume_attachments"]
backups = TABLES["backups"]
default_types = TABLES["default_volume_types"]
encryptions = TABLES["volume_type_encryptions"]
group_snapshots = TABLES["group_snapshots"]
group_types = TABLES["group_types"]
groups = TABLES["volume_groups"]
intents = TABLES["intents"]
messages = TABLES["volume_messages"]
pools = TABLES["volume_pools"]
qos_specs = TABLES["qos_specs"]
services = TABLES["volume_services"]
snapshots = TABLES["snapshots"]
transfers = TABLES["volume_transfers"]
type_projects = TABLES["volume_type_projects"]
types = TABLES["volume_types"]
volumes = TABLES["volumes"]

Row = dict[str, Any]
Condition = sa.ColumnElement[bool]
Sort = Sequence[tuple[str, str]]
_SLICE = 5000
"""Ids that one statement names: databases bound the number of a statement's parameters."""


def new_id() -> str:
    return str(uuid.uuid4())


def find(connection: sa.Connection, table: sa.Table, what: str, identifier: str, *where: Condition) -> Row:
    """One row by id. ``what``: how the error names it. :raises NotFound: there is none."""
    statement = sa.select(table).where(table.c.id == identifier, *where)
    row = connection.execute(statement).mappings().first()
    if row is None:
        raise NotFound(f"{what} {identifier} could not be found.")
    return dict(row)


def by_ids(connection: sa.Connection, table: sa.Table, ids: Iterable[Any], key: str = "id") -> list[Row]:
    """Rows whose ``key`` is one of ``ids``."""
    wanted, rows = sorted(set(ids)), []
    for start in range(0, len(wanted), _SLICE):
        chosen = table.c[key].in_(wanted[start : start + _SLICE])
        rows += [dict(row) for row in connection.execute(sa.select(table).where(chosen)).mappings()]
    return rows


def page(
    connection: sa.Connection,
    table: sa.Table,
    conditions: Sequence[Condition],
    sort: Sort,
    marker_id: str | None = None,
    limit: int | None = None,
    offset: int = 0,
    what: str = "marker",
) -> list[Row]:
    """One page of a table. :raises NotFound: the marker is no row of it."""
    marker = None
    if marker_id is not None:
        marker = find(connection, table, what, marker_id)
    columns = {column.name: column for column in table.columns}
    statement = paging.after(sa.select(table).where(*conditions), columns, sort, marker, limit)
    if offset:
        statement = statement.offset(offset)
    return [dict(row) for row in connection.execute(statement).mappings()]


def count(connection: sa.Connection, table: sa.Table, conditions: Sequence[Condition]) -> int:
    """How many rows there are without any page."""
    statement = sa.select(sa.func.count()).select_from(table).where(*conditions)
    return int(connection.execute(statement).scalar_one())


def has_pair(column: sa.ColumnElement[Any], key: str, value: str | None) -> Condition:
    """Does the JSON object in a column hold this key (with this value)?

    The column holds compact JSON: ``"key":"value"`` stands there in exactly this form.
    """
    member = orjson.dumps(key).decode() + ":"
    if value is not None:
        member += orjson.dumps(value).decode()
    return sa.type_coerce(column, sa.Text).contains(member, autoescape=True)


def update(connection: sa.Connection, table: sa.Table, identifier: str, values: Mapping[str, Any]) -> int:
    """Change one row; how many were there (0 or 1)."""
    done = connection.execute(sa.update(table).where(table.c.id == identifier).values(**values))
    return int(done.rowcount)


def remove(connection: sa.Connection, table: sa.Table, identifier: str) -> None:
    connection.execute(sa.delete(table).where(table.c.id == identifier))
