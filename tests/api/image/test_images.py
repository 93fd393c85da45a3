"""Images: shapes, attributes, properties, patches, visibility."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from api.image.services import ImageServices
from core import config
from tests.api.image.conftest import ADMIN, MEMBER, OLD_PATCH, OTHER, READER, Api

SHAPE = {
    "id": str,
    "name": str,
    "status": str,
    "visibility": str,
    "protected": bool,
    "os_hidden": bool,
    "checksum": (str, type(None)),
    "os_hash_algo": (str, type(None)),
    "os_hash_value": (str, type(None)),
    "owner": str,
    "size": (int, type(None)),
    "virtual_size": (int, type(None)),
    "container_format": str,
    "disk_format": str,
    "min_ram": int,
    "min_disk": int,
    "tags": list,
    "created_at": str,
    "updated_at": str,
    "self": str,
    "file": str,
    "schema": str,
}


def test_shape_of_a_new_image(api: Api) -> None:
    answer = api.post(
        "/images",
        {"name": "n", "disk_format": "raw", "container_format": "bare", "hw_x": "1", "tags": ["b", "a", "a"]},
        status=201,
    )
    image = answer.json
    assert set(image) == {*SHAPE, "hw_x"}
    for key, kind in SHAPE.items():
        assert isinstance(image[key], kind), key
    assert answer.headers["Location"] == f"http://localhost/v2/images/{image['id']}"
    assert answer.headers["OpenStack-image-store-ids"] == "file"
    assert answer.headers["OpenStack-image-import-methods"] == "glance-direct,web-download,copy-image"
    assert answer.headers["x-openstack-request-id"].startswith("req-")
    assert image["status"] == "queued" and image["visibility"] == "shared" and image["owner"] == "p1"
    assert image["tags"] == ["a", "b"] and image["size"] is None
    assert image["file"] == f"/v2/images/{image['id']}/file"
    assert image["created_at"].endswith("Z") and len(image["created_at"]) == 20
    assert api.get(f"/images/{image['id']}").json == image
    page = api.get("/images").json
    assert page == {"images": [image], "first": "/v2/images", "schema": "/v2/schemas/images"}


def test_an_image_may_have_next_to_nothing(api: Api) -> None:
    image = api.post("/images", {}, status=201).json
    assert image["name"] is None and image["disk_format"] is None


def test_ids_can_be_chosen_and_are_never_used_twice(api: Api) -> None:
    chosen = str(uuid.uuid4())
    assert api.image(id=chosen)["id"] == chosen
    api.post("/images", {"id": chosen}, status=409)
    api.delete(f"/images/{chosen}", status=204)
    api.post("/images", {"id": chosen}, status=409)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"disk_format": "wrong"}, 400),
        ({"container_format": "wrong"}, 400),
        ({"visibility": "wrong"}, 400),
        ({"id": "wrong"}, 400),
        ({"name": "x" * 256}, 400),
        ({"name": 5}, 400),
        ({"name": "x\0y"}, 400),
        ({"x\0": "y"}, 400),
        ({"min_ram": -1}, 400),
        ({"min_disk": 1 << 40}, 400),
        ({"min_disk": "4"}, 400),
        ({"protected": "true"}, 400),
        ({"tags": "a"}, 400),
        ({"tags": ["x" * 256]}, 400),
        ({"property": 5}, 400),
        ({"property": {"a": "b"}}, 400),
        ({"kernel_id": "no id"}, 400),
        ({"p" * 256: "x"}, 400),
        ([], 400),
        ({"status": "active"}, 403),
        ({"size": 5}, 403),
        ({"checksum": "x"}, 403),
        ({"created_at": "x"}, 403),
        ({"self": "x"}, 403),
        ({"stores": "x"}, 403),
        ({"deleted": "x"}, 403),
        ({"location": "x"}, 403),
        ({"locations": [{"url": "file:///etc/passwd", "metadata": {}}]}, 403),
        ({"os_glance_import_task": "x"}, 403),
        ({"owner": "p2"}, 403),
        ({"visibility": "public"}, 403),
        ({f"p{number}": "x" for number in range(129)}, 413),
        ({"tags": [str(number) for number in range(129)]}, 413),
    ],
)
def test_what_create_refuses(api: Api, body: Any, status: int) -> None:
    answer = api.post("/images", body, status=status)
    assert answer.content_type == "text/html" and str(status) in answer.text
    assert api.get("/images").json["images"] == []


def test_bodies_that_are_no_json(api: Api) -> None:
    headers = {"Content-Type": "application/json"}
    api.request("POST", "/images", b"{nonsense", headers=headers, status=400)
    api.request("POST", "/images", b"", headers=headers, status=400)
    assert api.names() == []


def test_patch_attributes_and_properties(api: Api) -> None:
    image = api.image(name="a", old="1", tags=["t"])
    changed = api.patch(
        image["id"],
        [
            {"op": "replace", "path": "/name", "value": "b"},
            {"op": "add", "path": "/new~1x", "value": "2"},
            {"op": "remove", "path": "/old"},
            {"op": "replace", "path": "/tags", "value": ["x", "x", "w"]},
            {"op": "add", "path": "/protected", "value": True},
            {"op": "replace", "path": "/min_disk", "value": 7},
            {"op": "replace", "path": "/disk_format", "value": "qcow2"},
        ],
        status=200,
    ).json
    assert changed["name"] == "b" and changed["new/x"] == "2" and "old" not in changed
    assert changed["tags"] == ["w", "x"] and changed["protected"] is True and changed["min_disk"] == 7
    assert changed["disk_format"] == "qcow2"
    assert api.get(f"/images/{image['id']}").json == changed
    assert api.patch(image["id"], [], status=200).json == changed


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"op": "replace", "path": "/status", "value": "active"}, 403),
        ({"op": "replace", "path": "/id", "value": "x"}, 403),
        ({"op": "add", "path": "/os_glance_x", "value": "y"}, 403),
        ({"op": "add", "path": "/deleted", "value": "y"}, 403),
        ({"op": "remove", "path": "/name"}, 403),
        ({"op": "replace", "path": "/owner", "value": "p2"}, 403),
        ({"op": "add", "path": "/owner", "value": "p2"}, 403),
        ({"op": "replace", "path": "/visibility", "value": "public"}, 403),
        ({"op": "add", "path": "/locations/-", "value": {"url": "file:///x", "metadata": {}}}, 403),
        ({"op": "replace", "path": "/locations", "value": []}, 403),
        ({"op": "remove", "path": "/locations/0"}, 403),
        ({"op": "replace", "path": "/absent", "value": "x"}, 409),
        ({"op": "remove", "path": "/absent"}, 409),
        ({"op": "add", "path": "/x"}, 400),
        ({"op": "add", "path": "/x", "value": 5}, 400),
        ({"op": "add", "path": "/x", "value": "a\0b"}, 400),
        ({"op": "add", "path": "/x/y", "value": "5"}, 400),
        ({"op": "add", "path": "x", "value": "5"}, 400),
        ({"op": "add", "path": "/", "value": "5"}, 400),
        ({"op": "add", "path": "/x/", "value": "5"}, 400),
        ({"op": "add", "path": "/x~2", "value": "5"}, 400),
        ({"op": "add", "path": 5, "value": "5"}, 400),
        ({"op": "move", "path": "/x", "from": "/y"}, 400),
        ({"path": "/x", "value": "5"}, 400),
        ({"op": ["add"], "path": "/x", "value": "5"}, 400),
        ({"op": "replace", "path": "/min_ram", "value": -1}, 400),
        ({"op": "replace", "path": "/visibility", "value": "secret"}, 400),
        ("add", 400),
    ],
)
def test_what_patch_refuses(api: Api, change: Any, status: int) -> None:
    image = api.image(name="a")
    api.patch(image["id"], [{"op": "replace", "path": "/name", "value": "b"}, change], status=status)
    assert api.get(f"/images/{image['id']}").json == image


def test_patch_media_types(api: Api) -> None:
    image = api.image(name="a")
    change = [{"op": "replace", "path": "/name", "value": "b"}]
    answer = api.json("PATCH", f"/images/{image['id']}", change, status=415)
    assert "v2.1-json-patch" in answer.headers["Accept-Patch"]
    old = {"content_type": OLD_PATCH}
    path = f"/images/{image['id']}"
    assert api.json("PATCH", path, [{"add": "/x", "value": "1"}], **old).json["x"] == "1"
    api.json("PATCH", path, [{"add": "/x", "value": "1"}], status=409, **old)
    api.json("PATCH", path, [{"add": "/name", "value": "1"}], status=409, **old)
    assert api.json("PATCH", path, [{"replace": "/name", "value": "c"}], **old).json["name"] == "c"
    assert "x" not in api.json("PATCH", path, [{"remove": "/x"}], **old).json
    api.json("PATCH", path, [{"add": "/x", "remove": "/x", "value": "1"}], status=400, **old)
    api.json("PATCH", path, change, status=400, **old)
    api.patch(image["id"], {"op": "add"}, status=400)


def test_formats_are_fixed_once_there_is_data(api: Api) -> None:
    image = api.image(data=b"data")
    api.patch(image["id"], [{"op": "replace", "path": "/disk_format", "value": "qcow2"}], status=403)
    api.patch(image["id"], [{"op": "replace", "path": "/container_format", "value": "ova"}], status=403)
    shown = api.get(f"/images/{image['id']}").json
    assert (shown["disk_format"], shown["container_format"]) == ("raw", "bare")


def test_deleting(api: Api) -> None:
    image = api.image(protected=True)
    path = f"/images/{image['id']}"
    api.delete(path, status=403)
    assert api.get(path).json["status"] == "queued"
    api.patch(image["id"], [{"op": "replace", "path": "/protected", "value": False}])
    api.delete(path, status=204)
    api.delete(path, status=404)
    api.get(path, status=404)
    api.get(f"/images/{uuid.uuid4()}", status=404)
    api.get("/images/no-id", status=404)
    api.get("/images/", status=404)
    api.delete("/images/", status=404)


def test_visibility(api: Api) -> None:
    made = {
        name: api.image(name=name, visibility=name, as_=ADMIN)["id"]
        for name in ("public", "private", "shared", "community")
    }
    assert sorted(api.names()) == ["community", "private", "public", "shared"]
    assert api.names(as_=OTHER) == ["public"]
    assert api.names("?visibility=community", as_=OTHER) == ["community"]
    assert sorted(api.names("?visibility=all", as_=OTHER)) == ["community", "public"]
    assert api.names("?visibility=private", as_=OTHER) == []
    assert sorted(api.names(as_="admin@p9")) == ["private", "public", "shared"]
    for name, status in {"public": 200, "private": 404, "shared": 404, "community": 200}.items():
        api.get(f"/images/{made[name]}", as_=OTHER, status=status)
        change = [{"op": "replace", "path": "/name", "value": "mine"}]
        hidden = 403 if status == 200 else 404
        api.patch(made[name], change, as_=OTHER, status=hidden)
        api.delete(f"/images/{made[name]}", as_=OTHER, status=hidden)
        api.upload(made[name], b"x", as_=OTHER, status=hidden)
        api.post(f"/images/{made[name]}/actions/deactivate", as_=OTHER, status=hidden)
        api.json("PUT", f"/images/{made[name]}/tags/t", {}, as_=OTHER, status=hidden)


def test_personas(api: Api) -> None:
    image = api.image(data=b"x")
    path = f"/images/{image['id']}"
    api.post("/images", {}, as_=READER, status=403)
    api.get(path, as_=READER)
    api.get(f"{path}/file", as_=READER, status=403)
    api.delete(path, as_=READER, status=403)
    api.patch(image["id"], [{"op": "add", "path": "/x", "value": "y"}], as_=READER, status=403)
    api.upload(image["id"], b"x", as_=READER, status=403)
    public = [{"op": "replace", "path": "/visibility", "value": "public"}]
    api.patch(image["id"], public, as_="manager@p1", status=403)
    api.patch(image["id"], public, as_=ADMIN, status=200)
    owner = [{"op": "replace", "path": "/owner", "value": "p2"}]
    assert api.patch(image["id"], owner, as_=ADMIN).json["owner"] == "p2"
    api.delete(path, as_=MEMBER, status=403)
    api.delete(path, as_="admin@p9", status=204)
    api.post("/images", {"owner": "p2"}, as_=ADMIN, status=201)
    for method, where in (("GET", "/images"), ("GET", "/schemas/image"), ("GET", "/nothing")):
        api.request(method, where, as_="", status=401)


def test_hidden_images_are_listed_on_demand(api: Api) -> None:
    image = api.image(name="h", os_hidden=True)
    assert api.names() == []
    assert api.names("?os_hidden=true") == ["h"]
    api.patch(image["id"], [{"op": "replace", "path": "/os_hidden", "value": False}])
    assert api.names() == ["h"]


def test_deactivate_and_reactivate(api: Api) -> None:
    queued = api.image()["id"]
    api.post(f"/images/{queued}/actions/deactivate", status=403)
    image = api.image(data=b"data")["id"]
    for action, status, download in (
        ("deactivate", "deactivated", 403),
        ("deactivate", "deactivated", 403),
        ("reactivate", "active", 200),
        ("reactivate", "active", 200),
    ):
        api.post(f"/images/{image}/actions/{action}", status=204)
        assert api.get(f"/images/{image}").json["status"] == status
        api.get(f"/images/{image}/file", status=download)
    api.post(f"/images/{image}/actions/deactivate", status=204)
    assert api.get(f"/images/{image}/file", as_=ADMIN).body == b"data"


def test_tags(api: Api) -> None:
    path = f"/images/{api.image()['id']}"
    for _twice in range(2):
        api.json("PUT", f"{path}/tags/caf%C3%A9", {}, status=204)
    assert api.get(path).json["tags"] == ["café"]
    api.json("PUT", f"{path}/tags/{'x' * 256}", {}, status=400)
    api.delete(f"{path}/tags/absent", status=404)
    api.delete(f"{path}/tags/caf%C3%A9", status=204)
    assert api.get(path).json["tags"] == []
    api.json("PUT", f"/images/{uuid.uuid4()}/tags/t", {}, status=404)


def test_count_quota(api: Api, services: ImageServices) -> None:
    config.override(services.conf, "image.image_count_total", 1)
    first = api.image()["id"]
    api.post("/images", {}, status=413)
    api.post("/images", {}, as_=OTHER, status=201)
    assert api.get("/info/usage").json["usage"]["image_count_total"] == {"usage": 1, "limit": 1}
    api.delete(f"/images/{first}")
    api.post("/images", {}, status=201)
