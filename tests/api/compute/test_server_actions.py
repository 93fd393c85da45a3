"""Actions on servers: intents and rings, states, locks, console output; and their record."""

from __future__ import annotations

import threading
from typing import Any

import oslo_messaging
import pytest
import webtest

from api.compute.app import make_app
from api.compute.instance_actions import EVENTS
from api.compute.services import ComputeServices
from compute.actions.servers import ACTIONS
from compute.drivers.base import GuestSpec
from db import cell_schema
from tests.api.compute.conftest import ADMIN, MEMBER, OTHER, READER, Api
from tests.api.compute.server_tools import boot, booted, intents_of, make_flavor
from tests.api.identity import authenticate


@pytest.fixture(autouse=True)
def flavor(api: Api) -> None:
    make_flavor(api)


def act(api: Api, server_id: str, name: str, value: Any = None, status: int = 202, **options: Any) -> Any:
    return api.post(f"/servers/{server_id}/action", {name: value}, status=status, **options)


def set_state(services: ComputeServices, **values: Any) -> None:
    with services.databases.cell(1).write() as connection:
        connection.execute(cell_schema.servers.update().values(**values))


@pytest.mark.parametrize(
    ("action", "value", "state", "kind", "task_state", "with_guest"),
    [
        ("os-stop", None, "active", "server.stop", "powering-off", False),
        ("os-start", None, "stopped", "server.start", "powering-on", True),
        ("reboot", {"type": "SOFT"}, "active", "server.reboot_soft", "rebooting", False),
        ("reboot", {"type": "hard"}, "stopped", "server.reboot_hard", "rebooting_hard", True),
    ],
)
def test_power_actions_write_one_intent_and_ring(
    api: Api,
    services: ComputeServices,
    action: str,
    value: Any,
    state: str,
    kind: str,
    task_state: str,
    with_guest: bool,
) -> None:
    server_id = booted(api, services)
    set_state(services, vm_state=state)
    assert act(api, server_id, action, value).body == b""
    intent = intents_of(services, server_id)[-1]
    assert (intent["kind"], intent["target"], intent["state"]) == (kind, "h1", "waiting")
    assert services.doorbells.conductors == [(1, [intent["id"]])]
    assert api.get(f"/servers/{server_id}").json["server"]["OS-EXT-STS:task_state"] == task_state
    if with_guest:
        guest = GuestSpec.from_dict(intent["arguments"]["guest"])
        assert guest.server_id == server_id and guest.image is not None
    if kind != "server.reboot_hard":
        again = act(api, server_id, action, value, status=409)
        assert "task_state" in again.json["conflictingRequest"]["message"]


def test_a_hard_reboot_goes_over_a_soft_one(api: Api, services: ComputeServices) -> None:
    server_id = booted(api, services)
    act(api, server_id, "reboot", {"type": "SOFT"})
    act(api, server_id, "reboot", {"type": "SOFT"}, status=409)
    act(api, server_id, "reboot", {"type": "HARD"})
    _, soft, hard = intents_of(services, server_id)
    assert (soft["state"], hard["kind"]) == ("cancelled", "server.reboot_hard")


def test_states_that_do_not_allow_it(api: Api, services: ComputeServices) -> None:
    server_id = booted(api, services)
    answer = act(api, server_id, "os-start", status=409)
    assert answer.json["conflictingRequest"]["message"] == (
        f"Cannot 'start' instance {server_id} while it is in vm_state active"
    )
    waiting = boot(api)
    act(api, waiting, "os-stop", status=409)
    act(api, waiting, "os-getConsoleOutput", {}, status=409)


def test_only_one_of_many_at_once_wins(api: Api, services: ComputeServices) -> None:
    server_id = booted(api, services)
    application = make_app(services.conf, services, authenticate)
    statuses: list[int] = []

    def stop() -> None:
        answer = webtest.TestApp(application).post_json(
            f"/v2.1/servers/{server_id}/action",
            {"os-stop": None},
            headers={"X-Auth-Token": MEMBER},
            expect_errors=True,
        )
        statuses.append(answer.status_int)

    threads = [threading.Thread(target=stop) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [202] + [409] * 5
    assert len(intents_of(services, server_id)) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"reboot": {}},
        {"reboot": {"type": "WARM"}},
        {"reboot": {"type": "SOFT", "x": 1}},
        {"os-resetState": {"state": "gone"}},
        {"os-getConsoleOutput": {"length": "x"}},
        {"os-getConsoleOutput": {"length": -2}},
        {"dance": None},
        {},
        {"os-stop": None, "os-start": None},
    ],
)
def test_bad_actions_are_400(api: Api, services: ComputeServices, wrong: Any) -> None:
    server_id = booted(api, services)
    before = api.get(f"/servers/{server_id}", as_=ADMIN).json
    answer = api.post(f"/servers/{server_id}/action", wrong, as_=ADMIN, status=400).json
    assert answer["badRequest"]["message"]
    assert api.get(f"/servers/{server_id}", as_=ADMIN).json == before


