"""Networks: shapes, policies, segments, lists."""

from __future__ import annotations

import pytest
import webtest

from api.network.app import make_app
from core import config
from tests.api.identity import authenticate
from tests.api.network.conftest import ADMIN, OTHER, READER, Api, make_services
from tests.db.statements import of

SHAPE = {
    "id": str, "name": str, "description": str, "project_id": str, "tenant_id": str, "created_at": str,
    "updated_at": str, "revision_number": int, "tags": list, "admin_state_up": bool, "status": str,
    "subnets": list, "shared": bool, "router:external": bool, "is_default": bool, "mtu": int,
    "port_security_enabled": bool, "dns_domain": str, "availability_zone_hints": list,
    "availability_zones": list, "ipv4_address_scope": type(None), "ipv6_address_scope": type(None),
    "qos_policy_id": type(None),
}  # fmt: skip


def test_a_project_makes_a_network(api: Api) -> None:
    network = api.network(name="blue", tags=["a", "b"])
    assert {key: type(value) for key, value in network.items()} == SHAPE
    assert network["project_id"] == network["tenant_id"] == "p1"
    assert network["mtu"] == 1450 and network["status"] == "ACTIVE" and network["tags"] == ["a", "b"]
    assert api.get(f"/networks/{network['id']}")["network"] == network
    assert api.get("/networks")["networks"] == [network]
    changed = api.put(f"/networks/{network['id']}", {"network": {"name": "red", "mtu": 1400}})["network"]
    assert (changed["name"], changed["mtu"]) == ("red", 1400)
    assert changed["revision_number"] == network["revision_number"] + 1
    api.delete(f"/networks/{network['id']}", status=204)
    assert "could not be found" in api.refused(
        "get", f"/networks/{network['id']}", None, 404, "NetworkNotFound"
    )


def test_administrators_see_the_segment(api: Api) -> None:
    network = api.network(as_=ADMIN)
    assert network["provider:network_type"] == "vxlan" and network["provider:segmentation_id"] > 0
    assert network["provider:physical_network"] is None
    given = {"provider:network_type": "vxlan", "provider:segmentation_id": 77}
    assert api.network(as_=ADMIN, **given)["provider:segmentation_id"] == 77
    api.refused("post", "/networks", {"network": given}, 409, "TunnelIdInUse", as_=ADMIN)
    flat = {"provider:network_type": "flat", "provider:physical_network": "outside"}
    assert api.network(as_=ADMIN, **flat)["mtu"] == 1500
    api.refused("post", "/networks", {"network": flat}, 409, "FlatNetworkInUse", as_=ADMIN)
    vlan = {"provider:network_type": "vlan", "provider:physical_network": "nowhere"}
    api.refused("post", "/networks", {"network": vlan}, 400, "InvalidInput", as_=ADMIN)


def test_a_used_up_range_is_a_conflict(tmp_path) -> None:
    services = make_services(f"sqlite:///{tmp_path}/db.sqlite", **{"network.vni_ranges": ["5:6"]})
    api = Api(webtest.TestApp(make_app(services.conf, services, authenticate)))
    seen = {api.network(as_=ADMIN)["provider:segmentation_id"] for _ in range(2)}
    assert seen == {5, 6}
    api.refused("post", "/networks", {"network": {}}, 409, "NoNetworkAvailable")
    services.close()


@pytest.mark.parametrize("field", ["shared", "router:external", "is_default"])
def test_only_administrators_share(api: Api, field: str) -> None:
    api.refused("post", "/networks", {"network": {field: True}}, 403, "PolicyNotAuthorized")
    network = api.network()
    path = f"/networks/{network['id']}"
    api.refused("put", path, {"network": {field: True}}, 403, "PolicyNotAuthorized")
    assert api.network(**{field: False})[field] is False  # the default may be said


def test_what_is_foreign_is_not_there(api: Api) -> None:
    network = api.network()
    path = f"/networks/{network['id']}"
    api.refused("get", path, None, 404, "NetworkNotFound", as_=OTHER)
    api.refused("put", path, {"network": {"name": "x"}}, 404, "NetworkNotFound", as_=OTHER)
    api.refused("delete", path, None, 404, "NetworkNotFound", as_=OTHER)
    assert api.get("/networks", as_=OTHER)["networks"] == []
    api.refused("put", path, {"network": {"name": "x"}}, 403, "PolicyNotAuthorized", as_=READER)
    shared = api.put(path, {"network": {"shared": True}}, as_=ADMIN)["network"]
    assert shared["shared"] is True
    assert api.get(path, as_=OTHER)["network"]["shared"] is True
    api.refused("put", path, {"network": {"name": "x"}}, 403, "PolicyNotAuthorized", as_=OTHER)
    api.subnet(network["id"])
    api.port(network["id"], as_=OTHER)
    api.refused("put", path, {"network": {"shared": False}}, 409, "InvalidSharedSetting", as_=ADMIN)


def test_another_projects_network_is_for_administrators_to_make(api: Api) -> None:
    api.refused("post", "/networks", {"network": {"tenant_id": "p9"}}, 403, "PolicyNotAuthorized")
    assert api.network(as_=ADMIN, project_id="p9")["project_id"] == "p9"


