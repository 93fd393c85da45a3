"""Usage of projects through the API."""

from __future__ import annotations

import datetime

from api.compute.services import ComputeServices
from tests.api.compute import cloud
from tests.api.compute.conftest import ADMIN, MEMBER, OTHER, READER, Api
from tests.db import statements

T0 = datetime.datetime(2026, 1, 1)
HOUR = datetime.timedelta(hours=1)
PERIOD = "start=2026-01-01T00:00:00&end=2026-01-01T10:00:00"
PATH = "/os-simple-tenant-usage"


def test_hours_within_the_period_deleted_servers_included(api: Api, services: ComputeServices) -> None:
    cloud.add_host(services, "h1")
    cloud.add_server(services, "h1", vcpus=2, created_at=T0, launched_at=T0 + 8 * HOUR)
    cloud.add_server(
        services,
        "h1",
        created_at=T0,
        launched_at=T0 - HOUR,
        terminated_at=T0 + HOUR,
        deleted=1,
        vm_state="deleted",
        name="gone",
    )
    cloud.add_server(services, "h1", launched_at=T0 - 2 * HOUR, terminated_at=T0 - HOUR, deleted=1)
    cloud.add_server(services, "h1", launched_at=T0 + 20 * HOUR)
    cloud.add_server(services, None, launched_at=None, vm_state="building")
    usage = api.get(f"{PATH}/p1?{PERIOD}", as_=READER).json["tenant_usage"]
    assert usage["total_hours"] == 3.0 and usage["total_vcpus_usage"] == 5.0
    assert usage["total_memory_mb_usage"] == 3 * 512 and usage["total_local_gb_usage"] == 30.0
    assert usage["start"] == "2026-01-01T00:00:00.000000" and usage["tenant_id"] == "p1"
    by_name = {each["name"]: each for each in usage["server_usages"]}
    assert set(by_name) == {"gone", "server"}
    gone = by_name["gone"]
    assert gone["state"] == "terminated" and gone["uptime"] == 7200 and gone["hours"] == 1.0
    assert set(gone) == {
        *("instance_id", "name", "tenant_id", "hours", "memory_mb", "local_gb", "vcpus", "flavor"),
        *("started_at", "ended_at", "state", "uptime"),
    }
    assert gone["flavor"] == "m1.tiny" and by_name["server"]["ended_at"] is None


def test_who_may_and_bad_times(api: Api) -> None:
    assert api.get(f"{PATH}/p1").json == {"tenant_usage": {}}
    api.get(f"{PATH}/p1", as_=OTHER, status=403)
    api.get(PATH, as_=MEMBER, status=403)
    assert api.get(PATH, as_=ADMIN).json == {"tenant_usages": []}
    api.get(f"{PATH}/p1?start=yesterday", status=400)
    api.get(f"{PATH}/p1?start=2026-01-02T00:00:00&end=2026-01-01T00:00:00", status=400)
    api.get(f"{PATH}/p1?colour=red", version="2.75", status=400)


def test_list_and_paging_from_2_40(api: Api, services: ComputeServices) -> None:
    cloud.add_host(services, "h1")
    ids = []
    for number, project in enumerate(("p1", "p2", "p1")):
        made = T0 + number * HOUR
        ids.append(cloud.add_server(services, "h1", project_id=project, created_at=made, launched_at=made))
    usages = api.get(f"{PATH}?{PERIOD}", as_=ADMIN).json["tenant_usages"]
    assert [each["tenant_id"] for each in usages] == ["p1", "p2"] and "server_usages" not in usages[0]
    detailed = api.get(f"{PATH}?{PERIOD}&detailed=1", as_=ADMIN).json["tenant_usages"]
    assert len(detailed[0]["server_usages"]) == 2
    page = api.get(f"{PATH}?{PERIOD}&limit=2&detailed=1", as_=ADMIN, version="2.40").json
    assert f"marker={ids[1]}" in page["tenant_usages_links"][0]["href"]
    with statements.of(services.databases) as run:
        rest = api.get(f"{PATH}/p1?{PERIOD}&limit=2&marker={ids[0]}", version="2.40").json["tenant_usage"]
    assert [each["instance_id"] for each in rest["server_usages"]] == [ids[2]] and len(run) == 2
    api.get(f"{PATH}/p1?{PERIOD}&marker=none", version="2.40", status=400)
