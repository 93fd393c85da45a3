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
from db.sessions import OPTS, Databases, make_engine
from tests.api.compute.fakes import FakeImages, RecordedDoorbells
from tests.api.identity import authenticate

ADMIN = "admin@p1"
MEMBER = "member@p1"
READER = "reader@p1"
OTHER = "member@p2"


class Api:
    """webtest with persona and microversion as keywords."""

    def __init__(self, app: webtest.TestApp) -> None:
        self.app = app

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        as_: str = MEMBER,
        version: str | None = None,
        status: int | None = None,
    ) -> webtest.TestResponse:
        """``status`` None: any success. Paths are below /v2.1."""
        headers = {"X-Auth-Token": as_}
        if version:
            headers["X-OpenStack-Nova-API-Version"] = version
        call = getattr(self.app, f"{method}_json" if body is not None else method)
        arguments = {} if body is None else {"params": body}
        return call(f"/v2.1{path}", headers=headers, status=status, **arguments)

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
    conf = config.load()
    conf.register_opts(OPTS, group="database")
    config.override(conf, "database.connection", global_url)
    databases = Databases(conf)
    global_metadata.create_all(databases.global_.engine)
    cell_engine = make_engine(cell_url)
    cell_metadata.create_all(cell_engine)
    cell_engine.dispose()
    with databases.global_.write() as connection:
        connection.execute(
            cells.insert().values(uuid=str(uuid.uuid4()), name="cell1", database_connection=cell_url)
        )
    databases.dispose()
    services = ComputeServices(conf)
    services.images = FakeImages()  # type: ignore[assignment]
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
