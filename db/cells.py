"""Cells: the rows of the global database that say which cells there are."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exc

from core.errors import Conflict
from db.global_schema import cells
from db.sessions import Database


def list_cells(database: Database) -> list[dict[str, Any]]:
    """All cells by id."""
    with database.read() as connection:
        return [dict(row) for row in connection.execute(sa.select(cells).order_by(cells.c.id)).mappings()]


def create_cell(
    database: Database, name: str, database_connection: str, transport_url: str | None = None
) -> Mapping[str, Any]:
    """Add a cell; ``transport_url`` None: the global broker serves it.

    :raises Conflict: there is a cell of that name.
    """
    row = {
        "uuid": str(uuid.uuid4()),
        "name": name,
        "database_connection": database_connection,
        "transport_url": transport_url,
        "disabled": False,
    }
    try:
        with database.write() as connection:
            connection.execute(sa.insert(cells).values(**row))
    except db_exc.DBDuplicateEntry as failure:
        raise Conflict(f"there is a cell {name!r} already", cause=failure) from failure
    return row


def ensure_first(database: Database, database_connection: str | None) -> None:
    """Name the first cell if there is none yet: ``[database]cell_connection``, or none if that is not set."""
    if database_connection and not list_cells(database):
        with contextlib.suppress(Conflict):  # another process did it at the same moment
            create_cell(database, "cell1", database_connection)
