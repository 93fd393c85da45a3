"""The RBD store against a real cluster of one node, and volumes that are cloned from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import config
from core.errors import DriverError
from image.drivers.rbd import SNAPSHOT, RbdKind, RbdStore
from tests.image.drivers.contract import MIB, Contract, content, new_name
from tests.lab import ceph
from tests.volume.drivers.contract import read, volume
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
