"""Servers: shapes by microversion, who sees what, change and delete."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from api.compute import server_access
from api.compute.services import ComputeServices
from core import config
from db import cell_schema, global_schema
from db.types import now
from tests.api.compute.conftest import ADMIN, MEMBER, OTHER, READER, Api
from tests.api.compute.fakes import IMAGE
from tests.api.compute.server_tools import body, boot, booted, intents_of, make_flavor, place


@pytest.fixture(autouse=True)
def flavor(api: Api) -> None:
    make_flavor(api)


BASE = {
    "id",
    "name",
    "status",
    "tenant_id",
    "user_id",
    "metadata",
    "hostId",
    "image",
    "flavor",
    "created",
    "updated",
    "addresses",
    "accessIPv4",
    "accessIPv6",
    "links",
    "progress",
    "OS-DCF:diskConfig",
    "OS-EXT-AZ:availability_zone",
    "config_drive",
    "key_name",
    "OS-SRV-USG:launched_at",
    "OS-SRV-USG:terminated_at",
    "security_groups",
    "OS-EXT-STS:task_state",
    "OS-EXT-STS:vm_state",
    "OS-EXT-STS:power_state",
    "os-extended-volumes:volumes_attached",
}
ADMINS = {"OS-EXT-SRV-ATTR:host", "OS-EXT-SRV-ATTR:hypervisor_hostname", "OS-EXT-SRV-ATTR:instance_name"}
ADMINS_2_3 = {
    f"OS-EXT-SRV-ATTR:{name}"
    for name in ("reservation_id", "launch_index", "hostname", "kernel_id", "ramdisk_id")
} | {"OS-EXT-SRV-ATTR:root_device_name", "OS-EXT-SRV-ATTR:user_data"}


@pytest.mark.parametrize(
    ("version", "members", "admins"),
    [
        ("2.1", set(), ADMINS),
        ("2.3", set(), ADMINS | ADMINS_2_3),
        ("2.9", {"locked"}, ADMINS | ADMINS_2_3),
        ("2.16", {"locked"}, ADMINS | ADMINS_2_3 | {"host_status"}),
        ("2.19", {"locked", "description"}, ADMINS | ADMINS_2_3 | {"host_status"}),
        ("2.26", {"locked", "description", "tags"}, ADMINS | ADMINS_2_3 | {"host_status"}),
        (
            "2.63",
            {"locked", "description", "tags", "trusted_image_certificates"},
            ADMINS | ADMINS_2_3 | {"host_status"},
        ),
        (
            "2.96",
            {"locked", "description", "tags", "trusted_image_certificates", "locked_reason"}
            | {"pinned_availability_zone", "OS-EXT-SRV-ATTR:hostname"},
            ADMINS | ADMINS_2_3 | {"host_status"},
        ),
    ],
)
def test_keys_by_microversion(
    api: Api, services: ComputeServices, version: str, members: set[str], admins: set[str]
) -> None:
    server_id = booted(api, services)
    only_show = {"server_groups"} if version == "2.96" else set()
    for persona, keys in ((MEMBER, BASE | members), (ADMIN, BASE | members | admins)):
        shown = api.get(f"/servers/{server_id}", as_=persona, version=version).json["server"]
        assert set(shown) == keys | only_show
        (listed,) = api.get("/servers/detail", as_=persona, version=version).json["servers"]
        assert set(listed) == keys
        assert {key: shown[key] for key in listed} == listed
    (brief,) = api.get("/servers", version=version).json["servers"]
    assert set(brief) == {"id", "name", "links"}


def test_values(api: Api, services: ComputeServices) -> None:
    server_id = booted(api, services)
    shown = api.get(f"/servers/{server_id}").json["server"]
    assert (shown["status"], shown["progress"], shown["OS-EXT-STS:power_state"]) == ("ACTIVE", 0, 1)
    assert shown["flavor"]["id"] == "1" and shown["flavor"]["links"][0]["rel"] == "bookmark"
    assert shown["image"]["id"] == IMAGE
    assert shown["OS-EXT-AZ:availability_zone"] == "nova"
    assert len(shown["hostId"]) == 56 and "h1" not in shown["hostId"]
    embedded = api.get(f"/servers/{server_id}", version="2.47").json["server"]["flavor"]
    assert embedded == {
        "original_name": "m1.tiny",
        "vcpus": 1,
        "ram": 512,
        "disk": 1,
        "ephemeral": 0,
        "swap": 0,
        "extra_specs": {},
    }


def test_host_status(api: Api, services: ComputeServices) -> None:
    server_id = booted(api, services)
    values = {"uuid": "u", "host": "h1", "binary": "nova-compute", "last_seen_at": now()}
    with services.databases.cell(1).write() as connection:
        connection.execute(cell_schema.services.insert().values(**values))

    def status(**change: Any) -> str:
        with services.databases.cell(1).write() as connection:
            if change:
                connection.execute(cell_schema.services.update().values(**change))
        return api.get(f"/servers/{server_id}", as_=ADMIN, version="2.16").json["server"]["host_status"]

    assert status() == "UP"
    assert status(disabled=True) == "MAINTENANCE"
    assert status(last_seen_at=None) == "UNKNOWN"
    assert status(forced_down=True) == "DOWN"


def test_fault_is_shown_in_error(api: Api, services: ComputeServices) -> None:
    server_id = boot(api)
    fault = {
        "code": 500,
        "message": "No valid host was found.",
        "details": "inside",
        "created": "2026-01-01T00:00:00Z",
    }
    with services.databases.global_.write() as connection:
        connection.execute(
            global_schema.servers.update().values(vm_state="error", task_state=None, fault=fault)
        )
    shown = api.get(f"/servers/{server_id}").json["server"]
    assert shown["status"] == "ERROR" and "progress" not in shown
    assert shown["fault"] == {key: fault[key] for key in ("code", "message", "created")}
    assert api.get(f"/servers/{server_id}", as_=ADMIN).json["server"]["fault"] == fault


def test_foreign_and_unknown_servers_are_404(api: Api, services: ComputeServices) -> None:
    server_id = booted(api, services)
    for path in (f"/servers/{server_id}", "/servers/name", "/servers/-1", "/servers/" + "0" * 36):
        api.get(path, as_=OTHER, status=404)
        api.delete(path, as_=OTHER, status=404)
        api.put(path, {"server": {"name": "x"}}, as_=OTHER, status=404)
    api.delete(f"/servers/{server_id}", as_=READER, status=403)
    assert api.get(f"/servers/{server_id}", as_="admin@p9").json["server"]["id"] == server_id


def test_servers_under_the_older_path(api: Api, services: ComputeServices) -> None:
    made = api.post("/os-volumes_boot", body(), as_=MEMBER, status=202).json["server"]["id"]
    other = booted(api, services)
    for path in ("/os-volumes_boot", "/os-volumes_boot/detail"):
        assert {each["id"] for each in api.get(path).json["servers"]} == {made, other}
    api.post(f"/os-volumes_boot/{other}/action", {"os-stop": None}, status=202)
    api.post(f"/os-volumes_boot/{other}/action", {"lock": None}, status=400)
    api.delete(f"/os-volumes_boot/{made}", status=204)
    api.get(f"/os-volumes_boot/{made}", status=404)


def test_update(api: Api, services: ComputeServices) -> None:
    for server_id in (booted(api, services), boot(api)):
        change = {"name": "two", "accessIPv4": "1.2.3.4", "accessIPv6": "::1", "OS-DCF:diskConfig": "AUTO"}
        answer = api.put(f"/servers/{server_id}", {"server": change}).json["server"]
        assert {key: answer[key] for key in change} == change
        assert "OS-EXT-STS:vm_state" not in answer and "security_groups" not in answer
        assert api.get(f"/servers/{server_id}").json["server"]["name"] == "two"
        full = api.put(f"/servers/{server_id}", {"server": {"hostname": "x1"}}, version="2.90").json["server"]
        assert full["OS-EXT-SRV-ATTR:hostname"] == "x1" and "OS-EXT-STS:vm_state" in full
    for wrong in (
        {"name": ""},
        {"accessIPv4": "x"},
        {"description": "x"},
        {"colour": "red"},
        {"hostname": "x1"},
    ):
        api.put(f"/servers/{server_id}", {"server": wrong}, status=400)
    api.put(f"/servers/{server_id}", {"server": {"name": "x"}}, as_=READER, status=403)


# -- delete ------------------------------------------------------------------


def test_delete_while_nobody_places_it_is_done_at_once(api: Api, services: ComputeServices) -> None:
    server_id = boot(api)
    api.delete(f"/servers/{server_id}", status=204)
    api.get(f"/servers/{server_id}", status=404)
    assert api.get("/servers").json["servers"] == []
    api.delete(f"/servers/{server_id}", status=404)
    states = {each["kind"]: each["state"] for each in intents_of(services, server_id, None)}
    assert states == {"server.create": "cancelled", "server.delete": "done"}
    (deleted,) = api.get("/servers/detail?deleted=True", as_=ADMIN).json["servers"]
    assert deleted["status"] == "DELETED"


def test_delete_frees_the_quota(api: Api, services: ComputeServices) -> None:
    config.override(services.conf, "quota.instances", 1)
    first = boot(api)
    api.delete(f"/servers/{first}", status=204)
    second = boot(api)
    assert [each["id"] for each in api.get("/servers").json["servers"]] == [second]


def test_delete_while_a_scheduler_places_it(api: Api, services: ComputeServices) -> None:
    server_id = boot(api)
    with services.databases.global_.write() as connection:
        connection.execute(global_schema.intents.update().values(state="running"))
    api.delete(f"/servers/{server_id}", status=204)
    api.delete(f"/servers/{server_id}", status=204)
    (intent,) = intents_of(services, server_id, None)
    assert intent["cancel_requested"] and intent["state"] == "running"
    assert api.get(f"/servers/{server_id}").json["server"]["OS-EXT-STS:task_state"] == "deleting"


def test_delete_of_one_that_never_got_a_host(api: Api, services: ComputeServices) -> None:
    server_id = boot(api)
    with services.databases.global_.write() as connection:
        connection.execute(global_schema.servers.update().values(vm_state="error", task_state=None))
        connection.execute(global_schema.intents.update().values(state="failed", exclusive_key=None))
    api.delete(f"/servers/{server_id}", status=204)
    api.get(f"/servers/{server_id}", status=404)


def test_delete_of_a_placed_server_writes_one_intent_and_rings(api: Api, services: ComputeServices) -> None:
    server_id = booted(api, services)
    api.delete(f"/servers/{server_id}", status=204)
    api.delete(f"/servers/{server_id}", status=204)
    intents = [each for each in intents_of(services, server_id) if each["kind"] == "server.delete"]
    assert [(each["target"], each["state"], each["exclusive_key"]) for each in intents] == [
        ("h1", "waiting", server_id)
    ]
    assert services.doorbells.conductors == [(1, [intents[0]["id"]])]
    assert api.get(f"/servers/{server_id}").json["server"]["OS-EXT-STS:task_state"] == "deleting"


def test_delete_overtakes_what_runs_on_the_host(api: Api, services: ComputeServices) -> None:
    server_id = boot(api)
    place(services, server_id, vm_state="building", task_state="spawning")
    with services.databases.cell(1).write() as connection:
        connection.execute(
            cell_schema.intents.update().values(state="running", exclusive_key=server_id, attempts=1)
        )
    api.delete(f"/servers/{server_id}", status=204)
    create, delete = intents_of(services, server_id)
    assert create["cancel_requested"] and create["exclusive_key"] is None
    assert delete["exclusive_key"] == server_id
    assert services.doorbells.cancels == [(1, "h1", [create["id"]])]


def test_delete_follows_a_server_that_moves_meanwhile(
    api: Api, services: ComputeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    server_id = boot(api)
    look, looks = server_access.find, []

    def find(call: Any, **options: Any) -> Any:
        found = look(call, **options)
        looks.append(found.placed)
        if len(looks) == 1:
            # the scheduler dispatches it between the look and the transaction
            place(services, server_id)
        return found

    monkeypatch.setattr(server_access, "find", find)
    api.delete(f"/servers/{server_id}", status=204)
    assert looks == [False, True]
    assert [each["kind"] for each in intents_of(services, server_id)] == ["server.create", "server.delete"]


def test_mapping_decides_when_both_databases_have_a_copy(api: Api, services: ComputeServices) -> None:
    server_id = boot(api)
    with services.databases.global_.read() as connection:
        row = dict(connection.execute(sa.select(global_schema.servers)).mappings().one())
    with services.databases.cell(1).write() as connection:
        connection.execute(cell_schema.servers.insert(), [{**row, "name": "copy"}])
    assert api.get(f"/servers/{server_id}").json["server"]["name"] == "one"
    assert len(api.get("/servers").json["servers"]) == 1
    with services.databases.global_.write() as connection:
        connection.execute(global_schema.server_mappings.update().values(cell_id=1))
    assert api.get(f"/servers/{server_id}").json["server"]["name"] == "copy"
    assert [each["name"] for each in api.get("/servers").json["servers"]] == ["copy"]
