"""Keys of encrypted volumes: whatever fails, repeats or dies, none is left behind and none is lost too early.

The cases are those of ``volume_cases``, with a type that is encrypted; backends are simulated, the key
manager is the real one over the same database.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lifecycle.engine import Engine
from tests.crash import volume_cases as cases
from tests.crash.test_volume_kill import Victim
from tests.crash.test_volume_steps import Chaos, is_repeated
from tests.crash.volume_cases import CASES
from volume import service

KEYS = [(kind, step) for kind, step in cases.every_step() if step in ("key", "keys")]
BEHIND = [
    ("volume.create", "data"),
    ("volume.upload_image", "upload"),
    ("backup.create", "data"),
    ("group.create", "volumes"),
]
"""What fails once there is a key: the key must go."""
UNDONE = [each for each in cases.every_undo() if each in KEYS]
DYING = [
    ("volume.create", "key", "kill_before"),
    ("volume.create", "key", "kill_after"),
    ("volume.create", "data", "kill_after"),
    ("volume.force_delete", "key", "kill_before"),
    ("volume.force_delete", "key", "kill_after"),
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chaos]:
    originals = service.ACTIONS, service.MOVE_ACTIONS, service.BACKUP_ACTIONS
    chaos = Chaos(tmp_path_factory.mktemp("encrypted"), encrypted=True)
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


def test_every_kind_that_makes_or_ends_something_encrypted_minds_its_key() -> None:
    assert {kind for kind, _ in KEYS} == {
        "volume.create",
        "volume.delete",
        "volume.force_delete",
        "volume.upload_image",
        "backup.create",
        "backup.delete",
        "backup.force_delete",
        "backup.import",
        "group.create",
        "group.delete",
    }


@pytest.mark.parametrize(("kind", "step"), [*KEYS, *BEHIND])
def test_a_step_fails_once(chaos: Chaos, kind: str, step: str) -> None:
    scene = CASES[kind].prepare(chaos.cloud)
    chaos.faults.arm(kind, step, "unexpected")
    CASES[kind].begin(chaos.cloud, scene)
    chaos.ends(kind, scene, done=is_repeated(kind))


@pytest.mark.parametrize(("kind", "step"), KEYS)
def test_a_step_runs_twice(chaos: Chaos, kind: str, step: str) -> None:
    scene = CASES[kind].prepare(chaos.cloud)
    chaos.faults.arm(kind, step, "twice")
    CASES[kind].begin(chaos.cloud, scene)
    chaos.ends(kind, scene, done=True)
    assert chaos.cloud.rows("secrets") or "delete" in kind


@pytest.mark.parametrize(("kind", "step"), UNDONE)
def test_an_undo_fails_once(chaos: Chaos, kind: str, step: str) -> None:
    scene = CASES[kind].prepare(chaos.cloud)
    chaos.faults.arm(kind, cases.last_step(kind), "unexpected")
    chaos.faults.arm(kind, step, "undo_error")
    CASES[kind].begin(chaos.cloud, scene)
    chaos.ends(kind, scene, done=False)


@pytest.fixture(scope="module")
def shared_victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    victim = Victim(tmp_path_factory.mktemp("dying"), "simulated", encrypted=True)
    victim.start()
    yield victim
    victim.stop()


@pytest.fixture
def victim(shared_victim: Victim) -> Iterator[Victim]:
    yield shared_victim
    shared_victim.faults.disarm()
    shared_victim.cloud.forget()


@pytest.mark.parametrize(("kind", "step", "mode"), DYING)
def test_killed_at_a_step(victim: Victim, kind: str, step: str, mode: str) -> None:
    scene, deaths = CASES[kind].prepare(victim.cloud), victim.worker.deaths
    victim.faults.arm(kind, step, mode)
    CASES[kind].begin(victim.cloud, scene)
    victim.ends(kind, scene, deaths + 1, done=True)


def test_killed_while_the_key_is_taken_back(victim: Victim) -> None:
    scene, deaths = CASES["volume.create"].prepare(victim.cloud), victim.worker.deaths
    victim.faults.arm("volume.create", "data", "unexpected")
    victim.faults.arm("volume.create", "key", "kill_undo")
    CASES["volume.create"].begin(victim.cloud, scene)
    victim.ends("volume.create", scene, deaths + 1, done=False)
