"""Ask every cell at once; a cell that does not answer does not hide the others."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import sqlalchemy as sa
from oslo_db import exception as db_exc

from core.errors import Unavailable
from db.sessions import Database, Databases

LOG = logging.getLogger(__name__)
T = TypeVar("T")
_MOST_AT_ONCE = 16


def gather(
    databases: Databases, fetch: Callable[[sa.Connection], T]
) -> tuple[list[tuple[Database, T]], list[Database]]:
    """([(cell, what ``fetch`` returned)], [cells that are down]), in the order of the cells."""

    def ask(cell: Database) -> tuple[bool, T | None]:
        try:
            with cell.read() as connection:
                return True, fetch(connection)
        except (db_exc.DBConnectionError, Unavailable):
            LOG.warning("cell %s does not answer", cell.name, exc_info=True)
            return False, None

    cells = databases.cells()
    if len(cells) <= 1:
        answers = [ask(cell) for cell in cells]
    else:
        with ThreadPoolExecutor(min(len(cells), _MOST_AT_ONCE)) as pool:
            answers = list(pool.map(ask, cells))
    good = [(cell, value) for cell, (up, value) in zip(cells, answers, strict=True) if up]
    return good, [cell for cell, (up, _) in zip(cells, answers, strict=True) if not up]  # type: ignore[return-value]
