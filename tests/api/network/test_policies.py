"""Who may do what: personas against the calls of each resource."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.network.conftest import Api

# persona: may it read what is p1's, change it, and do what is for administrators
PERSONAS = {
    "reader@p1": (True, False, False),
    "member@p1": (True, True, False),
    "manager@p1": (True, True, False),
    "admin@p0": (True, True, True),
    "service@services": (True, True, False),
    "member@p2": (False, False, False),
    "reader@p2": (False, False, False),
}
RESOURCES: dict[str, dict[str, Any]] = {
    "network": {},
    "subnetpool": {"prefixes": ["10.0.0.0/8"]},
    "address_scope": {"ip_version": 4},
    "security_group": {"name": "g"},
    "address_group": {},
    "router": {},
}


@pytest.mark.parametrize("persona", PERSONAS)
@pytest.mark.parametrize("name", RESOURCES)
def test_a_projects_objects(api: Api, name: str, persona: str) -> None:
    reads, writes, _ = PERSONAS[persona]
    path = f"/{name.replace('_', '-')}s"
    made = api.post(path, {name: RESOURCES[name]})[name]
    one = f"{path}/{made['id']}"
    api.request("get", one, as_=persona, status=200 if reads else 404)
    listed = api.get(f"{path}?id={made['id']}", as_=persona)[f"{name}s"]
    assert [each["id"] for each in listed] == ([made["id"]] if reads else [])
    refused = 403 if reads else 404
    body = {name: {"name": "new"}}
    api.request("put", one, body, as_=persona, status=200 if writes else refused)
    theirs = {name: {**RESOURCES[name], "project_id": "p1"}}
    api.request("post", path, theirs, as_=persona, status=201 if writes else 403)
    api.request("delete", one, as_=persona, status=204 if writes else refused)


@pytest.mark.parametrize("persona", PERSONAS)
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("post", "/networks", {"network": {"shared": True}}),
        ("post", "/networks", {"network": {"router:external": True}}),
        ("post", "/networks", {"network": {"provider:network_type": "vxlan"}}),
        ("post", "/subnetpools", {"subnetpool": {"prefixes": ["10.0.0.0/8"], "shared": True}}),
        ("post", "/qos/policies", {"policy": {"name": "q"}}),
        ("get", "/network-ip-availabilities", None),
    ],
)
def test_what_is_for_administrators(api: Api, method: str, path: str, body: Any, persona: str) -> None:
    allowed = PERSONAS[persona][2]
    answer = api.request(method, path, body, as_=persona, status="*")
    assert answer.status_int == ((201 if method == "post" else 200) if allowed else 403)


def test_no_token_with_a_project(api: Api) -> None:
    """A service's own project owns what it makes for itself."""
    made = api.network(as_="service@services")
    assert made["project_id"] == "services"
