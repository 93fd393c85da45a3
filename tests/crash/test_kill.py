"""The agent's process dies by kill -9 before and behind every step, on the way there and back; it runs over RabbitMQ."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash import cases
from tests.crash.agents import AgentProcess
from tests.crash.faults import Faults
from tests.crash.invariants import assert_nothing_lost, settle
from tests.lab import servers
from tests.stack.cloud import Cloud, wait_for

pytestmark = pytest.mark.rabbitmq


class Victim:
    """A cloud whose only agent is a process that dies where it is armed to."""

    def __init__(self, folder: Path, transport: str) -> None:
        self.faults = Faults(folder)
        self.state_dir = folder / "hosts"
        self.cloud = Cloud(
            folder, ["k1"], transport=transport, **{"simulated.state_dir": str(self.state_dir)}
        )
        self.cloud.with_networks()
        self.cloud.with_images()
        self.cloud.with_volumes()
        self.agent = AgentProcess(self.cloud, folder, faults=folder)
        self.states: dict[str, str] = {}

    def start(self) -> None:
        self.cloud.start("conductor", "scheduler")
        self.agent.start()
        wait_for(lambda: self.cloud.known_hosts() == ["k1"], "the host is known")

    def stop(self) -> None:
        self.agent.stop()
        self.cloud.stop()

    def ends(self, server_id: str, vm_state: str, deaths: int) -> None:
        wait_for(lambda: self.agent.deaths == deaths, "the agent has died")
        settle(self.cloud, 60)
        assert self.faults.disarm() == [], "what was armed did not happen"
        self.states[server_id] = vm_state
        assert_nothing_lost(self.cloud, self.state_dir, self.states)


@pytest.fixture(scope="module")
def shared(rabbitmq_server: servers.RabbitMQ, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    logging.getLogger("oslo.messaging").setLevel(logging.ERROR)
    # the broker is shared by the workers of a run, each of which has a victim of its own
    vhost = f"crash-kill-{uuid.uuid4().hex[:8]}"
    victim = Victim(tmp_path_factory.mktemp("victim"), rabbitmq_server.create_vhost(vhost))
    try:  # what comes up half is ended, too
        victim.start()
        yield victim
    finally:
        victim.stop()
    rabbitmq_server.drop_vhost(vhost)


@pytest.fixture
def victim(shared: Victim) -> Iterator[Victim]:
    yield shared
    shared.faults.disarm()


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize(("kind", "step"), cases.every_step())
def test_killed_at_a_step(victim: Victim, kind: str, step: str, where: str) -> None:
    server_id = None if kind == "server.create" else cases.bring(victim.cloud, kind)
    deaths = victim.agent.deaths
    victim.faults.arm(kind, step, f"kill_{where}")
    server_id = cases.begin(victim.cloud, kind, server_id)
    victim.ends(server_id, cases.CASES[kind].done, deaths + 1)


@pytest.mark.parametrize("where", ["undo", "undone"])
@pytest.mark.parametrize(("kind", "step"), cases.every_undo())
def test_killed_on_the_way_back(victim: Victim, kind: str, step: str, where: str) -> None:
    """The way back is not forgotten: nothing is built behind it, and the server fails with the first reason."""
    server_id = None if kind == "server.create" else cases.bring(victim.cloud, kind)
    deaths = victim.agent.deaths
    victim.faults.arm(kind, cases.last_step(kind), "unexpected")
    victim.faults.arm(kind, step, f"kill_{where}")
    server_id = cases.begin(victim.cloud, kind, server_id)
    victim.ends(server_id, "error" if kind == "server.create" else "active", deaths + 1)


def test_killed_again_and_again(victim: Victim) -> None:
    """At each step of one and the same create."""
    deaths, names = (
        victim.agent.deaths,
        [step for kind, step in cases.every_step() if kind == "server.create"],
    )
    for name in names:
        victim.faults.arm("server.create", name, "kill_after")
    server_id = cases.begin(victim.cloud, "server.create", None)
    victim.ends(server_id, "active", deaths + len(names))


def test_deleted_while_the_agent_is_dead(victim: Victim) -> None:
    deaths = victim.agent.deaths
    victim.faults.arm("server.create", "define", "kill_after")
    server_id = cases.begin(victim.cloud, "server.create", None)
    wait_for(lambda: victim.agent.deaths == deaths + 1, "the agent has died")
    victim.cloud.delete(server_id)
    victim.ends(server_id, "deleted", deaths + 1)


def test_killed_under_load(victim: Victim) -> None:
    deaths = victim.agent.deaths
    ids = [victim.cloud.create(ring=False) for _ in range(20)]
    wait_for(lambda: any(victim.cloud.server(id_)["vm_state"] == "active" for id_ in ids), "one is active")
    victim.agent.kill()
    for server_id in ids:
        victim.states[server_id] = "active"
    victim.ends(ids[0], "active", deaths + 1)
