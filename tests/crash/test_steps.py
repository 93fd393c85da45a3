"""Each step of each action fails, fails unexpectedly, runs twice, is overtaken: afterwards all is as it should be."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from compute import agent as compute_agent
from compute.actions.servers import ACTIONS
from conductor.hosts import power_transition
from core.intents import CLEANUP_OF, CLEANUPS
from lifecycle.engine import Engine
from lifecycle.states import SERVER
from tests.crash import cases
from tests.crash.faults import Faults
from tests.crash.invariants import assert_nothing_lost, settle
from tests.stack.cloud import Cloud, wait_for


class Chaos:
    """A cloud whose steps can be made to fail; it lives as long as this file's tests."""

    def __init__(self, folder: Path) -> None:
        self.faults = Faults(folder)
        self.state_dir = folder / "hosts"
        self.cloud = Cloud(folder, ["h1", "h2"], **{"simulated.state_dir": str(self.state_dir)})
        self.cloud.with_networks()
        self.cloud.with_images()
        self.cloud.with_volumes()
        self.states: dict[str, str] = {}

    def begin(self, kind: str, server_id: str | None = None) -> str:
        return cases.begin(self.cloud, kind, server_id)

    def bring(self, kind: str) -> str | None:
        return None if kind == "server.create" else cases.bring(self.cloud, kind)

    def power_of(self, server_id: str) -> int:
        """The guest's power state by the word of its host."""
        (path,) = self.state_dir.glob(f"*/guests/{server_id}.json")
        return int(json.loads(path.read_text())["power_state"])

    def ends(self, server_id: str, vm_state: str) -> None:
        """The server comes to rest in this state, and nothing is left anywhere."""
        settle(self.cloud)
        assert self.faults.disarm() == [], "what was armed did not happen"
        self.states[server_id] = vm_state
        assert_nothing_lost(self.cloud, self.state_dir, self.states)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chaos]:
    chaos = Chaos(tmp_path_factory.mktemp("chaos"))
    original = compute_agent.ACTIONS
    compute_agent.ACTIONS = chaos.faults.wrap(original)
    chaos.cloud.start()
    yield chaos
    chaos.cloud.stop()
    compute_agent.ACTIONS = original


@pytest.fixture
def chaos(shared: Chaos) -> Iterator[Chaos]:
    yield shared
    shared.faults.disarm()
    Engine.probe = None


def test_every_kind_has_a_case() -> None:
    assert set(cases.CASES) == set(ACTIONS.kinds()), (
        "say in tests/crash/cases.py how a new kind starts and ends"
    )


def is_repeated(kind: str, step: str) -> bool:
    """Creates go to another host, deletions are tried again; other kinds fail for good the first time."""
    return kind == "server.create" or cases.is_forward(kind, step)


def can_be_overtaken(kind: str) -> bool:
    return kind in SERVER and not SERVER[kind].overtakes


@pytest.mark.parametrize("mode", ["driver_error", "unexpected"])
@pytest.mark.parametrize(("kind", "step"), cases.every_step())
def test_a_step_fails_once(chaos: Chaos, kind: str, step: str, mode: str) -> None:
    case, server_id = cases.CASES[kind], chaos.bring(kind)
    chaos.faults.arm(kind, step, mode)
    server_id = chaos.begin(kind, server_id)
    # a create goes to another host, a deletion is tried again; others fail, and say so
    if is_repeated(kind, step):
        chaos.ends(server_id, case.done)
    else:
        settle(chaos.cloud)
        # a step that failed behind its effect: the hypervisor's word counts
        power = chaos.power_of(server_id)
        expected = power_transition(case.failed(kind), power)
        wait_for(lambda: chaos.cloud.server(server_id)["power_state"] == power, "power state is known")
        chaos.ends(server_id, expected)
    if kind == "server.create":
        hosts = [event["host"] for event in chaos.cloud.intents(server_id)[0]["events"]]
        assert len(set(hosts)) == 2
    if not is_repeated(kind, step):
        assert chaos.cloud.server(server_id)["fault"]["step"] == step


@pytest.mark.parametrize(("kind", "step"), [each for each in cases.every_step() if is_repeated(*each)])
def test_a_step_always_fails(chaos: Chaos, kind: str, step: str) -> None:
    server_id = chaos.bring(kind)
    for_ever = kind in CLEANUPS
    times = 5 if for_ever else 2 if kind == "server.create" else 3
    chaos.faults.arm(kind, step, "driver_error", times=times)
    server_id = chaos.begin(kind, server_id)
    if for_ever or kind not in SERVER:  # nobody would ask again; or no server waits for it
        chaos.ends(server_id, cases.CASES[kind].done)
        return
    settle(chaos.cloud)
    if kind in CLEANUP_OF and kind != "server.create":  # it is left to a cleanup, which goes on
        assert chaos.cloud.server(server_id)["fault"]["step"] == step
        chaos.ends(server_id, cases.CASES[kind].done)
        return
    server = chaos.cloud.server(server_id)
    state = "error" if kind == "server.create" else cases.CASES[kind].failed(kind)
    assert (server["vm_state"], server["task_state"]) == (state, None)
    assert server["fault"]["message"]
    chaos.cloud.delete(server_id)
    chaos.ends(server_id, "deleted")


