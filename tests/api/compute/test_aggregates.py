"""Host aggregates through the API."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from api.compute.services import ComputeServices
from db import global_schema
from tests.api.compute import cloud
from tests.api.compute.conftest import ADMIN, MEMBER, Api

BRIEF = {"id", "name", "availability_zone", "created_at", "updated_at", "deleted", "deleted_at"}


def make(api: Api, name: str = "a", **more: Any) -> dict[str, Any]:
    body = {"aggregate": {"name": name, **more}}
    return api.post("/os-aggregates", body, as_=ADMIN, status=200).json["aggregate"]


def act(api: Api, which: int, status: int = 200, **body: Any) -> dict[str, Any]:
    return api.post(f"/os-aggregates/{which}/action", body, as_=ADMIN, status=status).json.get(
        "aggregate", {}
    )


def test_life(api: Api) -> None:
    made = make(api, availability_zone="north")
    assert set(made) == BRIEF and made["availability_zone"] == "north"
    shown = api.get("/os-aggregates/1", as_=ADMIN, version="2.41").json["aggregate"]
    assert set(shown) == BRIEF | {"uuid", "hosts", "metadata"}
    assert shown["metadata"] == {"availability_zone": "north"}
    body = {"aggregate": {"name": "b", "availability_zone": "south"}}
    changed = api.put("/os-aggregates/1", body, as_=ADMIN).json["aggregate"]
    assert (changed["name"], changed["availability_zone"]) == ("b", "south") and changed["updated_at"]
    changed = act(api, 1, set_metadata={"metadata": {"ssd": "true", "availability_zone": None}})
    assert changed["metadata"] == {"ssd": "true"} and changed["availability_zone"] is None
    assert len(api.get("/os-aggregates", as_=ADMIN).json["aggregates"]) == 1
    assert api.delete("/os-aggregates/1", as_=ADMIN, status=200).body == b""
    api.get("/os-aggregates/1", as_=ADMIN, status=404)
    api.delete("/os-aggregates/1", as_=ADMIN, status=404)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"availability_zone": "a:b"},
        {"availability_zone": ""},
        {"hosts": []},
        {"name": "x" * 256},
    ],
)
def test_bad_fields_are_400(api: Api, wrong: dict[str, Any]) -> None:
    answer = api.post("/os-aggregates", {"aggregate": {"name": "a", **wrong}}, as_=ADMIN, status=400)
    assert next(iter(wrong)) in answer.json["badRequest"]["message"]
    made = make(api, "there")
    api.put("/os-aggregates/1", {"aggregate": wrong}, as_=ADMIN, status=400)
    assert [found["name"] for found in api.get("/os-aggregates", as_=ADMIN).json["aggregates"]] == ["there"]
    assert made["updated_at"] == api.get("/os-aggregates/1", as_=ADMIN).json["aggregate"]["updated_at"]


def test_names_are_unique_and_ids_numbers(api: Api) -> None:
    make(api)
    make(api, "b")
    api.post("/os-aggregates", {"aggregate": {"name": "a"}}, as_=ADMIN, status=409)
    api.put("/os-aggregates/2", {"aggregate": {"name": "a"}}, as_=ADMIN, status=409)
    api.put("/os-aggregates/2", {"aggregate": {}}, as_=ADMIN, status=400)
    api.get("/os-aggregates/x", as_=ADMIN, status=400)
    for unknown in ("9", "-1", "99999999999999999999"):
        api.get(f"/os-aggregates/{unknown}", as_=ADMIN, status=404)
    api.post("/os-aggregates", {"aggregate": {"name": "c"}}, as_=MEMBER, status=403)
    assert [each["name"] for each in api.get("/os-aggregates", as_=ADMIN).json["aggregates"]] == ["a", "b"]


def test_hosts_and_who_is_told(api: Api, services: ComputeServices) -> None:
    cloud.add_host(services, "h1")
    make(api)

    def told() -> int:
        count = sa.select(sa.func.count(global_schema.provider_changes.c.seq))
        with services.databases.global_.read() as connection:
            return connection.execute(count).scalar_one()

    before = told()
    assert act(api, 1, add_host={"host": "h1"})["hosts"] == ["h1"]
    assert told() == before + 1
    act(api, 1, 409, add_host={"host": "h1"})
    act(api, 1, 404, add_host={"host": "h9"})
    act(api, 9, 404, add_host={"host": "h1"})
    api.delete("/os-aggregates/1", as_=ADMIN, status=400)
    act(api, 1, set_metadata={"metadata": {"a": "b"}})
    assert told() == before + 2
    assert act(api, 1, remove_host={"host": "h1"})["hosts"] == []
    assert told() == before + 3
    act(api, 1, 404, remove_host={"host": "h1"})
    act(api, 1, 400, remove_host={})


def test_a_host_has_one_zone_and_keeps_it_while_servers_are_there(
    api: Api, services: ComputeServices
) -> None:
    cloud.add_host(services, "h1")
    make(api, "north", availability_zone="north")
    make(api, "south", availability_zone="south")
    make(api, "plain")
    act(api, 1, add_host={"host": "h1"})
    act(api, 3, add_host={"host": "h1"})
    act(api, 2, 409, add_host={"host": "h1"})
    act(api, 3, 409, set_metadata={"metadata": {"availability_zone": "south"}})
    cloud.add_server(services, "h1")
    act(api, 1, 409, remove_host={"host": "h1"})
    body = {"aggregate": {"availability_zone": "east"}}
    api.put("/os-aggregates/1", body, as_=ADMIN, status=409)
    act(api, 3, remove_host={"host": "h1"})
    aggregates = api.get("/os-aggregates", as_=ADMIN).json["aggregates"]
    assert [(each["availability_zone"], each["hosts"]) for each in aggregates] == [
        ("north", ["h1"]),
        ("south", []),
        (None, []),
    ]
