"""Imports from the API to the stores, carried out by the image role."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import webtest

from api.image.app import make_app
from api.image.services import ImageServices
from core import config
from core.errors import DriverError
from db.global_schema import image_locations, intents
from db.types import now
from image.service import ImageRole, make_role
from lifecycle.steps import Fenced
from tests.api.identity import authenticate
from tests.api.image.conftest import ADMIN, MEMBER, OTHER, Api, make_services, stored_files
from tests.image.test_fetch import DATA
from tests.image.test_fetch import port as port

BYTES = b"some data " * 100_000


class Glance:
    """The API and a worker over one database, with two stores."""

    def __init__(self, folder: Path) -> None:
        self.services: ImageServices = make_services(folder, f"sqlite:///{folder}/global.sqlite")
        conf = self.services.conf
        config.override(conf, "image.stores", {"one": "file", "two": "file"})
        self.services.close()
        self.services = ImageServices(conf)
        self.api = Api(webtest.TestApp(make_app(conf, self.services, authenticate)))
        self.role: ImageRole = make_role(conf)

    def staged(self, data: bytes = BYTES, **values: Any) -> str:
        image_id = str(self.api.image(**values)["id"])
        headers = {"Content-Type": "application/octet-stream"}
        self.api.request("PUT", f"/images/{image_id}/stage", data, headers=headers, status=204)
        return image_id

    def import_(self, image_id: str, method: str, status: int = 202, as_: str = MEMBER, **more: Any) -> Any:
        uri = {"uri": more.pop("uri")} if "uri" in more else {}
        body = {"method": {"name": method, **uri}, **more}
        return self.api.post(f"/images/{image_id}/import", body, as_=as_, status=status)

    def work(self) -> None:
        """All that waits is carried out."""
        self.role.take()
        deadline = time.monotonic() + 30
        while self.role._runs:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def show(self, image_id: str) -> dict[str, Any]:
        return dict(self.api.get(f"/images/{image_id}", as_=ADMIN).json)

    def task(self, image_id: str) -> dict[str, Any]:
        return dict(self.api.get(f"/images/{image_id}/tasks").json["tasks"][0])


@pytest.fixture
def glance(tmp_path: Path) -> Iterator[Glance]:
    made = Glance(tmp_path)
    yield made
    made.role._pool.shutdown()
    made.role._databases.dispose()
    made.services.close()


def test_what_was_staged_becomes_the_image(glance: Glance) -> None:
    image_id = glance.staged()
    assert glance.show(image_id)["status"] == "uploading"
    usage = glance.api.get("/info/usage").json["usage"]
    assert usage["image_count_uploading"]["usage"] == 1
    glance.import_(image_id, "glance-direct", all_stores=True)
    shown = glance.show(image_id)
    assert (shown["status"], shown["os_glance_importing_to_stores"]) == ("importing", "one,two")
    assert glance.task(image_id)["status"] == "pending"
    glance.import_(image_id, "glance-direct", status=409)
    glance.work()
    shown = glance.show(image_id)
    assert (shown["status"], shown["stores"], shown["size"]) == ("active", "one,two", len(BYTES))
    assert (shown["os_glance_importing_to_stores"], shown["os_glance_failed_import"]) == ("", "")
    assert glance.api.get(f"/images/{image_id}/file").body == BYTES
    task = glance.task(image_id)
    assert (task["status"], task["input"]["import_req"]["method"]["name"]) == ("success", "glance-direct")
    # the two stores' objects; what was staged is gone
    assert len(stored_files(glance.services)) == 2


def test_what_is_not_what_it_says_stays_staged(glance: Glance) -> None:
    image_id = glance.staged(disk_format="qcow2")
    glance.import_(image_id, "glance-direct")
    glance.work()
    shown = glance.show(image_id)
    assert (shown["status"], shown["os_glance_failed_import"]) == ("uploading", "one")
    assert "stores" not in shown
    task = glance.task(image_id)
    assert task["status"] == "failure" and "qcow2" in task["message"]
    assert len(stored_files(glance.services)) == 1
    # it can be tried again, or deleted with what is staged
    glance.import_(image_id, "glance-direct", stores=["two"])
    glance.work()
    assert glance.show(image_id)["os_glance_failed_import"] == "two"
    glance.api.delete(f"/images/{image_id}", status=204)
    assert stored_files(glance.services) == []


def test_data_from_the_web(glance: Glance, port: int) -> None:
    config.override(glance.services.conf, "import_filtering.allowed_ports", [str(port)])
    image_id = glance.api.image()["id"]
    glance.import_(image_id, "web-download", uri="http://127.0.0.1:22/data", status=400)
    glance.import_(image_id, "web-download", uri=f"http://127.0.0.1:{port}/data")
    glance.work()
    shown = glance.show(image_id)
    # loopback is not public
    assert (shown["status"], shown["size"], shown["os_glance_failed_import"]) == ("queued", None, "one")
    assert glance.task(image_id)["status"] == "failure"
    config.override(glance.services.conf, "import_filtering.allowed_networks", ["127.0.0.0/8"])
    glance.import_(image_id, "web-download", uri=f"http://127.0.0.1:{port}/moved", stores=["two"])
    glance.work()
    assert glance.show(image_id)["stores"] == "two"
    assert glance.api.get(f"/images/{image_id}/file").body == DATA


def test_copies_and_their_deletion(glance: Glance) -> None:
    image_id = glance.api.image(data=BYTES)["id"]
    glance.import_(image_id, "copy-image", stores=["two"], status=403)
    glance.import_(image_id, "copy-image", stores=["one"], as_=ADMIN, status=400)
    glance.import_(image_id, "copy-image", all_stores=True, as_=ADMIN)
    assert glance.show(image_id)["status"] == "active"
    glance.api.delete(f"/stores/one/{image_id}", as_=ADMIN, status=409)
    glance.work()
    assert glance.show(image_id)["stores"] == "one,two"
    glance.api.delete(f"/stores/one/{image_id}", as_=MEMBER, status=403)
    glance.api.delete(f"/stores/one/{image_id}", as_=ADMIN, status=204)
    assert glance.show(image_id)["stores"] == "two"
    assert len(stored_files(glance.services)) == 1
    assert glance.api.get(f"/images/{image_id}/file").body == BYTES
    glance.api.delete(f"/stores/one/{image_id}", as_=ADMIN, status=404)
    glance.api.delete(f"/stores/two/{image_id}", as_=ADMIN, status=403)


def test_a_copy_is_the_image_or_nothing(glance: Glance) -> None:
    image_id = glance.api.image(data=BYTES)["id"]
    (stored,) = stored_files(glance.services)
    stored.chmod(0o600)
    stored.write_bytes(BYTES[:-1] + b"x")
    glance.import_(image_id, "copy-image", stores=["two"], as_=ADMIN)
    glance.work()
    shown = glance.show(image_id)
    assert (shown["status"], shown["stores"], shown["os_glance_failed_import"]) == ("active", "one", "two")
    assert len(stored_files(glance.services)) == 1


@pytest.mark.parametrize("must_succeed", [True, False])
def test_a_store_that_fails(glance: Glance, must_succeed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def put(*_arguments: Any) -> int:
        raise DriverError("The store is on fire.")

    monkeypatch.setattr(glance.role._data.stores.get("two"), "put", put)
    image_id = glance.staged()
    glance.import_(image_id, "glance-direct", all_stores=True, all_stores_must_succeed=must_succeed)
    glance.work()
    shown = glance.show(image_id)
    if must_succeed:
        assert (shown["status"], shown["os_glance_failed_import"]) == ("uploading", "one,two")
        assert "stores" not in shown and shown["checksum"] is None
        assert "on fire" in glance.task(image_id)["message"]
    else:
        assert (shown["status"], shown["stores"], shown["os_glance_failed_import"]) == (
            "active",
            "one",
            "two",
        )
    assert len(stored_files(glance.services)) == 1


@pytest.mark.parametrize("after", [0, 1])
def test_a_worker_that_dies_is_followed_by_another(
    glance: Glance, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``after`` so many stores have the data."""
    image_id = glance.staged()
    glance.import_(image_id, "glance-direct", all_stores=True)
    importer = glance.role._importer
    done: list[str] = []
    copy, give_up = type(importer).copy, type(importer)._give_up

    def die(self: Any, run: Any, store_id: str) -> None:
        if len(done) == after:
            monkeypatch.setattr(type(importer), "_give_up", lambda *_: None)
            monkeypatch.setattr(type(importer), "_finish", lambda *_: (_ for _ in ()).throw(Fenced("x")))
        copy(self, run, store_id)
        done.append(store_id)

    finish = type(importer)._finish
    monkeypatch.setattr(type(importer), "copy", die)
    glance.work()
    assert glance.show(image_id)["status"] == "importing"
    for name, function in (("copy", copy), ("_give_up", give_up), ("_finish", finish)):
        monkeypatch.setattr(type(importer), name, function)
    with glance.services.databases.global_.write() as connection:
        past = now() - datetime.timedelta(seconds=1)
        connection.execute(sa.update(intents).values(lease_until=past))
        saving = image_locations.c.status == "saving"
        assert connection.execute(sa.update(image_locations).where(saving).values(lease_until=past)).rowcount
    glance.work()
    shown = glance.show(image_id)
    assert (shown["status"], shown["stores"]) == ("active", "one,two")
    glance.role._data.sweep()
    assert len(stored_files(glance.services)) == 2
    assert glance.api.get(f"/images/{image_id}/file").body == BYTES


