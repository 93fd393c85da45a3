"""Flavors, extra specs and access lists through the API."""

from __future__ import annotations

from typing import Any

import pytest

from api.compute.services import ComputeServices
from tests.api.compute.conftest import ADMIN, MEMBER, OTHER, Api
from tests.db import statements

SMALL = {"name": "small", "id": "1", "ram": 512, "vcpus": 1, "disk": 1}
BASE_KEYS = {
    "id",
    "name",
    "ram",
    "disk",
    "vcpus",
    "swap",
    "rxtx_factor",
    "links",
    "os-flavor-access:is_public",
    "OS-FLV-EXT-DATA:ephemeral",
    "OS-FLV-DISABLED:disabled",
}


def make(api: Api, **values: Any) -> dict[str, Any]:
    return api.post("/flavors", {"flavor": {**SMALL, **values}}, as_=ADMIN, status=200).json["flavor"]


def test_shape_by_microversion(api: Api) -> None:
    made = make(api, swap=0)
    assert set(made) == BASE_KEYS
    assert made["swap"] == "" and made["rxtx_factor"] == 1.0 and made["links"][0]["rel"] == "self"

    def show(version: str) -> dict[str, Any]:
        return api.get("/flavors/1", version=version).json["flavor"]

    assert set(show("2.54")) == BASE_KEYS
    assert set(show("2.55")) == BASE_KEYS | {"description"}
    assert show("2.61")["extra_specs"] == {}
    assert show("2.74")["swap"] == "" and show("2.75")["swap"] == 0
    assert set(api.get("/flavors").json["flavors"][0]) == {"id", "name", "links"}
    assert set(api.get("/flavors", version="2.55").json["flavors"][0]) == {
        "id",
        "name",
        "links",
        "description",
    }


def test_create_is_for_administrators_and_refuses_duplicates(api: Api) -> None:
    api.post("/flavors", {"flavor": SMALL}, as_=MEMBER, status=403)
    make(api)
    same_id = api.post("/flavors", {"flavor": {**SMALL, "name": "other"}}, as_=ADMIN, status=409)
    assert same_id.json["conflictingRequest"]["message"] == "Flavor with ID 1 already exists."
    api.post("/flavors", {"flavor": {**SMALL, "id": "2"}}, as_=ADMIN, status=409)
    assert len(make(api, name="unnamed", id=None)["id"]) == 36


@pytest.mark.parametrize(
    "wrong",
    [
        {"ram": 0},
        {"ram": "x"},
        {"vcpus": -1},
        {"disk": -1},
        {"name": ""},
        {"name": " a"},
        {"colour": "red"},
        {"ram": 2**31},
        {"ram": "99999999999"},
        {"rxtx_factor": 0},
        {"rxtx_factor": "0"},
        {"id": "?"},
        {"os-flavor-access:is_public": "maybe"},
        {"description": "not before 2.55"},
    ],
)
def test_bad_fields_are_400(api: Api, wrong: dict[str, Any]) -> None:
    answer = api.post("/flavors", {"flavor": {**SMALL, **wrong}}, as_=ADMIN, status=400)
    assert next(iter(wrong)) in answer.json["badRequest"]["message"]
    assert api.get("/flavors", as_=ADMIN).json["flavors"] == []


def test_numbers_may_come_as_text(api: Api) -> None:
    made = make(api, ram="64", vcpus="2", disk="0", swap="16", id=7)
    assert (made["ram"], made["vcpus"], made["disk"], made["swap"], made["id"]) == (64, 2, 0, 16, "7")


def test_update_description_from_2_55(api: Api) -> None:
    make(api)
    body = {"flavor": {"description": "new"}}
    api.put("/flavors/1", body, as_=ADMIN, version="2.54", status=404)
    assert api.put("/flavors/1", body, as_=ADMIN, version="2.55").json["flavor"]["description"] == "new"
    api.put("/flavors/nope", body, as_=ADMIN, version="2.55", status=404)


def test_list_filters_sorts_and_pages(api: Api) -> None:
    for number, ram in (("1", 64), ("2", 256), ("3", 128)):
        make(api, id=number, name=f"f{number}", ram=ram, disk=int(number))

    def ids(query: str, **options: Any) -> list[str]:
        return [each["id"] for each in api.get(f"/flavors{query}", **options).json["flavors"]]

    assert ids("") == ["1", "2", "3"]
    assert ids("?minRam=128") == ["2", "3"] and ids("?minDisk=3") == ["3"]
    assert ids("?sort_key=memory_mb&sort_dir=desc") == ["2", "3", "1"]
    page = api.get("/flavors/detail?limit=2").json
    assert page["flavors_links"][0]["rel"] == "next" and "marker=2" in page["flavors_links"][0]["href"]
    assert ids("?limit=2&marker=2") == ["3"]
    assert ids("?is_public=None", as_=ADMIN) == ["1", "2", "3"]
    for wrong in ("minRam=x", "minDisk=x", "limit=-1", "marker=none", "sort_key=colour"):
        api.get(f"/flavors?{wrong}", status=400)
    api.get("/flavors?is_public=maybe", as_=ADMIN, status=400)
    api.get("/flavors?colour=red", version="2.74")
    api.get("/flavors?colour=red", version="2.75", status=400)


