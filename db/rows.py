"""Rows as dictionaries, and rows by many ids."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import sqlalchemy as sa

_SLICE = 5000
"""Ids that one statement names: databases bound the number of a statement's parameters."""


def rows_of(connection: sa.Connection, statement: sa.Select[Any]) -> list[dict[str, Any]]:
    """All rows."""
    result = connection.execute(statement)
    # as mappings() would, for a fifth of the price: a host has thousands of rows
    keys = tuple(result.keys())
    return [dict(zip(keys, row, strict=True)) for row in result.all()]


def select_in(
    connection: sa.Connection, statement: sa.Select[Any], column: sa.ColumnElement[Any], ids: Collection[str]
) -> Iterator[dict[str, Any]]:
    """The rows whose ``column`` is one of ``ids``; no ids: no statement."""
    wanted = sorted(ids)
    for start in range(0, len(wanted), _SLICE):
        yield from rows_of(connection, statement.where(column.in_(wanted[start : start + _SLICE])))
