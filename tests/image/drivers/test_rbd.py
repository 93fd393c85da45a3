"""The RBD store against a real cluster of one node, and volumes that are cloned from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from core import config
from core.errors import BadRequest, DriverError
from image.drivers.rbd import SNAPSHOT, RbdKind, RbdStore
from lifecycle.steps import Run
from tests.image.drivers.contract import MIB, Contract, content, new_name
from tests.lab import ceph
from tests.volume.drivers.contract import read, volume
from volume.actions.volumes import write_image
from volume.drivers.rbd import RbdDriver
from volume.worker import VolumeWorker

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


def make(configuration: Path, pool: str = "images") -> RbdStore:
    conf, kind = config.load(), RbdKind()
    conf.register_opts(kind.OPTS, group="image_store_ceph")
    for name, value in (
        ("rbd_store_pool", pool),
        ("rbd_store_user", "cinder"),
        ("rbd_store_ceph_conf", str(configuration)),
        ("rados_connect_timeout", 5),
    ):
        config.override(conf, f"image_store_ceph.{name}", value)
    store = kind("ceph", conf.image_store_ceph, None)
    assert isinstance(store, RbdStore)
    return store


@pytest.fixture
def store(cluster: ceph.Cluster) -> Iterator[RbdStore]:
    made = make(cluster.configuration)
    yield made
    made.close()


@pytest.fixture
def driver(cluster: ceph.Cluster) -> Iterator[RbdDriver]:
    conf = config.load()
    RbdDriver(conf, "ceph")
    config.override(conf, "ceph.rbd_ceph_conf", str(cluster.configuration))
    made = RbdDriver(conf, "ceph")
    made.start()
    yield made
    made.close()


def names(store: RbdStore) -> list[str]:
    with store._pool() as pool:
        trash = [each["name"] for each in store._rbd.RBD().trash_list(pool)]
        return sorted([*store._rbd.RBD().list(pool), *trash])


class TestContract(Contract):
    """The RBD store keeps the contract."""


def test_the_image_has_a_protected_snapshot_and_no_blocks_for_zeros(store: RbdStore) -> None:
    name = new_name()
    store.put(content(64), name)
    with store._pool() as pool, store._rbd.Image(pool, name, read_only=True) as image:
        assert image.is_protected_snap(SNAPSHOT)
        written: list[int] = []
        image.diff_iterate(0, image.size(), None, lambda _at, length, exists: written.append(length * exists))
        assert image.size() == 64 * MIB + 7
        assert sum(written) <= 16 * MIB
    store.delete(name)
    assert names(store) == []


def test_a_killed_put_is_cleared_away(store: RbdStore) -> None:
    name = new_name()
    with store._pool() as pool:
        store._rbd.RBD().create(pool, f"{name}.part", MIB, old_format=False)
    assert not store.exists(name)
    store.delete(name)
    assert names(store) == []


@pytest.mark.parametrize("clone_format", ["1", "2"])
def test_a_volume_is_a_clone_and_outlives_the_image(
    store: RbdStore, driver: RbdDriver, clone_format: str
) -> None:
    driver._connected().conf_set("rbd_default_clone_format", clone_format)
    name, chunks = new_name(), content()
    store.put(chunks, name)
    made = dataclasses.replace(volume(), size_gib=1)
    assert driver.clone_image(made, [{"url": store.url(name), "metadata": {}}])
    with driver._image(made.name) as image:
        assert image.parent_info()[1:] == (name, SNAPSHOT)
    store.delete(name)
    assert not store.exists(name)
    store.sweep()
    data = b"".join(chunks)
    assert read(driver, made, len(data)) == data
    driver.delete(made)
    # nobody needs it now
    store.sweep()
    assert names(store) == []


class _Worker:
    """A volume worker whose image service tells locations, and has no data to give."""

    def __init__(self, driver: RbdDriver, url: str) -> None:
        self.driver, self.url = driver, url
        self.copied: list[str] = []

    def image_locations(self, _image_id: str) -> list[dict[str, Any]]:
        return [{"url": self.url, "metadata": {}}]

    def image(self, image_id: str) -> Any:
        self.copied.append(image_id)
        raise DriverError("no data")


def test_the_volume_worker_clones_raw_images_only(store: RbdStore, driver: RbdDriver) -> None:
    name, run = new_name(), cast(Run, None)
    store.put(content(), name)
    worker = _Worker(driver, store.url(name))
    made, encrypted = volume(), dataclasses.replace(volume(), header_bytes=2 * MIB)
    raw: dict[str, Any] = {"image_id": "i", "image": {"disk_format": "raw"}}
    write_image(run, cast(VolumeWorker, worker), made, raw)
    assert worker.copied == [] and driver.exists(made)
    for target, image in (
        (encrypted, {"disk_format": "raw"}),
        (volume(), {"disk_format": "raw", "key_id": "k"}),
        (volume(), {"disk_format": "qcow2"}),
    ):
        with pytest.raises(DriverError, match="no data"):
            write_image(run, cast(VolumeWorker, worker), target, {"image_id": "i", "image": image})
        assert not driver.exists(target)
    store.delete(name)
    # what is gone can't be cloned: whoever has its data elsewhere copies it
    assert driver.clone_image(volume(), worker.image_locations("i")) is False
    driver.delete(made)
    store.sweep()
    assert names(store) == []


def test_an_image_that_does_not_fit_is_refused(store: RbdStore, driver: RbdDriver) -> None:
    name, small = new_name(), dataclasses.replace(volume(), size_gib=0)
    store.put(content(), name)
    with pytest.raises(BadRequest, match="larger"):
        driver.clone_image(small, [{"url": store.url(name)}])
    assert not driver.exists(small)
    store.delete(name)


def test_another_cluster_s_image_is_not_cloned(driver: RbdDriver) -> None:
    elsewhere = "rbd://00000000-0000-0000-0000-000000000000/images/x/snap"
    assert driver.clone_image(volume(), [{"url": elsewhere, "metadata": {}}, {"url": "file:///x"}]) is False


def test_space_of_the_pool(store: RbdStore) -> None:
    space = store.space()
    assert space is not None and 0 < space.free <= space.total


def test_no_cluster_and_no_pool(cluster: ceph.Cluster, tmp_path: Path) -> None:
    nowhere = tmp_path / "ceph.conf"
    nowhere.write_text("[global]\nmon_host = 127.0.0.1:1\nkeyring = /nonexistent\n")
    with pytest.raises(DriverError):
        make(nowhere).put([b"x"], new_name())
    with pytest.raises(DriverError, match="no pool"):
        make(cluster.configuration, "nosuch").put([b"x"], new_name())
