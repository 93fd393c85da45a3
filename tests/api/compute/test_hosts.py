"""Services, hypervisors, availability zones and os-hosts through the API."""

from __future__ import annotations

import datetime

import pytest
import sqlalchemy as sa

from api.compute.services import ComputeServices
from db import global_schema
from db.types import now
from scheduler.host_state import HostTable
from scheduler.loader import Loader
from tests.api.compute import cloud
from tests.api.compute.conftest import ADMIN, MEMBER, Api
from tests.db import statements


def changes(services: ComputeServices) -> int:
    with services.databases.global_.read() as connection:
        return connection.execute(sa.select(sa.func.count(global_schema.provider_changes.c.seq))).scalar_one()


@pytest.mark.parametrize(
    "path",
    [
        *("/os-services", "/os-hypervisors", "/os-hypervisors/detail", "/os-hypervisors/statistics"),
        *("/os-hypervisors/1", "/os-hypervisors/1/uptime", "/os-aggregates", "/os-aggregates/1"),
        *("/os-hosts", "/os-hosts/h1", "/os-availability-zone/detail"),
    ],
)
def test_administrators_only(api: Api, path: str) -> None:
    answer = api.get(path, as_=MEMBER, status=403).json["forbidden"]
    assert "os_compute_api:" in answer["message"]


def test_services_by_microversion(api: Api, services: ComputeServices) -> None:
    cloud.add_host(services, "h1")
    cloud.add_service(services, "c1", "nova-conductor", last_seen_at=now() - datetime.timedelta(seconds=600))

    def listed(version: str, query: str = "") -> list[dict]:
        return api.get(f"/os-services{query}", as_=ADMIN, version=version).json["services"]

    compute, conductor = listed("2.1")
    keys = {"id", "binary", "host", "zone", "status", "state", "updated_at", "disabled_reason"}
    assert set(compute) == keys and compute["id"] == 1 and compute["zone"] == "nova"
    assert conductor["zone"] == "internal" and conductor["state"] == "down" and compute["state"] == "up"
    assert set(listed("2.11")[0]) == keys | {"forced_down"}
    assert len(listed("2.53")[0]["id"]) == 36
    assert [each["host"] for each in listed("2.69", "?binary=None&host=None")] == ["h1", "c1"]
    assert [each["host"] for each in listed("2.1", "?binary=nova-conductor")] == ["c1"]
    assert listed("2.1", "?host=h9") == []
    api.get("/os-services?colour=red", as_=ADMIN, version="2.75", status=400)


def test_disable_and_enable_until_2_52(api: Api, services: ComputeServices) -> None:
    cloud.add_host(services, "h1")
    before = changes(services)
    body = {"host": "h1", "binary": "nova-compute"}

    def put(action: str, more: dict, version: str = "2.1", status: int = 200) -> dict:
        answer = api.put(
            f"/os-services/{action}", {**body, **more}, as_=ADMIN, version=version, status=status
        )
        return answer.json.get("service", {})

    assert put("disable", {}) == {**body, "status": "disabled"}
    assert changes(services) == before + 1
    reason = {"disabled_reason": "disk"}
    assert put("disable-log-reason", reason) == {**body, **reason, "status": "disabled"}
    assert api.get("/os-services", as_=ADMIN).json["services"][0]["disabled_reason"] == "disk"
    put("disable-log-reason", {}, status=400)
    assert put("enable", {})["status"] == "enabled"
    assert api.get("/os-services", as_=ADMIN).json["services"][0]["disabled_reason"] is None
    put("force-down", {"forced_down": True}, status=400)
    put("force-down", {}, "2.11", 400)
    assert put("force-down", {"forced_down": True}, "2.11") == {**body, "forced_down": True}
    assert api.get("/os-services", as_=ADMIN).json["services"][0]["state"] == "down"
    put("explode", {}, status=404)
    api.put("/os-services/enable", {**body, "host": "h9"}, as_=ADMIN, status=404)
    api.put("/os-services/enable", {"host": "h1"}, as_=ADMIN, status=400)


