"""What every driver must do, as tests: a driver's test module subclasses ``Contract`` and gives a ``driver`` fixture.

Content is written through ``open``, whatever the backend; sizes are 1 and 2 GiB, sparse.
"""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path
from typing import Any

import pytest

from core.errors import BadRequest, Conflict, HaneulError
from volume.drivers.base import Snapshot, Volume, VolumeDriver

MIB = 1 << 20


def volume(size_gib: int = 1, **more: Any) -> Volume:
    return Volume(id=str(uuid.uuid4()), size_gib=size_gib, **more)


def snapshot_of(source: Volume) -> Snapshot:
    return Snapshot(id=str(uuid.uuid4()), volume=source, size_gib=source.size_gib)


def write(driver: VolumeDriver, target: Volume, data: bytes, at: int = 0) -> None:
    with driver.open(target, write=True) as file:
        file.seek(at)
        file.write(data)


def read(driver: VolumeDriver, source: Volume | Snapshot, length: int, at: int = 0) -> bytes:
    with driver.open(source) as file:
        file.seek(at)
        return file.read(length)


def digest(driver: VolumeDriver, source: Volume | Snapshot) -> str:
    """sha256 of the first 8 MiB and the last one."""
    with driver.open(source) as file:
        found = hashlib.sha256(file.read(8 * MIB))
        file.seek(-MIB, 2)
        found.update(file.read())
        return found.hexdigest()


