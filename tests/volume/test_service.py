"""API, scheduler and worker together over one SQLite file, with simulated volumes."""

from __future__ import annotations

import logging
import time
import types
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import webtest

from api.volume.app import make_app
from api.volume.services import VolumeDoorbells, VolumeServices
from core import config
from core.messaging import Messaging
from db.sessions import Databases
from db.types import now
from db.volume_base import intents, pools, volumes
from lifecycle.steps import Run
from scheduler.volume_pools import VolumePass
from tests.api.identity import authenticate
from tests.api.volume.conftest import ADMIN, Api, make_services
from volume import service
from volume.actions import volumes as volume_actions
from volume.drivers import backends, simulated
from volume.service import VolumeRole, make_role


class Cloud:
    """Block storage in one process."""

    def __init__(self, folder: Path) -> None:
        self.services: VolumeServices = make_services(f"sqlite:///{folder}/global.sqlite")
        conf = self.services.conf
        self.services.doorbells = VolumeDoorbells(conf, self.services.databases)
        self.services.doorbells.ring_scheduler = self.schedule  # type: ignore[method-assign]
        self.api = Api(webtest.TestApp(make_app(conf, self.services, authenticate)), self.services)
        transport = f"local:///{uuid.uuid4().hex}"
        Messaging(conf, transport).close()  # registers transport_url
        config.override(conf, "transport_url", transport)
        self.role = self._role(conf, folder)

    def _role(self, conf: Any, folder: Path) -> VolumeRole:
        config.register(conf, service.list_opts())
        config.register(conf, backends.list_opts())
        config.override(conf, "volume.host", "w1")
        config.override(conf, "volume.enabled_backends", ["sim"])
        conf.register_opts([*backends.BACKEND_OPTS, *simulated.OPTS], group="sim")
        config.override(conf, "sim.driver", "simulated")
        config.override(conf, "sim.state_dir", str(folder / "sim"))
        config.override(conf, "volume_worker.retry_s", 0.01)
        return make_role(conf)

    def schedule(self) -> None:
        VolumePass(self.services.databases, lambda host: self.role.ring()).run()

    def wait(self, path: str, done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """What a GET shows once ``done`` is true of it."""
        deadline = time.monotonic() + 30
        while True:
            (shown,) = self.api.get(path, as_=ADMIN).values()
            if done(shown):
                return dict(shown)
            assert time.monotonic() < deadline, shown
            time.sleep(0.02)

    def gone(self, path: str) -> None:
        deadline = time.monotonic() + 30
        while self.api.app.get(f"/v3{path}", headers={"X-Auth-Token": ADMIN}, status="*").status_int != 404:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    made = Cloud(tmp_path)
    made.role.start()
    yield made
    made.role.stop()
    made.services.close()


def available(shown: dict[str, Any]) -> bool:
    return bool(shown["status"] == "available")


def test_a_volume_lives_and_goes(cloud: Cloud) -> None:
    made = cloud.api.volume(status=None, metadata={"a": "b"})
    path = f"/volumes/{made['id']}"
    shown = cloud.wait(path, available)
    assert shown["os-vol-host-attr:host"] == "w1@sim#simulated"
    driver = cloud.role.backends[0].driver
    worker = cloud.role.workers["w1@sim"]
    assert driver.exists(worker.volume(made["id"]))
    cloud.api.action(made["id"], "os-extend", {"new_size": 3}, status=202)
    assert cloud.wait(path, available)["size"] == 3
    snapshot = cloud.api.post("/snapshots", {"snapshot": {"volume_id": made["id"]}})["snapshot"]
    cloud.wait(f"/snapshots/{snapshot['id']}", available)
    copy = cloud.api.volume(status=None, size=3, snapshot_id=snapshot["id"])
    assert cloud.wait(f"/volumes/{copy['id']}", available)["size"] == 3
    cloud.api.action(made["id"], "revert", {"snapshot_id": snapshot["id"]}, version="3.40", status=202)
    cloud.wait(path, available)
    volume = worker.volume(made["id"])
    cloud.api.delete(f"{path}?cascade=true", status=202)
    cloud.gone(path)
    cloud.gone(f"/snapshots/{snapshot['id']}")
    assert not driver.exists(volume)
    assert [intent["state"] for intent in cloud.api.intents(made["id"])] == ["done"] * 4


def test_a_failure_is_undone_and_told(cloud: Cloud) -> None:
    config.override(cloud.services.conf, "sim.failures", ["create:1"])
    made = cloud.api.volume(status=None)
    cloud.wait(f"/volumes/{made['id']}", lambda shown: shown["status"] == "error")
    (message,) = cloud.api.get("/messages", version="3.3")["messages"]
    assert message["resource_uuid"] == made["id"] and "simulated failure" in message["user_message"]
    cloud.api.delete(f"/volumes/{made['id']}", status=202)
    cloud.gone(f"/volumes/{made['id']}")


def test_what_no_pool_can_hold(cloud: Cloud) -> None:
    cloud.api.post(
        "/types", {"volume_type": {"name": "t", "extra_specs": {"volume_backend_name": "x"}}}, as_=ADMIN
    )
    made = cloud.api.volume(status=None, volume_type="t")
    cloud.wait(f"/volumes/{made['id']}", lambda shown: shown["status"] == "error")
    (message,) = cloud.api.get("/messages", version="3.3")["messages"]
    assert "2 pools; 2 without the capabilities" in message["user_message"]
    shown = cloud.api.get(f"/haneul/volumes/{made['id']}/placement")["placement"]
    (decision,) = shown["decisions"]
    assert decision["summary"] in message["user_message"]
    assert "@" not in str(decision) and [step["name"] for step in decision["filters"]] == [
        "CapabilitiesFilter"
    ]
    shown = cloud.api.get(f"/haneul/volumes/{made['id']}/placement", as_=ADMIN)["placement"]
    assert shown["decisions"][0]["filters"][0]["host_names"][-1] == "w1@sim#simulated"
    # it has no pool: the scheduler itself ends its deletion
    cloud.api.delete(f"/volumes/{made['id']}", status=202)
    cloud.gone(f"/volumes/{made['id']}")


def test_hints_and_what_is_told_of_them(cloud: Cloud) -> None:
    with cloud.services.databases.global_.write() as connection:
        connection.execute(sa.delete(pools).where(pools.c.name != "w1@sim#simulated"))  # it has no worker
    first = cloud.api.volume(status=None)
    cloud.wait(f"/volumes/{first['id']}", available)
    placement = cloud.api.get(f"/haneul/volumes/{first['id']}/placement", as_=ADMIN)["placement"]
    (decision,) = placement["decisions"]
    assert decision["chosen"] == "w1@sim#simulated" == decision["scores"][0]["host"]
    for hints, status, why in (
        ({"same_host": first["id"]}, "available", "1 of 1 pool could"),
        ({"different_host": [first["id"]]}, "error", "DifferentBackendFilter"),
        # none that anybody has
        ({"same_host": [str(uuid.uuid4()), "x"]}, "error", "SameBackendFilter"),
        ({"local_to_instance": str(uuid.uuid4())}, "error", "InstanceLocalityFilter"),
        ({"local_to_instance": "x"}, "error", "InstanceLocalityFilter"),
    ):
        body = {"volume": {"size": 1}, "OS-SCH-HNT:scheduler_hints": hints}
        made = cloud.api.post("/volumes", body)["volume"]
        shown = cloud.wait(f"/volumes/{made['id']}", lambda each: each["status"] in ("available", "error"))
        assert shown["status"] == status, hints
        placement = cloud.api.get(f"/haneul/volumes/{made['id']}/placement")["placement"]
        assert why in placement["decisions"][0]["summary"]


class Compute:
    """The Compute API as the worker sees it: what it answers for each event, in turn."""

    def __init__(self, *answers: list[int]) -> None:
        self.answers = list(answers)
        self.told: list[list[str]] = []

    def post(self, path: str, json: Any, **_options: Any) -> Any:
        assert path == "/os-server-external-events"
        servers = [event["server_uuid"] for event in json["events"]]
        self.told.append(servers)
        codes = self.answers.pop(0)
        events = [{**event, "code": code} for event, code in zip(json["events"], codes, strict=True)]
        status = 200 if set(codes) == {200} else 207
        return types.SimpleNamespace(status_code=status, json=lambda: {"events": events})


def test_servers_that_do_not_hear_of_an_extension(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an answer of 207 refuses is said again, to those servers only; in the end the owner is told."""
    compute = Compute([200, 422, 422, 404], [200, 422], [422])
    monkeypatch.setattr(volume_actions, "service_adapter", lambda _conf, _service: compute)
    monkeypatch.setattr(volume_actions, "configured", lambda _conf: True)
    monkeypatch.setattr(volume_actions, "_TELL_PAUSES_S", (0.0, 0.0))
    made = cloud.api.volume(status=None)
    cloud.wait(f"/volumes/{made['id']}", available)
    arguments = {"size_gib": 2, "server_ids": ["a", "b", "c", "d"]}
    context = {key: cloud.api.intents(made["id"])[0][key] for key in ("project_id", "user_id", "request_id")}
    run = Run("i", "volume.extend", 1, made["id"], arguments, {}, cloud.role.workers["w1@sim"], context)
    assert volume_actions._tell_servers(run) == {"size_gib": 2}
    assert compute.told == [["a", "b", "c", "d"], ["b", "c"], ["c"]]
    (message,) = cloud.api.get("/messages", version="3.3")["messages"]
    assert "server c was not told (422" in message["user_message"]


def test_attachments_reach_the_backend(cloud: Cloud) -> None:
    made = cloud.api.volume(status=None)
    cloud.wait(f"/volumes/{made['id']}", available)
    asked = {"volume_uuid": made["id"], "connector": {"host": "h"}}
    attachment = cloud.api.post("/attachments", {"attachment": asked}, version="3.27")["attachment"]
    assert attachment["connection_info"]["driver_volume_type"] == "local"
    path = f"/attachments/{attachment['id']}"
    cloud.api.post(f"{path}/action", {"os-complete": {}}, version="3.44", status=204)
    assert cloud.api.get(f"/volumes/{made['id']}")["volume"]["status"] == "in-use"
    cloud.api.delete(path, version="3.27")
    assert cloud.api.get(f"/volumes/{made['id']}")["volume"]["status"] == "available"


def test_a_lease_that_ran_out_is_taken_again(cloud: Cloud, tmp_path: Path) -> None:
    cloud.role.stop()
    made = cloud.api.volume(status=None)
    other = cloud._role(cloud.services.conf, tmp_path)
    (row,) = other.journal.take(["w1@sim"], ["volume.create"], 10)
    assert row["resource_id"] == made["id"] and row["attempts"] == 1
    assert other.journal.take(["w1@sim"], ["volume.create"], 10) == []
    with Databases(cloud.services.conf).global_.write() as connection:
        connection.execute(intents.update().values(lease_until=now()))
    (again,) = other.journal.take(["w1@sim"], ["volume.create"], 10)
    assert again["attempts"] == 2
    with cloud.services.databases.global_.read() as connection:
        assert connection.execute(volumes.select()).mappings().one()["status"] == "creating"
    other.databases.dispose()


def test_groups_and_their_snapshots(cloud: Cloud) -> None:
    v = {"version": "3.20"}
    kind = cloud.api.post("/group_types", {"group_type": {"name": "g"}}, as_=ADMIN, **v)["group_type"]["id"]
    type_ = cloud.api.get("/types")["volume_types"][0]["id"]
    asked = {"group": {"group_type": kind, "volume_types": [type_], "name": "one"}}
    group = cloud.api.post("/groups", asked, **v)["group"]["id"]

    def has(path: str, status: str) -> None:
        deadline = time.monotonic() + 30
        while next(iter(cloud.api.get(path, **v).values()))["status"] != status:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    has(f"/groups/{group}", "available")
    member = cloud.api.post("/volumes", {"volume": {"size": 1, "group_id": group}}, **v)["volume"]["id"]
    cloud.wait(f"/volumes/{member}", available)
    body = {"group_snapshot": {"group_id": group}}
    taken = cloud.api.post("/group_snapshots", body, **v)["group_snapshot"]["id"]
    has(f"/group_snapshots/{taken}", "available")
    (snapshot,) = cloud.api.get("/snapshots/detail")["snapshots"]
    assert snapshot["status"] == "available"
    copy = {"create-from-src": {"name": "two", "group_snapshot_id": taken}}
    second = cloud.api.post("/groups/action", copy, **v)["group"]["id"]
    has(f"/groups/{second}", "available")
    (made,) = (each for each in cloud.api.get("/volumes/detail")["volumes"] if each["id"] != member)
    assert made["status"] == "available"
    driver = cloud.role.backends[0].driver
    volume = cloud.role.workers["w1@sim"].volume(made["id"])
    assert driver.exists(volume)
    cloud.api.post(f"/groups/{second}/action", {"delete": {"delete-volumes": True}}, status=202, **v)
    cloud.gone(f"/volumes/{made['id']}")
    assert not driver.exists(volume)
    cloud.api.delete(f"/group_snapshots/{taken}", status=202, **v)
    cloud.gone(f"/snapshots/{snapshot['id']}")


def test_log_levels_reach_the_worker(cloud: Cloud) -> None:
    body = {"binary": "cinder-volume", "prefix": "volume.test", "level": "debug"}
    cloud.api.put("/os-services/set-log", body, as_=ADMIN, version="3.32", status=202)
    cloud.role.heartbeat()
    assert logging.getLogger("volume.test").level == logging.DEBUG
    found = cloud.api.put("/os-services/get-log", {"prefix": "volume"}, as_=ADMIN, version="3.32")
    levels = {each["host"]: each["levels"] for each in found["log_levels"]}
    assert levels["w1@sim"] == {"volume.test": "DEBUG"}
    logging.getLogger("volume.test").setLevel(logging.NOTSET)
