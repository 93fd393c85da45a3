"""Intents from their row to their end, over the real scheduler, conductor and agents."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.context import admin_context
from db import image_caching
from lifecycle.rpc import ConductorClient
from tests.stack.cloud import Cloud, wait_for


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    cloud = Cloud(tmp_path, ["h1", "h2"])
    cloud.start()
    yield cloud
    cloud.stop()


def test_create_stop_start_delete(cloud: Cloud) -> None:
    server_id = cloud.create()
    server = cloud.wait_state(server_id, "active")
    assert server["host"] in ("h1", "h2")
    assert server["power_state"] == 1
    assert server["launched_at"] is not None
    assert cloud.allocations() == {server_id: {"VCPU": 1, "MEMORY_MB": 64, "DISK_GB": 1}}

    cloud.act("server.stop", server_id)
    assert cloud.wait_state(server_id, "stopped")["power_state"] == 4
    cloud.act("server.start", server_id)
    assert cloud.wait_state(server_id, "active")["power_state"] == 1

    cloud.act("server.delete", server_id)
    assert cloud.wait_state(server_id, "deleted")["deleted"] == 1
    assert cloud.allocations() == {}
    assert cloud.usage() == 0
    assert [intent["state"] for intent in cloud.intents(server_id)] == ["done"] * 4


def test_servers_spread_and_stop_at_capacity(cloud: Cloud) -> None:
    ids = [cloud.create(memory_mib=1024, ring=False) for _ in range(6)]
    for server_id in ids:
        cloud.wait_state(server_id, "active")
    hosts = [cloud.server(server_id)["host"] for server_id in ids]
    assert sorted(hosts) == ["h1"] * 3 + ["h2"] * 3
    huge = cloud.create(memory_mib=10_000_000)
    server = cloud.wait_state(huge, "error")
    assert server["fault"]["message"].startswith("No valid host was found. 2 hosts;")


def test_without_any_doorbell_it_only_takes_longer(cloud: Cloud) -> None:
    server_id = cloud.create(ring=False)
    cloud.wait_state(server_id, "active")
    cloud.act("server.stop", server_id, ring=False)
    cloud.wait_state(server_id, "stopped")
    cloud.act("server.delete", server_id, ring=False)
    cloud.wait_state(server_id, "deleted")


def test_nothing_is_left_on_the_hosts(cloud: Cloud) -> None:
    ids = [cloud.create() for _ in range(4)]
    for server_id in ids:
        cloud.wait_state(server_id, "active")
        cloud.act("server.delete", server_id)
    for server_id in ids:
        cloud.wait_state(server_id, "deleted")
    agents = next(role for role in cloud.roles if role.name == "compute").agents
    wait_for(lambda: all(not agent.driver.guests() for agent in agents), "no guests left")


def test_the_password_is_forgotten_once_the_server_is_built(cloud: Cloud) -> None:
    server_id = cloud.create(ring=False, admin_password="s3cret")
    cloud.wait_state(server_id, "active")
    (intent,) = cloud.intents(server_id)
    assert intent["arguments"]["guest"]["admin_password"] is None


def test_a_host_fetches_ordered_images_one_after_the_other(tmp_path: Path) -> None:
    """Also when no sweep comes along: the end of one hands out the next."""
    cloud = Cloud(
        tmp_path,
        ["h1", "h2"],
        **{"conductor.sweep_interval_s": 3600},
    )
    cloud.start()
    try:
        images = [
            {"id": str(uuid.uuid4()), "name": f"image-{n}", "disk_format": "raw", "size_bytes": 1}
            for n in range(4)
        ]
        (ids,) = image_caching.order(cloud.databases, cloud.hosts, images, admin_context()).values()
        assert len(ids) == 8
        ConductorClient(cloud.messaging).ring(ids)

        def states() -> list[str]:
            return [row["state"] for row in image_caching.progress(cloud.databases, cloud.hosts)]

        wait_for(lambda: states() == ["done"] * 8, "all are fetched", describe=states)
    finally:
        cloud.stop()
