"""Schedulers and conductors that die at any statement, and brokers that lose every message."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import oslo_messaging
import pytest
import sqlalchemy as sa

from compute import agent as compute_agent
from conductor import service as conductor_service
from core.messaging import Messaging
from db import cell_schema
from db import servers as db_servers
from lifecycle.states import IntentState
from scheduler import service as scheduler_service
from tests.crash.deaths import Death, dying
from tests.crash.faults import Faults
from tests.crash.invariants import assert_nothing_lost, settle
from tests.stack.cloud import Cloud, wait_for


def engines_of(role: Any) -> list[sa.Engine]:
    """The engines of a role's own databases."""
    return [role.databases.global_.engine, *(cell.engine for cell in role.databases.cells())]


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    options = {
        "simulated.state_dir": str(tmp_path / "hosts"),
        "scheduler.lease_s": 0.3,
        "scheduler.host_lease_s": 0.3,
        "conductor.lease_s": 0.5,
        "conductor.resend_s": 0.5,
        "compute.heartbeat_interval_s": 0.2,
    }
    cloud = Cloud(tmp_path, ["h1", "h2"], **options)
    yield cloud
    cloud.stop()


def die_once(cloud: Cloud, at: int, between: Callable[[], None] | None = None) -> bool:
    """A scheduler's whole life: one pass that ends at its n-th statement; False if it got through."""
    role = scheduler_service.make_role(cloud.conf)
    role._housekeeping_at = float("inf")  # the same statements each time
    died = False
    with dying(engines_of(role), at) as countdown:
        try:
            role.run_pass()
        except Death:
            died = True
    assert died == countdown.happened
    role.databases.dispose()
    if died and between is not None:
        between()
    return died


@pytest.mark.parametrize("then", ["nothing", "delete", "rename"])
def test_a_scheduler_dies_at_every_statement(cloud: Cloud, then: str) -> None:
    """Its intents are found, and what was asked for meanwhile is carried out."""
    cloud.start("conductor", "compute")
    states: dict[str, str] = {}
    names: dict[str, str] = {}
    for at in itertools.count(1):
        server_id = cloud.create(ring=False)
        states[server_id] = "deleted" if then == "delete" else "active"

        def meanwhile(server_id: str = server_id) -> None:
            if then == "delete":
                cloud.delete(server_id)
            if then == "rename":
                names[server_id] = "renamed"
                rename(cloud, server_id, "renamed")

        if not die_once(cloud, at, meanwhile):
            if then == "delete":
                cloud.delete(server_id)
            break
    assert len(states) > 12, "a pass has more statements than that"
    cloud.start("scheduler")
    settle(cloud, 60)
    assert_nothing_lost(cloud, cloud.folder / "hosts", states)
    for server_id, name in names.items():
        assert cloud.server(server_id)["name"] == name, "a change is not lost"


def rename(cloud: Cloud, server_id: str, name: str) -> None:
    """As PUT /servers/ID does."""
    found = db_servers.find(cloud.databases, server_id)
    with found.database.write() as connection:
        db_servers.stay(connection, found)
        db_servers.change(connection, found.database, found.row, {"name": name})


