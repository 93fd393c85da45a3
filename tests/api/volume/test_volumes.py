"""Volumes: what may be asked for, what is written, what is shown."""

from __future__ import annotations

import pytest

from tests.api.volume.conftest import ADMIN, IMAGE, OTHER, POOL, READER, Api


def test_an_empty_volume(api: Api) -> None:
    made = api.volume(name="data", description="d", metadata={"k": "v"}, status=None)
    assert made["status"] == "creating" and made["size"] == 1 and made["bootable"] == "false"
    assert made["volume_type"] == "__DEFAULT__" and made["attachments"] == []
    (intent,) = api.intents(made["id"])
    assert intent["kind"] == "volume.create" and intent["target"] is None
    assert intent["arguments"]["source"] == {"kind": "empty"} and intent["arguments"]["size_gib"] == 1
    assert api.services.doorbells.rung == [None]  # type: ignore[attr-defined]
    shown = api.get(f"/volumes/{made['id']}")["volume"]
    assert shown["metadata"] == {"k": "v"} and shown["name"] == "data"
    assert "os-vol-host-attr:host" not in shown
    assert api.get(f"/volumes/{made['id']}", as_=ADMIN)["volume"]["os-vol-host-attr:host"] is None


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({}, 400),
        ({"size": 0}, 400),
        ({"size": -1}, 400),
        ({"size": "1.5"}, 400),
        ({"size": 1, "unknown": 1}, 400),
        ({"size": 1, "volume_type": "none"}, 404),
        ({"size": 1, "availability_zone": "moon"}, 400),
        ({"size": 1, "snapshot_id": IMAGE}, 404),
        ({"size": 1, "source_volid": IMAGE}, 404),
        ({"size": 1, "source_volid": IMAGE, "snapshot_id": IMAGE}, 400),
        ({"size": 1, "imageRef": "x"}, 400),
        ({"size": 1, "imageRef": "00000000-0000-0000-0000-00000000000f"}, 404),
        ({"size": 1, "name": "n" * 256}, 400),
        ({"size": 1, "metadata": {"k": "v" * 256}}, 400),
        ({"size": 1, "multiattach": True}, 400),
    ],
)
def test_what_can_not_be_made(api: Api, asked: dict, status: int) -> None:
    api.refused("post", "/volumes", {"volume": asked}, status)
    assert api.get("/volumes")["volumes"] == []


def test_from_an_image(api: Api) -> None:
    made = api.volume(imageRef=IMAGE, status=None)
    (intent,) = api.intents(made["id"])
    assert intent["arguments"]["source"]["image_id"] == IMAGE
    shown = api.get(f"/volumes/{made['id']}")["volume"]
    assert shown["volume_image_metadata"]["image_name"] == "tiny"
    assert shown["volume_image_metadata"]["hw_disk_bus"] == "scsi"
    api.services.images.images[IMAGE]["min_disk"] = 2  # type: ignore[attr-defined]
    assert "smaller" in api.refused("post", "/volumes", {"volume": {"size": 1, "imageRef": IMAGE}}, 400)
    api.services.images.images[IMAGE]["status"] = "deactivated"  # type: ignore[attr-defined]
    api.refused("post", "/volumes", {"volume": {"size": 5, "imageRef": IMAGE}}, 400)


def test_copies_go_where_their_original_is(api: Api) -> None:
    source = api.volume(size=2)
    clone = api.volume(source_volid=source["id"], size=3, status=None)
    (intent,) = api.intents(clone["id"])
    assert intent["arguments"]["pool"] == POOL and intent["target"] is None
    api.refused("post", "/volumes", {"volume": {"size": 1, "source_volid": source["id"]}}, 400)
    snapshot = api.post("/snapshots", {"snapshot": {"volume_id": source["id"]}})["snapshot"]
    api.refused("post", "/volumes", {"volume": {"snapshot_id": snapshot["id"]}}, 400)
    api.finish_snapshot(snapshot["id"])
    made = api.post("/volumes", {"volume": {"snapshot_id": snapshot["id"]}})["volume"]
    assert made["size"] == 2 and made["snapshot_id"] == snapshot["id"]


def test_lists(api: Api) -> None:
    names = [api.volume(name=f"v{number}", metadata={"n": str(number)})["name"] for number in range(3)]
    assert [each["name"] for each in api.get("/volumes")["volumes"]] == names[::-1]
    assert [each["name"] for each in api.get("/volumes?sort=name:asc")["volumes"]] == names
    page = api.get("/volumes/detail?limit=2&sort_key=name&sort_dir=asc")
    assert [each["name"] for each in page["volumes"]] == ["v0", "v1"]
    assert f"marker={page['volumes'][1]['id']}" in page["volumes_links"][0]["href"]
    rest = api.get(f"/volumes?sort=name:asc&marker={page['volumes'][1]['id']}")["volumes"]
    assert [each["name"] for each in rest] == ["v2"]
    assert [each["name"] for each in api.get("/volumes?name=v1")["volumes"]] == ["v1"]
    found = api.get("/volumes/detail?metadata={'n': '2'}")["volumes"]
    assert [each["name"] for each in found] == ["v2"]
    assert api.get("/volumes?status=null")["volumes"] == []
    assert len(api.get("/volumes?name~=v", version="3.34")["volumes"]) == 3
    assert api.get("/volumes?limit=1&with_count=True", version="3.45")["count"] == 3
    api.refused("get", "/volumes?colour=red", None, 400, version="3.31")
    api.refused("get", "/volumes?limit=x", None, 400)
    api.refused("get", "/volumes?sort_key=colour", None, 400)
    api.refused("get", "/volumes?marker=nowhere", None, 404)
    assert api.get("/volumes", as_=OTHER)["volumes"] == []
    assert api.get("/volumes?all_tenants=1", as_=OTHER)["volumes"] == []
    assert len(api.get("/volumes?all_tenants=1", as_=ADMIN)["volumes"]) == 3
    summary = api.get("/volumes/summary", version="3.36")["volume-summary"]
    assert summary["total_count"] == 3 and summary["metadata"] == {"n": ["0", "1", "2"]}


