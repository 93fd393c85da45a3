"""The volume worker dies by kill -9 before and behind every step, on the way there and back; real files behind it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash import volume_cases as cases
from tests.crash.faults import Faults
from tests.crash.test_volume_steps import assert_ended
from tests.crash.volume_cases import CASES, Scene
from tests.crash.volume_cloud import VolumeCloud
from tests.crash.volume_process import WorkerProcess
from tests.stack.cloud import wait_for

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is missing")


class Victim:
    """A cloud whose worker dies where it is armed to."""

    def __init__(self, folder: Path, driver: str = "file", *, encrypted: bool = False) -> None:
        self.faults = Faults(folder)
        self.cloud = VolumeCloud(folder, driver, own_worker=False, encrypted=encrypted)
        self.worker = WorkerProcess(folder, self.cloud.url, driver)

    def start(self) -> None:
        self.cloud.start()
        self.worker.start()
        wait_for(lambda: len(self.cloud.rows("volume_pools")) == 2, "the worker's pools are known")

    def stop(self) -> None:
        self.worker.stop()
        self.cloud.stop()

    def ends(self, kind: str, scene: Scene, deaths: int, *, done: bool) -> None:
        wait_for(lambda: self.worker.deaths == deaths, "the worker has died")
        self.cloud.settle(60)
        assert self.faults.disarm() == [], "what was armed did not happen"
        assert_ended(self.cloud, kind, scene, done=done)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    victim = Victim(tmp_path_factory.mktemp("victim"))
    try:  # what comes up half is ended, too
        victim.start()
        yield victim
    finally:
        victim.stop()


@pytest.fixture
def victim(shared: Victim) -> Iterator[Victim]:
    yield shared
    shared.faults.disarm()
    shared.cloud.forget()


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize(("kind", "step"), cases.every_step())
def test_killed_at_a_step(victim: Victim, kind: str, step: str, where: str) -> None:
    case = CASES[kind]
    scene, deaths = case.prepare(victim.cloud), victim.worker.deaths
    victim.faults.arm(kind, step, f"kill_{where}")
    case.begin(victim.cloud, scene)
    victim.ends(kind, scene, deaths + 1, done=True)


@pytest.mark.parametrize("where", ["undo", "undone"])
@pytest.mark.parametrize(("kind", "step"), cases.every_undo())
def test_killed_on_the_way_back(victim: Victim, kind: str, step: str, where: str) -> None:
    """The way back is not forgotten: the intent fails with the first reason, and nothing is left."""
    case = CASES[kind]
    scene, deaths = case.prepare(victim.cloud), victim.worker.deaths
    victim.faults.arm(kind, cases.last_step(kind), "unexpected")
    victim.faults.arm(kind, step, f"kill_{where}")
    case.begin(victim.cloud, scene)
    victim.ends(kind, scene, deaths + 1, done=False)