def test_a_change_while_a_server_moves_is_not_lost(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheduler has read the server; it is renamed; then the scheduler writes it to the cell."""
    cloud.start("conductor", "compute")
    server_id = cloud.create(ring=False)
    role = scheduler_service.make_role(cloud.conf)
    original = role._dispatcher._write_cell
    renamed = []

    def write_cell(*arguments: Any) -> Any:
        if not renamed:
            renamed.append(True)
            rename(cloud, server_id, "new name")
        return original(*arguments)

    monkeypatch.setattr(role._dispatcher, "_write_cell", write_cell)
    role.run_pass()
    role.databases.dispose()
    cloud.wait_state(server_id, "active")
    assert cloud.server(server_id)["name"] == "new name"
    assert_nothing_lost(cloud, cloud.folder / "hosts", {server_id: "active"})


def test_a_copy_whose_mapping_has_not_turned_is_not_built(cloud: Cloud) -> None:
    """Scheduler dead between cell and mapping; the conductor waits, the deletion wins."""
    cloud.start("conductor", "compute")
    server_id = cloud.create(ring=False)
    role = scheduler_service.make_role(cloud.conf)
    role._dispatcher._turn = die
    with pytest.raises(Death):
        role.run_pass()
    role.databases.dispose()
    with cloud.cell.read() as connection:
        assert connection.execute(sa.select(cell_schema.servers.c.id)).scalars().all() == [server_id]
    swept = next(role for role in cloud.roles if role.name == "conductor")
    swept._sweeper.sweep()
    with pytest.raises(AssertionError, match="in vain"):
        wait_for(lambda: any((cloud.folder / "hosts").glob("*/disks/*.json")), "a disk", timeout_s=1.5)
    cloud.delete(server_id)
    cloud.start("scheduler")
    settle(cloud)
    assert_nothing_lost(cloud, cloud.folder / "hosts", {server_id: "deleted"})


def die(*_arguments: Any) -> Any:
    raise Death


class Broken(Exception):
    """The conductor's own failure, as a database that hangs up is."""


def break_down(*_arguments: Any) -> Any:
    raise Broken


@pytest.mark.parametrize("what", ["create fails", "delete", "stop"])
def test_a_conductor_fails_at_every_statement(cloud: Cloud, what: str) -> None:
    """Between any two: in a report, between the global release and the cell's end, in a sweep."""
    faults = Faults(cloud.folder)
    original = compute_agent.ACTIONS
    compute_agent.ACTIONS = faults.wrap(original)
    try:
        cloud.start()
        conductor = next(role for role in cloud.roles if role.name == "conductor")
        engines = engines_of(conductor)
        states: dict[str, str] = {}
        for at in range(1, 16 if what != "create fails" else 26):
            if what == "create fails":
                faults.arm("server.create", "power_on", "unexpected", times=50)
                with dying(engines, at, Broken):
                    server_id = cloud.create()
                    settle(cloud)
                states[server_id] = "error"
                faults.disarm()
                continue
            server_id = cloud.create()
            cloud.wait_state(server_id, "active")
            with dying(engines, at, Broken):
                if what == "delete":
                    cloud.delete(server_id)
                else:
                    cloud.act("server.stop", server_id)
                settle(cloud)
            states[server_id] = "deleted" if what == "delete" else "stopped"
        assert_nothing_lost(cloud, cloud.folder / "hosts", states)
    finally:
        compute_agent.ACTIONS = original


def test_a_conductor_dies_between_the_databases(cloud: Cloud) -> None:
    """The host's share is given back, the end is not written: the next conductor writes it."""
    faults = Faults(cloud.folder)
    original = compute_agent.ACTIONS
    compute_agent.ACTIONS = faults.wrap(original)
    try:
        cloud.start("conductor", "compute", "scheduler")
        conductor = cloud.roles[0]
        conductor.journal._finish_ending = break_down
        faults.arm("server.create", "define", "unexpected", times=1)
        server_id = cloud.create()
        wait_for(
            lambda: [row["state"] for row in cloud.intents(server_id)] == [IntentState.ENDING.value],
            "the create is ending",
        )
        wait_for(lambda: cloud.allocations() == {}, "the share is given back")
        del conductor.journal._finish_ending
        settle(cloud)
        assert_nothing_lost(cloud, cloud.folder / "hosts", {server_id: "active"})
    finally:
        compute_agent.ACTIONS = original


def test_two_conductors_and_a_slow_one(cloud: Cloud) -> None:
    """One stalls before it gives the old host's share back; meanwhile the server has a new host."""
    faults = Faults(cloud.folder)
    original = compute_agent.ACTIONS
    compute_agent.ACTIONS = faults.wrap(original)
    try:
        cloud.start("conductor", "compute", "scheduler")
        journal = cloud.roles[0].journal
        slow: list[dict[str, str]] = []
        release = journal._release

        def stalls(hosts: dict[str, str]) -> None:
            slow.append(hosts)
            release(hosts)

        journal._release = stalls
        faults.arm("server.create", "define", "unexpected", times=1)
        server_id = cloud.create()
        cloud.wait_state(server_id, "active")
        release(slow[0])  # the slow one wakes up
        assert_nothing_lost(cloud, cloud.folder / "hosts", {server_id: "active"})
    finally:
        compute_agent.ACTIONS = original


# -- messages -------------------------------------------------------------------------------------


class Lossy:
    """An RPC client that loses casts, and of calls every n-th answer or request."""

    def __init__(self, client: Any, calls: Any) -> None:
        self._client, self._calls = client, calls

    def prepare(self, **more: Any) -> Lossy:
        return Lossy(self._client.prepare(**more), self._calls)

    def cast(self, context: Any, method: str, **arguments: Any) -> None:
        """Lost."""

    def call(self, context: Any, method: str, **arguments: Any) -> Any:
        turn = next(self._calls) if self._calls is not None else 0
        if turn % 4 == 1:  # the request is lost
            raise oslo_messaging.MessagingTimeout("lost request")
        answer = self._client.call(context, method, **arguments)
        if turn % 4 == 3:  # the answer is lost
            raise oslo_messaging.MessagingTimeout("lost answer")
        return answer


@pytest.mark.parametrize("calls", ["calls arrive", "every other call is lost"])
def test_every_cast_is_lost(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, calls: str) -> None:
    original = Messaging.client
    counter = itertools.count() if calls != "calls arrive" else None

    def client(self: Messaging, *arguments: Any, **more: Any) -> Lossy:
        return Lossy(original(self, *arguments, **more), counter)

    monkeypatch.setattr(Messaging, "client", client)
    cloud.start()
    states = {cloud.create(): "active" for _ in range(6)}
    settle(cloud, 60)
    assert_nothing_lost(cloud, cloud.folder / "hosts", states)
    stopped, deleted, *_ = states
    cloud.act("server.stop", stopped)
    cloud.delete(deleted)
    overtaken = cloud.create()
    cloud.delete(overtaken)
    settle(cloud, 60)
    states.update({stopped: "stopped", deleted: "deleted", overtaken: "deleted"})
    assert_nothing_lost(cloud, cloud.folder / "hosts", states)


def test_a_host_that_is_gone(cloud: Cloud, tmp_path: Path) -> None:
    """Creates go elsewhere, deletions are carried out, and the host is cleaned when it is back."""
    for name, value in (("service_down_time", 1), ("conductor.give_up_s", 1)):
        from core import config

        config.override(cloud.conf, name, value)
    faults = Faults(cloud.folder)
    original = compute_agent.ACTIONS
    compute_agent.ACTIONS = faults.wrap(original)
    try:
        cloud.start()
        compute = next(role for role in cloud.roles if role.name == "compute")
        first = cloud.create()
        cloud.wait_state(first, "active")
        gone = cloud.server(first)["host"]
        (agent,) = [agent for agent in compute.agents if agent.host == gone]
        agent.stop()
        wait_for(lambda: gone in conductor_dead(cloud), "the host is down")
        cloud.delete(first)
        settled = lambda: cloud.server(first)["deleted"] == 1  # noqa: E731
        wait_for(settled, "deleted without its host")
        assert cloud.allocations() == {}
        (cleanup,) = [row for row in cloud.intents(first) if row["kind"] == "server.cleanup"]
        assert cleanup["state"] == IntentState.WAITING.value
        again = compute_agent.Agent(cloud.conf, gone, agent.driver, compute._messaging, compute._reporter)
        again.start()
        compute.agents.append(again)
        settle(cloud)
        assert_nothing_lost(cloud, cloud.folder / "hosts", {first: "deleted"})
    finally:
        compute_agent.ACTIONS = original


def conductor_dead(cloud: Cloud) -> dict[str, float]:
    conductor = next(role for role in cloud.roles if role.name == "conductor")
    assert isinstance(conductor, conductor_service.ConductorRole)
    return conductor.hosts.dead(cloud.conf.service_down_time)