def test_deletion_overtakes(glance: Glance) -> None:
    waiting, staged = glance.staged(), glance.staged()
    glance.import_(waiting, "glance-direct")
    for image_id in (waiting, staged):
        glance.api.delete(f"/images/{image_id}", status=204)
    glance.work()
    assert stored_files(glance.services) == []
    glance.api.get(f"/images/{waiting}", status=404)


def test_what_can_not_be_imported(glance: Glance) -> None:
    queued = glance.api.image()["id"]
    glance.import_(queued, "glance-direct", status=409)
    glance.import_(queued, "copy-image", as_=ADMIN, status=409)
    glance.import_(queued, "glance-upload", status=400)
    glance.import_(queued, "web-download", status=400)
    staged = glance.staged()
    glance.import_(staged, "web-download", uri="http://example.org/", status=409)
    glance.import_(staged, "glance-direct", stores=["three"], status=400)
    glance.import_(staged, "glance-direct", stores=["one"], all_stores=True, status=400)
    glance.import_(staged, "glance-direct", as_=OTHER, status=404)
    bare = glance.api.post("/images", {"name": "n"}, status=201).json["id"]
    glance.import_(bare, "web-download", uri="http://example.org/", status=400)
    headers = {"Content-Type": "application/octet-stream"}
    glance.api.request("PUT", f"/images/{staged}/stage", b"x", headers=headers, status=409)