def test_who_may(api: Api, services: ComputeServices) -> None:
    server_id = booted(api, services)
    act(api, server_id, "os-stop", status=404, as_=OTHER)
    act(api, server_id, "os-stop", status=403, as_=READER)
    act(api, server_id, "os-resetState", {"state": "error"}, status=403)
    act(api, "00000000-0000-0000-0000-000000000000", "os-stop", status=404)
    server = api.get(f"/servers/{server_id}", as_=ADMIN).json["server"]
    assert (server["status"], server["OS-EXT-STS:task_state"]) == ("ACTIVE", None)


# -- locks and states -----------------------------------------------------------


def test_locked_servers_are_the_administrators(api: Api, services: ComputeServices) -> None:
    server_id = booted(api, services)
    act(api, server_id, "lock", {"locked_reason": "audit"}, version="2.73")
    shown = api.get(f"/servers/{server_id}", version="2.73").json["server"]
    assert (shown["locked"], shown["locked_reason"]) == (True, "audit")
    assert act(api, server_id, "os-stop", status=409).json["conflictingRequest"]["message"] == (
        f"Instance {server_id} is locked"
    )
    api.delete(f"/servers/{server_id}", status=409)
    api.put(f"/servers/{server_id}/metadata", {"metadata": {}}, status=409)
    act(api, server_id, "os-stop", as_=ADMIN)
    act(api, server_id, "unlock")
    assert api.get(f"/servers/{server_id}", version="2.9").json["server"]["locked"] is False
    act(api, server_id, "lock", {"locked_reason": ""}, version="2.73", status=400)


def test_what_a_foreign_administrator_locked_the_owner_does_not_unlock(
    api: Api, services: ComputeServices
) -> None:
    server_id = booted(api, services)
    act(api, server_id, "lock", as_="admin@p9")
    act(api, server_id, "unlock", status=403)
    assert api.get(f"/servers/{server_id}", version="2.9").json["server"]["locked"] is True
    act(api, server_id, "unlock", as_=ADMIN)
    assert api.get(f"/servers/{server_id}", version="2.9").json["server"]["locked"] is False


def test_reset_state(api: Api, services: ComputeServices) -> None:
    for server_id in (booted(api, services), boot(api)):
        act(api, server_id, "os-resetState", {"state": "error"}, as_=ADMIN)
        assert api.get(f"/servers/{server_id}").json["server"]["status"] == "ERROR"


# -- console output ---------------------------------------------------------------


def test_console_output(api: Api, services: ComputeServices) -> None:
    server_id = booted(api, services)
    agent = services.doorbells.agent(1)
    agent.console = "one\ntwo\nthree"

    def output(**body: Any) -> str:
        return act(api, server_id, "os-getConsoleOutput", body, status=200).json["output"]

    assert output() == "one\ntwo\nthree"
    assert output(length=2) == "two\nthree" and output(length="1") == "three"
    assert output(length=0) == "" and output(length=-1) == output(length=None) == "one\ntwo\nthree"
    agent.failure = oslo_messaging.RemoteError("NotFound", "no such guest")
    act(api, server_id, "os-getConsoleOutput", {}, status=409)
    agent.failure = oslo_messaging.MessagingTimeout()
    act(api, server_id, "os-getConsoleOutput", {}, status=503)


# -- the record ---------------------------------------------------------------------


