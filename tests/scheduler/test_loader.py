"""How a scheduler follows the log of changes, on each kind of database."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from db import placement
from db.global_schema import global_metadata, provider_changes
from db.sessions import Database, make_engine
from scheduler.host_state import HostTable
from scheduler.loader import Loader


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(make_engine(database_url))
    global_metadata.create_all(made.engine)
    yield made
    made.dispose()


@pytest.fixture
def loader(database: Database) -> Loader:
    databases: Any = types.SimpleNamespace(global_=database, cells=list)
    return Loader(databases, HostTable(), "me")


def note(database: Database, *provider_ids: int, source: str | None = None) -> None:
    with database.write() as connection:
        placement.note_changes(connection, provider_ids, source)


def test_every_change_of_others_is_seen_once(database: Database, loader: Loader) -> None:
    assert loader._read_changes() == set()
    note(database, 1, 2)
    note(database, 3, source="another")
    note(database, 4, source="me")
    assert loader._read_changes() == {1, 2, 3}
    assert loader._read_changes() == set()
    note(database, 2)
    assert loader._read_changes() == {2}


def test_a_change_with_a_lower_number_that_is_committed_later_is_seen(
    database: Database, loader: Loader
) -> None:
    note(database, 1, 2, 3)
    with database.write() as connection:
        connection.execute(sa.delete(provider_changes).where(provider_changes.c.provider_id == 2))
    assert loader._read_changes() == {1, 3}
    with database.read() as connection:
        low = connection.execute(sa.select(sa.func.min(provider_changes.c.seq))).scalar_one()
    with database.write() as connection:
        connection.execute(sa.insert(provider_changes).values(seq=low + 1, provider_id=2, source=None))
    assert loader._read_changes() == {2}
