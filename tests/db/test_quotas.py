"""Quotas under concurrency, on each kind of database: never one more than allowed."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from core import config
from core.errors import OverQuota
from db import quotas
from db.global_schema import global_metadata, quota_generations, server_mappings
from db.sessions import Database, make_engine, retrying
from tests.db.statements import statements


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(make_engine(database_url))
    global_metadata.create_all(made.engine)
    yield made
    made.dispose()


def create(database: Database, limits: quotas.Quotas, project: str = "p1", user: str = "u") -> bool:
    """Create a server of 2 vCPUs in the books, as POST /servers does."""

    @retrying
    def attempt() -> bool:
        with database.write() as connection:
            limits.check(connection, project, user, {"instances": 1, "cores": 2, "ram": 64})
            connection.execute(
                server_mappings.insert().values(
                    server_id=str(uuid.uuid4()),
                    project_id=project,
                    user_id=user,
                    vcpus=2,
                    memory_mib=64,
                )
            )
            return True

    try:
        return attempt()
    except OverQuota:
        return False


def test_concurrent_creations_stop_exactly_at_the_limit(database: Database) -> None:
    conf = config.load()
    limits = quotas.Quotas(conf)
    config.override(conf, "quota.cores", 15)
    done: list[bool] = []
    barrier = threading.Barrier(16)

    def work() -> None:
        barrier.wait()
        for _ in range(3):
            done.append(create(database, limits))

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 48 and sum(done) == 7
    with database.read() as connection:
        used = quotas.usage(connection, "p1")
        assert (used["instances"], used["cores"], used["ram"]) == (7, 14, 7 * 64)
        rows = connection.execute(sa.select(quota_generations.c.project_id)).scalars().all()
    assert rows == ["p1"]


def test_projects_do_not_count_for_one_another(database: Database) -> None:
    conf = config.load()
    limits = quotas.Quotas(conf)
    config.override(conf, "quota.instances", 1)
    assert create(database, limits) and create(database, limits, "p2")
    assert not create(database, limits)


def test_limits_from_the_most_specific(database: Database) -> None:
    limits = quotas.Quotas(config.load())
    with database.write() as connection:
        assert limits.limits(connection, "p1")["cores"] == 20
        quotas.set_class_limits(connection, "default", {"cores": 30, "ram": 1})
        assert limits.limits(connection, "p1")["cores"] == 30
        quotas.set_limits(connection, "p1", None, {"cores": 40})
        quotas.set_limits(connection, "p1", "u", {"cores": 5})
        quotas.set_limits(connection, "p1", "u", {"cores": 6})
        assert limits.limits(connection, "p1")["cores"] == 40
        assert limits.limits(connection, "p1", "u") == {**limits.limits(connection, "p1"), "cores": 6}
        quotas.delete_limits(connection, "p1", "u")
        assert limits.limits(connection, "p1", "u")["cores"] == 40
        quotas.delete_limits(connection, "p1")
        assert limits.limits(connection, "p1", "u")["cores"] == 30


def test_a_check_costs_three_statements(database: Database) -> None:
    limits = quotas.Quotas(config.load())
    assert create(database, limits)
    with statements(database.engine) as run, database.write() as connection:
        limits.check(connection, "p1", "u", {"instances": 1, "cores": 1, "ram": 1})
    assert len(run) == 3
