"""Server groups through the API."""

from __future__ import annotations

from typing import Any

import pytest

from api.compute.services import ComputeServices
from core import config
from db import server_groups
from tests.api.compute.conftest import ADMIN, OTHER, READER, Api
from tests.db import statements


def make(api: Api, name: str = "g", **options: Any) -> dict[str, Any]:
    body = {"server_group": {"name": name, "policy": "affinity"}}
    return api.post("/os-server-groups", body, version="2.64", status=200, **options).json["server_group"]


def test_shape_by_microversion(api: Api) -> None:
    old = {"server_group": {"name": "g", "policies": ["anti-affinity"]}}
    made = api.post("/os-server-groups", old, status=200).json["server_group"]
    assert made == {
        "id": made["id"],
        "name": "g",
        "policies": ["anti-affinity"],
        "members": [],
        "metadata": {},
    }
    path = f"/os-server-groups/{made['id']}"
    middle = api.get(path, version="2.13").json["server_group"]
    assert middle == {**made, "project_id": "p1", "user_id": "member-of-p1"}
    new = api.get(path, version="2.64").json["server_group"]
    assert set(new) == {"id", "name", "policy", "rules", "members", "project_id", "user_id"}
    body = {"server_group": {"name": "r", "policy": "anti-affinity", "rules": {"max_server_per_host": 3}}}
    made = api.post("/os-server-groups", body, version="2.64").json["server_group"]
    assert made["rules"] == {"max_server_per_host": 3}


@pytest.mark.parametrize(
    ("version", "group"),
    [
        ("2.1", {"name": "g", "policies": ["soft-affinity"]}),
        ("2.1", {"name": "g", "policies": []}),
        ("2.1", {"name": "g", "policies": ["affinity", "anti-affinity"]}),
        ("2.1", {"name": "", "policies": ["affinity"]}),
        ("2.1", {"policies": ["affinity"]}),
        ("2.64", {"name": "g", "policies": ["affinity"]}),
        ("2.64", {"name": "g", "policy": "affinity", "rules": {"max_server_per_host": 3}}),
        ("2.64", {"name": "g", "policy": "anti-affinity", "rules": {"max_server_per_host": 0}}),
        ("2.64", {"name": "g", "policy": "anti-affinity", "rules": {"max_server_per_host": "0"}}),
        ("2.64", {"name": "g", "policy": "anti-affinity", "rules": {"other": 3}}),
    ],
)
def test_bad_fields_are_400(api: Api, version: str, group: dict[str, Any]) -> None:
    api.post("/os-server-groups", {"server_group": group}, version=version, status=400)
    assert api.get("/os-server-groups").json["server_groups"] == []


def test_soft_policies_from_2_15(api: Api) -> None:
    body = {"server_group": {"name": "g", "policies": ["soft-affinity"]}}
    made = api.post("/os-server-groups", body, version="2.15", status=200).json["server_group"]
    assert made["policies"] == ["soft-affinity"]


def test_who_may(api: Api) -> None:
    path = f"/os-server-groups/{make(api)['id']}"
    api.get(path, as_=READER)
    api.get(path, as_=OTHER, status=403)
    api.delete(path, as_=READER, status=403)
    api.delete(path, as_=OTHER, status=403)
    api.post(
        "/os-server-groups", {"server_group": {"name": "g", "policies": ["affinity"]}}, as_=READER, status=403
    )
    assert len(api.get("/os-server-groups").json["server_groups"]) == 1
    api.delete(path, status=204)
    api.delete(path, status=404)
    api.get(path, status=404)


def test_list(api: Api, services: ComputeServices) -> None:
    made = [make(api, f"g{number}")["id"] for number in range(3)]
    make(api, "theirs", as_=OTHER)
    with services.databases.global_.write() as connection:
        server_groups.add_member(connection, made[0], "s1")

    def names(query: str = "", **options: Any) -> list[str]:
        groups = api.get(f"/os-server-groups{query}", **options).json["server_groups"]
        return [each["name"] for each in groups]

    assert names() == ["g0", "g1", "g2"]
    assert names("?limit=1&offset=1") == ["g1"] and names("?offset=2") == ["g2"]
    assert names("?all_projects=1") == ["g0", "g1", "g2"]
    assert names("?all_projects=1", as_=ADMIN) == ["g0", "g1", "g2", "theirs"]
    api.get("/os-server-groups?limit=-1", status=400)
    api.get("/os-server-groups?colour=red", version="2.75", status=400)
    with statements.of(services.databases) as run:
        groups = api.get("/os-server-groups").json["server_groups"]
    assert groups[0]["members"] == ["s1"] and len(run) == 2


def test_quota(api: Api, services: ComputeServices) -> None:
    config.override(services.conf, "quota.server_groups", 1)
    make(api)
    body = {"server_group": {"name": "g", "policies": ["affinity"]}}
    answer = api.post("/os-server-groups", body, status=403)
    assert answer.json["forbidden"]["message"] == "Quota exceeded, too many server groups."
    assert api.get("/limits").json["limits"]["absolute"]["totalServerGroupsUsed"] == 1
