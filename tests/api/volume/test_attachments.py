"""Attachments: who may attach, who may detach (CVE-2023-2088), and what the volume shows."""

from __future__ import annotations

from typing import Any

import pytest
import webtest

from api.volume import attachments as attachments_api
from api.volume.app import make_app
from tests.api.identity import authenticate
from tests.api.volume.conftest import ADMIN, MEMBER, Api

SERVER = "33333333-3333-3333-3333-333333333333"
OTHER_SERVER = "44444444-4444-4444-4444-444444444444"
V = "3.54"


class Compute:
    """The compute service's answer to: does this server use the volume?"""

    def __init__(self, status: int) -> None:
        self.status_code = status

    def get(self, path: str, **options: Any) -> Compute:
        return self


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attachments_api, "service_adapter", lambda *_: Compute(200))


@pytest.fixture
def unused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attachments_api, "service_adapter", lambda *_: Compute(404))


def attach(api: Api, volume_id: str, server: str | None = SERVER, **more: Any) -> dict[str, Any]:
    asked = {"volume_uuid": volume_id, "instance_uuid": server, **more}
    return dict(api.post("/attachments", {"attachment": asked}, version=V)["attachment"])


def status_of(api: Api, volume_id: str) -> str:
    return str(api.get(f"/volumes/{volume_id}")["volume"]["status"])


def complete(api: Api, attachment_id: str) -> None:
    api.post(f"/attachments/{attachment_id}/action", {"os-complete": {}}, version="3.44", status=204)


def test_the_way_to_in_use_and_back(api: Api, unused: None) -> None:
    volume = api.volume()["id"]
    made = attach(api, volume)
    assert made["status"] == "reserved" and status_of(api, volume) == "reserved"
    path = f"/attachments/{made['id']}"
    api.refused("put", path, {"attachment": {"connector": {}}}, 400, version=V)
    connected = api.put(path, {"attachment": {"connector": {"host": "c1"}}}, version=V)["attachment"]
    info = connected["connection_info"]
    assert info["driver_volume_type"] == "local" and info["access_mode"] == "rw"
    assert info["attachment_id"] == made["id"] and status_of(api, volume) == "attaching"
    complete(api, made["id"])
    shown = api.get(f"/volumes/{volume}", as_=ADMIN)["volume"]
    assert shown["status"] == "in-use"
    (attached,) = shown["attachments"]
    assert attached["server_id"] == SERVER and attached["host_name"] == "c1"
    api.refused("delete", f"/volumes/{volume}", None, 400)
    assert api.delete(path, version=V).json == {"attachments": []}
    assert status_of(api, volume) == "available"
    worker = api.services.doorbells.worker  # type: ignore[attr-defined]
    assert [call[0] for call in worker.calls] == ["connect", "disconnect"]


def test_a_volume_is_never_reserved_twice(api: Api) -> None:
    volume = api.volume()["id"]
    attach(api, volume)
    body = {"attachment": {"volume_uuid": volume, "instance_uuid": OTHER_SERVER}}
    assert "reserve" in api.refused("post", "/attachments", body, 400, version=V)


def test_multi_attach(api: Api, unused: None) -> None:
    specs = {"multiattach": "<is> True"}
    api.post("/types", {"volume_type": {"name": "shared", "extra_specs": specs}}, as_=ADMIN)
    volume = api.volume(volume_type="shared")["id"]
    first = attach(api, volume, connector={"host": "c1"})
    complete(api, first["id"])
    second = attach(api, volume, OTHER_SERVER, connector={"host": "c1"})
    complete(api, second["id"])
    assert len(api.get(f"/volumes/{volume}")["volume"]["attachments"]) == 2
    api.delete(f"/attachments/{first['id']}", version=V)
    assert status_of(api, volume) == "in-use"
    # the host still needs its connection: the other server is there
    worker = api.services.doorbells.worker  # type: ignore[attr-defined]
    assert [call[0] for call in worker.calls] == ["connect", "connect"]
    api.delete(f"/attachments/{second['id']}", version=V)
    assert status_of(api, volume) == "available" and worker.calls[-1][0] == "disconnect"


@pytest.mark.parametrize("as_", [MEMBER, ADMIN])
def test_what_a_server_uses_its_owner_can_not_take_away(api: Api, used: None, as_: str) -> None:
    volume = api.volume()["id"]
    made = attach(api, volume, connector={"host": "c1"})
    complete(api, made["id"])
    path = f"/attachments/{made['id']}"
    assert "Compute API" in api.refused("delete", path, None, 409, version=V, as_=as_)
    action = f"/volumes/{volume}/action"
    api.refused("post", action, {"os-detach": {"attachment_id": made["id"]}}, 409, as_=as_)
    api.refused("post", action, {"os-terminate_connection": {"connector": {}}}, 409, as_=as_)
    api.refused("post", action, {"os-force_detach": {"attachment_id": made["id"]}}, 409, as_=ADMIN)
    assert status_of(api, volume) == "in-use"


