"""Hosts and requests for the scheduler's tests."""

from __future__ import annotations

import pytest
from oslo_config import cfg

from core import config
from scheduler import options
from scheduler.host_state import HostRow, Inventory
from scheduler.request import PlacementRequest

NOW = 1000.0


def row(name: str, **kwargs) -> HostRow:
    values = {
        "inventories": {"VCPU": Inventory(8), "MEMORY_MB": Inventory(16384, 512), "DISK_GB": Inventory(100)},
        "last_seen": NOW,
        "cell": "cell1",
        **kwargs,
    }
    return HostRow(provider_uuid=f"rp-{name}", host=name, **values)


def request(server: str = "server", **kwargs) -> PlacementRequest:
    values = {"resources": {"VCPU": 2, "MEMORY_MB": 2048, "DISK_GB": 10}, "project_id": "p", **kwargs}
    return PlacementRequest(f"intent-{server}", server, **values)


@pytest.fixture
def conf() -> cfg.ConfigOpts:
    loaded = config.load()
    options.register(loaded)
    return loaded
