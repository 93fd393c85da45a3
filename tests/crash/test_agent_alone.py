"""An agent's process knows no database: it has no option for one and never imports what speaks to one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.agents import AgentProcess
from tests.crash.invariants import assert_nothing_lost, settle
from tests.stack.cloud import Cloud, wait_for

FORBIDDEN = ["sqlalchemy", "alembic", "oslo_db", "pymysql", "MySQLdb", "psycopg"]
FORBIDDEN += ["sqlite3", "db", "conductor"]


@pytest.mark.rabbitmq
def test_an_agent_serves_without_any_database(tmp_path: Path, rabbitmq_url: str) -> None:
    cloud = Cloud(
        tmp_path, ["a1"], transport=rabbitmq_url, **{"simulated.state_dir": str(tmp_path / "hosts")}
    )
    agent = AgentProcess(cloud, tmp_path, forbidden=FORBIDDEN)
    cloud.start("conductor", "scheduler")
    agent.start()
    try:
        wait_for(lambda: cloud.known_hosts() == ["a1"], "the host is known")
        first, second = cloud.create(), cloud.create()
        cloud.wait_state(first, "active")
        cloud.act("server.stop", first)
        cloud.wait_state(second, "active")
        cloud.delete(second)
        settle(cloud)
        assert_nothing_lost(cloud, tmp_path / "hosts", {first: "stopped", second: "deleted"})
    finally:
        said = agent.stop()
        cloud.stop()
    assert "database options: False" in said
    assert "forbidden: []" in said