def test_update_by_uuid_from_2_53(api: Api, services: ComputeServices) -> None:
    cloud.add_host(services, "h1")
    conductor = cloud.add_service(services, "c1", "nova-conductor")
    identifier = api.get("/os-services", as_=ADMIN, version="2.53").json["services"][0]["id"]

    def put(body: dict, status: int = 200, which: str = identifier) -> dict:
        answer = api.put(f"/os-services/{which}", body, as_=ADMIN, version="2.53", status=status)
        return answer.json.get("service", {})

    changed = put({"status": "disabled", "disabled_reason": "why"})
    assert changed["status"] == "disabled" and changed["disabled_reason"] == "why"
    assert changed["id"] == identifier and changed["forced_down"] is False and changed["zone"] == "nova"
    assert put({"status": "enabled"})["disabled_reason"] is None
    assert put({"forced_down": True})["state"] == "down"
    for wrong in ({}, {"status": "on"}, {"status": "enabled", "disabled_reason": "x"}, {"host": "h1"}):
        put(wrong, 400)
    put({"status": "disabled"}, 400, conductor)
    put({"status": "disabled"}, 400, "7")
    put({"status": "disabled"}, 404, "00000000-0000-0000-0000-000000000000")


def test_delete_a_compute_service(api: Api, services: ComputeServices) -> None:
    cloud.add_host(services, "h1")
    cloud.add_host(services, "h2")
    cloud.add_server(services, "h1")
    api.post("/os-aggregates", {"aggregate": {"name": "a"}}, as_=ADMIN)
    api.post("/os-aggregates/1/action", {"add_host": {"host": "h2"}}, as_=ADMIN)
    one, two = (each["id"] for each in api.get("/os-services", as_=ADMIN, version="2.53").json["services"])
    api.delete("/os-services/x", as_=ADMIN, status=400)
    api.delete("/os-services/9", as_=ADMIN, status=404)
    answer = api.delete(f"/os-services/{one}", as_=ADMIN, version="2.53", status=409)
    assert "hosting instances" in answer.json["conflictingRequest"]["message"]
    api.delete(f"/os-services/{two}", as_=ADMIN, version="2.53", status=204)
    assert [each["host"] for each in api.get("/os-services", as_=ADMIN).json["services"]] == ["h1"]
    assert api.get("/os-aggregates/1", as_=ADMIN).json["aggregate"]["hosts"] == []
    assert len(api.get("/os-hypervisors", as_=ADMIN).json["hypervisors"]) == 1
    api.post("/os-aggregates/1/action", {"add_host": {"host": "h2"}}, as_=ADMIN, status=404)


NUMBERS = {
    *("cpu_info", "current_workload", "disk_available_least", "free_disk_gb", "free_ram_mb", "local_gb"),
    *("local_gb_used", "memory_mb", "memory_mb_used", "running_vms", "vcpus", "vcpus_used"),
}
BRIEF = {"id", "hypervisor_hostname", "state", "status"}
DETAIL = BRIEF | {"hypervisor_type", "hypervisor_version", "host_ip", "service"}


