"""The same over RabbitMQ and a database server each for global and cell; broker restarts; several of each role."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conductor import service as conductor_service
from scheduler import service as scheduler_service
from tests.crash.invariants import assert_nothing_lost, settle
from tests.lab import servers
from tests.stack.cloud import Cloud, wait_for

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def two_urls(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    kind = request.param
    server = request.getfixturevalue(f"{kind}_server")
    names = [f"grown_{part}_{os.getpid()}_{time.time_ns()}" for part in ("global", "cell")]
    yield [server.create_database(name) for name in names]
    for name in names:
        server.drop_database(name)


BOTH = pytest.mark.parametrize(
    "two_urls",
    [
        pytest.param("mariadb", marks=pytest.mark.mariadb),
        pytest.param("postgresql", marks=pytest.mark.postgresql),
    ],
    indirect=True,
)
MARIADB = pytest.mark.parametrize(
    "two_urls", [pytest.param("mariadb", marks=pytest.mark.mariadb)], indirect=True
)


def make(folder: Path, hosts: list[str], transport: str | None, urls: list[str], **options: Any) -> Cloud:
    return Cloud(
        folder,
        hosts,
        transport=transport,
        connection=urls[0],
        cell_connection=urls[1],
        **{"simulated.state_dir": str(folder / "hosts"), **options},
    )


@pytest.mark.rabbitmq
@BOTH
def test_create_stop_start_reboot_delete(tmp_path: Path, rabbitmq_url: str, two_urls: list[str]) -> None:
    cloud = make(tmp_path, ["h1", "h2"], rabbitmq_url, two_urls)
    try:
        cloud.start()
        ids = [cloud.create(ring=False) for _ in range(10)]
        for server_id in ids:
            cloud.wait_state(server_id, "active")
        states = dict.fromkeys(ids, "active")
        cloud.act("server.stop", ids[0])
        cloud.act("server.reboot_soft", ids[1])
        cloud.act("server.reboot_hard", ids[2])
        cloud.act("server.stop", ids[3])
        cloud.wait_state(ids[3], "stopped")
        cloud.act("server.start", ids[3])
        cloud.delete(ids[4])
        unplaced = cloud.create(memory_mib=10_000_000)
        cloud.wait_state(unplaced, "error")
        cloud.delete(unplaced)
        settle(cloud)
        states.update({ids[0]: "stopped", ids[4]: "deleted", unplaced: "deleted"})
        assert_nothing_lost(cloud, tmp_path / "hosts", states)
    finally:
        cloud.stop()


@pytest.mark.rabbitmq
@MARIADB
def test_several_schedulers_and_conductors(tmp_path: Path, rabbitmq_url: str, two_urls: list[str]) -> None:
    """More is asked for than there is room: what fits is placed once each, the rest fails with the reason."""
    options = {
        "simulated.memory_mib": 640 + 512,  # 512 are the host's own
        "conductor.sweep_interval_s": 0.2,
        "scheduler.interval_s": 0.2,
    }
    hosts = [f"h{number}" for number in range(8)]
    cloud = make(tmp_path, hosts, rabbitmq_url, two_urls, **options)
    try:
        cloud.start()
        others = [scheduler_service.make_role(cloud.conf), conductor_service.make_role(cloud.conf)]
        for role in others:
            role.start()
            cloud.roles.append(role)
        ids: list[str] = []
        lock = threading.Lock()

        def create() -> None:
            for _ in range(10):
                server_id = cloud.create()
                with lock:
                    ids.append(server_id)

        in_threads(create, 10)
        settle(cloud, 90)
        states = {server_id: cloud.server(server_id)["vm_state"] for server_id in ids}
        assert sorted(states.values()) == ["active"] * 80 + ["error"] * 20
        assert_nothing_lost(cloud, tmp_path / "hosts", states)
        for server_id in ids:
            cloud.delete(server_id)
        settle(cloud, 90)
        assert_nothing_lost(cloud, tmp_path / "hosts", dict.fromkeys(ids, "deleted"))
    finally:
        cloud.stop()


def in_threads(function: Any, number: int) -> None:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as failure:  # noqa: BLE001 - shown by the assertion below
            failures.append(failure)

    threads = [threading.Thread(target=run) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.rabbitmq
def test_the_broker_restarts_under_load(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A broker of this test's own is killed and started again while fifty servers are made."""
    reason = servers.missing("rabbitmq")
    if reason:
        pytest.skip(reason)
    folder = Path(os.environ["HANEUL_LAB_FOLDER"]) / f"restart-{os.getpid()}"
    broker = servers.STARTERS["rabbitmq"](folder)
    assert isinstance(broker, servers.RabbitMQ)
    options = {
        "simulated.state_dir": str(tmp_path / "hosts"),
        "simulated.delay": 0.02,
        "compute.max_concurrent_intents": 3,
        "oslo_messaging_rabbit.rabbit_retry_interval": 1,
        "oslo_messaging_rabbit.kombu_reconnect_delay": 0.1,
        "oslo_messaging_rabbit.heartbeat_timeout_threshold": 10,
    }
    cloud = Cloud(tmp_path, ["h1", "h2"], transport=broker.url("%2f"), **options)
    try:
        cloud.start()
        ids = [cloud.create(ring=False) for _ in range(50)]
        wait_for(lambda: states_of(cloud, ids).count("active") >= 3, "some are active")
        broker.stop()
        time.sleep(1)
        assert states_of(cloud, ids).count("active") < 50, "the broker was away in the middle"
        broker = servers.start_rabbitmq_again(broker)
        settle(cloud, 120)
        assert_nothing_lost(cloud, tmp_path / "hosts", dict.fromkeys(ids, "active"))
    finally:
        cloud.stop()
        broker.stop()


def states_of(cloud: Cloud, ids: list[str]) -> list[str]:
    return [cloud.server(server_id)["vm_state"] for server_id in ids]


EVENTLET = """
import json, sys
from core import backend
backend.select("eventlet")
import threading
from pathlib import Path
from eventlet import patcher
assert patcher.is_monkey_patched("thread") and backend.executor() == "eventlet"
from tests.crash.invariants import assert_nothing_lost, settle
from tests.stack.cloud import Cloud
folder, urls, transport = json.loads(sys.argv[1])
cloud = Cloud(Path(folder), ["h1", "h2"], transport=transport, connection=urls[0], cell_connection=urls[1],
              **{"simulated.state_dir": folder + "/hosts"})
cloud.start()
ids = [cloud.create() for _ in range(10)]
for server_id in ids:
    cloud.wait_state(server_id, "active", 60)
cloud.act("server.stop", ids[0])
cloud.wait_state(ids[0], "stopped", 60)
cloud.act("server.start", ids[0])
cloud.wait_state(ids[0], "active", 60)
cloud.delete(ids[1])
settle(cloud, 60)
assert_nothing_lost(cloud, Path(folder) / "hosts", {**dict.fromkeys(ids, "active"), ids[1]: "deleted"})
cloud.stop()
print("all went well on", type(threading.current_thread()).__module__)
"""


@pytest.mark.rabbitmq
@MARIADB
def test_on_eventlet(tmp_path: Path, rabbitmq_url: str, two_urls: list[str]) -> None:
    """All roles in a process that was patched before anything else was imported."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", EVENTLET, json.dumps([str(tmp_path), two_urls, rabbitmq_url])],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "all went well" in done.stdout
