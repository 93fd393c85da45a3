"""The Compute API over SQLite files, without a network: one global database and one cell.

``api`` speaks as a persona: ``api.get("/flavors", as_="member@p1", version="2.61")``.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import webtest

from api.compute.app import make_app
from api.compute.services import ComputeServices
from core import config
from db.cell_schema import cell_metadata
from db.global_schema import cells, global_metadata
from tests.api.client import MEMBER as MEMBER
from tests.api.client import OTHER as OTHER
from tests.api.client import READER as READER
from tests.api.client import Client, configured, make_tables
from tests.api.compute.fakes import FakeImages, RecordedDoorbells
from tests.api.identity import authenticate

ADMIN = "admin@p1"


class Api(Client):
    """Persona and microversion as keywords; answers as webtest gives them."""

    prefix = "/v2.1"

    def request(
        self, method: str, path: str, body: Any = None, *, version: str | None = None, **options: Any
    ) -> webtest.TestResponse:
        headers = {"X-OpenStack-Nova-API-Version": version} if version else None
        return self.call(method, path, body, headers=headers, **options)

    def get(self, path: str, **options: Any) -> webtest.TestResponse:
        return self.request("get", path, **options)

    def post(self, path: str, body: Any, **options: Any) -> webtest.TestResponse:
        return self.request("post", path, body, **options)

    def put(self, path: str, body: Any, **options: Any) -> webtest.TestResponse:
        return self.request("put", path, body, **options)

    def delete(self, path: str, **options: Any) -> webtest.TestResponse:
        return self.request("delete", path, **options)


def make_services(folder: Path, urls: tuple[str, str] | None = None, **overrides: Any) -> ComputeServices:
    """Databases in ``folder`` (or at (global, cell) ``urls``) with the cell "cell1", and the services."""
    global_url, cell_url = urls or (f"sqlite:///{folder}/global.sqlite", f"sqlite:///{folder}/cell1.sqlite")
    make_tables(global_url, global_metadata)
    make_tables(cell_url, cell_metadata)
    conf = configured(global_url)
    services = ComputeServices(conf)
    with services.databases.global_.write() as connection:
        connection.execute(
            cells.insert().values(uuid=str(uuid.uuid4()), name="cell1", database_connection=cell_url)
        )
    services.images = FakeImages(conf)
    services.doorbells = RecordedDoorbells()  # type: ignore[assignment]
    for name, value in overrides.items():
        config.override(conf, name, value)
    return services


@pytest.fixture
def services(tmp_path: Path) -> Iterator[ComputeServices]:
    made = make_services(tmp_path)
    yield made
    made.close()


@pytest.fixture
def api(services: ComputeServices) -> Api:
    return Api(webtest.TestApp(make_app(services.conf, services, authenticate)))
