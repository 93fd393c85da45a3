"""The image worker dies by kill -9 in the middle of every kind of import; the next one ends it with the whole data.

What is read back is compared by checksum; stores and the folder for conversions hold nothing else.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import webtest

from api.image.app import make_app
from api.image.services import ImageServices
from db.global_schema import image_locations, intents
from db.types import now
from image.service import ImageRole, make_role
from tests.api.identity import authenticate
from tests.api.image.conftest import ADMIN, Api, make_services, stored_files
from tests.crash.image_process import configure, configure_web
from tests.image.test_fetch import Handler
from tests.image.test_fetch import port as port

ROOT = Path(__file__).resolve().parents[2]
DATA = b"".join(bytes([number]) * 65536 for number in range(48))


class Site:
    """The API, and workers one after the other, over the same files."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.url = f"sqlite:///{folder}/global.sqlite"
        first = make_services(folder, self.url)
        first.close()
        conf = configure(first.conf, str(folder))
        self.services = ImageServices(conf)
        self.api = Api(webtest.TestApp(make_app(conf, self.services, authenticate)))
        self.role: ImageRole = make_role(conf)
        configure_web(conf, port)

    def close(self) -> None:
        self.role._pool.shutdown()
        self.role._databases.dispose()
        self.services.close()

    def die(self, where: str) -> None:
        """A worker begins and dies; then nobody's lease holds any more."""
        command = [sys.executable, "-m", "tests.crash.image_process"]
        command += [str(self.folder), self.url, str(self.port), where]
        ended = subprocess.run(
            command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=120, check=False
        )
        assert ended.returncode == -signal.SIGKILL
        past = now() - datetime.timedelta(seconds=1)
        with self.services.databases.global_.write() as connection:
            connection.execute(
                sa.update(intents).where(intents.c.state == "running").values(lease_until=past)
            )
            saving = image_locations.c.status == "saving"
            connection.execute(sa.update(image_locations).where(saving).values(lease_until=past))

    def work(self) -> None:
        self.role.take()
        deadline = time.monotonic() + 60
        while self.role._runs:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        self.role._data.sweep()
        self.role._importer.sweep()

    def begin(self, method: str) -> str:
        """An image with an import that waits."""
        if method == "copy-image":
            image_id = str(self.api.image(data=DATA)["id"])
        else:
            disk_format = "qcow2" if method == "conversion" else "raw"
            image_id = str(self.api.image(disk_format=disk_format)["id"])
        body: dict[str, Any] = {"method": {"name": method}, "stores": ["one", "two"]}
        if method == "add-location":
            url = f"http://127.0.0.1:{self.port}/data"
            self.api.post(f"/images/{image_id}/locations", {"url": url}, status=202)
            return image_id
        if method == "web-download":
            body["method"]["uri"] = f"http://127.0.0.1:{self.port}/data"
        elif method == "copy-image":
            body["stores"] = ["two"]
        else:
            body["method"]["name"] = "glance-direct"
            data = _qcow2(self.folder) if method == "conversion" else DATA
            headers = {"Content-Type": "application/octet-stream"}
            self.api.request("PUT", f"/images/{image_id}/stage", data, headers=headers, status=204)
        self.api.post(f"/images/{image_id}/import", body, as_=ADMIN, status=202)
        return image_id


def _qcow2(folder: Path) -> bytes:
    source, target = folder / "disk.raw", folder / "disk.qcow2"
    source.write_bytes(DATA)
    command = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(source), str(target)]
    subprocess.run(command, check=True)
    return target.read_bytes()


@pytest.fixture
def site(tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(Handler, "data", DATA)
    made = Site(tmp_path, port)
    yield made
    made.close()


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is missing")
@pytest.mark.parametrize("where", ["data", "stored", "told"])
@pytest.mark.parametrize(
    "method", ["glance-direct", "conversion", "web-download", "copy-image", "add-location"]
)
def test_killed_in_an_import(site: Site, method: str, where: str) -> None:
    image_id = site.begin(method)
    site.die(where)
    shown = site.api.get(f"/images/{image_id}").json
    if method != "copy-image":
        assert shown["status"] == "importing"
        # nobody takes a part for the image
        site.api.upload(image_id, b"other", status=409)
    site.work()
    shown = site.api.get(f"/images/{image_id}", as_=ADMIN).json
    stores = ["web"] if method == "add-location" else ["one", "two"]
    assert (shown["status"], sorted(shown["stores"].split(","))) == ("active", stores)
    assert shown["os_hash_value"] == hashlib.sha512(DATA).hexdigest()
    for store in stores:
        found = site.api.get(f"/images/{image_id}/file?prefer={store}").body
        assert hashlib.sha512(found).hexdigest() == shown["os_hash_value"]
    assert len(stored_files(site.services)) == (0 if method == "add-location" else 2)
    assert list((site.folder / "image-import").glob("*")) == []


@pytest.mark.parametrize("where", ["data", "stored", "told"])
def test_killed_and_deleted(site: Site, where: str) -> None:
    image_id = site.begin("glance-direct")
    site.die(where)
    site.api.delete(f"/images/{image_id}", status=204)
    site.work()
    assert stored_files(site.services) == []