@pytest.mark.parametrize(("kind", "step"), cases.every_step())
def test_a_step_runs_twice(chaos: Chaos, kind: str, step: str) -> None:
    server_id = chaos.bring(kind)
    chaos.faults.arm(kind, step, "twice")
    server_id = chaos.begin(kind, server_id)
    chaos.ends(server_id, cases.CASES[kind].done)


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize(("kind", "step"), cases.every_undo())
def test_an_undo_fails(chaos: Chaos, kind: str, step: str, times: int) -> None:
    """Once: it is undone again. Always: the host keeps a cleanup, and the server does not wait for it."""
    server_id = chaos.bring(kind)
    chaos.faults.arm(kind, cases.last_step(kind), "unexpected")
    chaos.faults.arm(kind, step, "undo_error", times=times)
    server_id = chaos.begin(kind, server_id)
    chaos.ends(server_id, "active")  # a create succeeds elsewhere; other kinds leave it as it was


class Pause:
    """Holds an agent at one point until the test lets it go."""

    def __init__(self, kind: str, step: str, where: str) -> None:
        self.reached, self.go = threading.Event(), threading.Event()
        self._point = (kind, step, where)
        Engine.probe = self  # type: ignore[assignment]

    def __call__(self, kind: str, step: str, where: str) -> None:
        if (kind, step, where) == self._point and not self.reached.is_set():
            self.reached.set()
            assert self.go.wait(30)


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize(("kind", "step"), [each for each in cases.every_step() if can_be_overtaken(each[0])])
def test_a_deletion_overtakes(chaos: Chaos, kind: str, step: str, where: str) -> None:
    server_id = chaos.bring(kind)
    pause = Pause(kind, step, where)
    server_id = chaos.begin(kind, server_id)
    assert pause.reached.wait(20)
    chaos.cloud.delete(server_id)
    pause.go.set()
    chaos.ends(server_id, "deleted")


@pytest.mark.parametrize("where", ["undo", "undone"])
@pytest.mark.parametrize(("kind", "step"), cases.every_undo())
def test_a_deletion_overtakes_the_way_back(chaos: Chaos, kind: str, step: str, where: str) -> None:
    server_id = chaos.bring(kind)
    chaos.faults.arm(kind, cases.last_step(kind), "driver_error")
    pause = Pause(kind, step, where)
    server_id = chaos.begin(kind, server_id)
    assert pause.reached.wait(20)
    chaos.cloud.delete(server_id)
    pause.go.set()
    chaos.ends(server_id, "deleted")


def test_a_deletion_right_behind_the_create(chaos: Chaos) -> None:
    """At every moment on the way from the global database to the host, and none is special."""
    ids = []
    for pause_ms in range(40):
        server_id = chaos.cloud.create()
        ids.append(server_id)
        threading.Event().wait(pause_ms / 1000)
        chaos.cloud.delete(server_id)
    for server_id in ids:
        chaos.states[server_id] = "deleted"
    settle(chaos.cloud)
    assert_nothing_lost(chaos.cloud, chaos.state_dir, chaos.states)


def test_a_late_copy_of_a_message_builds_nothing(chaos: Chaos, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that comes twice, the second time when the server is long gone."""
    taken: list[tuple[compute_agent.Agent, dict[str, object]]] = []
    original = compute_agent.Agent.take

    def take(self: compute_agent.Agent, message: dict[str, object]) -> None:
        taken.append((self, message))
        original(self, message)
        original(self, message)

    monkeypatch.setattr(compute_agent.Agent, "take", take)
    server_id = chaos.cloud.create()
    chaos.cloud.wait_state(server_id, "active")
    chaos.cloud.act("server.stop", server_id)
    chaos.cloud.wait_state(server_id, "stopped")
    chaos.cloud.delete(server_id)
    chaos.ends(server_id, "deleted")
    for agent, message in list(taken):
        original(agent, message)
    agents = {agent for agent, _ in taken}
    wait_for(lambda: not any(agent._running for agent in agents), "the late messages are over")
    chaos.ends(server_id, "deleted")


def test_a_stale_attempt_is_refused(chaos: Chaos) -> None:
    """The intent was given to another attempt while one stood before its last step."""
    pause = Pause("server.create", cases.last_step("server.create"), "before")
    server_id = chaos.begin("server.create")
    assert pause.reached.wait(20)
    (intent,) = chaos.cloud.intents(server_id)
    from conductor.journal import Journal

    journal = Journal(chaos.cloud.databases, chaos.cloud.cell, lease_s=1, max_attempts=3)
    (granted,) = journal.grant([intent])
    assert granted["attempts"] == intent["attempts"] + 1
    stale = {"intent_id": intent["id"], "attempt": intent["attempts"], "host": intent["target"]}
    for type_ in ("begin", "showing", "checkpoint", "undoing", "done", "failed", "cancelled", "retry"):
        report = {**stale, "type": type_, "error": {"code": "x"}, "task_state": "x", "step": "define"}
        assert journal.report([report])[0] == ["refused"], type_
    other_host = {**stale, "attempt": granted["attempts"], "host": "elsewhere", "type": "done"}
    assert journal.report([other_host])[0] == ["refused"]
    assert journal.grant([intent]) == [], "granted once"
    pause.go.set()
    chaos.ends(server_id, "active")
