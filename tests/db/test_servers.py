"""Finding servers, on each kind of database: what is in a cell stays there, and one statement shows it."""

from __future__ import annotations

import types
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from core.errors import NotFound
from db import cell_schema, global_schema, servers
from db.cell_schema import cell_metadata
from db.global_schema import global_metadata, server_mappings
from db.sessions import Database, Databases, make_engine
from db.types import now
from tests.db.statements import statements


@pytest.fixture
def databases(two_database_urls: list[str]) -> Iterator[Any]:
    global_ = Database(make_engine(two_database_urls[0]))
    cell = Database(make_engine(two_database_urls[1]), "cell1", 1)
    global_metadata.create_all(global_.engine)
    cell_metadata.create_all(cell.engine)
    made = types.SimpleNamespace(global_=global_, placements={}, cell=lambda id_: cell if id_ else global_)
    made.placed = types.MethodType(Databases.placed, made)
    yield made
    global_.dispose()
    cell.dispose()


def write(databases: Any, cell_id: int | None, **more: Any) -> str:
    """A server, with its mapping."""
    server_id = str(uuid.uuid4())
    row = {
        "id": server_id,
        **dict.fromkeys(("project_id", "user_id", "name", "hostname", "flavor_id"), "x"),
        **dict.fromkeys(("vcpus", "memory_mib", "root_gib", "ephemeral_gib"), 1),
        "vm_state": "active",
        "flavor": {},
        **more,
    }
    with databases.cell(cell_id).write() as connection:
        connection.execute(sa.insert(cell_schema.servers if cell_id else global_schema.servers), [row])
    mapping = {"server_id": server_id, "cell_id": cell_id, "project_id": "x", "user_id": "x"}
    with databases.global_.write() as connection:
        connection.execute(sa.insert(server_mappings), [{**mapping, "vcpus": 1, "memory_mib": 1}])
    return server_id


def service(databases: Any, host: str, **more: Any) -> None:
    row = {"uuid": str(uuid.uuid4()), "host": host, "binary": "nova-compute", "last_seen_at": now(), **more}
    with databases.cell(1).write() as connection:
        connection.execute(sa.insert(cell_schema.services), [row])


def test_a_server_in_a_cell_is_shown_by_one_statement(databases: Any) -> None:
    service(databases, "h1")
    server_id = write(databases, 1, host="h1")
    servers.find(databases, server_id, shown=True)
    with statements(databases.global_.engine, databases.cell(1).engine) as run:
        row = servers.find(databases, server_id, shown=True).row
        assert servers.host_state_of(row, 60) == "UP" and row["tagged"] is False
    assert len(run) == 1


def test_tags_and_the_host_s_state_come_with_the_row(databases: Any) -> None:
    service(databases, "disabled", disabled=True)
    service(databases, "down", forced_down=True)
    service(databases, "silent", last_seen_at=None)
    expected = {
        "disabled": "MAINTENANCE",
        "down": "DOWN",
        "silent": "UNKNOWN",
        "unheard of": "UNKNOWN",
        None: "",
    }
    for host, state in expected.items():
        server_id = write(databases, 1, host=host)
        with databases.cell(1).write() as connection:
            connection.execute(sa.insert(cell_schema.server_tags), [{"server_id": server_id, "tag": "a"}])
        row = servers.find(databases, server_id, shown=True).row
        assert servers.host_state_of(row, 60) == state and row["tagged"] is True
    waiting = servers.find(databases, write(databases, None), shown=True).row
    assert servers.host_state_of(waiting, 60) is None and waiting["tagged"] is False


def test_only_what_is_in_a_cell_is_remembered_and_the_deleted_are_not_found(databases: Any) -> None:
    waiting, placed = write(databases, None), write(databases, 1)
    for server_id in (waiting, placed):
        servers.find(databases, server_id)
    assert databases.placements == {placed: 1}
    with databases.cell(1).write() as connection:
        connection.execute(sa.update(cell_schema.servers).values(deleted=1))
    assert servers.find(databases, placed, deleted=True).id == placed
    with pytest.raises(NotFound):
        servers.find(databases, placed)
