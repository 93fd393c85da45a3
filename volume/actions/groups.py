"""Steps of the intents on groups: the volumes and snapshots of a group, one after the other.

The rows of the members are written by the API with the group's intent; each driver call
is idempotent by the member's id, so a step may begin again at its first member.
"""

from __future__ import annotations

from typing import Any

from core.errors import NotFound
from lifecycle.steps import Action, Run, Step
from volume.actions import keys
from volume.actions.volumes import ACTIONS
from volume.worker import VolumeWorker


def _make_keys(run: Run) -> dict[str, Any]:
    worker: VolumeWorker = run.worker
    made = {}
    for pair in run.arguments["volume_ids"]:
        source = {"kind": "snapshot", "snapshot_id": pair["snapshot_id"]}
        if not pair["snapshot_id"]:
            source = {"kind": "volume", "volume_id": pair["source_volume_id"]}
        made[pair["id"]] = keys.make(worker, pair["id"], source)
    return made


def _drop_keys(run: Run) -> None:
    for each in run.arguments["volume_ids"]:
        keys.drop(run.worker, each["id"] if isinstance(each, dict) else each)


def _create(run: Run) -> dict[str, Any]:
    worker: VolumeWorker = run.worker
    locations = {}
    for pair in run.arguments["volume_ids"]:
        run.check_cancelled()
        volume = worker.volume(pair["id"])
        if pair["snapshot_id"]:
            made = worker.driver.create_from_snapshot(volume, worker.snapshot(pair["snapshot_id"]))
        else:
            made = worker.driver.clone(volume, worker.volume(pair["source_volume_id"]))
        locations[pair["id"]] = made
    return {"members": locations, "keys": run.results["keys"]}


def _remove(run: Run) -> None:
    worker: VolumeWorker = run.worker
    for each in run.arguments["volume_ids"]:
        try:
            volume = worker.volume(each["id"] if isinstance(each, dict) else each)
        except NotFound:
            continue
        worker.driver.delete(volume)


def _create_snapshots(run: Run) -> dict[str, Any]:
    worker: VolumeWorker = run.worker
    locations = {}
    for snapshot_id in run.arguments["snapshot_ids"]:
        run.check_cancelled()
        locations[snapshot_id] = worker.driver.create_snapshot(worker.snapshot(snapshot_id))
    return {"members": locations}


def _remove_snapshots(run: Run) -> None:
    worker: VolumeWorker = run.worker
    for snapshot_id in run.arguments["snapshot_ids"]:
        snapshot = worker.snapshot_or_none(snapshot_id)
        if snapshot is not None:
            worker.driver.delete_snapshot(snapshot)


_GONE = "what is deleted stays so"
for _action in (
    Action("group.create", (Step("keys", _make_keys, _drop_keys), Step("volumes", _create, _remove))),
    Action(
        "group.delete",
        (Step("volumes", _remove, no_undo=_GONE), Step("keys", _drop_keys, no_undo=_GONE)),
        undo_on_failure=False,
    ),
    Action("group_snapshot.create", (Step("snapshots", _create_snapshots, _remove_snapshots),)),
    Action(
        "group_snapshot.delete",
        (Step("snapshots", _remove_snapshots, no_undo=_GONE),),
        undo_on_failure=False,
    ),
):
    ACTIONS.add(_action)
