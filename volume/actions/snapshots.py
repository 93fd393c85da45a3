"""Steps of the intents on snapshots: each is one call of the driver, idempotent by the snapshot's id."""

from __future__ import annotations

from typing import Any

from lifecycle.steps import Action, Run, Step
from volume.actions.volumes import ACTIONS
from volume.worker import VolumeWorker


def _create(run: Run) -> dict[str, Any]:
    worker: VolumeWorker = run.worker
    return {"provider_location": worker.driver.create_snapshot(worker.snapshot(run.resource_id))}


def _remove(run: Run) -> None:
    worker: VolumeWorker = run.worker
    snapshot = worker.snapshot_or_none(run.resource_id)
    if snapshot is not None:
        worker.driver.delete_snapshot(snapshot)


_DELETE = (Step("data", _remove, no_undo="what is deleted stays so"),)
for _action in (
    Action("snapshot.create", (Step("data", _create, _remove),)),
    Action("snapshot.delete", _DELETE, undo_on_failure=False),
    Action("snapshot.force_delete", _DELETE, undo_on_failure=False),
):
    ACTIONS.add(_action)
