"""Migrations, extensions, usage audit, external events, console tokens and what is gone."""

from __future__ import annotations

import datetime
import json

import pytest

from api.common.operations import Operation
from api.compute.gone import GoneController
from api.compute.services import ComputeServices
from api.compute.usage_audit_log import last_month
from tests.api.compute import cloud
from tests.api.compute.conftest import ADMIN, MEMBER, Api

SERVER = "00000000-0000-0000-0000-000000000001"


def test_migrations_check_their_filters(api: Api) -> None:
    api.get("/os-migrations", as_=MEMBER, status=403)
    assert api.get("/os-migrations", as_="manager@p1").json == {"migrations": []}

    def ask(query: str, version: str, status: int = 200) -> None:
        api.get(f"/os-migrations?{query}", as_=ADMIN, version=version, status=status)

    ask("status=done&colour=red", "2.58")
    ask("colour=red", "2.59", 400)
    ask("limit=1&changes-since=2026-01-01T00:00:00Z", "2.59")
    ask("limit=-1", "2.59", 400)
    ask("changes-since=yesterday", "2.59", 400)
    ask(f"marker={SERVER}", "2.59", 400)
    ask("changes-before=2026-01-01T00:00:00Z", "2.65", 400)
    ask("changes-before=2026-01-01T00:00:00Z", "2.66")
    ask("changes-since=2026-01-02T00:00:00Z&changes-before=2026-01-01T00:00:00Z", "2.66", 400)
    ask("user_id=u", "2.79", 400)
    ask("user_id=u&project_id=p", "2.80")


def test_extensions(api: Api) -> None:
    extensions = api.get("/extensions").json["extensions"]
    assert len(extensions) == 100
    assert set(extensions[0]) == {"alias", "name", "description", "namespace", "links", "updated"}
    assert api.get("/extensions/os-keypairs").json["extension"]["name"] == "Keypairs"
    api.get("/extensions/os-none", status=404)


def test_usage_audit_says_that_it_never_ran(api: Api, services: ComputeServices) -> None:
    cloud.add_host(services, "h1")
    api.get("/os-instance_usage_audit_log", status=403)
    log = api.get("/os-instance_usage_audit_log", as_=ADMIN).json["instance_usage_audit_logs"]
    assert log["hosts_not_run"] == ["h1"] and log["overall_status"] == "0 of 1 hosts done. 0 errors."
    path = "/os-instance_usage_audit_log/2012-07-05 10:00:00"
    log = api.get(path, as_=ADMIN).json["instance_usage_audit_log"]
    assert (log["period_beginning"], log["period_ending"]) == ("2012-06-01 00:00:00", "2012-07-01 00:00:00")
    api.get("/os-instance_usage_audit_log/soon", as_=ADMIN, status=400)
    api.get("/os-instance_usage_audit_log/0001-01-01 00:00:00", as_=ADMIN, status=200)


def test_last_month_goes_over_the_new_year() -> None:
    assert last_month(datetime.datetime(2026, 1, 15)) == (
        datetime.datetime(2025, 12, 1),
        datetime.datetime(2026, 1, 1),
    )


def test_external_events(api: Api, services: ComputeServices) -> None:
    cloud.add_host(services, "h1")
    known = cloud.add_server(services, "h1")
    unplaced = cloud.add_server(services, None)

    def send(*events: dict, version: str = "2.1", status: int = 200, as_: str = ADMIN) -> dict:
        body = {"events": list(events)}
        return api.post("/os-server-external-events", body, as_=as_, version=version, status=status).json

    changed = {"name": "network-changed", "server_uuid": known}
    assert send(changed) == {"events": [{**changed, "status": "completed", "code": 200}]}
    assert (
        send({**changed, "tag": "t", "status": "failed"}, as_="service@services")["events"][0]["tag"] == "t"
    )
    missing = {"name": "network-changed", "server_uuid": SERVER}
    mixed = send(changed, missing, {**changed, "server_uuid": unplaced}, status=207)["events"]
    assert [each["code"] for each in mixed] == [200, 404, 422]
    assert [each["status"] for each in mixed] == ["completed", "failed", "failed"]
    send(missing, status=404)
    send(changed, as_=MEMBER, status=403)
    send({**changed, "name": "volume-extended"}, status=400)
    send({**changed, "name": "volume-extended", "tag": "v"}, version="2.51")
    send({**changed, "name": "power-update", "tag": "UP"}, version="2.76", status=207)
    send({**changed, "name": "volume-reimaged"}, version="2.92", status=400)
    send({**changed, "name": "volume-reimaged"}, version="2.93")
    send(status=400)
    send({"name": "network-changed", "server_uuid": "x"}, status=400)


@pytest.mark.parametrize(
    "found",
    GoneController(None).operations(),
    ids=lambda found: f"{found.method} {found.path} {found.action or ''}".rstrip(),
)
def test_gone(api: Api, found: Operation) -> None:
    path = found.path.replace("{", "").replace("}", "")
    body = json.dumps({found.action: {}}).encode() if found.action else b""
    answer = api.app.request(
        f"/v2.1{path}",
        method=found.method,
        headers={"X-Auth-Token": MEMBER},
        body=body,
        content_type="application/json" if body else None,
        status=410,
    )
    (fault,) = answer.json.values()
    assert fault["code"] == answer.status_int