def test_instance_actions(api: Api, services: ComputeServices) -> None:
    server_id = booted(api, services)
    stop = act(api, server_id, "os-stop").headers["x-openstack-request-id"]
    path = f"/servers/{server_id}/os-instance-actions"
    listed = api.get(path).json
    assert set(listed) == {"instanceActions"}
    assert [each["action"] for each in listed["instanceActions"]] == ["stop", "create"]
    newest = listed["instanceActions"][0]
    assert set(newest) == {
        "action",
        "instance_uuid",
        "request_id",
        "user_id",
        "project_id",
        "start_time",
        "message",
    }
    assert (newest["request_id"], newest["instance_uuid"]) == (stop, server_id)
    assert "updated_at" in api.get(path, version="2.58").json["instanceActions"][0]
    api.get(path, as_=OTHER, status=404)
    api.get(f"{path}/req-none", status=404)
    api.get("/servers/00000000-0000-0000-0000-000000000000/os-instance-actions", status=404)


def test_events_by_microversion(api: Api, services: ComputeServices) -> None:
    server_id = booted(api, services)
    (create,) = api.get(f"/servers/{server_id}/os-instance-actions").json["instanceActions"]
    path = f"/servers/{server_id}/os-instance-actions/{create['request_id']}"

    def shown(version: str, as_: str = MEMBER) -> dict[str, Any]:
        return api.get(path, version=version, as_=as_).json["instanceAction"]

    base = {"event", "start_time", "finish_time", "result"}
    assert "events" not in shown("2.50")
    assert set(shown("2.50", ADMIN)["events"][0]) == base | {"traceback"}
    assert set(shown("2.51")["events"][0]) == base
    assert set(shown("2.62")["events"][0]) == base | {"hostId"}
    assert set(shown("2.62", ADMIN)["events"][0]) == base | {"hostId", "host", "traceback"}
    assert set(shown("2.84")["events"][0]) == base | {"hostId", "details"}
    event = shown("2.62", ADMIN)["events"][0]
    assert (event["event"], event["result"], event["host"]) == ("compute_define", "Success", "h1")


def test_the_last_step_shows_as_the_event_that_clients_wait_for(api: Api, services: ComputeServices) -> None:
    assert {(kind, ACTIONS[kind].steps[-1].name) for kind, _ in EVENTS} == set(EVENTS)
    server_id = booted(api, services)
    stop = act(api, server_id, "os-stop").headers["x-openstack-request-id"]
    (intent,) = [each for each in intents_of(services, server_id, 1) if each["kind"] == "server.stop"]
    event = {"step": "power_off", "result": "done", "started_at": "2026-01-01T00:00:00"}
    with services.databases.cell(1).write() as connection:
        intents = cell_schema.intents
        connection.execute(intents.update().where(intents.c.id == intent["id"]).values(events=[event]))
    path = f"/servers/{server_id}/os-instance-actions/{stop}"
    (shown,) = api.get(path, version="2.51").json["instanceAction"]["events"]
    assert (shown["event"], shown["result"]) == ("compute_stop_instance", "Success")


def test_actions_of_deleted_servers_from_2_21(api: Api, services: ComputeServices) -> None:
    server_id = boot(api)
    api.delete(f"/servers/{server_id}", status=204)
    path = f"/servers/{server_id}/os-instance-actions"
    api.get(path, version="2.20", status=404)
    actions = api.get(path, version="2.21").json["instanceActions"]
    assert [each["action"] for each in actions] == ["delete", "create"]


def test_paging_and_times_of_actions_from_2_58(api: Api, services: ComputeServices) -> None:
    server_id = booted(api, services)
    for _ in range(3):
        act(api, server_id, "lock")
        act(api, server_id, "unlock")
    path = f"/servers/{server_id}/os-instance-actions"
    every = [each["request_id"] for each in api.get(path, version="2.58").json["instanceActions"]]
    assert len(every) == 7
    found, url = [], f"{path}?limit=2"
    while url:
        page = api.get(url, version="2.58").json
        found += [each["request_id"] for each in page["instanceActions"]]
        links = page.get("links")
        url = links[0]["href"].split("/v2.1", 1)[1] if links else ""
    assert found == every
    assert api.get(f"{path}?changes-since=2999-01-01T00:00:00Z", version="2.58").json == {
        "instanceActions": []
    }
    api.get(f"{path}?changes-since=yesterday", version="2.58", status=400)
    api.get(f"{path}?marker=none", version="2.58", status=400)
    api.get(f"{path}?changes-before=2999-01-01T00:00:00Z", version="2.65", status=400)
    api.get(f"{path}?changes-before=2999-01-01T00:00:00Z", version="2.66")
