"""The Volume API over one SQLite file, without a network.

``api`` speaks as a persona: ``api.get("/volumes", as_="member@p1", version="3.60")``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import webtest

from api.volume.app import make_app
from api.volume.services import VolumeServices
from core import config
from core.context import RequestContext
from core.errors import NotFound
from db import volume_services
from db.global_schema import global_metadata
from db.volume_base import Row, intents, snapshots, volumes
from tests.api.client import MEMBER as MEMBER
from tests.api.client import OTHER as OTHER
from tests.api.client import READER as READER
from tests.api.client import Client, configured, make_tables
from tests.api.identity import authenticate

ADMIN = "admin@p0"
SERVICE = "service@services"
POOL = "h1@file#pool"
IMAGE = "11111111-1111-1111-1111-111111111111"


class Images:
    """The image service: what was made there and what is."""

    def __init__(self) -> None:
        self.images: dict[str, dict[str, Any]] = {
            IMAGE: {
                "id": IMAGE,
                "name": "tiny",
                "status": "active",
                "size": 5 << 20,
                "min_disk": 0,
                "min_ram": 64,
                "disk_format": "qcow2",
                "container_format": "bare",
                "hw_disk_bus": "scsi",
            }
        }

    def recent(self, context: RequestContext, image_id: str) -> dict[str, Any]:
        if image_id not in self.images:
            raise NotFound(f"Image {image_id} could not be found.")
        return self.images[image_id]

    def create(self, context: RequestContext, image: dict[str, Any]) -> dict[str, Any]:
        identifier = f"22222222-2222-2222-2222-{len(self.images):012}"
        made = {"visibility": "private", "protected": False, **image, "id": identifier, "status": "queued"}
        self.images[identifier] = made
        return made

    def delete(self, context: RequestContext, image_id: str) -> None:
        self.images.pop(image_id, None)


class Worker:
    """The worker's RPC: what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []

    def initialize_connection(
        self, context: RequestContext, host: str, volume_id: str, connector: dict[str, Any], mode: str
    ) -> dict[str, Any]:
        self.calls.append(("connect", host, volume_id, connector["host"]))
        return {
            "driver_volume_type": "local",
            "data": {"device_path": f"/vol/{volume_id}", "access_mode": mode},
        }

    def terminate_connection(
        self,
        context: RequestContext,
        host: str,
        volume_id: str,
        connector: dict[str, Any] | None,
        force: bool = False,
    ) -> None:
        self.calls.append(("disconnect", host, volume_id, (connector or {}).get("host", "")))

    def manageable_volumes(self, context: RequestContext, host: str) -> list[dict[str, Any]]:
        return [{"reference": {"source-name": "stray"}, "size": 3, "safe_to_manage": True}]

    def manageable_snapshots(self, context: RequestContext, host: str) -> list[dict[str, Any]]:
        return []


class Doorbells:
    """Who was rung for."""

    def __init__(self) -> None:
        self.rung: list[str | None] = []
        self.worker = Worker()

    def ring_for(self, intent: Row) -> None:
        self.rung.append(intent["target"])

    def ring_scheduler(self) -> None:
        self.rung.append(None)

    def ring_volume(self, host: str) -> None:
        self.rung.append(host)

    def volume(self) -> Worker:
        return self.worker

    def close(self) -> None:
        pass


class Api(Client):
    """The persona and the microversion as keywords, bodies as answers; and short ways to make things."""

    prefix = "/v3"

    def __init__(self, app: webtest.TestApp, services: VolumeServices) -> None:
        super().__init__(app)
        self.services = services

    def request(
        self, method: str, path: str, body: Any = None, *, version: str | None = None, **options: Any
    ) -> webtest.TestResponse:
        headers = {"OpenStack-API-Version": f"volume {version}"} if version else {}
        return self.call(method, path, body, headers=headers, **options)

    def get(self, path: str, **options: Any) -> Any:
        return self.request("get", path, **options).json

    def post(self, path: str, body: Any, **options: Any) -> Any:
        answer = self.request("post", path, body, **options)
        return answer.json if answer.body else None

    def put(self, path: str, body: Any, **options: Any) -> Any:
        answer = self.request("put", path, body, **options)
        return answer.json if answer.body else None

    def delete(self, path: str, **options: Any) -> webtest.TestResponse:
        return self.request("delete", path, **options)

    def refused(self, method: str, path: str, body: Any, status: int, **options: Any) -> str:
        """The message of an error of this status, in this API's shape."""
        answer = self.request(method, path, body, status=status, **options).json
        (fault,) = answer.values()
        assert fault["code"] == status
        return str(fault["message"])

    def volume(self, as_: str = MEMBER, status: str | None = "available", **asked: Any) -> dict[str, Any]:
        """A volume, by the API; then as if the worker had made it."""
        made = self.post("/volumes", {"volume": {"size": 1, **asked}}, as_=as_)["volume"]
        if status is not None:
            self.finish(made["id"], status)
        return dict(made)

    def finish(self, volume_id: str, status: str = "available") -> None:
        """What runs on a volume has ended so."""
        self.write(volumes, volume_id, status=status, host=POOL, previous_status=None)

    def finish_snapshot(self, snapshot_id: str, status: str = "available") -> None:
        self.write(snapshots, snapshot_id, status=status, progress=100)

    def write(self, table: Any, identifier: str, **values: Any) -> None:
        """Change a row; the intents on it are done."""
        with self.services.databases.global_.write() as connection:
            connection.execute(table.update().where(table.c.id == identifier).values(**values))
            done = intents.update().where(intents.c.resource_id == identifier)
            connection.execute(done.values(state="done", exclusive_key=None))

    def intents(self, resource_id: str) -> list[Row]:
        """The intents on a resource, oldest first."""
        statement = intents.select().where(intents.c.resource_id == resource_id)
        with self.services.databases.global_.read() as connection:
            rows = connection.execute(statement.order_by(intents.c.created_at)).mappings()
            return [dict(row) for row in rows]

    def row(self, volume_id: str) -> Row:
        with self.services.databases.global_.read() as connection:
            found = connection.execute(volumes.select().where(volumes.c.id == volume_id)).mappings().one()
            return dict(found)

    def action(self, volume_id: str, name: str, content: Any = None, **options: Any) -> Any:
        return self.post(f"/volumes/{volume_id}/action", {name: content}, **options)


def make_services(url: str, **overrides: Any) -> VolumeServices:
    """The tables in the database at ``url``, the services over it, and one backend."""
    make_tables(url, global_metadata)
    conf = configured(url)
    services = VolumeServices(conf)
    services.images = Images()  # type: ignore[assignment]
    services.doorbells = Doorbells()  # type: ignore[assignment]
    for name, value in overrides.items():
        config.override(conf, name, value)
    with services.databases.global_.write() as connection:
        volume_services.heartbeat(
            connection, "h1@file", "cinder-volume", "nova", {"storage_protocol": "file", "pool_name": "pool"}
        )
        volume_services.heartbeat(connection, "h1", "cinder-scheduler", "nova")
        said = {"volume_backend_name": "file", "total_capacity_gb": 100.0, "free_capacity_gb": 90.0}
        volume_services.report_pools(connection, "h1@file", {POOL: said})
    return services


@pytest.fixture
def services(tmp_path: Path) -> Iterator[VolumeServices]:
    made = make_services(f"sqlite:///{tmp_path}/global.sqlite")
    yield made
    made.close()


@pytest.fixture
def api(services: VolumeServices) -> Api:
    return Api(webtest.TestApp(make_app(services.conf, services, authenticate)), services)
