"""The private servers work, keep tests apart, and end without a trace."""

from __future__ import annotations

from pathlib import Path

import kombu
import pytest
import sqlalchemy as sa

from db.sessions import make_engine
from tests.lab import fixtures, processes, servers


def test_a_database_is_empty_and_takes_tables(database_url: str) -> None:
    engine = make_engine(database_url)
    assert sa.inspect(engine).get_table_names() == []
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE things (id INTEGER PRIMARY KEY)"))
        connection.execute(sa.text("INSERT INTO things VALUES (7)"))
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT id FROM things")).scalars().all() == [7]
    engine.dispose()


def test_two_databases_are_apart(two_database_urls: list[str]) -> None:
    first, second = (make_engine(url) for url in two_database_urls)
    with first.begin() as connection:
        connection.execute(sa.text("CREATE TABLE things (id INTEGER PRIMARY KEY)"))
    assert sa.inspect(second).get_table_names() == []
    first.dispose()
    second.dispose()


@pytest.mark.rabbitmq
def test_virtual_hosts_are_apart(rabbitmq_server: servers.RabbitMQ, rabbitmq_url: str) -> None:
    with kombu.Connection(rabbitmq_url.replace("rabbit://", "amqp://")) as own:
        queue = own.SimpleQueue("doorbell")
        queue.put({"ring": 1})
        message = queue.get(timeout=10)
        assert message.payload == {"ring": 1}
        message.ack()
        with kombu.Connection(rabbitmq_server.url("%2f").replace("rabbit://", "amqp://")) as other:
            assert other.SimpleQueue("doorbell").qsize() == 0


@pytest.mark.parametrize("kind", sorted(servers.STARTERS))
def test_stopped_by_pid_leaves_nothing(kind: str) -> None:
    reason = servers.missing(kind)
    if reason:
        pytest.skip(reason)
    folder = Path(fixtures.os.environ[fixtures.ENVIRONMENT]) / f"stop-{kind}"
    started = servers.STARTERS[kind](folder)
    assert processes.listens(started.port)
    servers.Server.from_dict(started.to_dict()).stop()
    assert not processes.listens(started.port)
    assert not any(processes.alive(pid) for pid in started.pids)


def test_stop_spares_a_process_that_is_not_ours(tmp_path: Path) -> None:
    other = processes.start(["/bin/sleep", "60"], log=tmp_path / "log")
    try:
        servers.Memcached("memcached", "/nowhere/of/ours", 1, "", [other.pid]).stop()
        assert processes.alive(other.pid)
    finally:
        processes.stop_group(other.pid)
    assert not processes.alive(other.pid)


def test_a_server_that_ends_says_why(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = processes.start(["/bin/sh", "-c", "echo no room left; exit 3"], log=log)
    with pytest.raises(processes.NotStarted, match="ended with 3: no room left"):
        processes.wait_for(lambda: False, process, log, "the server")
