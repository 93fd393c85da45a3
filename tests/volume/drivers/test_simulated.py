"""The simulated driver: what of the contract makes sense without data."""

from __future__ import annotations

from pathlib import Path

import pytest

from core import config
from core.errors import Conflict, DriverError
from tests.volume.drivers.contract import read, snapshot_of, volume, write
from volume.drivers.simulated import SimulatedDriver, leftovers


@pytest.fixture
def driver(tmp_path: Path) -> SimulatedDriver:
    conf = config.load()
    SimulatedDriver(conf, "sim")
    config.override(conf, "sim.state_dir", str(tmp_path / "sim"))
    made = SimulatedDriver(conf, "sim")
    made.start()
    return made


def test_content_follows_copies(driver: SimulatedDriver) -> None:
    made, copy, later = volume(), volume(), volume()
    driver.create(made)
    write(driver, made, b"token")
    driver.clone(copy, made)
    snapshot = snapshot_of(copy)
    driver.create_snapshot(snapshot)
    write(driver, copy, b"other")
    driver.create_from_snapshot(later, snapshot)
    assert [read(driver, each, 5) for each in (made, copy, later)] == [b"token", b"other", b"token"]
    driver.revert(copy, snapshot)
    assert driver.content(copy) == "token"


def test_a_restart_finds_what_was_left(driver: SimulatedDriver, tmp_path: Path) -> None:
    made = volume()
    driver.create(made)
    again = SimulatedDriver(driver._conf, "sim")
    again.start()
    assert again.exists(made)
    assert leftovers(tmp_path / "sim", set()) == [made.name]
    assert leftovers(tmp_path / "sim", {made.id}) == []


def test_a_volume_with_snapshots_is_not_deleted(driver: SimulatedDriver) -> None:
    made = volume()
    driver.create(made)
    snapshot = snapshot_of(made)
    driver.create_snapshot(snapshot)
    with pytest.raises(Conflict):
        driver.delete(made)
    driver.delete_snapshot(snapshot)
    driver.delete(made)
    assert not driver.exists(made)


def test_failures_come_as_configured(driver: SimulatedDriver) -> None:
    config.override(driver._conf, "sim.failures", ["create#2"])
    driver.create(volume())
    with pytest.raises(DriverError, match="simulated failure of create"):
        driver.create(volume())
    driver.create(volume())