def test_detached_by_force_a_volume_that_was_called_broken_is_free_again(api: Api, unused: None) -> None:
    """What an administrator's reset said of it does not outlive the connection."""
    volume = api.volume()["id"]
    made = attach(api, volume, connector={"host": "c1"})
    complete(api, made["id"])
    api.action(volume, "os-reset_status", {"status": "error"}, as_=ADMIN, status=202)
    api.action(volume, "os-force_detach", {"attachment_id": made["id"]}, as_=ADMIN, status=202)
    shown = api.get(f"/volumes/{volume}")["volume"]
    assert (shown["status"], shown["attachments"]) == ("available", [])


def test_an_attachment_of_another_volume_is_refused(api: Api, unused: None) -> None:
    volume, other = api.volume()["id"], api.volume()["id"]
    made = attach(api, other, connector={"host": "c1"})
    for identifier, status in ((made["id"], 400), (SERVER, 404)):
        body = {"os-detach": {"attachment_id": identifier}}
        api.refused("post", f"/volumes/{volume}/action", body, status)
    assert len(api.get(f"/attachments/{made['id']}", version=V)["attachment"]) > 0


def test_the_compute_service_may(api: Api, used: None) -> None:
    """With its service token beside the user's own."""

    def with_service_token(application: Any) -> Any:
        def middleware(environ: dict[str, Any], start_response: Any) -> Any:
            environ["HTTP_X_SERVICE_ROLES"] = "service"
            return application(environ, start_response)

        return authenticate(middleware)

    volume = api.volume()["id"]
    made = attach(api, volume, connector={"host": "c1"})
    app = make_app(api.services.conf, api.services, with_service_token)
    compute = Api(webtest.TestApp(app), api.services)
    compute.delete(f"/attachments/{made['id']}", version=V, status=200)
    assert status_of(api, volume) == "available"


def test_read_only_volumes(api: Api) -> None:
    volume = api.volume()["id"]
    api.action(volume, "os-update_readonly_flag", {"readonly": True}, status=202)
    body = {"attachment": {"volume_uuid": volume, "mode": "rw", "connector": {"host": "c1"}}}
    api.refused("post", "/attachments", body, 400, version=V)
    assert status_of(api, volume) == "available"
    body["attachment"]["mode"] = "ro"
    made = api.post("/attachments", body, version=V)["attachment"]
    assert made["connection_info"]["access_mode"] == "ro"


def test_the_older_actions(api: Api, unused: None) -> None:
    volume = api.volume()["id"]
    for name, status in (
        ("os-reserve", "attaching"),
        ("os-unreserve", "available"),
        ("os-reserve", "attaching"),
    ):
        api.action(volume, name, {}, status=202)
        assert status_of(api, volume) == status
    api.refused("post", f"/volumes/{volume}/action", {"os-reserve": {}}, 400)
    api.action(volume, "os-attach", {"instance_uuid": SERVER, "mountpoint": "/dev/vdb"}, status=202)
    assert status_of(api, volume) == "in-use"
    api.action(volume, "os-begin_detaching", {}, status=202)
    assert status_of(api, volume) == "detaching"
    api.action(volume, "os-roll_detaching", {}, status=202)
    assert status_of(api, volume) == "in-use"
    api.action(volume, "os-detach", {}, status=202)
    assert status_of(api, volume) == "available"
    info = api.action(volume, "os-initialize_connection", {"connector": {"host": "c1"}})["connection_info"]
    assert info["driver_volume_type"] == "local" and info["data"]["access_mode"] == "rw"
    api.action(volume, "os-terminate_connection", {"connector": {"host": "c1"}}, status=202)


def test_a_status_set_by_hand_lets_no_second_writer_in(api: Api) -> None:
    volume = api.volume()["id"]
    complete(api, attach(api, volume, connector={"host": "c1"})["id"])
    api.action(volume, "os-reset_status", {"status": "available"}, as_=ADMIN, status=202)
    body = {"attachment": {"volume_uuid": volume, "instance_uuid": OTHER_SERVER}}
    api.refused("post", "/attachments", body, 400, version=V)
    api.refused("delete", f"/volumes/{volume}", None, 400)
    action = {"os-attach": {"instance_uuid": OTHER_SERVER, "mountpoint": "/dev/vdb"}}
    api.refused("post", f"/volumes/{volume}/action", action, 400)
    api.refused("post", f"/volumes/{volume}/action", {"os-force_delete": {}}, 400, as_=ADMIN)


def test_detaching_while_something_runs_on_the_volume(api: Api, unused: None) -> None:
    volume = api.volume()["id"]
    made = attach(api, volume, connector={"host": "c1"})
    complete(api, made["id"])
    api.action(volume, "os-extend", {"new_size": 2}, version="3.42", status=202)
    api.delete(f"/attachments/{made['id']}", version=V)
    row = api.row(volume)
    assert row["status"] == "extending" and row["previous_status"] == "available"
