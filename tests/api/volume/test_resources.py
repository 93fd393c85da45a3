"""Snapshots, types, QoS specs, transfers, groups, backups, services: the ways through them."""

from __future__ import annotations

import pytest

from db import volume_services
from db.volume_base import groups as groups_table
from tests.api.volume.conftest import ADMIN, MEMBER, OTHER, POOL, Api


def test_snapshots(api: Api) -> None:
    volume = api.volume(size=2)["id"]
    made = api.post("/snapshots", {"snapshot": {"volume_id": volume, "name": "s"}})["snapshot"]
    assert made["size"] == 2 and made["status"] == "creating"
    path = f"/snapshots/{made['id']}"
    api.refused("delete", path, None, 400)
    api.finish_snapshot(made["id"])
    shown = api.get(path)["snapshot"]
    assert shown["os-extended-snapshot-attributes:progress"] == "100%"
    api.put(path, {"snapshot": {"name": "t", "description": "d"}})
    assert [each["name"] for each in api.get(f"/snapshots/detail?volume_id={volume}")["snapshots"]] == ["t"]
    assert api.post(f"{path}/metadata", {"metadata": {"a": "b"}})["metadata"] == {"a": "b"}
    api.post(f"{path}/action", {"os-reset_status": {"status": "error"}}, as_=ADMIN, status=202)
    api.delete(path, status=202)
    assert [each["kind"] for each in api.intents(made["id"])] == ["snapshot.create", "snapshot.delete"]
    api.refused("post", "/snapshots", {"snapshot": {"name": "x"}}, 400)
    api.refused("post", "/snapshots", {"snapshot": {"volume_id": None}}, 404)
    api.finish(volume, "in-use")
    api.refused("post", "/snapshots", {"snapshot": {"volume_id": volume}}, 400)
    api.post("/snapshots", {"snapshot": {"volume_id": volume, "force": True}}, status=202)
    api.post("/snapshots", {"snapshot": {"volume_id": volume}}, version="3.66", status=202)


def test_types(api: Api) -> None:
    body = {"volume_type": {"name": "fast", "extra_specs": {"a": "b", "multiattach": "<is> True"}}}
    made = api.post("/types", body, as_=ADMIN)["volume_type"]
    path = f"/types/{made['id']}"
    assert api.get(path)["volume_type"]["extra_specs"] == {"multiattach": "<is> True"}
    assert api.get(path, as_=ADMIN)["volume_type"]["extra_specs"]["a"] == "b"
    assert {each["name"] for each in api.get("/types")["volume_types"]} == {"fast", "__DEFAULT__"}
    assert api.put(f"{path}/extra_specs/a", {"a": "c"}, as_=ADMIN) == {"a": "c"}
    api.delete(f"{path}/extra_specs/a", as_=ADMIN, status=202)
    api.refused("get", f"{path}/extra_specs/a", None, 404, as_=ADMIN)
    api.request("post", "/types", body, as_=ADMIN, status=409)
    assert api.volume(volume_type="fast")["multiattach"] is True
    api.refused("delete", path, None, 400, as_=ADMIN)
    encryption = {"encryption": {"provider": "luks", "control_location": "front-end", "key_size": 256}}
    api.refused("post", f"{path}/encryption", encryption, 400, as_=ADMIN)
    api.request("put", f"{path}/extra_specs/a", as_=ADMIN, status=400)


def test_private_types(api: Api) -> None:
    body = {"volume_type": {"name": "private", "os-volume-type-access:is_public": False}}
    made = api.post("/types", body, as_=ADMIN)["volume_type"]
    path = f"/types/{made['id']}"
    api.refused("get", path, None, 404)
    api.refused("post", "/volumes", {"volume": {"size": 1, "volume_type": "private"}}, 404)
    api.post(f"{path}/action", {"addProjectAccess": {"project": "p1"}}, as_=ADMIN, status=202)
    api.refused("post", f"{path}/action", {"addProjectAccess": {"project": "p1"}}, 409, as_=ADMIN)
    assert api.get(path)["volume_type"]["name"] == "private"
    access = api.get(f"{path}/os-volume-type-access", as_=ADMIN)["volume_type_access"]
    assert access == [{"volume_type_id": made["id"], "project_id": "p1"}]
    api.put("/default-types/p1", {"default_type": {"volume_type": "private"}}, as_=ADMIN, version="3.62")
    assert api.volume()["volume_type"] == "private"
    api.delete("/default-types/p1", as_=ADMIN, version="3.62", status=204)
    api.post(f"{path}/action", {"removeProjectAccess": {"project": "p1"}}, as_=ADMIN, status=202)
    api.refused("get", path, None, 404)


