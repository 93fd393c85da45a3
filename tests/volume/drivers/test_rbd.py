"""The RBD driver against a real cluster of one node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from core import config
from core.errors import BadRequest, Conflict, DriverError
from tests.lab import ceph
from tests.volume.drivers.contract import Contract, read, snapshot_of, volume, write
from tests.volume.drivers.encrypted_contract import EncryptedContract
from volume.drivers.rbd import RbdDriver

pytestmark = [pytest.mark.ceph, pytest.mark.xdist_group("ceph"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ceph.Cluster]:
    why = ceph.missing()
    if why:
        pytest.skip(why)
    made = ceph.Cluster(tmp_path_factory.mktemp("ceph"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def driver(cluster: ceph.Cluster) -> Iterator[RbdDriver]:
    conf = config.load()
    RbdDriver(conf, "ceph")
    config.override(conf, "ceph.rbd_ceph_conf", str(cluster.configuration))
    made = RbdDriver(conf, "ceph")
    made.start()
    yield made
    made.close()


def names(driver: RbdDriver) -> list[str]:
    with driver._pool() as pool:
        trash = [each["name"] for each in driver._rbd.RBD().trash_list(pool)]
        return sorted([*driver._rbd.RBD().list(pool), *trash])


class TestContract(Contract):
    """The RBD driver keeps the contract."""


class TestEncrypted(EncryptedContract):
    """And that of encrypted volumes."""


def test_nothing_stays_when_all_is_deleted(driver: RbdDriver) -> None:
    made, later = volume(), volume()
    driver.create(made)
    write(driver, made, b"x")
    snapshot = snapshot_of(made)
    driver.create_snapshot(snapshot)
    driver.create_from_snapshot(later, snapshot)
    driver.delete_snapshot(snapshot)
    driver.delete(made)
    assert read(driver, later, 1) == b"x"
    driver.delete(later)
    driver.sweep()
    assert names(driver) == []


def test_a_volume_with_a_snapshot_is_not_deleted(driver: RbdDriver) -> None:
    made = volume()
    driver.create(made)
    snapshot = snapshot_of(made)
    driver.create_snapshot(snapshot)
    with pytest.raises(Conflict, match="snapshots"):
        driver.delete(made)
    driver.delete_snapshot(snapshot)
    driver.delete(made)
    assert not driver.exists(made)


def test_a_long_line_of_clones_is_cut(driver: RbdDriver) -> None:
    config.override(driver._conf, "ceph.rbd_max_clone_depth", 2)
    line = [volume()]
    driver.create(line[0])
    write(driver, line[0], b"first")
    for _ in range(4):
        line.append(volume())
        driver.clone(line[-1], line[-2])
        with driver._image(line[-1].name) as image:
            assert driver._depth(image) <= 2
    assert read(driver, line[-1], 5) == b"first"
    for each in reversed(line):
        driver.delete(each)
    driver.sweep()
    assert names(driver) == []


def test_an_image_in_the_cluster_is_cloned_not_copied(driver: RbdDriver, cluster: ceph.Cluster) -> None:
    cluster._run("rbd", "create", "--size", "1M", "images/img")
    cluster._run("rbd", "snap", "create", "images/img@snap")
    fsid = driver._connected().get_fsid()
    made = volume()
    assert driver.clone_image(made, [{"url": "file:///x"}, {"url": "rbd://other/images/img/snap"}]) is False
    assert driver.clone_image(made, [{"url": f"rbd://{fsid}/images/img/snap"}])
    with driver._image(made.name) as image:
        assert image.parent_info()[:2] == ("images", "img")
        assert image.size() == 1 << 30
    driver.delete(made)


def test_an_image_that_is_too_large_is_refused_and_leaves_nothing(driver: RbdDriver, tmp_path: Path) -> None:
    image = tmp_path / "big.raw"
    with image.open("wb") as file:
        file.truncate(2 << 30)
    with pytest.raises(BadRequest, match="larger than the volume"):
        driver.write_image(volume(), image, "raw", lambda _done: None)
    assert names(driver) == []


def test_an_image_is_taken_over(driver: RbdDriver, cluster: ceph.Cluster) -> None:
    cluster._run("rbd", "create", "--size", "1500M", "volumes/old")
    assert [each["reference"] for each in driver.manageable_volumes()] == [{"source-name": "old"}]
    made = volume(2)
    assert driver.manage(made, {"source-name": "old"})[1] == 2
    driver.delete(made)
    with pytest.raises(BadRequest, match="no image 'nothing'"):
        driver.manage(volume(), {"source-name": "nothing"})


def test_a_cluster_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    conf = config.load()
    RbdDriver(conf, "ceph")
    config.override(conf, "ceph.rbd_ceph_conf", str(tmp_path / "none.conf"))
    why = ceph.missing()
    if why:
        pytest.skip(why)
    with pytest.raises(DriverError, match="does not answer"):
        RbdDriver(conf, "ceph").start()