def test_lists_cost_one_statement(api: Api, services: ComputeServices) -> None:
    for number in range(3):
        make(api, id=str(number), name=f"f{number}")
    for path in ("/flavors", "/flavors/detail"):
        with statements.of(services.databases) as run:
            assert len(api.get(path, version="2.61").json["flavors"]) == 3
        assert len(run) == 1


def test_delete(api: Api) -> None:
    make(api)
    api.delete("/flavors/1", status=403)
    assert api.delete("/flavors/1", as_=ADMIN, status=202).body == b""
    api.delete("/flavors/1", as_=ADMIN, status=404)


def test_private_flavors_are_seen_by_those_who_may_use_them(api: Api) -> None:
    make(api, **{"os-flavor-access:is_public": False})
    api.get("/flavors/1", as_=OTHER, status=404)
    add = {"addTenantAccess": {"tenant": "p2"}}
    answer = api.post("/flavors/1/action", add, as_=ADMIN, status=200)
    assert answer.json == {"flavor_access": [{"flavor_id": "1", "tenant_id": "p2"}]}
    api.post("/flavors/1/action", add, as_=ADMIN, status=409)
    assert api.get("/flavors/1", as_=OTHER).json["flavor"]["id"] == "1"
    assert len(api.get("/flavors", as_=OTHER).json["flavors"]) == 1
    assert api.get("/flavors", as_=ADMIN).json["flavors"] == []
    assert len(api.get("/flavors?is_public=False", as_=ADMIN).json["flavors"]) == 1
    api.get("/flavors/1/os-flavor-access", status=403)
    assert api.get("/flavors/1/os-flavor-access", as_=ADMIN).json == answer.json
    remove = {"removeTenantAccess": {"tenant": "p2"}}
    assert api.post("/flavors/1/action", remove, as_=ADMIN).json == {"flavor_access": []}
    api.post("/flavors/1/action", remove, as_=ADMIN, status=404)


def test_public_flavors_have_no_access_list(api: Api) -> None:
    make(api)
    api.get("/flavors/1/os-flavor-access", as_=ADMIN, status=404)
    add = {"addTenantAccess": {"tenant": "p2"}}
    answer = api.post("/flavors/1/action", add, as_=ADMIN, version="2.7", status=409)
    assert "public" in answer.json["conflictingRequest"]["message"]


def test_extra_specs(api: Api) -> None:
    make(api)
    path = "/flavors/1/os-extra_specs"
    api.post(path, {"extra_specs": {"a": "1"}}, status=403)
    assert api.post(path, {"extra_specs": {"a": "1", "b": 2}}, as_=ADMIN).json == {
        "extra_specs": {"a": "1", "b": "2"}
    }
    assert api.put(f"{path}/a", {"a": "3"}, as_=ADMIN).json == {"a": "3"}
    api.put(f"{path}/a", {"b": "3"}, as_=ADMIN, status=400)
    assert api.get(path).json == {"extra_specs": {"a": "3", "b": "2"}}
    assert api.get(f"{path}/a").json == {"a": "3"}
    api.get(f"{path}/c", status=404)
    assert api.delete(f"{path}/a", as_=ADMIN, status=200).body == b""
    api.delete(f"{path}/a", as_=ADMIN, status=404)
    api.post(path, {"extra_specs": {"?": "1"}}, as_=ADMIN, status=400)
    api.post("/flavors/9/os-extra_specs", {"extra_specs": {"a": "1"}}, as_=ADMIN, status=404)


@pytest.mark.parametrize(
    ("key", "value", "status"),
    [
        ("hw:cpu_policy", "dedicated", 200),
        ("hw:cpu_policy", "sometimes", 400),
        ("hw:numa_cpus.0", "0,1-3", 200),
        ("hw:no_such_key", "1", 400),
        ("quota:disk_read_bytes_sec", "1000", 200),
        ("quota:disk_read_bytes_sec", "fast", 400),
        ("resources:VCPU", "2", 200),
        ("resources1:CUSTOM_FPGA", "x", 400),
        ("trait:HW_CPU_X86_AVX", "required", 200),
        ("trait:HW_CPU_X86_AVX", "maybe", 400),
        ("mine:anything", "x", 200),
        ("hide_hypervisor_id", "perhaps", 400),
    ],
)
def test_extra_specs_are_checked_from_2_86(api: Api, key: str, value: str, status: int) -> None:
    make(api)
    body = {"extra_specs": {key: value}}
    path = "/flavors/1/os-extra_specs"
    api.post(path, body, as_=ADMIN, version="2.86", status=status)
    assert api.get(path, as_=ADMIN).json == (body if status == 200 else {"extra_specs": {}})
    assert api.post(path, body, as_=ADMIN, version="2.85", status=200).json == body