def test_hypervisors_by_microversion(api: Api, services: ComputeServices) -> None:
    identifier = cloud.add_host(services, "h1")
    server = cloud.add_server(services, "h1", vcpus=2)

    def show(version: str, which: str = "1", query: str = "") -> dict:
        return api.get(f"/os-hypervisors/{which}{query}", as_=ADMIN, version=version).json["hypervisor"]

    old = show("2.1")
    assert set(old) == DETAIL | NUMBERS and isinstance(old["cpu_info"], str)
    assert old["vcpus_used"] == 2 and old["free_ram_mb"] == 7680 and old["local_gb_used"] == 10
    assert old["service"] == {"id": 1, "host": "h1", "disabled_reason": None}
    assert show("2.28")["cpu_info"]["arch"] == "x86_64"
    assert show("2.53", identifier)["id"] == identifier
    assert set(show("2.88", identifier)) == DETAIL | {"uptime"}
    with_servers = show("2.53", identifier, "?with_servers=true")
    assert with_servers["servers"] == [{"uuid": server, "name": "server"}]
    api.get(f"/os-hypervisors/{identifier}?with_servers=maybe", as_=ADMIN, version="2.53", status=400)
    api.get("/os-hypervisors/1", as_=ADMIN, version="2.53", status=400)
    api.get("/os-hypervisors/x", as_=ADMIN, status=404)
    api.get("/os-hypervisors/99", as_=ADMIN, status=404)
    statistics = api.get("/os-hypervisors/statistics", as_=ADMIN).json["hypervisor_statistics"]
    assert set(statistics) == (NUMBERS - {"cpu_info"}) | {"count"} and statistics["running_vms"] == 1
    api.get("/os-hypervisors/statistics", as_=ADMIN, version="2.88", status=404)
    uptime = api.get("/os-hypervisors/1/uptime", as_=ADMIN).json["hypervisor"]
    assert set(uptime) == BRIEF | {"uptime"}
    api.get(f"/os-hypervisors/{identifier}/uptime", as_=ADMIN, version="2.88", status=404)


def test_hypervisors_search(api: Api, services: ComputeServices) -> None:
    cloud.add_host(services, "h1")
    cloud.add_host(services, "other")
    cloud.add_server(services, "h1")

    def names(path: str, version: str = "2.1") -> list[str]:
        answer = api.get(f"/os-hypervisors{path}", as_=ADMIN, version=version)
        return [each["hypervisor_hostname"] for each in answer.json["hypervisors"]]

    assert names("/h1/search") == ["h1.example"] and names("/example/search") == [
        "h1.example",
        "other.example",
    ]
    hosted = api.get("/os-hypervisors/example/servers", as_=ADMIN).json["hypervisors"]
    assert len(hosted[0]["servers"]) == 1 and "servers" not in hosted[1]
    api.get("/os-hypervisors/none/search", as_=ADMIN, status=404)
    api.get("/os-hypervisors/h1/search", as_=ADMIN, version="2.53", status=404)
    assert names("?hypervisor_hostname_pattern=h1", "2.53") == ["h1.example"]
    pattern = "/os-hypervisors?hypervisor_hostname_pattern="
    api.get(f"{pattern}none", as_=ADMIN, version="2.53", status=404)
    api.get(f"{pattern}h1&limit=1", as_=ADMIN, version="2.53", status=400)
    answer = api.get("/os-hypervisors?with_servers=1", as_=ADMIN, version="2.75").json["hypervisors"]
    assert answer[1]["servers"] == []


def test_hypervisors_page_in_a_constant_number_of_statements(api: Api, services: ComputeServices) -> None:
    cloud.add_host(services, "h1")
    with statements.of(services.databases) as few:
        api.get("/os-hypervisors/detail", as_=ADMIN, version="2.88")
    for number in range(2, 6):
        cloud.add_host(services, f"h{number}")
    with statements.of(services.databases) as many:
        page = api.get("/os-hypervisors/detail", as_=ADMIN, version="2.88").json["hypervisors"]
    assert len(page) == 5 and len(many) == len(few)
    first = api.get("/os-hypervisors?limit=2", as_=ADMIN, version="2.88").json
    assert "marker=" + first["hypervisors"][1]["id"] in first["hypervisors_links"][0]["href"]
    marker = first["hypervisors"][1]["id"]
    rest = api.get(f"/os-hypervisors?marker={marker}", as_=ADMIN, version="2.88").json["hypervisors"]
    assert [each["hypervisor_hostname"] for each in rest] == ["h3.example", "h4.example", "h5.example"]
    assert (
        len(api.get("/os-hypervisors?limit=2&marker=1", as_=ADMIN, version="2.33").json["hypervisors"]) == 2
    )
    api.get("/os-hypervisors?marker=99", as_=ADMIN, version="2.33", status=400)


