"""Cells in the global database."""

from __future__ import annotations

import threading

import pytest

from core.errors import Conflict
from db import cells, migrate
from db.sessions import Database, make_engine


@pytest.fixture
def database(sqlite_url: str) -> Database:
    engine = make_engine(sqlite_url)
    migrate.upgrade(engine, "global")
    return Database(engine)


def test_create_and_list(database: Database) -> None:
    cells.create_cell(database, "b", "sqlite:///b.db")
    cells.create_cell(database, "a", "sqlite:///a.db", "rabbit://a/")
    found = cells.list_cells(database)
    assert [(row["name"], row["transport_url"]) for row in found] == [("b", None), ("a", "rabbit://a/")]
    with pytest.raises(Conflict, match="'a'"):
        cells.create_cell(database, "a", "sqlite:///c.db")


def test_the_first_cell_is_made_once_even_by_many(database: Database) -> None:
    cells.ensure_first(database, None)
    assert cells.list_cells(database) == []
    threads = [
        threading.Thread(target=cells.ensure_first, args=(database, "sqlite:///one.db")) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row["name"] for row in cells.list_cells(database)] == ["cell1"]
    cells.ensure_first(database, "sqlite:///other.db")
    assert len(cells.list_cells(database)) == 1