def test_encryption_of_types(api: Api) -> None:
    made = api.post("/types", {"volume_type": {"name": "secret"}}, as_=ADMIN)["volume_type"]
    path = f"/types/{made['id']}/encryption"
    assert api.get(path, as_=ADMIN) == {}
    body = {"encryption": {"provider": "luks", "control_location": "front-end", "cipher": "aes-xts-plain64"}}
    encryption = api.post(path, body, as_=ADMIN)["encryption"]
    assert api.get(path, as_=ADMIN)["provider"] == "luks"
    assert api.get(f"{path}/cipher", as_=ADMIN) == {"cipher": "aes-xts-plain64"}
    one = f"{path}/{encryption['encryption_id']}"
    api.put(one, {"encryption": {"key_size": 128}}, as_=ADMIN)
    volume = api.volume(volume_type="secret")
    assert volume["encrypted"] is True
    assert api.get(f"/volumes/{volume['id']}/encryption")["key_size"] == 128
    api.refused("delete", one, None, 400, as_=ADMIN)


def test_qos_specs(api: Api) -> None:
    body = {"qos_specs": {"name": "q", "consumer": "front-end", "total_iops_sec": "100"}}
    made = api.post("/qos-specs", body, as_=ADMIN)["qos_specs"]
    path = f"/qos-specs/{made['id']}"
    assert api.put(path, {"qos_specs": {"a": "1"}}, as_=ADMIN) == {"qos_specs": {"a": "1"}}
    api.put(f"{path}/delete_keys", {"keys": ["a"]}, as_=ADMIN, status=202)
    type_ = api.post("/types", {"volume_type": {"name": "t"}}, as_=ADMIN)["volume_type"]["id"]
    api.request("get", f"{path}/associate?vol_type_id={type_}", as_=ADMIN, status=202)
    assert api.get(f"{path}/associations", as_=ADMIN)["qos_associations"][0]["id"] == type_
    volume = api.volume(volume_type="t")["id"]
    info = api.action(volume, "os-initialize_connection", {"connector": {"host": "h"}})["connection_info"]
    assert info["data"]["qos_specs"] == {"total_iops_sec": "100"}
    api.refused("delete", path, None, 400, as_=ADMIN)
    api.delete(f"{path}?force=True", as_=ADMIN, status=202)
    assert api.get(f"/types/{type_}", as_=ADMIN)["volume_type"]["qos_specs_id"] is None


@pytest.mark.parametrize("path", ["/volume-transfers", "/os-volume-transfer"])
def test_transfers(api: Api, path: str) -> None:
    volume = api.volume()["id"]
    offered = api.post(path, {"transfer": {"volume_id": volume, "name": "x"}}, status=202)["transfer"]
    assert api.get(f"/volumes/{volume}")["volume"]["status"] == "awaiting-transfer"
    accept = f"{path}/{offered['id']}/accept"
    api.refused("post", accept, {"accept": {"auth_key": "wrong"}}, 400, as_=OTHER)
    api.refused("get", f"{path}/{offered['id']}", None, 404, as_=OTHER)
    api.post(accept, {"accept": {"auth_key": offered["auth_key"]}}, as_=OTHER, status=202)
    assert api.get(f"/volumes/{volume}", as_=OTHER)["volume"]["status"] == "available"
    api.refused("get", f"/volumes/{volume}", None, 404)
    again = api.post(path, {"transfer": {"volume_id": volume}}, as_=OTHER)["transfer"]
    api.delete(f"{path}/{again['id']}", as_=OTHER, status=202)
    assert api.get(f"/volumes/{volume}", as_=OTHER)["volume"]["status"] == "available"


def test_groups(api: Api) -> None:
    v = {"version": "3.20"}
    kind = api.post("/group_types", {"group_type": {"name": "g"}}, as_=ADMIN, **v)["group_type"]["id"]
    api.post(f"/group_types/{kind}/group_specs", {"group_specs": {"a": "b"}}, as_=ADMIN, status=202, **v)
    assert api.get(f"/group_types/{kind}/group_specs/a", as_=ADMIN, **v) == {"a": "b"}
    type_ = api.get("/types")["volume_types"][0]["id"]
    asked = {"group_type": kind, "volume_types": [type_], "name": "mine"}
    group = api.post("/groups", {"group": asked}, status=202, **v)["group"]["id"]
    api.write(groups_table, group, status="available", host=POOL)
    volume = api.volume()["id"]
    api.put(f"/groups/{group}", {"group": {"add_volumes": volume}}, status=202, **v)
    assert api.get(f"/groups/{group}?list_volume=True", version="3.25")["group"]["volumes"] == [volume]
    assert "group" in api.refused("delete", f"/volumes/{volume}", None, 400)
    taken = api.post("/group_snapshots", {"group_snapshot": {"group_id": group}}, status=202, **v)
    (snapshot,) = api.get("/snapshots/detail", version="3.14")["snapshots"]
    assert snapshot["group_snapshot_id"] == taken["group_snapshot"]["id"]
    api.refused("delete", f"/snapshots/{snapshot['id']}", None, 400)
    api.refused("post", f"/groups/{group}/action", {"delete": {"delete-volumes": False}}, 400, **v)
    copy = {"create-from-src": {"name": "copy", "source_group_id": group}}
    made = api.post("/groups/action", copy, status=202, **v)["group"]["id"]
    (intent,) = api.intents(made)
    assert intent["target"] == "h1@file" and len(intent["arguments"]["volume_ids"]) == 1
    api.put(f"/groups/{group}", {"group": {"remove_volumes": volume}}, status=202, **v)
    assert api.row(volume)["group_id"] is None


