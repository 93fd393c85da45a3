"""The plane of agents in one process; guests and libvirtd for tests with real guests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.guests import libvirtd, tiny
from tests.network.plane import Plane

__all__ = ["libvirtd", "plane", "tiny"]


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    """Two hosts, over SQLite."""
    made = Plane(f"sqlite:///{tmp_path}/global.sqlite", "h1", "h2")
    yield made
    made.stop()
