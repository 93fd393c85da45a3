"""Data that web servers keep: registered by location, read through the checks of downloads, never changed unseen."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import webtest

from api.image.app import make_app
from api.image.services import ImageServices
from core import config
from core.errors import DriverError
from image.service import make_role
from tests.api.identity import authenticate
from tests.api.image.conftest import ADMIN, MEMBER, OTHER, Api, stored_files
from tests.image.test_fetch import DATA, Handler
from tests.image.test_fetch import port as port
from tests.image.test_imports import Glance

SHA256 = hashlib.sha256(DATA).hexdigest()


class Web(Glance):
    """With a store of the kind http that allows one host."""

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(folder)
        self.url = f"http://127.0.0.1:{port}/data"
        conf = self.services.conf
        self.role._databases.dispose()
        self.services.close()
        config.override(conf, "image.stores", {"one": "file", "web": "http"})
        self.services = ImageServices(conf)
        for name, value in {
            "allowed_hosts": ["127.0.0.1", "localhost"],
            "allowed_ports": [str(port)],
            "allowed_networks": ["127.0.0.0/8"],
        }.items():
            config.override(conf, f"image_store_web.{name}", value)
        self.api = Api(webtest.TestApp(make_app(conf, self.services, authenticate)))
        self.role = make_role(conf)

    def add(self, url: str, status: int = 202, as_: str = MEMBER, **more: Any) -> str:
        image_id = str(self.api.image()["id"])
        self.api.post(f"/images/{image_id}/locations", {"url": url, **more}, as_=as_, status=status)
        return image_id


@pytest.fixture
def web(tmp_path: Path, port: int) -> Iterator[Web]:
    made = Web(tmp_path, port)
    yield made
    made.role._pool.shutdown()
    made.role._databases.dispose()
    made.services.close()


def test_data_is_registered_where_it_lies(web: Web) -> None:
    said = {"os_hash_algo": "sha256", "os_hash_value": SHA256}
    named, plain = web.add(web.url, validation_data=said), web.add(web.url, validation_data={})
    assert web.show(named)["status"] == "importing"
    assert web.task(named)["type"] == "location_import"
    web.work()
    for image_id, algorithm in ((named, "sha256"), (plain, "sha512")):
        shown = web.show(image_id)
        assert (shown["status"], shown["stores"], shown["size"]) == ("active", "web", len(DATA))
        assert shown["checksum"] == hashlib.md5(DATA).hexdigest()
        assert shown["os_hash_algo"] == algorithm
        assert shown["os_hash_value"] == hashlib.new(algorithm, DATA).hexdigest()
        assert web.api.get(f"/images/{image_id}/file").body == DATA
    part = web.api.request("GET", f"/images/{named}/file", headers={"Range": "bytes=5-9"}, status=206)
    assert part.body == DATA[5:10]
    assert stored_files(web.services) == []
    locations = web.api.get(f"/images/{named}/locations", as_=ADMIN).json
    assert locations == [{"url": web.url, "metadata": {"store": "web"}}]
    # a copy of our own, with the hash that it was registered with
    web.import_(named, "copy-image", stores=["one"], as_=ADMIN)
    web.work()
    shown = web.show(named)
    assert (shown["stores"], shown["os_hash_value"]) == ("web,one", SHA256)
    # nothing of it is ours to delete
    web.api.delete(f"/images/{plain}", status=204)
    assert web.services.data.stores.get("web").exists(web.url)


def test_what_is_not_what_was_said(web: Web) -> None:
    wrong = {"os_hash_algo": "sha512", "os_hash_value": "beefdead" * 16}
    image_id = web.add(web.url, validation_data=wrong)
    web.work()
    shown = web.show(image_id)
    assert (shown["status"], shown["checksum"], shown["os_hash_value"]) == ("queued", None, None)
    assert web.task(image_id)["status"] == "failure"
    made = web.api.image(disk_format="qcow2")["id"]
    web.api.post(f"/images/{made}/locations", {"url": web.url}, status=202)
    web.work()
    assert web.show(made)["status"] == "queued"
    assert "qcow2" in web.task(made)["message"]


@pytest.mark.parametrize(
    "said",
    [
        {"os_hash_algo": "sha512", "os_hash_value": SHA256},
        {"os_hash_value": SHA256},
        {"os_hash_algo": "sha256"},
        {"os_hash_algo": "sha123", "os_hash_value": SHA256},
        {"os_hash_algo": "sha256", "os_hash_value": SHA256, "more": "x"},
    ],
)
def test_what_is_said_must_be_a_hash(web: Web, said: dict[str, str]) -> None:
    web.add(web.url, status=400, validation_data=said)


def test_only_hosts_that_are_allowed(web: Web, port: int) -> None:
    own = web.api.image(data=b"own")
    (location,) = web.api.get(f"/images/{own['id']}/locations", as_=ADMIN).json
    for url in (location["url"], "http://example.org/x", "http://127.0.0.1:22/", f"http://[::1]:{port}/data"):
        web.add(url, status=400, as_=ADMIN)
        web.add(url, status=400)
    web.api.post(f"/images/{own['id']}/locations", {"url": web.url}, status=409)
    web.api.post(f"/images/{own['id']}/locations", {"url": web.url}, as_=OTHER, status=404)
    # a redirect to the inside of the network passes no check, either
    image_id = web.add(web.url.replace("/data", "/inside"))
    web.work()
    assert web.show(image_id)["status"] == "queued"
    config.override(web.services.conf, "image_store_web.allowed_hosts", [])
    web.add(web.url, status=400)


def test_a_store_that_is_read_only_takes_no_data(web: Web) -> None:
    stores = {found["id"]: found for found in web.api.get("/info/stores").json["stores"]}
    assert stores["web"]["read-only"] == "true" and "read-only" not in stores["one"]
    made = web.api.image()["id"]
    web.api.upload(made, b"data", headers={"x-image-meta-store": "web"}, status=400)
    image_id = web.staged()
    web.import_(image_id, "glance-direct", stores=["web"], status=400)
    web.import_(image_id, "glance-direct", all_stores=True)
    web.work()
    assert web.show(image_id)["stores"] == "one"


def test_data_that_changed_is_never_whole(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    image_id = web.add(web.url)
    web.work()
    monkeypatch.setattr(Handler, "data", DATA[:-1] + b"x")
    with pytest.raises(DriverError, match="not what was registered"):
        _ = web.api.get(f"/images/{image_id}/file").body
    web.import_(image_id, "copy-image", stores=["one"], as_=ADMIN)
    web.work()
    assert web.show(image_id)["stores"] == "web"


def test_without_such_a_store_nothing_is_registered(tmp_path: Path, port: int) -> None:
    glance = Glance(tmp_path)
    image_id = glance.api.image()["id"]
    body = {"url": f"http://127.0.0.1:{port}/data"}
    answer = glance.api.post(f"/images/{image_id}/locations", body, status=400)
    assert "none is of the kind http" in answer.text
    glance.role._databases.dispose()
    glance.services.close()
