"""Keyset paging for any select: see ``api.common.paging``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa


def after(
    statement: sa.Select[Any],
    columns: Mapping[str, sa.ColumnElement[Any]],
    sort: Sequence[tuple[str, str]],
    marker: Mapping[str, Any] | sa.RowMapping | None,
    limit: int | None,
) -> sa.Select[Any]:
    """Order by ``sort`` and start behind ``marker`` (a row with the sort columns).

    NULLs sort first ascending and last descending on every database.
    """
    order: list[sa.ColumnElement[Any]] = []
    for name, direction in sort:
        column = columns[name]
        if getattr(column, "nullable", True):
            is_null = sa.case((column.is_(None), 0), else_=1)
            order.append(is_null.asc() if direction == "asc" else is_null.desc())
        order.append(column.asc() if direction == "asc" else column.desc())
    statement = statement.order_by(*order)
    if marker is not None:
        alternatives: list[sa.ColumnElement[bool]] = []
        equal: list[sa.ColumnElement[bool]] = []
        for name, direction in sort:
            column, value = columns[name], marker[name]
            alternatives.append(sa.and_(*equal, _beyond(column, value, direction)))
            equal.append(column.is_(None) if value is None else column == value)
        statement = statement.where(sa.or_(*alternatives))
    return statement if limit is None else statement.limit(limit)


def _beyond(column: sa.ColumnElement[Any], value: Any, direction: str) -> sa.ColumnElement[bool]:
    if direction == "asc":
        return column.is_not(None) if value is None else column > value
    if value is None:
        return sa.false()
    return sa.or_(column < value, column.is_(None))
