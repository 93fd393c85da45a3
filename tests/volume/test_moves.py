"""Volumes that move between backends of one worker and of two, with real files; sums of their content."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core import config
from lifecycle.engine import Engine
from tests.api.client import configured
from tests.crash.volume_cloud import ADMIN, MIB, VolumeCloud, configure, snapshot, volume
from tests.stack.cloud import wait_for
from volume.drivers import backends, file
from volume.service import VolumeRole, make_role
from volume.worker import VolumeWorker

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is missing")
FAR = "w2@far#far"


class Clouds:
    """A worker with backends ``one`` and ``two``, and another process's worth of worker with ``far``."""

    def __init__(self, folder: Path) -> None:
        self.cloud = VolumeCloud(folder, "file", own_worker=True)
        for name in ("one", "two"):
            config.override(self.cloud.conf, f"{name}.shared", True)
        self._conf, self.far = self._far(folder)

    def _far(self, folder: Path) -> tuple[Any, VolumeRole]:
        conf = configured(self.cloud.url)
        configure(conf, folder, "file", 60)
        conf.register_opts([*backends.BACKEND_OPTS, *file.OPTS], group="far")
        for name, value in {
            "transport_url": self.cloud.conf.transport_url,
            "host": "w2",
            "volume.host": "w2",
            "volume.enabled_backends": ["far"],
            "far.driver": "file",
            "far.path": str(folder / "far"),
            "far.shared": True,
        }.items():
            config.override(conf, name, value)
        return conf, make_role(conf)

    def start(self) -> None:
        self.cloud.start()
        self.far.start()
        for each in self.far.backends:
            self.cloud.looking[each.host] = VolumeWorker(self._conf, self.cloud.services.databases, each)
        wait_for(lambda: len(self.cloud.rows("volume_pools")) == 3, "all pools are known")

    def stop(self) -> None:
        self.far.stop()
        self.cloud.stop()

    def make(self) -> str:
        """A volume with content here and there, its end among it."""
        made = volume(self.cloud, b"its beginning")
        with self.cloud.driver_of(made).open(self._seen(made), write=True) as opened:
            for at in (5 * MIB + 17, 700 * MIB, (1 << 30) - 100):
                opened.seek(at)
                opened.write(hashlib.sha512(str(at).encode()).digest())
        return made

    def _seen(self, volume_id: str) -> Any:
        return self.cloud._worker(volume_id).volume(volume_id)

    def digest(self, volume_id: str) -> str:
        """Of a MiB around each place that was written to, and one that was not (that all is the same the move itself checks)."""
        found = hashlib.sha256()
        with self.cloud.driver_of(volume_id).open(self._seen(volume_id)) as opened:
            for at in (0, 5 * MIB, 300 * MIB, 700 * MIB, (1 << 30) - MIB):
                opened.seek(at)
                found.update(opened.read(MIB))
        return found.hexdigest()

    def migrate(self, volume_id: str, host: str, status: int = 202, **asked: Any) -> Any:
        body = {"host": host, **asked}
        return self.cloud.api.action(volume_id, "os-migrate_volume", body, as_=ADMIN, status=status)

    def row(self, volume_id: str) -> dict[str, Any]:
        found = self.cloud.row("volumes", volume_id)
        assert found is not None
        return found

    def elsewhere(self, volume_id: str) -> str:
        """The other backend of the same worker."""
        names = [row["name"] for row in self.cloud.rows("volume_pools")]
        return next(name for name in names if name not in (FAR, self.row(volume_id)["host"]))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clouds]:
    clouds = Clouds(tmp_path_factory.mktemp("moves"))
    try:
        clouds.start()
        yield clouds
    finally:
        clouds.stop()


@pytest.fixture
def clouds(shared: Clouds) -> Iterator[Clouds]:
    yield shared
    Engine.probe = None
    shared.cloud.forget()
    assert shared.cloud.leftovers() == []


def test_there_and_back_and_to_another_worker(clouds: Clouds) -> None:
    made = clouds.make()
    first, before = clouds.row(made)["host"], clouds.digest(made)
    for place in (clouds.elsewhere(made), FAR, first):
        if clouds.row(made)["host"] == place:
            continue
        clouds.migrate(made, place)
        clouds.cloud.settle()
        row = clouds.row(made)
        assert (row["host"], row["status"], row["migration_status"]) == (place, "available", "success")
        assert clouds.digest(made) == before
        assert [each["id"] for each in clouds.cloud.rows("volumes")] == [made]
    shown = clouds.cloud.api.get(f"/volumes/{made}", as_=ADMIN)["volume"]
    assert shown["os-vol-mig-status-attr:name_id"] == clouds.row(made)["data_id"] != made


class Halted:
    """The move stops before the copy until the block ends."""

    def __init__(self) -> None:
        self.reached, self.go = threading.Event(), threading.Event()

    def __enter__(self) -> Halted:
        Engine.probe = self  # type: ignore[assignment]
        return self

    def __exit__(self, *_: object) -> None:
        self.go.set()

    def __call__(self, kind: str, step: str, where: str) -> None:
        if (step, where) == ("copy", "after"):
            self.reached.set()
            self.go.wait(30)