def test_backups(api: Api) -> None:
    volume = api.volume(size=2)["id"]
    body = {"backup": {"volume_id": volume, "name": "b"}}
    api.refused("post", "/backups", body, 503)
    with api.services.databases.global_.write() as connection:
        volume_services.heartbeat(connection, "h1", "cinder-backup", "nova")
    made = api.post("/backups", body, status=202)["backup"]["id"]
    assert api.get(f"/volumes/{volume}")["volume"]["status"] == "backing-up"
    (intent,) = api.intents(made)
    assert intent["kind"] == "backup.create" and intent["target"] == "h1"
    api.refused("delete", f"/backups/{made}", None, 400)
    from db.volume_base import backups

    api.write(backups, made, status="available", service="posix", service_metadata={"x": 1})
    api.finish(volume)
    shown = api.get(f"/backups/{made}")["backup"]
    assert shown["size"] == 2 and shown["is_incremental"] is False
    more = {"backup": {"volume_id": volume, "incremental": True}}
    child = api.post("/backups", more)["backup"]["id"]
    assert api.get(f"/backups/{made}")["backup"]["has_dependent_backups"] is True
    assert "Incremental" in api.refused("delete", f"/backups/{made}", None, 400)
    assert api.intents(child)[0]["arguments"]["parent_id"] == made
    record = api.get(f"/backups/{made}/export_record", as_=ADMIN)
    assert record["backup-record"]["backup_service"] == "cinder.backup.drivers.posix"
    api.refused("post", "/backups/import_record", record, 400, as_=ADMIN)
    api.refused("get", f"/backups/{made}/export_record", None, 403, as_=MEMBER)
    restored = api.post(f"/backups/{made}/restore", {"restore": {}}, status=202)["restore"]
    assert api.row(restored["volume_id"])["status"] == "creating"
    assert api.get(f"/backups/{made}")["backup"]["status"] == "restoring"


def test_services_and_what_backends_have(api: Api) -> None:
    services = api.get("/os-services", as_=ADMIN)["services"]
    assert {each["binary"]: each["state"] for each in services} == {
        "cinder-volume": "up",
        "cinder-scheduler": "up",
    }
    body = {"host": "h1@file", "binary": "cinder-volume", "disabled_reason": "broken"}
    api.put("/os-services/disable-log-reason", body, as_=ADMIN)
    found = api.get("/os-services?binary=cinder-volume", as_=ADMIN)["services"][0]
    assert found["status"] == "disabled" and found["disabled_reason"] == "broken"
    zones = api.get("/os-availability-zone")["availabilityZoneInfo"]
    assert zones == [{"zoneName": "nova", "zoneState": {"available": False}}]
    api.volume(size=7)
    (pool,) = api.get("/scheduler-stats/get_pools?detail=True", as_=ADMIN)["pools"]
    assert pool["name"] == POOL and pool["capabilities"]["allocated_capacity_gb"] == 7
    assert api.get("/capabilities/h1@file", as_=ADMIN)["storage_protocol"] == "file"
    total = api.get("/os-hosts/h1@file", as_=ADMIN)["host"][0]["resource"]
    assert total["project"] == "(total)" and total["total_volume_gb"] == "7"


def test_taking_over(api: Api) -> None:
    (found,) = api.get("/manageable_volumes?host=h1@file", as_=ADMIN)["manageable-volumes"]
    assert found["reference"] == {"source-name": "stray"}
    body = {"volume": {"host": POOL, "ref": found["reference"], "name": "n"}}
    made = api.post("/manageable_volumes", body, as_=ADMIN, status=202)["volume"]
    (intent,) = api.intents(made["id"])
    assert intent["kind"] == "volume.manage" and intent["target"] == "h1@file"
    api.finish(made["id"])
    api.action(made["id"], "os-unmanage", {}, as_=ADMIN, status=202)
    assert api.row(made["id"])["status"] == "unmanaging"


def test_snapshots_are_taken_over_and_let_go(api: Api) -> None:
    made = api.volume()
    body = {"snapshot": {"volume_id": made["id"], "ref": {"source-name": "stray"}, "name": "s"}}
    taken = api.post("/manageable_snapshots", body, as_=ADMIN, status=202)["snapshot"]
    assert (taken["status"], taken["name"], taken["volume_id"]) == ("creating", "s", made["id"])
    (intent,) = api.intents(taken["id"])
    assert (intent["kind"], intent["arguments"]["ref"]) == ("snapshot.manage", {"source-name": "stray"})
    api.post("/manageable_snapshots", body, status=403)
