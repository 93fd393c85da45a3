"""Block storage for the crash tests: API and scheduler here, the worker here or in a process that may die.

The backends are two, ``one`` and ``two``, of the driver that is asked for. Content is
written and read through ``driver.open``, so what is compared is what a guest would see.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import webtest
from oslo_config import cfg

from api.key_manager import services as key_manager_services
from api.key_manager.app import make_app as make_key_manager
from api.key_manager.services import KeyManagerServices
from api.volume.app import make_app
from api.volume.services import VolumeDoorbells, VolumeServices
from core import config, key_file, keys
from core.intents import UNFINISHED
from core.messaging import Messaging
from core.pools import Periodic
from db import volume_types
from db.volume_base import TABLES, Row, intents
from scheduler.volume_pools import VolumePass
from tests.api.identity import authenticate
from tests.api.key_manager.conftest import Wsgi
from tests.api.volume.conftest import ADMIN as ADMIN
from tests.api.volume.conftest import Api, make_services
from volume import service, worker
from volume.drivers import backends, file, simulated
from volume.drivers.base import VolumeDriver
from volume.service import VolumeRole, make_role
from volume.worker import VolumeWorker

MIB = 1 << 20


class Answer:
    """An answer of ``Images``, as requests would give it."""

    def __init__(self, status_code: int, content: bytes = b"") -> None:
        self.status_code, self.content = status_code, content
        self.headers = {"Content-Length": str(len(content))}

    def json(self) -> Any:
        return json.loads(self.content)

    def iter_content(self, _size: int) -> Iterator[bytes]:
        yield self.content


def _text(value: Any) -> str:
    return json.dumps(value)


class Images:
    """The image service as workers call it; data are files of a folder, which outlives the worker."""

    most = MIB
    """bytes that it keeps of an upload: volumes are large, and most tests look at their beginning"""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def data(self, image_id: str) -> bytes | None:
        """None: the image has none, or there is no such image."""
        path = self.folder / image_id
        return path.read_bytes() if path.exists() else None

    def get(self, path: str, **_options: Any) -> Answer:
        image_id = path.split("/")[3]
        data = self.data(image_id)
        if path.endswith("/file"):
            return Answer(204) if data is None else Answer(200, data)
        if (self.folder / f"{image_id}.deleted").exists():
            return Answer(404)
        status = "queued" if data is None else "active"
        return Answer(200, json.dumps({"status": status}).encode())

    def put(self, path: str, data: Any, **_options: Any) -> Answer:
        part = self.folder / f".{uuid.uuid4().hex}"
        part.write_bytes(data.read(self.most))
        part.replace(self.folder / path.split("/")[3])
        return Answer(204)

    def patch(self, path: str, json: Any, **_options: Any) -> Answer:
        image_id = path.split("/")[3]
        (self.folder / f"{image_id}.properties").write_text(
            _text({change["path"][1:]: change["value"] for change in json})
        )
        return Answer(200)

    def properties(self, image_id: str) -> dict[str, str]:
        """What was added to an image behind its creation."""
        path = self.folder / f"{image_id}.properties"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def delete(self, path: str, **_options: Any) -> Answer:
        image_id = path.split("/")[3]
        (self.folder / image_id).unlink(missing_ok=True)
        (self.folder / f"{image_id}.deleted").touch()
        return Answer(204)


def configure(conf: cfg.ConfigOpts, folder: Path, driver: str, lease_s: float) -> None:
    """A worker's options: two backends."""
    config.register(conf, service.list_opts())
    config.register(conf, backends.list_opts())
    Messaging(conf, "local:///").close()  # registers transport_url
    values: dict[str, Any] = {
        "transport_url": f"local:///{uuid.uuid4().hex}",
        "state_path": str(folder / "state"),
        "host": "w1",
        "volume.host": "w1",
        "volume.enabled_backends": ["one", "two"],
        "volume_worker.retry_s": 0.01,
        "volume_worker.lease_s": lease_s,
        "volume_worker.interval_s": 0.1,
        "volume_worker.max_attempts": 3,
    }
    for name in ("one", "two"):
        options = {"simulated": simulated.OPTS, "file": file.OPTS}[driver]
        conf.register_opts([*backends.BACKEND_OPTS, *options], group=name)
        values[f"{name}.driver"] = driver
        values[f"{name}.{'path' if driver == 'file' else 'state_dir'}"] = str(folder / name)
    for name, value in values.items():
        config.override(conf, name, value)


