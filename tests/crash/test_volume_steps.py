"""Each step of each volume intent fails, runs twice, is overtaken: rows, data and backends agree afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lifecycle.engine import Engine
from tests.crash import volume_cases as cases
from tests.crash.faults import Faults
from tests.crash.volume_cases import ACTIONS, CASES, Scene
from tests.crash.volume_cloud import ADMIN, VolumeCloud
from volume import service


class Chaos:
    """A cloud whose steps can be made to fail."""

    def __init__(self, folder: Path, *, encrypted: bool = False) -> None:
        self.faults = Faults(folder)
        self.cloud = VolumeCloud(folder, "simulated", own_worker=True, encrypted=encrypted)

    def ends(self, kind: str, scene: Scene, *, done: bool) -> None:
        """All is at rest, in the state that the table says; the contents are what they must be."""
        self.cloud.settle()
        assert self.faults.disarm() == [], "what was armed did not happen"
        assert_ended(self.cloud, kind, scene, done=done)


def assert_ended(cloud: VolumeCloud, kind: str, scene: Scene, *, done: bool) -> None:
    row = cloud.row(cases.table_of(kind), scene.resource)
    assert (row["status"] if row else "deleted") == cases.status_after(kind, done)
    if done:
        for volume_id, content in scene.done.items():
            assert cloud.read(volume_id) == content
        CASES[kind].check(cloud, scene)
    assert_nothing_lost(cloud, scene)


def assert_nothing_lost(cloud: VolumeCloud, scene: Scene) -> None:
    """No row without its data, no data without a row, no other volume changed."""
    for volume_id, content in scene.keeps.items():
        assert cloud.read(volume_id) == content
    assert cloud.leftovers() == []
    assert cloud.stray_keys() == []
    for row in cloud.rows("volumes"):
        if row["status"] == "available":
            assert cloud.read(row["id"]) in cases.ANY - {None}, row
        else:
            assert row["status"].startswith("error"), row
    known = {row["id"] for row in cloud.rows("backups")}
    stored = {path.name for path in (cloud.folder / "state" / "backups").glob("*")}
    assert stored <= known, "pieces of a backup without a row"
    for row in cloud.rows("snapshots"):
        assert row["status"] in ("available", "error", "error_deleting", "error_unmanaging"), row


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chaos]:
    originals = service.ACTIONS, service.MOVE_ACTIONS, service.BACKUP_ACTIONS
    chaos = Chaos(tmp_path_factory.mktemp("chaos"))
    service.ACTIONS, service.MOVE_ACTIONS, service.BACKUP_ACTIONS = map(chaos.faults.wrap, originals)
    chaos.cloud.start()
    yield chaos
    chaos.cloud.stop()
    service.ACTIONS, service.MOVE_ACTIONS, service.BACKUP_ACTIONS = originals


@pytest.fixture
def chaos(shared: Chaos) -> Iterator[Chaos]:
    yield shared
    shared.faults.disarm()
    shared.cloud.forget()
    Engine.probe = None


def test_every_kind_has_a_case() -> None:
    assert set(CASES) == set(ACTIONS.kinds()), "say in tests/crash/volume_cases.py how a new kind starts"


def is_repeated(kind: str) -> bool:
    """Those that only go forward are tried again; others fail the first time."""
    return not ACTIONS[kind].undo_on_failure


@pytest.mark.parametrize("mode", ["driver_error", "unexpected"])
@pytest.mark.parametrize(("kind", "step"), cases.every_step())
def test_a_step_fails_once(chaos: Chaos, kind: str, step: str, mode: str) -> None:
    case = CASES[kind]
    scene = case.prepare(chaos.cloud)
    chaos.faults.arm(kind, step, mode)
    case.begin(chaos.cloud, scene)
    chaos.ends(kind, scene, done=is_repeated(kind))


@pytest.mark.parametrize(("kind", "step"), [each for each in cases.every_step() if is_repeated(each[0])])
def test_a_step_always_fails(chaos: Chaos, kind: str, step: str) -> None:
    """It is given up, and says so; what failed before its effect has lost nothing."""
    case = CASES[kind]
    scene = case.prepare(chaos.cloud)
    chaos.faults.arm(kind, step, "driver_error", times=3)
    case.begin(chaos.cloud, scene)
    chaos.cloud.settle()
    chaos.ends(kind, scene, done=False)
    told = {row["resource_id"] for row in chaos.cloud.rows("volume_messages")}
    assert scene.resource in told


@pytest.mark.parametrize(("kind", "step"), cases.every_step())
def test_a_step_runs_twice(chaos: Chaos, kind: str, step: str) -> None:
    case = CASES[kind]
    scene = case.prepare(chaos.cloud)
    chaos.faults.arm(kind, step, "twice")
    case.begin(chaos.cloud, scene)
    chaos.ends(kind, scene, done=True)


@pytest.mark.parametrize(("kind", "step"), cases.every_undo())
def test_an_undo_fails_once(chaos: Chaos, kind: str, step: str) -> None:
    case = CASES[kind]
    scene = case.prepare(chaos.cloud)
    chaos.faults.arm(kind, cases.last_step(kind), "unexpected")
    chaos.faults.arm(kind, step, "undo_error")
    case.begin(chaos.cloud, scene)
    chaos.ends(kind, scene, done=False)


def can_be_overtaken(kind: str) -> bool:
    type_ = kind.partition(".")[0]
    return type_ in ("volume", "snapshot") and not kind.endswith(".force_delete")


class Pause:
    """Holds the worker at one point until the test lets it go."""

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
    case = CASES[kind]
    scene = case.prepare(chaos.cloud)
    pause = Pause(kind, step, where)
    case.begin(chaos.cloud, scene)
    assert pause.reached.wait(20)
    type_ = f"{kind.partition('.')[0]}s"
    if kind in ("volume.migrate", "volume.retype"):
        # while a volume moves not even force deletes it, as upstream: first the move is given up
        reset = {"os-reset_status": {"migration_status": "error"}}
        chaos.cloud.api.post(f"/volumes/{scene.resource}/action", reset, as_=ADMIN, status=202)
    path = f"/{type_}/{scene.resource}/action"
    snapshots = [row for row in chaos.cloud.rows("snapshots") if row["volume_id"] == scene.resource]
    refused = bool(type_ == "volumes" and snapshots)  # the API deletes no volume that has snapshots
    status = 400 if refused else 202
    chaos.cloud.api.post(path, {"os-force_delete": {}}, as_=ADMIN, status=status)
    pause.go.set()
    chaos.cloud.settle()
    if refused:
        return
    assert chaos.cloud.row(type_, scene.resource) is None
    scene.keeps.pop(scene.resource, None)
    assert_nothing_lost(chaos.cloud, scene)
