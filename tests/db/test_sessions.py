"""Connections and transactions on MariaDB, with each of its drivers."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from db.sessions import Database, make_engine

pytestmark = pytest.mark.mariadb
TABLE = sa.Table("things", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))
MODULES = {"pymysql": "pymysql", "mysqldb": "MySQLdb"}


@pytest.fixture(params=sorted(MODULES))
def database(request: pytest.FixtureRequest, mariadb_url: str) -> Iterator[Database]:
    if importlib.util.find_spec(MODULES[request.param]) is None:
        pytest.skip(f"{request.param} is not installed (pip install haneul[mysql])")
    url = mariadb_url.replace("mysql:", f"mysql+{request.param}:")
    made = Database(make_engine(url, pool_size=1, max_overflow=0))
    TABLE.create(made.engine)
    yield made
    made.dispose()


def _ids(database: Database) -> list[int]:
    with database.read() as connection:
        return list(connection.execute(sa.select(TABLE.c.id).order_by(TABLE.c.id)).scalars())


def _count(database: Database, name: str) -> int:
    """How often this session (there is one only) has sent a statement."""
    with database.read() as connection:
        return int(connection.execute(sa.text(f"SHOW SESSION STATUS LIKE 'Com_{name}'")).one()[1])


def test_a_transaction_is_kept_whole_or_not_at_all(database: Database) -> None:
    with database.write() as connection:
        connection.execute(sa.insert(TABLE), [{"id": 1}])
    with pytest.raises(RuntimeError), database.write() as connection:
        connection.execute(sa.insert(TABLE), [{"id": 2}])
        raise RuntimeError
    assert _ids(database) == [1]
    # the connection that rolled back, or failed over a statement, is as good as new
    with pytest.raises(sa.exc.DBAPIError), database.write() as connection:
        connection.execute(sa.insert(TABLE), [{"id": 3}])
        connection.execute(sa.text("SELECT nothing FROM nowhere"))
    with database.write() as connection:
        connection.execute(sa.insert(TABLE), [{"id": 4}])
    assert _ids(database) == [1, 4]


def test_a_read_is_one_round_trip(database: Database) -> None:
    _ids(database)
    before = {name: _count(database, name) for name in ("begin", "commit", "rollback")}
    for _ in range(3):
        _ids(database)
    with database.write() as connection:
        connection.execute(sa.insert(TABLE), [{"id": 5}])
    after = {name: _count(database, name) for name in before}
    assert {name: after[name] - before[name] for name in before} == {"begin": 1, "commit": 1, "rollback": 0}


def test_text_and_moments_come_back_as_they_were(database: Database) -> None:
    from db.types import Json, Time, now

    table = sa.Table(
        "kept", sa.MetaData(), sa.Column("at", Time), sa.Column("what", Json), sa.Column("yes", sa.Boolean)
    )
    table.create(database.engine)
    row = {"at": now(), "what": {"name": "å \U0001f600 %s ' \\ \n"}, "yes": True}
    with database.write() as connection:
        connection.execute(sa.insert(table), [row])
    with database.read() as connection:
        assert dict(connection.execute(sa.select(table)).mappings().one()) == row