def test_tasks(glance: Glance) -> None:
    ids = []
    for _ in range(3):
        image_id = glance.staged()
        glance.import_(image_id, "glance-direct")
        ids.append(glance.task(image_id)["id"])
    glance.api.get("/tasks", as_=MEMBER, status=403)
    page = glance.api.get("/tasks?limit=2", as_=ADMIN).json
    rest = glance.api.get(page["next"].removeprefix("/v2"), as_=ADMIN).json
    assert [task["id"] for task in page["tasks"] + rest["tasks"]] == ids[::-1]
    assert "next" not in rest
    assert glance.api.get(f"/tasks/{ids[0]}", as_=ADMIN).json["type"] == "api_image_import"
    glance.api.get("/tasks/absent", as_=ADMIN, status=404)
    glance.api.get("/tasks?marker=absent", as_=ADMIN, status=404)


def test_tasks_of_administrators(glance: Glance, port: int) -> None:
    conf = glance.services.conf
    config.override(conf, "import_filtering.allowed_ports", [str(port)])
    config.override(conf, "import_filtering.allowed_networks", ["127.0.0.0/8"])
    given = {
        "import_from": f"http://127.0.0.1:{port}/data",
        "import_from_format": "raw",
        "image_properties": {"name": "made by a task", "visibility": "public", "os_distro": "debian"},
    }
    body = {"type": "import", "input": given}
    glance.api.post("/tasks", body, as_=MEMBER, status=403)
    for wrong in (
        {"type": "export", "input": given},
        {"type": "import"},
        {"type": "import", "input": {**given, "import_from": "file:///etc/passwd"}},
        {"type": "import", "input": {**given, "import_from_format": "nothing"}},
        {"type": "import", "input": {**given, "more": 1}},
    ):
        glance.api.post("/tasks", wrong, as_=ADMIN, status=400)
    assert glance.api.get("/images", as_=ADMIN).json["images"] == []
    made = glance.api.post("/tasks", body, as_=ADMIN, status=201)
    assert made.headers["Location"].endswith(f"/v2/tasks/{made.json['id']}")
    assert (made.json["type"], made.json["status"], made.json["input"]) == ("import", "pending", given)
    glance.work()
    task = glance.api.get(f"/tasks/{made.json['id']}", as_=ADMIN).json
    assert task["status"] == "success"
    shown = glance.show(task["result"]["image_id"])
    assert (shown["status"], shown["name"], shown["os_distro"]) == ("active", "made by a task", "debian")
    assert glance.api.get(f"/images/{shown['id']}/file", as_=OTHER).body == DATA