def test_deleting(api: Api) -> None:
    made = api.volume(status=None)
    path = f"/volumes/{made['id']}"
    assert "creating" in api.refused("delete", path, None, 400)
    api.refused("post", f"{path}/action", {"os-force_delete": {}}, 403)
    api.finish(made["id"])
    api.refused("delete", path, None, 404, as_=OTHER)
    api.refused("delete", path, None, 403, as_=READER)
    snapshot = api.post("/snapshots", {"snapshot": {"volume_id": made["id"]}})["snapshot"]
    api.finish_snapshot(snapshot["id"])
    assert "1 dependent snapshots" in api.refused("delete", path, None, 400)
    api.delete(f"{path}?cascade=True", status=202)
    intent = api.intents(made["id"])[-1]
    assert intent["kind"] == "volume.delete" and intent["target"] == "h1@file"
    assert intent["arguments"]["snapshot_ids"] == [snapshot["id"]]
    assert api.get(path)["volume"]["status"] == "deleting"
    api.refused("delete", path, None, 400)


def test_a_forced_deletion_overtakes(api: Api) -> None:
    made = api.volume(status=None)
    api.action(made["id"], "os-force_delete", {}, as_=ADMIN, status=202)
    create, delete = api.intents(made["id"])
    assert create["state"] == "cancelled" and delete["kind"] == "volume.force_delete"


def test_extending(api: Api) -> None:
    made = api.volume(size=2)
    api.refused("post", f"/volumes/{made['id']}/action", {"os-extend": {"new_size": 2}}, 400)
    api.action(made["id"], "os-extend", {"new_size": 4}, status=202)
    intent = api.intents(made["id"])[-1]
    assert intent["kind"] == "volume.extend" and intent["arguments"]["previous_gib"] == 2
    assert api.get(f"/volumes/{made['id']}")["volume"]["status"] == "extending"
    api.refused("post", f"/volumes/{made['id']}/action", {"os-extend": {"new_size": 5}}, 400)


def test_metadata(api: Api) -> None:
    path = f"/volumes/{api.volume(metadata={'a': '1'})['id']}/metadata"
    assert api.post(path, {"metadata": {"b": "2"}})["metadata"] == {"a": "1", "b": "2"}
    assert api.put(f"{path}/b", {"meta": {"b": "3"}})["meta"] == {"b": "3"}
    api.refused("put", f"{path}/b", {"meta": {"c": "3"}}, 400)
    assert api.get(f"{path}/b")["meta"] == {"b": "3"}
    api.delete(f"{path}/b")
    api.refused("get", f"{path}/b", None, 404)
    assert api.put(path, {"metadata": {"z": "1"}})["metadata"] == {"z": "1"}
    assert api.get(path)["metadata"] == {"z": "1"}


def test_flags_and_image_metadata(api: Api) -> None:
    made = api.volume()["id"]
    api.action(made, "os-set_bootable", {"bootable": True}, status=200)
    api.action(made, "os-update_readonly_flag", {"readonly": True}, status=202)
    shown = api.get(f"/volumes/{made}")["volume"]
    assert shown["bootable"] == "true" and shown["metadata"] == {"readonly": "True"}
    assert api.action(made, "os-set_image_metadata", {"metadata": {"a": "b"}})["metadata"] == {"a": "b"}
    assert api.action(made, "os-show_image_metadata", {})["metadata"] == {"a": "b"}
    api.action(made, "os-unset_image_metadata", {"key": "a"})
    api.refused("post", f"/volumes/{made}/action", {"os-unset_image_metadata": {"key": "a"}}, 404)


def test_uploading(api: Api) -> None:
    made = api.volume()["id"]
    found = api.action(
        made, "os-volume_upload_image", {"image_name": "i", "disk_format": "qcow2"}, version="3.1"
    )
    upload = found["os-volume_upload_image"]
    assert upload["status"] == "uploading" and upload["visibility"] == "private"
    intent = api.intents(made)[-1]
    assert intent["kind"] == "volume.upload_image"
    assert intent["arguments"]["image_id"] == upload["image_id"]


def test_reset_status_and_retype(api: Api) -> None:
    made = api.volume()["id"]
    for status in ("creating", "available", "error", "maintenance"):
        api.action(made, "os-reset_status", {"status": status}, as_=ADMIN, status=202)
        assert api.get(f"/volumes/{made}")["volume"]["status"] == status
    api.refused("post", f"/volumes/{made}/action", {"os-reset_status": {"status": "x"}}, 400, as_=ADMIN)
    api.refused("post", f"/volumes/{made}/action", {"os-reset_status": {"status": "error"}}, 403)
    api.finish(made)
    new = api.post("/types", {"volume_type": {"name": "fast"}}, as_=ADMIN)["volume_type"]
    api.action(made, "os-retype", {"new_type": "fast", "migration_policy": "on-demand"}, status=202)
    assert api.intents(made)[-1]["arguments"]["type_id"] == new["id"]
    assert api.row(made)["previous_status"] == "available"
