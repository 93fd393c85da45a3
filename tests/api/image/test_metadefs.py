"""Metadata definitions: who sees and writes them, their shapes, pages, and what deletion takes with it."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from tests.api.image.conftest import ADMIN, MEMBER, OTHER, READER, Api

BASE = "/metadefs/namespaces"
CPU = {"name": "cpus", "title": "CPUs", "type": "integer", "minimum": 1}


def namespace(api: Api, name: str = "OS::Test", **values: Any) -> dict[str, Any]:
    return dict(api.post(BASE, {"namespace": name, **values}, as_=ADMIN, status=201).json)


def put(api: Api, path: str, body: Any, status: int = 200) -> Any:
    answer = api.json("PUT", path, body, as_=ADMIN, status=status)
    return answer.json if status == 200 else answer


def names(api: Api, query: str = "", as_: str = ADMIN) -> list[str]:
    return [found["namespace"] for found in api.get(f"{BASE}{query}", as_=as_).json["namespaces"]]


def test_a_namespace_lives(api: Api) -> None:
    made = namespace(api, description="what it is for", visibility="public")
    assert (made["owner"], made["protected"], made["self"]) == (
        "p1",
        False,
        "/v2/metadefs/namespaces/OS::Test".replace("::", "%3A%3A"),
    )
    assert "display_name" not in made
    jsonschema.validate(made, api.get("/schemas/metadefs/namespace").json)
    jsonschema.validate(api.get(BASE).json, api.get("/schemas/metadefs/namespaces").json)
    api.post(BASE, {"namespace": "OS::Test"}, as_=ADMIN, status=409)
    path = f"{BASE}/OS::Test"
    changed = put(api, path, {"namespace": "OS::New", "protected": True})
    # what an update leaves out is as in a new namespace
    assert (changed["namespace"], changed["protected"], changed["visibility"]) == ("OS::New", True, "private")
    api.get(path, as_=ADMIN, status=404)
    api.delete(f"{BASE}/OS::New", as_=ADMIN, status=403)
    put(api, f"{BASE}/OS::New", {"namespace": "OS::New"})
    api.delete(f"{BASE}/OS::New", as_=ADMIN, status=204)
    assert names(api) == []


def test_a_name_that_is_taken_can_not_be_given(api: Api) -> None:
    namespace(api, "a")
    namespace(api, "b")
    put(api, f"{BASE}/a", {"namespace": "b"}, status=409)
    assert names(api, "?sort_key=namespace&sort_dir=asc") == ["a", "b"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"namespace": " "}, 400),
        ({"namespace": "n" * 81}, 400),
        ({"namespace": "n", "visibility": "shared"}, 400),
        ({"namespace": "n", "something": 1}, 400),
        ({"namespace": "n", "created_at": "2026-01-01T00:00:00Z"}, 403),
        ({"namespace": "n", "objects": [{"description": "no name"}]}, 400),
        ({"namespace": "n", "tags": [{"name": "t"}, {"name": "t"}]}, 409),
    ],
)
def test_what_a_namespace_can_not_be(api: Api, body: Any, status: int) -> None:
    api.post(BASE, body, as_=ADMIN, status=status)
    # refused is refused whole
    assert names(api) == []


def test_private_ones_are_the_projects_and_writing_is_the_administrators(api: Api) -> None:
    namespace(api, "private")
    namespace(api, "public", visibility="public")
    assert names(api, as_=READER) == ["public", "private"]
    assert names(api, as_=OTHER) == ["public"]
    assert names(api, "?visibility=private") == ["private"]
    api.get(f"{BASE}?visibility=shared", status=400)
    for path in ("", "/objects", "/properties", "/tags", "/resource_types"):
        api.get(f"{BASE}/private{path}", as_=OTHER, status=404)
        api.get(f"{BASE}/public{path}", as_=OTHER, status=200)
    api.post(BASE, {"namespace": "mine"}, as_=MEMBER, status=403)
    api.delete(f"{BASE}/public", as_=MEMBER, status=403)
    api.delete(f"{BASE}/private", as_=OTHER, status=404)
    api.post(f"{BASE}/private/objects", {"name": "o"}, as_=MEMBER, status=403)
    api.post(f"{BASE}/private/tags/t", as_=MEMBER, status=403)


def test_pages(api: Api) -> None:
    for name in ("a", "b", "c"):
        namespace(api, name)
    page = api.get(f"{BASE}?limit=2&sort_key=namespace&sort_dir=asc", as_=ADMIN).json
    assert [found["namespace"] for found in page["namespaces"]] == ["a", "b"]
    assert page["first"] == "/v2/metadefs/namespaces?limit=2&sort_key=namespace&sort_dir=asc"
    rest = api.get(page["next"].removeprefix("/v2"), as_=ADMIN).json
    assert [found["namespace"] for found in rest["namespaces"]] == ["c"]
    assert "next" not in rest
    assert names(api) == ["c", "b", "a"]
    for query in ("marker=absent", "limit=x", "limit=-1", "sort_key=description", "sort_dir=up"):
        api.get(f"{BASE}?{query}", as_=ADMIN, status=400)


def test_a_namespace_made_with_all_it_defines(api: Api) -> None:
    whole = {
        "resource_type_associations": [{"name": "OS::Nova::Flavor", "prefix": "hw:"}],
        "properties": {"cpus": {"title": "CPUs", "type": "integer"}},
        "objects": [{"name": "o", "required": ["x"], "properties": {"x": {"title": "X", "type": "string"}}}],
        "tags": [{"name": "t"}],
    }
    namespace(api, "n", **whole)
    shown = api.get(f"{BASE}/n", as_=ADMIN).json
    assert shown["properties"] == whole["properties"]
    assert shown["tags"] == whole["tags"]
    assert shown["resource_type_associations"][0]["prefix"] == "hw:"
    assert shown["objects"][0]["self"] == "/v2/metadefs/namespaces/n/objects/o"
    jsonschema.validate(shown, api.get("/schemas/metadefs/namespace").json)
    prefixed = api.get(f"{BASE}/n?resource_type=OS::Nova::Flavor", as_=ADMIN).json
    assert list(prefixed["properties"]) == ["hw:cpus"]
    assert (list(prefixed["objects"][0]["properties"]), prefixed["objects"][0]["required"]) == (
        ["hw:x"],
        ["hw:x"],
    )
    api.get(f"{BASE}/n?resource_type=OS::Nova::Server", as_=ADMIN, status=404)
    api.delete(f"{BASE}/n", as_=ADMIN, status=204)
    # nothing of it is left for another namespace of that name
    namespace(api, "n")
    empty = api.get(f"{BASE}/n", as_=ADMIN).json
    assert not {"properties", "objects", "tags", "resource_type_associations"} & set(empty)


def test_objects(api: Api) -> None:
    namespace(api, "n")
    path = f"{BASE}/n/objects"
    made = api.post(path, {"name": "o", "description": "d"}, as_=ADMIN, status=201).json
    assert (made["description"], made["required"], made["properties"]) == ("d", [], {})
    jsonschema.validate(made, api.get("/schemas/metadefs/object").json)
    api.post(path, {"name": "o"}, as_=ADMIN, status=409)
    api.post(path, {"name": "p"}, as_=ADMIN, status=201)
    put(api, f"{path}/o", {"name": "p"}, status=409)
    assert "description" not in put(api, f"{path}/o", {"name": "q"})
    api.get(f"{path}/o", as_=ADMIN, status=404)
    listed = api.get(f"{path}?limit=1", as_=ADMIN).json
    assert [found["name"] for found in listed["objects"]] == ["p"]
    jsonschema.validate(listed, api.get("/schemas/metadefs/objects").json)
    rest = api.get(listed["next"].removeprefix("/v2"), as_=ADMIN).json
    assert [found["name"] for found in rest["objects"]] == ["q"]
    api.delete(f"{path}/q", as_=ADMIN, status=204)
    api.delete(f"{path}/q", as_=ADMIN, status=404)
    api.delete(path, as_=ADMIN, status=204)
    assert api.get(path, as_=ADMIN).json["objects"] == []


def test_properties(api: Api) -> None:
    namespace(api, "n", resource_type_associations=[{"name": "OS::Nova::Flavor", "prefix": "hw:"}])
    path = f"{BASE}/n/properties"
    assert api.post(path, CPU, as_=ADMIN, status=201).json == CPU
    api.post(path, CPU, as_=ADMIN, status=409)
    api.post(path, {"name": "x", "type": "string"}, as_=ADMIN, status=400)
    listed = api.get(path, as_=ADMIN).json
    assert listed["properties"] == {"cpus": CPU}
    jsonschema.validate(listed, api.get("/schemas/metadefs/properties").json)
    typed = "?resource_type=OS::Nova::Flavor"
    assert api.get(f"{path}/hw:cpus{typed}", as_=ADMIN).json == {**CPU, "name": "hw:cpus"}
    api.get(f"{path}/cpus{typed}", as_=ADMIN, status=404)
    changed = {"name": "cpus", "title": "Cores", "type": "number"}
    assert put(api, f"{path}/cpus", changed) == changed == api.get(f"{path}/cpus", as_=ADMIN).json
    api.delete(f"{path}/cpus", as_=ADMIN, status=204)
    api.get(f"{path}/cpus", as_=ADMIN, status=404)
    api.post(path, CPU, as_=ADMIN, status=201)
    api.delete(path, as_=ADMIN, status=204)
    assert api.get(path, as_=ADMIN).json["properties"] == {}


def test_tags(api: Api) -> None:
    namespace(api, "n")
    path = f"{BASE}/n/tags"

    def tags() -> list[str]:
        return sorted(tag["name"] for tag in api.get(path, as_=ADMIN).json["tags"])

    def post(*names: str, **headers: str) -> None:
        body = b'{"tags": [%s]}' % b", ".join(b'{"name": "%s"}' % name.encode() for name in names)
        api.request(
            "POST", path, body, as_=ADMIN, status=201, headers={"Content-Type": "application/json"} | headers
        )

    post("a", "b")
    post("c")
    assert tags() == ["c"]
    post("d", **{"X-Openstack-Append": "True"})
    assert tags() == ["c", "d"]
    made = api.post(f"{path}/e", as_=ADMIN, status=201).json
    assert made["name"] == "e" and {"created_at", "updated_at"} <= set(made)
    api.post(f"{path}/e", as_=ADMIN, status=409)
    put(api, f"{path}/e", {"name": "d"}, status=409)
    assert put(api, f"{path}/e", {"name": "f"})["name"] == "f"
    assert api.get(f"{path}/f", as_=ADMIN).json["name"] == "f"
    api.delete(f"{path}/f", as_=ADMIN, status=204)
    api.delete(f"{path}/f", as_=ADMIN, status=404)
    api.post(path, {"tags": [{"name": "x"}, {"name": "x"}]}, as_=ADMIN, status=400)
    assert tags() == ["c", "d"]
    api.delete(path, as_=ADMIN, status=204)
    assert tags() == []


def test_resource_types(api: Api) -> None:
    def types() -> set[str]:
        return {found["name"] for found in api.get("/metadefs/resource_types").json["resource_types"]}

    namespace(api, "n")
    namespace(api, "m")
    path = f"{BASE}/n/resource_types"
    assert {"OS::Glance::Image", "OS::Nova::Server"} <= types()
    made = api.post(path, {"name": "OS::Mine", "prefix": "mine:"}, as_=ADMIN, status=201).json
    assert (made["name"], made["prefix"]) == ("OS::Mine", "mine:")
    jsonschema.validate(made, api.get("/schemas/metadefs/resource_type").json)
    api.post(path, {"name": "OS::Mine"}, as_=ADMIN, status=409)
    assert [found["name"] for found in api.get(path, as_=ADMIN).json["resource_type_associations"]] == [
        "OS::Mine"
    ]
    assert "OS::Mine" in types()
    assert names(api, "?resource_types=OS::Mine,OS::Other") == ["n"]
    api.delete(f"{path}/OS::Mine", as_=ADMIN, status=204)
    api.delete(f"{path}/OS::Mine", as_=ADMIN, status=404)
    assert names(api, "?resource_types=OS::Mine") == []


def test_what_is_protected_keeps_what_it_defines(api: Api) -> None:
    associated = [{"name": "OS::Nova::Flavor"}]
    namespace(api, "n", protected=True, tags=[{"name": "t"}], resource_type_associations=associated)
    api.delete(f"{BASE}/n/tags/t", as_=ADMIN, status=403)
    api.delete(f"{BASE}/n/resource_types/OS::Nova::Flavor", as_=ADMIN, status=403)
    api.post(f"{BASE}/n/tags", {"tags": []}, as_=ADMIN, status=403)
    assert api.get(f"{BASE}/n", as_=ADMIN).json["tags"] == [{"name": "t"}]
