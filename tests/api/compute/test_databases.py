"""Every noun once on each kind of database: what is written is read back, errors are the same."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

import pytest
import webtest

from api.compute.app import make_app
from tests.api.compute import cloud
from tests.api.compute.conftest import ADMIN, Api, make_services
from tests.api.identity import authenticate

ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJz430+jnCoFEzgTko5K1GOY+zxSYAhUq/0SKtOPrXqK"


@pytest.fixture
def services(two_database_urls: list[str], tmp_path: Path) -> Iterator[object]:
    made = make_services(tmp_path, (two_database_urls[0], two_database_urls[1]))
    yield made
    made.close()


@pytest.fixture
def api(services: object) -> Api:
    return Api(webtest.TestApp(make_app(services.conf, services, authenticate)))  # type: ignore[attr-defined]


def test_flavors(api: Api) -> None:
    for number in ("2", "1", "3"):
        body = {"flavor": {"id": number, "name": f"ü{number}", "ram": 64, "vcpus": 1, "disk": 0}}
        api.post("/flavors", body, as_=ADMIN)
        api.post("/flavors", body, as_=ADMIN, status=409)
    api.post("/flavors/1/os-extra_specs", {"extra_specs": {"a": "ß"}}, as_=ADMIN)
    page = api.get("/flavors/detail?limit=2&sort_key=description&sort_dir=desc", version="2.61").json
    assert [each["id"] for each in page["flavors"]] == ["1", "2"]
    rest = api.get("/flavors?limit=2&sort_key=description&sort_dir=desc&marker=2").json["flavors"]
    assert [each["id"] for each in rest] == ["3"]
    assert page["flavors"][0]["extra_specs"] == {"a": "ß"}
    private = {"name": "p", "id": "p", "ram": 1, "vcpus": 1, "disk": 0, "os-flavor-access:is_public": False}
    api.post("/flavors", {"flavor": private}, as_=ADMIN)
    add = {"addTenantAccess": {"tenant": "p1"}}
    api.post("/flavors/p/action", add, as_=ADMIN)
    api.post("/flavors/p/action", add, as_=ADMIN, status=409)
    assert len(api.get("/flavors").json["flavors"]) == 4
    api.delete("/flavors/p", as_=ADMIN, status=202)


def test_key_pairs_and_quotas(api: Api) -> None:
    body = {"keypair": {"name": "kp", "public_key": ED25519}}
    api.post("/os-keypairs", body, version="2.2", status=201)
    api.post("/os-keypairs", body, version="2.2", status=409)
    assert len(api.get("/os-keypairs").json["keypairs"]) == 1
    api.delete("/os-keypairs/kp", version="2.2", status=204)
    api.put("/os-quota-sets/p1", {"quota_set": {"key_pairs": 0}}, as_=ADMIN)
    api.post("/os-keypairs", body, version="2.2", status=403)
    api.get("/os-quota-sets/p1/detail?user_id=u")
    api.get("/limits")
    api.delete("/os-quota-sets/p1", as_=ADMIN, status=202)
    body = {"server_group": {"name": "g", "policy": "anti-affinity", "rules": {"max_server_per_host": 2}}}
    group = api.post("/os-server-groups", body, version="2.64").json["server_group"]["id"]
    assert len(api.get("/os-server-groups?offset=0&limit=5").json["server_groups"]) == 1
    assert api.get("/os-server-groups?offset=1").json["server_groups"] == []
    api.delete(f"/os-server-groups/{group}", status=204)


def test_hosts(api: Api, services: object) -> None:
    first = cloud.add_host(services, "h1")  # type: ignore[arg-type]
    cloud.add_host(services, "h2")  # type: ignore[arg-type]
    moment = datetime.datetime(2026, 1, 1)
    cloud.add_server(services, "h1", created_at=moment, launched_at=moment)  # type: ignore[arg-type]
    api.post("/os-aggregates", {"aggregate": {"name": "a", "availability_zone": "north"}}, as_=ADMIN)
    api.post("/os-aggregates", {"aggregate": {"name": "a"}}, as_=ADMIN, status=409)
    number = api.get("/os-aggregates", as_=ADMIN).json["aggregates"][0]["id"]
    api.post(f"/os-aggregates/{number}/action", {"add_host": {"host": "h2"}}, as_=ADMIN)
    zones = api.get("/os-availability-zone").json["availabilityZoneInfo"]
    assert [each["zoneName"] for each in zones] == ["north", "nova"]
    shown = api.get(f"/os-hypervisors/{first}", as_=ADMIN, version="2.53").json["hypervisor"]
    assert (shown["vcpus_used"], shown["memory_mb_used"], shown["local_gb_used"]) == (1, 512, 10)
    assert len(api.get("/os-hypervisors/h/search", as_=ADMIN).json["hypervisors"]) == 2
    api.get("/os-hypervisors/2147483648", as_=ADMIN, status=404)
    usage = "/os-simple-tenant-usage/p1?start=2026-01-01T00:00:00&end=2026-01-01T02:00:00"
    assert api.get(usage).json["tenant_usage"]["total_hours"] == 2.0
    one, two = api.get("/os-services", as_=ADMIN, version="2.53").json["services"]
    api.put(f"/os-services/{one['id']}", {"status": "disabled"}, as_=ADMIN, version="2.53")
    api.delete(f"/os-services/{one['id']}", as_=ADMIN, version="2.53", status=409)
    api.delete(f"/os-services/{two['id']}", as_=ADMIN, version="2.53", status=204)
    assert api.get("/os-aggregates", as_=ADMIN).json["aggregates"][0]["hosts"] == []