def make_worker(conf: cfg.ConfigOpts, folder: Path, patch: pytest.MonkeyPatch) -> VolumeRole:
    """The role, with images from ``folder`` and a key manager over the same database, until ``patch`` is undone."""
    images = Images(folder / "images")
    patch.setattr(worker, "service_adapter", lambda _conf, _service: images)
    conf.register_opts(key_manager_services.OPTS, group=key_manager_services.GROUP)
    config.override(conf, "key_manager_api.key_file", str(folder / "secrets.keys"))
    key_file.create(folder / "secrets.keys")
    key_manager = Wsgi(make_key_manager(conf, KeyManagerServices(conf), authenticate))
    patch.setattr(keys, "service_adapter", lambda _conf, _service: key_manager)
    return make_role(conf)


class VolumeCloud:
    """What the tests speak with. ``role`` None: the worker is another process, and looks by itself."""

    def __init__(self, folder: Path, driver: str, *, own_worker: bool, encrypted: bool = False) -> None:
        self.folder, self.driver_name = folder, driver
        self.url = f"sqlite:///{folder}/global.sqlite"
        self.services: VolumeServices = make_services(self.url)
        conf = self.conf = self.services.conf
        configure(conf, folder, driver, 60)
        for name in ("volumes", "snapshots", "gigabytes", "backups", "backup_gigabytes", "groups"):
            config.override(conf, f"volume_quota.{name}", -1)
        with self.services.databases.global_.write() as connection:
            connection.execute(TABLES["volume_pools"].delete())  # the one of ``make_services`` has no worker
        self.services.doorbells = VolumeDoorbells(conf, self.services.databases)
        self.services.doorbells.ring_scheduler = self.schedule  # type: ignore[method-assign]
        self.services.doorbells.ring_volume = self.ring  # type: ignore[method-assign]
        self.api = Api(webtest.TestApp(make_app(conf, self.services, authenticate)), self.services)
        self.images = Images(folder / "images")
        self._patch = pytest.MonkeyPatch()
        self.role = make_worker(conf, folder, self._patch) if own_worker else None
        looking = backends.load(conf)
        self.looking = {each.host: VolumeWorker(conf, self.services.databases, each) for each in looking}
        # what workers ask for places, with nobody here who hears their ring
        self._scheduler = Periodic("crash-schedule", 0.1, self.schedule)
        if encrypted:
            self._encrypt_default_type()

    def _encrypt_default_type(self) -> None:
        with self.services.databases.global_.write() as connection:
            type_ = volume_types.ensure_default(connection)
        asked = {"encryption": {"provider": "luks", "control_location": "front-end", "key_size": 256}}
        self.api.post(f"/types/{type_['id']}/encryption", asked, as_=ADMIN)

    def start(self) -> None:
        if self.role is not None:
            self.role.start()
        self._scheduler.start()
        for each in self.looking.values():
            each.driver.start()

    def stop(self) -> None:
        self._scheduler.stop()
        if self.role is not None:
            self.role.stop()
        self._patch.undo()  # the next test of this process may have a real image service
        self.services.close()

    def ring(self, host: str) -> None:
        if self.role is not None:
            self.role.ring()
            self.role.ring_backups()

    def schedule(self) -> None:
        VolumePass(self.services.databases, self.ring).run()

    # -- rows --------------------------------------------------------------------

    def row(self, table: str, identifier: str) -> Row | None:
        chosen = TABLES[table]
        with self.services.databases.global_.read() as connection:
            found = connection.execute(chosen.select().where(chosen.c.id == identifier)).mappings().first()
            return None if found is None else dict(found)

    def rows(self, table: str) -> list[Row]:
        with self.services.databases.global_.read() as connection:
            return [dict(row) for row in connection.execute(TABLES[table].select()).mappings()]

    def settle(self, timeout_s: float = 120) -> None:
        """No intent is unfinished any more."""
        deadline = time.monotonic() + timeout_s
        unfinished = intents.select().where(intents.c.state.in_([state.value for state in UNFINISHED]))
        while True:
            with self.services.databases.global_.read() as connection:
                left = [dict(row) for row in connection.execute(unfinished).mappings()]
            if not left:
                return
            assert time.monotonic() < deadline, left
            time.sleep(0.02)

    def forget(self) -> None:
        """Delete what is at rest, so that the next test looks at its own things only."""
        for _ in range(3):  # children before their parents
            for row in self.rows("backups"):
                self.api.delete(f"/backups/{row['id']}", as_=ADMIN, status="*")
            self.settle()
        for row in self.rows("volumes"):
            if row["group_id"] is None:
                self.api.delete(f"/volumes/{row['id']}?cascade=true", as_=ADMIN, status="*")
        self.settle()

    def stray_keys(self) -> list[str]:
        """Keys that open nothing (any more), and rows whose key is gone."""
        named = {row["id"]: row["name"] for row in self.rows("secrets")}
        wanted = {}
        for table, what in (("volumes", "volume"), ("backups", "backup")):
            rows = self.rows(table)
            wanted.update(
                {row["encryption_key_id"]: f"{what}-{row['id']}" for row in rows if row["encryption_key_id"]}
            )
        for image_id in (path.name.partition(".")[0] for path in self.images.folder.glob("*.properties")):
            if not (self.images.folder / f"{image_id}.deleted").exists():
                wanted[self.images.properties(image_id)["cinder_encryption_key_id"]] = f"image-{image_id}"
        return sorted(f"{key}: {name}" for key, name in named.items() ^ wanted.items())

    # -- content -----------------------------------------------------------------

    def _worker(self, volume_id: str) -> VolumeWorker:
        row = self.row("volumes", volume_id)
        assert row is not None
        return self.looking[row["host"].partition("#")[0]]

    def driver_of(self, volume_id: str) -> VolumeDriver:
        """The volume's driver, as it is now."""
        driver = self._worker(volume_id).driver
        if isinstance(driver, simulated.SimulatedDriver):
            driver.start()  # what another driver's object did stands in files
        return driver

    def write(self, volume_id: str, content: bytes) -> None:
        driver = self.driver_of(volume_id)
        with driver.open(self._worker(volume_id).volume(volume_id), write=True) as opened:
            opened.write(content.ljust(64, b"\0"))
        if self.role is not None and self.driver_name == "simulated":
            for backend in self.role.backends:
                backend.driver.start()

    def read(self, volume_id: str) -> bytes | None:
        """What the volume begins with; None: its data is not there."""
        driver, volume = self.driver_of(volume_id), self._worker(volume_id).volume(volume_id)
        if not driver.exists(volume):
            return None
        with driver.open(volume) as opened:
            return opened.read(64).rstrip(b"\0")

    def leftovers(self) -> list[str]:
        """Data on backends that no row stands for."""
        known = {row["id"] for row in self.rows("snapshots")}
        known |= {row["data_id"] or row["id"] for row in self.rows("volumes")}
        found: list[str] = []
        for name in ("one", "two"):
            root = self.folder / name
            if self.driver_name == "simulated":
                found += simulated.leftovers(root, known)
                continue
            found += [str(path) for path in root.rglob("*.part")] + [str(path) for path in root.glob("*.raw")]
            for path in [*root.glob("volumes/*"), *root.glob("snapshots/*"), *root.glob("refs/*/*-*-*-*-*")]:
                owner = path.name.partition(".")[0]
                if owner.partition("-")[2] not in known:
                    found.append(str(path))
            for layer in root.glob("layers/*"):
                if not list((root / "refs" / layer.stem).glob("*")):
                    found.append(str(layer))
        return [each for each in found if not Path(each).name.startswith("unmanaged")]


# -- short ways to make things -----------------------------------------------------


def volume(cloud: VolumeCloud, content: bytes | None = None, **asked: Any) -> str:
    """A new volume with this content, at rest; without, its intent only."""
    made = str(cloud.api.volume(status=None, **asked)["id"])
    if content is not None:
        cloud.settle()
        row = cloud.row("volumes", made)
        assert row is not None and row["status"] == "available", row
        if content:
            cloud.write(made, content)
    return made


def snapshot(cloud: VolumeCloud, volume_id: str, *, wait: bool = True) -> str:
    made = cloud.api.post("/snapshots", {"snapshot": {"volume_id": volume_id}})["snapshot"]
    if wait:
        cloud.settle()
    return str(made["id"])
