"""Steps of the intents on snapshots: each is one call of the driver, idempotent by the snapshot's id.

But for a volume that a guest has open on a backend that can't take snapshots of such (``snapshots_by_hosts``): the
Compute API is asked to have the guest's host make a copy (``api/compute/assisted_snapshots.py``), and the
snapshot's progress says when it is whole. Which may last: so snapshots are made in the threads of what waits for others.
"""

from __future__ import annotations

import time
from typing import Any

from keystoneauth1 import exceptions as ks_exc

from core.clients import configured, service_adapter
from core.errors import DriverError
from lifecycle.steps import Action, Run, Step
from volume.actions.moves import MOVES
from volume.actions.volumes import ACTIONS
from volume.drivers.base import Location, Snapshot
from volume.worker import VolumeWorker

COPIED = 90
"""per cent: the host has done its part"""
_FIRST_POLL_S, _MOST_POLL_S = 0.1, 2.0


def _create(run: Run) -> dict[str, Any]:
    worker: VolumeWorker = run.worker
    snapshot = worker.snapshot(run.resource_id)
    by_host = snapshot.volume.in_use and worker.driver.snapshots_by_hosts(snapshot.volume)
    begun = worker.snapshot_row(run.resource_id)["progress"] >= COPIED
    if begun or (by_host and configured(worker.conf)):
        return {"provider_location": _by_host(run, worker, snapshot)}
    return {"provider_location": worker.driver.create_snapshot(snapshot)}


def _by_host(run: Run, worker: VolumeWorker, snapshot: Snapshot) -> Location:
    target = worker.driver.prepare_copy(snapshot)
    deadline = time.monotonic() + worker.conf.volume_worker.host_snapshot_s
    asked, pause = False, _FIRST_POLL_S
    while True:
        row = worker.snapshot_row(snapshot.id)
        if row["status"] == "error":
            raise DriverError("The host of the volume's server could not take the snapshot.")
        if row["progress"] >= COPIED:
            return worker.driver.take_copy(snapshot)
        if time.monotonic() > deadline:
            raise DriverError("The host of the volume's server has not taken the snapshot in time.")
        asked = asked or _ask(worker, row["volume_id"], snapshot.id, target)
        run.check_cancelled()
        time.sleep(pause)
        pause = min(pause * 1.5, _MOST_POLL_S)


def _ask(worker: VolumeWorker, volume_id: str, snapshot_id: str, target: str) -> bool:
    """Was it heard? :raises DriverError: it is refused."""
    info = {"snapshot_id": snapshot_id, "type": "copy", "new_file": target}
    body = {"snapshot": {"volume_id": volume_id, "create_info": info}}
    try:
        answer = service_adapter(worker.conf, "compute").post(
            "/os-assisted-volume-snapshots", json=body, raise_exc=False
        )
    except ks_exc.ClientException:
        return False
    if answer.status_code == 200:  # also of what an earlier attempt has asked for
        return True
    if answer.status_code == 409 or answer.status_code >= 500:
        return False  # something else goes on with the server, or nobody is there: later
    raise DriverError(f"The Compute API takes no snapshot of the attached volume ({answer.status_code}).")


def _remove(run: Run) -> None:
    worker: VolumeWorker = run.worker
    snapshot = worker.snapshot_or_none(run.resource_id)
    if snapshot is not None:
        worker.driver.delete_snapshot(snapshot)


def _manage(run: Run) -> dict[str, Any]:
    worker: VolumeWorker = run.worker
    snapshot = worker.snapshot(run.resource_id)
    location, size = worker.driver.manage_snapshot(snapshot, run.arguments["ref"])
    return {"provider_location": location, "size_gib": size}


def _unmanage(run: Run) -> None:
    worker: VolumeWorker = run.worker
    snapshot = worker.snapshot_or_none(run.resource_id)
    if snapshot is not None:
        worker.driver.unmanage_snapshot(snapshot)


_DELETE = (Step("data", _remove, no_undo="what is deleted stays so"),)
MOVES.add(Action("snapshot.create", (Step("data", _create, _remove),)))
for _action in (
    Action("snapshot.delete", _DELETE, undo_on_failure=False),
    Action("snapshot.force_delete", _DELETE, undo_on_failure=False),
    Action("snapshot.manage", (Step("take_over", _manage, _unmanage),)),
    Action(
        "snapshot.unmanage",
        (Step("let_go", _unmanage, no_undo="the data stays where it is"),),
        undo_on_failure=False,
    ),
):
    ACTIONS.add(_action)
