"""Members: who may share, see, accept."""

from __future__ import annotations

from api.image.services import ImageServices
from core import config
from tests.api.image.conftest import ADMIN, OTHER, READER, STRANGER, Api


def test_sharing(api: Api) -> None:
    image = api.image(name="s", data=b"x")
    path = f"/images/{image['id']}"
    made = api.post(f"{path}/members", {"member": "p2"}, status=200).json
    assert set(made) == {"member_id", "image_id", "status", "created_at", "updated_at", "schema"}
    assert (made["member_id"], made["image_id"], made["status"]) == ("p2", image["id"], "pending")
    assert made["schema"] == "/v2/schemas/member"
    api.post(f"{path}/members", {"member": "p2"}, status=409)
    assert api.get(f"{path}/members").json == {"members": [made], "schema": "/v2/schemas/members"}

    # the member may see it, but its list shows it only when accepted
    api.get(path, as_=OTHER)
    assert api.get(f"{path}/file", as_=OTHER).body == b"x"
    assert api.names(as_=OTHER) == []
    assert api.names("?member_status=pending&visibility=shared", as_=OTHER) == ["s"]
    assert api.names("?member_status=all", as_=OTHER) == ["s"]
    for status, listed in (("accepted", ["s"]), ("rejected", []), ("pending", [])):
        answer = api.json("PUT", f"{path}/members/p2", {"status": status}, as_=OTHER, status=200)
        assert answer.json["status"] == status
        assert api.names(as_=OTHER) == listed
        assert api.get(f"{path}/members/p2", as_="reader@p2").json["status"] == status
    api.patch(image["id"], [{"op": "add", "path": "/x", "value": "y"}], as_=OTHER, status=403)
    api.delete(f"{path}/members/p2", as_=OTHER, status=403)
    api.delete(f"{path}/members/p2", status=204)
    api.delete(f"{path}/members/p2", status=404)
    api.get(path, as_=OTHER, status=404)


def test_members_see_only_themselves(api: Api) -> None:
    path = f"/images/{api.image()['id']}"
    api.post(f"{path}/members", {"member": "p2"})
    api.post(f"{path}/members", {"member": "p3"})
    assert [found["member_id"] for found in api.get(f"{path}/members").json["members"]] == ["p2", "p3"]
    (own,) = api.get(f"{path}/members", as_=OTHER).json["members"]
    assert own["member_id"] == "p2"
    api.get(f"{path}/members/p3", as_=OTHER, status=404)
    api.json("PUT", f"{path}/members/p3", {"status": "accepted"}, as_=OTHER, status=404)
    api.json("PUT", f"{path}/members/p3", {"status": "accepted"}, as_=ADMIN, status=200)
    api.get(f"{path}/members", as_="member@p9", status=404)
    api.get(f"{path}/members/p2", as_=READER, status=200)
    api.get(f"{path}/members/absent", status=404)


def test_what_is_refused(api: Api) -> None:
    path = f"/images/{api.image()['id']}"
    for body in ({}, {"member": ""}, {"member": 5}, {"member": "x" * 256}, {"member": "a\0"}, []):
        api.post(f"{path}/members", body, status=400)
    api.post(f"{path}/members", {"member": "p2"}, as_=READER, status=403)
    api.post(f"{path}/members", {"member": "p2"}, as_=STRANGER, status=404)
    api.post(f"{path}/members", {"member": "p2"})
    for body in ({}, {"status": "fine"}, {"status": 5}, []):
        api.json("PUT", f"{path}/members/p2", body, as_=OTHER, status=400)
    # the owner can't accept for somebody else
    api.json("PUT", f"{path}/members/p2", {"status": "accepted"}, status=403)
    api.json("PUT", f"{path}/members/p2", {"status": "accepted"}, as_="reader@p2", status=403)
    members = api.get(f"{path}/members").json["members"]
    assert [(each["member_id"], each["status"]) for each in members] == [("p2", "pending")]


def test_only_shared_images_have_members(api: Api) -> None:
    path = f"/images/{api.image(visibility='private')['id']}"
    api.post(f"{path}/members", {"member": "p2"}, status=403)
    api.get(f"{path}/members", status=403)
    api.get(f"{path}/members/p2", status=404)
    assert api.get(path.removeprefix("/v2")).json["visibility"] == "private"


def test_limit(api: Api, services: ImageServices) -> None:
    config.override(services.conf, "image.image_member_quota", 1)
    path = f"/images/{api.image()['id']}"
    api.post(f"{path}/members", {"member": "p2"})
    api.post(f"{path}/members", {"member": "p3"}, status=413)
    assert [each["member_id"] for each in api.get(f"{path}/members").json["members"]] == ["p2"]
