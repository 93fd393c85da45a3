"""The LVM driver's order of steps, over a volume group that is a dictionary; the real one is in ``inside.py``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from core import config
from core.errors import Conflict, DriverError
from tests.volume.drivers.contract import volume
from volume.drivers.base import Snapshot
from volume.drivers.lvm.commands import Logical
from volume.drivers.lvm.driver import LvmDriver


class Names:
    """A volume group that knows names, sizes, origins and tags."""

    name = "vg"

    def __init__(self) -> None:
        self.kept: dict[str, Logical] = {}

    def volumes(self) -> dict[str, Logical]:
        return dict(self.kept)

    def find(self, name: str) -> Logical | None:
        return self.kept.get(name)

    def device(self, name: str) -> Path:
        return Path("/dev/vg", name)

    def make_thin(self, name: str, size_bytes: int, pool: str, origin: str = "", tags: Any = ()) -> None:
        assert name not in self.kept
        self.kept[name] = Logical(name, size_bytes, pool, origin, False, frozenset(tags), "V", 0)

    def snapshot_thin(self, name: str, origin: str, *tags: str) -> None:
        self.make_thin(name, self.kept[origin].size_bytes, "pool", origin, tags)

    def extend(self, name: str, size_bytes: int) -> None:
        self.kept[name] = dataclasses.replace(self.kept[name], size_bytes=size_bytes)

    def rename(self, old: str, new: str) -> None:
        if old not in self.kept or new in self.kept:
            raise DriverError(f"{old} can't be renamed")
        self.kept[new] = dataclasses.replace(self.kept.pop(old), name=new)
        self._origin(old, new)

    def remove(self, name: str) -> None:
        if self.kept.pop(name, None) is not None:
            self._origin(name, "")

    def _origin(self, old: str, new: str) -> None:
        for each in self.kept.values():
            if each.origin == old:
                self.kept[each.name] = dataclasses.replace(each, origin=new)


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LvmDriver:
    conf = config.load()
    config.override(conf, "state_path", str(tmp_path))
    made = LvmDriver(conf, "lvm")
    made._group = Names()  # type: ignore[assignment]
    for method in ("remove", "resized", "exported"):
        monkeypatch.setattr(made._target, method, lambda *_: None)
    return made


def test_an_attempt_that_was_given_up_names_nothing_that_another_fills(driver: LvmDriver) -> None:
    """Its lease ran out between the last byte and the name; the next attempt has begun."""
    ours = volume()
    with pytest.raises(DriverError), driver._filled(ours):
        second = driver._filled(ours)
        second.__enter__()
    assert not driver.exists(ours)
    second.__exit__(None, None, None)
    assert driver.exists(ours)
    assert list(driver._group.volumes()) == [ours.name]


def test_deleting_takes_what_an_attempt_left_of_this_volume_only(driver: LvmDriver) -> None:
    ours, other = volume(), volume()
    cut_short = [driver._filled(each) for each in (ours, other)]
    for attempt in cut_short:  # held: one that is collected would clean up
        attempt.__enter__()
    driver.delete(ours)
    (left,) = driver._group.volumes()
    assert left.endswith(other.name)


def test_a_reverted_volume_still_has_its_other_snapshots(driver: LvmDriver) -> None:
    ours = volume()
    driver.create(ours)
    first, second = (Snapshot(id=name, volume=ours, size_gib=1) for name in ("first", "second"))
    for each in (first, second):
        driver.create_snapshot(each)
    driver.revert(ours, first)
    driver.delete_snapshot(first)
    with pytest.raises(Conflict):
        driver.delete(ours)
    driver.delete_snapshot(second)
    driver.delete(ours)
    assert not driver._group.volumes()


def test_a_repeated_extension_that_asks_for_more_gets_it(
    driver: LvmDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with a header; and the target is told each time."""
    told: list[str] = []
    monkeypatch.setattr(driver._target, "resized", told.append)
    ours = volume(header_bytes=4096)
    driver.create(ours)
    for size_gib in (2, 2, 3):
        driver.extend(ours, size_gib)
    found = driver._group.find(ours.name)
    assert found is not None and found.size_bytes == (3 << 30) + 4096
    assert told == [ours.name] * 3
