"""Steps of the intents on backups.

| kind | step | does | undo |
|---|---|---|---|
| backup.create | freeze | of an attached volume a snapshot, so that the data stand still | it goes |
| | key | of an encrypted volume: a copy, so that the backup outlives the volume | it goes |
| | data | pieces, then the manifest; a repeat goes on where it was | all of it goes |
| | thaw | the snapshot goes | forward only |
| backup.restore | data | pieces, each checked, over the volume's data; a new volume does that itself | none |
| backup.import | check | the manifest is there and whole | none |
| | key | of an encrypted backup: a copy of the key that the record names | it goes |
| backup.delete | data, key | the manifest, then the pieces, then the key | forward only |

What is backed up of an encrypted volume is what is on its backend: ciphertext with its header.

They run in threads of their own (``volume.taker``): a restore waits for the volume that is made
from the backup, and must not hold the thread that would make it.
"""

from __future__ import annotations

import time
from typing import Any

from core.errors import DriverError
from core.keys import name_of_backup
from lifecycle.steps import Action, Registry, Run, Step
from volume.actions import keys
from volume.backup import chunks
from volume.backup.worker import BackupWorker
from volume.drivers.base import Snapshot
from volume.worker import VolumeWorker

_POLL_S = 0.2


def _frozen(run: Run, worker: VolumeWorker) -> Snapshot:
    """The snapshot that lives as long as the backup is being made; it has no row."""
    volume = worker.volume(run.arguments["volume_id"])
    location = (run.results.get("freeze") or {}).get("location")
    return Snapshot(id=run.resource_id, volume=volume, size_gib=volume.size_gib, location=location)


def _freeze(run: Run) -> dict[str, Any] | None:
    backup: BackupWorker = run.worker
    worker = backup.of_volume(run.arguments["volume_id"])
    snapshot = _frozen(run, worker)
    if run.arguments["snapshot_id"] or not snapshot.volume.in_use:
        return None
    return {"location": worker.driver.create_snapshot(snapshot)}


def _thaw(run: Run) -> Any:
    backup: BackupWorker = run.worker
    worker = backup.of_volume(run.arguments["volume_id"])
    worker.driver.delete_snapshot(_frozen(run, worker))
    return run.results.get("data")


def _create(run: Run) -> dict[str, Any]:
    backup: BackupWorker = run.worker
    arguments = run.arguments
    worker = backup.of_volume(arguments["volume_id"])
    source: Any = worker.volume(arguments["volume_id"])
    if arguments["snapshot_id"]:
        source = worker.snapshot(arguments["snapshot_id"])
    elif run.results["freeze"] is not None:
        source = _frozen(run, worker)
    row = backup.volume_row(arguments["volume_id"])
    with worker.driver.open(source) as opened:
        made = chunks.backup(
            backup.conf,
            backup.target(),
            run.resource_id,
            opened,
            lambda _bytes: run.check_cancelled(),
            parent_id=arguments["parent_id"],
            about={
                "volume_id": arguments["volume_id"],
                "size_gib": source.size_gib,
                "header_bytes": source.size_bytes - (source.size_gib << 30),
                "bootable": bool(row["bootable"]),
                "image_metadata": row["image_metadata"],
            },
            most=source.size_bytes,
        )
    return {
        **(run.results["key"] or {}),
        "object_count": made["new_pieces"] + 1,
        "service": backup.service,
        "host": backup.host,
        "container": arguments["container"],
        "service_metadata": {"format": made["format"]},
    }


def _copy_key(run: Run) -> dict[str, Any] | None:
    backup: BackupWorker = run.worker
    volume_id = run.arguments["volume_id"]
    made = keys.copy_for_backup(backup.of_volume(volume_id), volume_id, run.resource_id)
    return None if made is None else {"encryption_key_id": made}


def _import_key(run: Run) -> dict[str, Any]:
    """The record's key may be another's, and is deleted with that: so a copy."""
    backup: BackupWorker = run.worker
    found: dict[str, Any] = dict(run.results["check"])
    named = run.arguments["record"].get("encryption_key_id")
    if named:
        found["encryption_key_id"] = backup.keys.copy(named, name_of_backup(run.resource_id))
    return found


def _drop_key(run: Run) -> None:
    """Also of one that is not whole yet, whose row does not name its key."""
    backup: BackupWorker = run.worker
    encrypted = bool(run.arguments.get("record", {}).get("encryption_key_id"))
    if run.kind == "backup.create":
        encrypted = bool(backup.volume_row(run.arguments["volume_id"])["encrypted"])
    elif not encrypted:
        encrypted = backup.row(run.resource_id)["encryption_key_id"] is not None
    if encrypted:
        backup.keys.delete(name_of_backup(run.resource_id))


def _remove(run: Run) -> None:
    backup: BackupWorker = run.worker
    chunks.delete(backup.target(), run.resource_id)


def _restore(run: Run) -> None:
    backup: BackupWorker = run.worker
    volume_id = run.arguments["volume_id"]
    if run.arguments["new_volume"]:
        _wait_for(run, backup, volume_id)
        return
    worker = backup.of_volume(volume_id)
    volume = worker.volume(volume_id)
    with worker.driver.open(volume, write=True) as opened:
        chunks.restore(backup.target(), run.resource_id, opened, lambda _bytes: run.check_cancelled())
    if volume.header_bytes:  # the header came along: the volume's own key must open it
        passphrase = backup.keys.passphrase(str(backup.row(run.resource_id)["encryption_key_id"]))
        keys.encrypter(worker, volume_id).rekey(volume, passphrase)


def _wait_for(run: Run, backup: BackupWorker, volume_id: str) -> None:
    """``volume.create`` writes the backup's data: the volume is available when they are whole."""
    while (status := backup.volume_row(volume_id)["status"]) == "creating":
        run.check_cancelled()
        time.sleep(_POLL_S)
    if status.startswith("error"):
        raise DriverError(f"volume {volume_id} could not be made from the backup")


def _check(run: Run) -> dict[str, Any]:
    backup: BackupWorker = run.worker
    found = chunks.manifest(backup.target(), run.resource_id)
    row, header = backup.row(run.resource_id), found["about"].get("header_bytes", 0)
    if (row["size_gib"] << 30) + header != found["size"] or row["parent_id"] != found["parent_id"]:
        raise DriverError("the record does not fit the backup that is stored")
    return {"service": backup.service, "host": backup.host, "object_count": found["new_pieces"] + 1}


_GONE = "what is deleted stays so"
_DELETE = (Step("data", _remove, no_undo=_GONE), Step("key", _drop_key, no_undo=_GONE))
ACTIONS = Registry(
    Action(
        "backup.create",
        (
            Step("freeze", _freeze, _thaw),
            Step("key", _copy_key, _drop_key),
            Step("data", _create, _remove, durable=True),
            Step("thaw", _thaw, no_undo="the snapshot was for the copy only"),
        ),
    ),
    Action("backup.restore", (Step("data", _restore, no_undo="what was there before is gone"),)),
    Action(
        "backup.import", (Step("check", _check, no_undo="it only reads"), Step("key", _import_key, _drop_key))
    ),
    Action("backup.delete", _DELETE, undo_on_failure=False),
    Action("backup.force_delete", _DELETE, undo_on_failure=False),
)