def test_what_is_attached_meanwhile_stays(clouds: Clouds) -> None:
    """What a server may have written since is not in the copy."""
    made = clouds.make()
    first = clouds.row(made)["host"]
    with Halted() as halted:
        clouds.migrate(made, clouds.elsewhere(made))
        assert halted.reached.wait(30)
        names = [each["id"] for each in clouds.cloud.api.get("/volumes")["volumes"]]
        assert names == [made], "a project does not see what is made for the move"
        asked = {"volume_uuid": made}
        attached = clouds.cloud.api.post("/attachments", {"attachment": asked}, version="3.27")["attachment"]
    clouds.cloud.settle()
    row = clouds.row(made)
    assert (row["host"], row["status"], row["migration_status"]) == (first, "reserved", "error")
    clouds.cloud.api.delete(f"/attachments/{attached['id']}", version="3.27", status=200)
    assert clouds.row(made)["status"] == "available"


def test_a_locked_volume_can_be_renamed_but_not_attached(clouds: Clouds) -> None:
    made = clouds.make()
    to, before = clouds.elsewhere(made), clouds.digest(made)
    with Halted() as halted:
        clouds.migrate(made, to, lock_volume=True)
        assert halted.reached.wait(30)
        assert clouds.row(made)["status"] == "maintenance"
        asked = {"attachment": {"volume_uuid": made}}
        clouds.cloud.api.post("/attachments", asked, version="3.27", status=400)
        clouds.cloud.api.put(f"/volumes/{made}", {"volume": {"name": "new name"}})
    clouds.cloud.settle()
    row = clouds.row(made)
    assert (row["host"], row["status"], row["name"]) == (to, "available", "new name")
    assert clouds.digest(made) == before


def test_what_is_refused(clouds: Clouds) -> None:
    made = clouds.make()
    clouds.migrate(made, clouds.row(made)["host"], status=400)
    clouds.migrate(made, "w9@none#none", status=400)
    clouds.migrate(made, "w1@one", status=400, cluster="c1")
    taken = snapshot(clouds.cloud, made)
    clouds.migrate(made, clouds.elsewhere(made), status=400)
    clouds.cloud.api.delete(f"/snapshots/{taken}", status=202)
    clouds.cloud.settle()
    assert clouds.row(made)["migration_status"] is None


def test_retype_moves_only_if_it_must_and_may(clouds: Clouds) -> None:
    made = clouds.make()
    cloud, first, before = clouds.cloud, clouds.row(made)["host"], clouds.digest(made)
    cloud.api.post("/types", {"volume_type": {"name": "anywhere"}}, as_=ADMIN)
    specs = {"volume_backend_name": "far"}
    cloud.api.post("/types", {"volume_type": {"name": "far", "extra_specs": specs}}, as_=ADMIN)

    def retype(name: str, policy: str) -> dict[str, Any]:
        asked = {"new_type": name, "migration_policy": policy}
        cloud.api.action(made, "os-retype", asked, status=202)
        cloud.settle()
        return {key: clouds.row(made)[key] for key in ("host", "status", "migration_status")}

    assert retype("anywhere", "never") == {"host": first, "status": "available", "migration_status": None}
    assert retype("far", "never") == {"host": first, "status": "available", "migration_status": None}
    assert cloud.api.get(f"/volumes/{made}")["volume"]["volume_type"] == "anywhere"
    specs = {"capabilities:storage_protocol": "tape"}
    cloud.api.post("/types", {"volume_type": {"name": "tape", "extra_specs": specs}}, as_=ADMIN)
    # no backend has such: it stays, whatever it may do
    assert retype("tape", "never")["host"] == first
    assert retype("tape", "on-demand") == {"host": first, "status": "available", "migration_status": "error"}
    assert cloud.api.get(f"/volumes/{made}")["volume"]["volume_type"] == "anywhere"
    assert retype("far", "on-demand") == {"host": FAR, "status": "available", "migration_status": "success"}
    assert cloud.api.get(f"/volumes/{made}")["volume"]["volume_type"] == "far"
    assert clouds.digest(made) == before


def test_an_encrypted_volume_keeps_its_key(tmp_path: Path) -> None:
    """Its ciphertext is copied with the header; no second key is made, and none is lost with the old data."""
    cloud = VolumeCloud(tmp_path, "file", own_worker=True, encrypted=True)
    cloud.start()
    try:
        wait_for(lambda: len(cloud.rows("volume_pools")) == 2, "both pools are known")
        made = volume(cloud, b"")
        before = cloud.row("volumes", made)
        assert before is not None

        def header() -> bytes:
            with cloud.driver_of(made).open(cloud._worker(made).volume(made)) as opened:
                return opened.read(4 * MIB)

        first = header()
        assert first.startswith(b"LUKS")
        (to,) = (row["name"] for row in cloud.rows("volume_pools") if row["name"] != before["host"])
        cloud.api.action(made, "os-migrate_volume", {"host": to}, as_=ADMIN, status=202)
        cloud.settle()
        row = cloud.row("volumes", made)
        assert row is not None and (row["host"], row["migration_status"]) == (to, "success")
        assert row["encryption_key_id"] == before["encryption_key_id"]
        assert header() == first
        assert cloud.stray_keys() == []
        cloud.forget()
        assert cloud.leftovers() == [] and cloud.rows("secrets") == []
    finally:
        cloud.stop()