class Contract:
    """Behaviour that API and worker rely on."""

    connector: dict[str, Any] = {
        "host": "here",
        "initiator": "iqn.2026-11.org.example:here",
        "ip": "127.0.0.1",
    }  # noqa: RUF012

    def test_a_new_volume_is_zeros_and_has_its_size(self, driver: VolumeDriver) -> None:
        made = volume()
        driver.create(made)
        assert driver.exists(made)
        assert read(driver, made, MIB) == bytes(MIB)
        with driver.open(made) as file:
            assert file.seek(0, 2) == 1 << 30
        driver.delete(made)

    def test_what_is_written_stays(self, driver: VolumeDriver) -> None:
        made = volume()
        driver.create(made)
        write(driver, made, b"data" * 1000, at=MIB)
        assert read(driver, made, 4000, at=MIB) == b"data" * 1000
        driver.delete(made)

    def test_making_twice_keeps_the_first(self, driver: VolumeDriver) -> None:
        made = volume()
        first = driver.create(made)
        write(driver, made, b"kept")
        assert driver.create(made) == first
        assert read(driver, made, 4) == b"kept"
        driver.delete(made)

    def test_the_content_is_a_file_for_programs(self, driver: VolumeDriver) -> None:
        made = volume()
        driver.create(made)
        with driver.connect(made, write=True) as path, path.open("r+b") as file:
            file.write(b"by path")
        with driver.connect(made) as path:
            assert path.open("rb").read(7) == b"by path"
        driver.delete(made)

    def test_deleting_twice_is_no_fault(self, driver: VolumeDriver) -> None:
        made = volume()
        driver.create(made)
        driver.delete(made)
        assert not driver.exists(made)
        driver.delete(made)

    def test_a_snapshot_keeps_what_was(self, driver: VolumeDriver) -> None:
        made = volume()
        driver.create(made)
        write(driver, made, b"before")
        snapshot = snapshot_of(made)
        driver.create_snapshot(snapshot)
        write(driver, made, b"behind")
        assert read(driver, snapshot, 6) == b"before"
        assert read(driver, made, 6) == b"behind"
        driver.delete_snapshot(snapshot)
        assert read(driver, made, 6) == b"behind"
        driver.delete(made)

    def test_a_snapshot_taken_twice_is_one(self, driver: VolumeDriver) -> None:
        made = volume()
        driver.create(made)
        snapshot = snapshot_of(made)
        assert driver.create_snapshot(snapshot) == driver.create_snapshot(snapshot)
        driver.delete_snapshot(snapshot)
        driver.delete_snapshot(snapshot)
        driver.delete(made)

    def test_a_volume_from_a_snapshot_outlives_it_and_its_source(self, driver: VolumeDriver) -> None:
        made, later = volume(), volume(2)
        driver.create(made)
        write(driver, made, b"origin")
        snapshot = snapshot_of(made)
        driver.create_snapshot(snapshot)
        write(driver, made, b"change")
        driver.create_from_snapshot(later, snapshot)
        driver.delete_snapshot(snapshot)
        driver.delete(made)
        assert read(driver, later, 6) == b"origin"
        with driver.open(later) as file:
            assert file.seek(0, 2) == 2 << 30
        driver.delete(later)

    def test_a_clone_is_apart_from_its_source(self, driver: VolumeDriver) -> None:
        made, copy = volume(), volume()
        driver.create(made)
        write(driver, made, b"shared")
        before = digest(driver, made)
        driver.clone(copy, made)
        assert digest(driver, copy) == before
        write(driver, copy, b"copy's")
        assert read(driver, made, 6) == b"shared"
        driver.delete(made)
        assert read(driver, copy, 6) == b"copy's"
        driver.delete(copy)

    def test_revert_brings_back(self, driver: VolumeDriver) -> None:
        made = volume()
        driver.create(made)
        write(driver, made, b"good")
        snapshot = snapshot_of(made)
        driver.create_snapshot(snapshot)
        write(driver, made, b"evil")
        driver.revert(made, snapshot)
        assert read(driver, made, 4) == b"good"
        driver.revert(made, snapshot)
        driver.delete_snapshot(snapshot)
        driver.delete(made)

    def test_a_snapshot_is_let_go_and_taken_over(self, driver: VolumeDriver) -> None:
        made, other = volume(), volume()
        for each in (made, other):
            driver.create(each)
        write(driver, made, b"before")
        first = snapshot_of(made)
        driver.create_snapshot(first)
        write(driver, made, b"behind")
        try:
            driver.unmanage_snapshot(first)
        except BadRequest:
            assert driver.manageable_snapshots() == [], "who lists them can let them go"
            driver.delete_snapshot(first)
        else:
            driver.unmanage_snapshot(first)
            (free,) = driver.manageable_snapshots()
            assert (free["size"], free["safe_to_manage"]) == (1, True)
            assert free["source_reference"] == {"source-name": made.name}
            again = snapshot_of(made)
            for wrong in ({"source-name": "none"}, {"source-name": "../x"}, {}):
                with pytest.raises(BadRequest):
                    driver.manage_snapshot(again, wrong)
            with pytest.raises(BadRequest):
                driver.manage_snapshot(snapshot_of(other), free["reference"])
            for _ in range(2):
                assert driver.manage_snapshot(again, free["reference"])[1] == 1
            assert driver.manageable_snapshots() == []
            assert read(driver, again, 6) == b"before"
            driver.delete_snapshot(again)
        for each in (made, other):
            driver.delete(each)

    def test_extending_adds_zeros_and_repeats(self, driver: VolumeDriver) -> None:
        made = volume()
        driver.create(made)
        write(driver, made, b"here")
        driver.extend(made, 2)
        driver.extend(made, 2)
        grown = Volume(id=made.id, size_gib=2)
        assert read(driver, grown, 4) == b"here"
        assert read(driver, grown, MIB, at=(2 << 30) - MIB) == bytes(MIB)
        driver.delete(grown)

    def test_an_image_is_written(self, driver: VolumeDriver, tmp_path: Path) -> None:
        image = tmp_path / "image.raw"
        image.write_bytes(b"image" + bytes(3 * MIB - 5))
        made = volume()
        seen: list[int] = []
        driver.write_image(made, image, "raw", seen.append)
        assert read(driver, made, 5) == b"image"
        assert seen[-1] == 3 * MIB
        driver.delete(made)

    def test_a_connection_names_the_volume(self, driver: VolumeDriver) -> None:
        made = volume()
        driver.create(made)
        info = driver.initialize_connection(made, self.connector, "rw")
        assert info["driver_volume_type"]
        assert info["data"]["access_mode"] == "rw"
        assert driver.initialize_connection(made, self.connector, "rw") == info
        driver.terminate_connection(made, self.connector)
        driver.terminate_connection(made, None)
        driver.delete(made)

    def test_the_pool_says_how_much_there_is(self, driver: VolumeDriver) -> None:
        (pool,) = driver.pools()
        assert 0 < pool.free_gib <= pool.total_gib


__all__ = [
    "MIB",
    "BadRequest",
    "Conflict",
    "Contract",
    "HaneulError",
    "digest",
    "read",
    "snapshot_of",
    "volume",
    "write",
]