@pytest.mark.parametrize(
    "body",
    [
        {"network": {"colour": "red"}},
        {"network": {"status": "DOWN"}},
        {"network": {"name": "x" * 256}},
        {"network": {"admin_state_up": "perhaps"}},
        {"network": {"mtu": 67}},
        {"network": {"mtu": 9000}},
        {"net": {}},
        {"networks": []},
        [],
    ],
)
def test_malformed_bodies(api: Api, body: object) -> None:
    api.request("post", "/networks", body, status=400)
    assert api.get("/networks")["networks"] == []


def test_filters_fields_sorting_and_pages(api: Api) -> None:
    made = api.post("/networks", {"networks": [{"name": name} for name in "cab"]}, status=201)["networks"]
    ids = {network["name"]: network["id"] for network in made}

    def names(query: str) -> list[str]:
        return [network["name"] for network in api.get(f"/networks?{query}")["networks"]]

    assert names("sort_key=name&sort_dir=desc") == ["c", "b", "a"]
    assert names("name=a&name=b&sort_key=name") == ["a", "b"]
    assert names(f"id={ids['c']}&shared=false&router:external=False&admin_state_up=True") == ["c"]
    assert names("shared=True") == [] and names("name=") == []
    assert api.get("/networks?fields=id&fields=mtu&name=a")["networks"] == [{"id": ids["a"], "mtu": 1450}]
    api.request("get", "/networks?colour=red", status=400)
    api.request("get", "/networks?limit=many", status=400)
    first = api.get("/networks?sort_key=name&sort_dir=asc&limit=2")
    assert [network["name"] for network in first["networks"]] == ["a", "b"]
    (link,) = first["networks_links"]
    assert link["rel"] == "next"
    rest = api.get(link["href"].partition("/v2.0")[2])
    assert [network["name"] for network in rest["networks"]] == ["c"]
    (back,) = rest["networks_links"]
    assert back["rel"] == "previous"
    assert [each["name"] for each in api.get(back["href"].partition("/v2.0")[2])["networks"]] == ["a", "b"]


def test_a_bulk_is_made_whole_or_not_at_all(api: Api, services) -> None:
    config.override(services.conf, "network_quota.network", 2)
    message = api.refused("post", "/networks", {"networks": [{}, {}, {}]}, 409, "OverQuota")
    assert "network" in message
    assert api.get("/networks")["networks"] == []
    assert len(api.post("/networks", {"networks": [{}, {}]})["networks"]) == 2


def test_tags_and_their_filters(api: Api) -> None:
    one, two = api.network(name="one"), api.network(name="two")
    path = f"/networks/{one['id']}/tags"
    assert api.put(path, {"tags": ["red", "blue"]})["tags"] == ["blue", "red"]
    api.request("put", f"{path}/green", status=201)
    api.request("get", f"{path}/green", status=204)
    api.refused("get", f"{path}/pink", None, 404, "TagNotFound")
    assert api.get(path)["tags"] == ["blue", "green", "red"]
    api.put(f"/networks/{two['id']}/tags", {"tags": ["red"]})

    def names(query: str) -> list[str]:
        return sorted(network["name"] for network in api.get(f"/networks?{query}")["networks"])

    assert names("tags=red") == ["one", "two"] and names("tags=red,blue") == ["one"]
    assert names("tags-any=blue,pink") == ["one"] and names("not-tags=red,blue") == ["two"]
    assert names("not-tags-any=blue") == ["two"]
    api.delete(f"{path}/green", status=204)
    api.delete(f"{path}/green", status=404)
    api.delete(path, status=204)
    assert api.get(path)["tags"] == []
    api.put(path, {"tags": ["x"]}, as_=READER, status=403)
    api.get(path, as_=OTHER, status=404)


def test_if_match_names_the_revision(api: Api) -> None:
    network = api.network()
    path, body = f"/networks/{network['id']}", {"network": {"name": "new"}}
    match = {"If-Match": f"revision_number={network['revision_number']}"}
    api.put(path, body, headers=match)
    api.refused("put", path, body, 412, "RevisionNumberConstraintFailed", headers=match)
    api.delete(path, headers=match, status=412)
    assert api.get(path)["network"]["name"] == "new"


def test_a_network_with_ports_stays(api: Api) -> None:
    network = api.network()
    api.subnet(network["id"])
    port = api.port(network["id"])
    message = api.refused("delete", f"/networks/{network['id']}", None, 409, "NetworkInUse")
    assert port["id"] in message
    api.delete(f"/ports/{port['id']}")
    api.delete(f"/networks/{network['id']}")
    assert api.get("/subnets")["subnets"] == []


@pytest.mark.parametrize("collection", ["networks", "subnets", "ports", "security-groups", "routers"])
def test_a_list_needs_as_many_statements_for_many(api: Api, services, collection: str) -> None:
    def grow(number: int) -> None:
        network = api.network()
        api.subnet(network["id"], f"10.0.{number}.0/24")
        api.port(network["id"])
        api.post("/security-groups", {"security_group": {"name": f"g{number}"}})
        api.post("/routers", {"router": {}})

    grow(1)
    with of(services.databases) as few:
        api.get(f"/{collection}")
    for number in range(2, 7):
        grow(number)
    with of(services.databases) as many:
        assert len(api.get(f"/{collection}")[collection.replace("-", "_")]) >= 6
    assert len(many) == len(few) <= 6
