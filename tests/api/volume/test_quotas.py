"""Quotas: what is counted, per type, by whom they are set; limits."""

from __future__ import annotations

from tests.api.volume.conftest import ADMIN, OTHER, READER, Api


def set_limits(api: Api, **limits: int) -> None:
    api.put("/os-quota-sets/p1", {"quota_set": limits}, as_=ADMIN)


def usage(api: Api) -> dict:
    return dict(api.get("/os-quota-sets/p1?usage=True")["quota_set"])


def test_volumes_and_gigabytes(api: Api) -> None:
    set_limits(api, volumes=2, gigabytes=5)
    first = api.volume(size=3)
    body = {"volume": {"size": 3}}
    assert "gigabytes" in api.refused("post", "/volumes", body, 413)
    api.refused("post", f"/volumes/{first['id']}/action", {"os-extend": {"new_size": 6}}, 413)
    api.action(first["id"], "os-extend", {"new_size": 4}, status=202)
    api.volume(size=1)
    set_limits(api, gigabytes=100)
    assert "VolumeLimitExceeded" in api.refused("post", "/volumes", {"volume": {"size": 1}}, 413)
    found = usage(api)
    assert found["volumes"] == {"limit": 2, "in_use": 2, "reserved": 0}
    assert found["gigabytes"]["in_use"] == 5
    assert found["gigabytes___DEFAULT__"] == {"limit": -1, "in_use": 5, "reserved": 0}
    # another project has quotas of its own
    api.volume(as_=OTHER, size=9)


def test_snapshots_count_as_gigabytes(api: Api) -> None:
    volume = api.volume(size=2)["id"]
    set_limits(api, gigabytes=3)
    api.refused("post", "/snapshots", {"snapshot": {"volume_id": volume}}, 413)
    set_limits(api, gigabytes=4, snapshots=1)
    api.post("/snapshots", {"snapshot": {"volume_id": volume}})
    assert usage(api)["gigabytes"]["in_use"] == 4
    api.refused("post", "/snapshots", {"snapshot": {"volume_id": volume}}, 413)


def test_per_type_and_per_volume(api: Api) -> None:
    made = api.post("/types", {"volume_type": {"name": "gold"}}, as_=ADMIN)["volume_type"]
    set_limits(api, volumes_gold=1, per_volume_gigabytes=5)
    api.refused("post", "/volumes", {"volume": {"size": 6}}, 413)
    api.volume(volume_type="gold")
    api.refused("post", "/volumes", {"volume": {"size": 1, "volume_type": "gold"}}, 413)
    plain = api.volume()["id"]
    api.refused("post", f"/volumes/{plain}/action", {"os-retype": {"new_type": "gold"}}, 413)
    # the quota is the type's, whatever it is called
    api.put(f"/types/{made['id']}", {"volume_type": {"name": "silver"}}, as_=ADMIN)
    assert usage(api)["volumes_silver"] == {"limit": 1, "in_use": 1, "reserved": 0}


def test_sets_classes_and_limits(api: Api) -> None:
    assert api.get("/os-quota-sets/p1/defaults", as_=READER)["quota_set"]["volumes"] == 10
    api.refused("put", "/os-quota-sets/p1", {"quota_set": {"colour": 1}}, 400, as_=ADMIN)
    api.refused("put", "/os-quota-sets/p1", {"quota_set": {"volumes": -2}}, 400, as_=ADMIN)
    api.refused("get", "/os-quota-sets/p2", None, 403)
    api.put("/os-quota-class-sets/default", {"quota_class_set": {"volumes": 3}}, as_=ADMIN)
    assert api.get("/os-quota-sets/p1")["quota_set"]["volumes"] == 3
    set_limits(api, volumes=7)
    api.volume(size=2)
    absolute = api.get("/limits")["limits"]["absolute"]
    assert absolute["maxTotalVolumes"] == 7 and absolute["totalGigabytesUsed"] == 2
    api.delete("/os-quota-sets/p1", as_=ADMIN)
    assert api.get("/os-quota-sets/p1")["quota_set"]["volumes"] == 3