def test_availability_zones(api: Api, services: ComputeServices) -> None:
    cloud.add_host(services, "h1")
    cloud.add_host(services, "h2")
    cloud.add_service(services, "c1", "nova-conductor")
    api.post("/os-aggregates", {"aggregate": {"name": "a", "availability_zone": "north"}}, as_=ADMIN)
    api.post("/os-aggregates/1/action", {"add_host": {"host": "h2"}}, as_=ADMIN)
    assert api.get("/os-availability-zone").json["availabilityZoneInfo"] == [
        {"zoneName": "north", "zoneState": {"available": True}, "hosts": None},
        {"zoneName": "nova", "zoneState": {"available": True}, "hosts": None},
    ]
    detail = api.get("/os-availability-zone/detail", as_=ADMIN).json["availabilityZoneInfo"]
    hosts = {each["zoneName"]: each["hosts"] for each in detail}
    assert set(hosts) == {"internal", "north", "nova"}
    assert hosts["north"]["h2"]["nova-compute"]["available"] is True
    api.put("/os-services/disable", {"host": "h2", "binary": "nova-compute"}, as_=ADMIN)
    north = api.get("/os-availability-zone").json["availabilityZoneInfo"][-1]
    assert north == {"zoneName": "north", "zoneState": {"available": False}, "hosts": None}


def test_os_hosts_until_2_42(api: Api, services: ComputeServices) -> None:
    cloud.add_service(services, "c1", "nova-conductor")
    cloud.add_host(services, "h1")
    cloud.add_server(services, "h1", vcpus=2)
    assert api.get("/os-hosts", as_=ADMIN).json["hosts"] == [
        {"host_name": "h1", "service": "compute", "zone": "nova"},
        {"host_name": "c1", "service": "conductor", "zone": "internal"},
    ]
    assert len(api.get("/os-hosts?zone=internal", as_=ADMIN).json["hosts"]) == 1
    everything = api.get("/os-hosts", as_=ADMIN).json
    assert api.get("/os-hosts?zone=", as_=ADMIN).json == everything, "an empty filter is none"
    rows = api.get("/os-hosts/h1", as_=ADMIN).json["host"]
    assert rows[0]["resource"] == {
        "host": "h1",
        "project": "(total)",
        "cpu": 4,
        "memory_mb": 8192,
        "disk_gb": 100,
    }
    assert rows[1]["resource"]["cpu"] == 2
    api.get("/os-hosts/h9", as_=ADMIN, status=404)
    changed = api.put("/os-hosts/h1", {"status": "disable"}, as_=ADMIN).json
    assert changed == {"host": "h1", "status": "disabled"}
    api.put("/os-hosts/h1", {"status": "off"}, as_=ADMIN, status=400)
    api.put("/os-hosts/h1", {"maintenance_mode": "enable"}, as_=ADMIN, status=501)
    api.put("/os-hosts/h9", {"maintenance_mode": "enable"}, as_=ADMIN, status=404)
    api.get("/os-hosts/h1/reboot", as_=ADMIN, status=501)
    api.get("/os-hosts", as_=ADMIN, version="2.43", status=404)


def test_schedulers_see_a_disabled_host_before_the_next_server(api: Api, services: ComputeServices) -> None:
    """Not only with the next signs of life: servers went to hosts that had just been disabled."""
    cloud.add_host(services, "h1")
    table = HostTable()
    loader = Loader(services.databases, table, "scheduler", liveness_s=3600)

    def put(version: str, body: dict) -> None:
        uuid = api.get("/os-services", as_=ADMIN, version="2.53").json["services"][0]["id"]
        api.put(f"/os-services/{uuid}", body, as_=ADMIN, version=version)
        loader.refresh()

    def seen() -> tuple[bool, bool]:
        return bool(table.scalars["enabled"][0]), bool(table.scalars["forced_down"][0])

    loader.refresh()
    assert seen() == (True, False)
    put("2.53", {"status": "disabled"})
    assert seen() == (False, False)
    put("2.53", {"status": "enabled", "forced_down": True})
    assert seen() == (True, True)
