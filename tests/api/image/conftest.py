"""The Image API over an SQLite file and a file store, without a network.

``api`` speaks as a persona: ``api.get("/images", as_="member@p1")``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import webtest

from api.image.app import make_app
from api.image.services import ImageServices
from core import config
from db.global_schema import global_metadata
from tests.api.client import MEMBER as MEMBER
from tests.api.client import OTHER as OTHER
from tests.api.client import READER as READER
from tests.api.client import Client, configured, make_tables
from tests.api.identity import authenticate

ADMIN = "admin@p1"
STRANGER = "member@p3"
PATCH = "application/openstack-images-v2.1-json-patch"
OLD_PATCH = "application/openstack-images-v2.0-json-patch"


class Api(Client):
    """The persona as a keyword; bodies as bytes, or JSON by ``json`` and what uses it."""

    prefix = "/v2"

    def request(
        self, method: str, path: str, body: bytes | None = None, **options: Any
    ) -> webtest.TestResponse:
        return self.call(method, path, body, **options)

    def get(self, path: str, **options: Any) -> webtest.TestResponse:
        return self.request("GET", path, **options)

    def delete(self, path: str, **options: Any) -> webtest.TestResponse:
        return self.request("DELETE", path, **options)

    def json(self, method: str, path: str, body: Any, **options: Any) -> webtest.TestResponse:
        headers = {"Content-Type": options.pop("content_type", "application/json")}
        return self.request(method, path, json.dumps(body).encode(), headers=headers, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> webtest.TestResponse:
        return (
            self.request("POST", path, b"", **options)
            if body is None
            else self.json("POST", path, body, **options)
        )

    def patch(self, image_id: str, changes: Any, **options: Any) -> webtest.TestResponse:
        return self.json("PATCH", f"/images/{image_id}", changes, content_type=PATCH, **options)

    def upload(self, image_id: str, data: bytes, **options: Any) -> webtest.TestResponse:
        headers = {"Content-Type": "application/octet-stream", **options.pop("headers", {})}
        return self.request("PUT", f"/images/{image_id}/file", data, headers=headers, **options)

    def image(self, as_: str = MEMBER, data: bytes | None = None, **values: Any) -> dict[str, Any]:
        """A new image, raw and bare unless said otherwise; with data it is active."""
        body = {"disk_format": "raw", "container_format": "bare", **values}
        made = self.post("/images", body, as_=as_, status=201).json
        if data is not None:
            self.upload(made["id"], data, as_=as_, status=204)
            made = self.get(f"/images/{made['id']}", as_=as_).json
        return dict(made)

    def names(self, query: str = "", **options: Any) -> list[str]:
        """The names on the first page of a list."""
        return [image["name"] for image in self.get(f"/images{query}", **options).json["images"]]


def make_services(folder: Path, url: str, **overrides: Any) -> ImageServices:
    """Tables at ``url``, an empty store in ``folder``; overrides as group__option."""
    make_tables(url, global_metadata)
    conf = configured(url)
    config.override(conf, "state_path", str(folder))
    services = ImageServices(conf)
    for name, value in overrides.items():
        config.override(conf, name.replace("__", "."), value)
    return services


@pytest.fixture
def services(tmp_path: Path) -> Iterator[ImageServices]:
    made = make_services(tmp_path, f"sqlite:///{tmp_path}/global.sqlite")
    yield made
    made.close()


@pytest.fixture
def api(services: ImageServices) -> Api:
    return Api(webtest.TestApp(make_app(services.conf, services, authenticate)))


def stored_files(services: ImageServices) -> list[Path]:
    """Everything that is in the store."""
    root = Path(services.conf.state_path) / "images"
    return [path for path in root.rglob("*") if path.is_file()]
