"""Images that an aggregate's hosts are to have ready."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
import sqlalchemy as sa

from api.compute.services import ComputeServices
from db.cell_schema import intents
from tests.api.compute import cloud
from tests.api.compute.conftest import ADMIN, MEMBER, Api

PATH = "/os-aggregates/1/images"


@pytest.fixture
def hosts(api: Api, services: ComputeServices) -> list[str]:
    """Two hosts of aggregate 1, and one outside."""
    for name in ("h1", "h2", "h3"):
        cloud.add_host(services, name)
    api.post("/os-aggregates", {"aggregate": {"name": "a"}}, as_=ADMIN)
    for name in ("h1", "h2"):
        api.post("/os-aggregates/1/action", {"add_host": {"host": name}}, as_=ADMIN)
    return ["h1", "h2"]


def order(api: Api, *ids: str, status: int = 202, **options: Any) -> Any:
    body = {"cache": [{"id": each} for each in ids]}
    return api.post(PATH, body, **{"as_": ADMIN, "version": "2.81", **options}, status=status)


def rows(services: ComputeServices) -> list[dict[str, Any]]:
    with services.databases.cells()[0].read() as connection:
        return [dict(row) for row in connection.execute(sa.select(intents)).mappings()]


def test_each_host_is_told_once(api: Api, services: ComputeServices, hosts: list[str]) -> None:
    first, second = services.images.add(name="one"), services.images.add(name="two")  # type: ignore[attr-defined]
    assert order(api, first).body == b""
    order(api, first, second)
    written = rows(services)
    assert {(row["target"], row["arguments"]["image"]["id"]) for row in written} == {
        (host, image) for host in hosts for image in (first, second)
    }
    assert len(written) == 4, "what is on its way is not ordered again"
    assert {row["kind"] for row in written} == {"host.cache_image"}
    rung = services.doorbells.conductors  # type: ignore[attr-defined]
    assert {id_ for _, ids in rung for id_ in ids} == {row["id"] for row in written}


def test_progress_is_shown_and_the_newest_counts(
    api: Api, services: ComputeServices, hosts: list[str]
) -> None:
    image = services.images.add(name="one")  # type: ignore[attr-defined]
    order(api, image)
    (before, _) = shown = api.get("/haneul/aggregates/1/images", as_=ADMIN).json["images"]
    assert [(each["host"], each["state"], each["image_name"]) for each in shown] == [
        ("h1", "waiting", "one"),
        ("h2", "waiting", "one"),
    ]
    assert set(before) == {
        "image_id", "image_name", "host", "state", "error", "created_at", "finished_at"
    }  # fmt: skip
    with services.databases.cells()[0].write() as connection:
        error = {"message": "the disk is full"}
        connection.execute(
            sa.update(intents).where(intents.c.target == "h1").values(state="failed", error=error)
        )
    (failed, _) = api.get("/haneul/aggregates/1/images", as_=ADMIN).json["images"]
    assert (failed["state"], failed["error"]) == ("failed", "the disk is full")
    order(api, image)
    again = api.get("/haneul/aggregates/1/images", as_=ADMIN).json["images"]
    assert sorted((each["host"], each["state"]) for each in again) == [("h1", "waiting"), ("h2", "waiting")]
    assert len(rows(services)) == 2, "records do not pile up"


def test_what_is_refused(api: Api, services: ComputeServices, hosts: list[str]) -> None:
    image = services.images.add()  # type: ignore[attr-defined]
    order(api, image, version="2.80", status=404)
    order(api, image, as_=MEMBER, status=403)
    api.get("/haneul/aggregates/1/images", as_=MEMBER, status=403)
    assert "Duplicate" in order(api, image, image, status=400).json["badRequest"]["message"]
    order(api, str(uuid.uuid4()), status=404)
    order(api, services.images.add(status="queued"), status=400)  # type: ignore[attr-defined]
    api.post("/os-aggregates/9/images", {"cache": [{"id": image}]}, as_=ADMIN, version="2.81", status=404)
    api.post("/os-aggregates/x/images", {"cache": [{"id": image}]}, as_=ADMIN, version="2.81", status=400)
    for body in (
        {},
        {"cache": []},
        {"cache": [{}]},
        {"cache": [{"id": "x"}]},
        {"cache": [{"id": image, "a": 1}]},
        {"cache": [{"id": image}], "a": 1},
    ):
        api.post(PATH, body, as_=ADMIN, version="2.81", status=400)
    assert rows(services) == []
