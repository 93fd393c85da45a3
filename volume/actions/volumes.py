"""Steps of the intents on volumes.

| kind | step | does | undo |
|---|---|---|---|
| volume.create | key | of an encrypted volume: made, or copied with what it is a copy of | it goes |
| | data | empty, cloned, or written from an image or a backup | the data goes |
| volume.delete | snapshots, data, key | with cascade the snapshots first; the key when nothing is left to open | forward only |
| volume.extend | data, servers | larger; compute is told, so that guests see it | none: a larger volume loses nothing |
| volume.revert | data | the snapshot's content again | none: what was there before is gone |
| volume.manage | take_over | an existing thing becomes the volume | it is let go again |
| volume.unmanage | let_go | the data stays where it is | forward only |

Every driver method is idempotent by the volume's id, so a step may be repeated.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import Any

from keystoneauth1 import exceptions as ks_exc
from oslo_config import cfg

from core import qemu_img
from core.clients import configured, service_adapter
from core.errors import DriverError, NotFound
from lifecycle.steps import Action, Registry, Run, Step
from volume.actions import keys
from volume.backup import chunks, targets
from volume.drivers.base import Location, Volume
from volume.worker import VolumeWorker

LOG = logging.getLogger(__name__)
_TELL_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)


def _worker(run: Run) -> VolumeWorker:
    worker: VolumeWorker = run.worker
    return worker


def _make_key(run: Run) -> dict[str, Any] | None:
    made = keys.make(_worker(run), run.resource_id, run.arguments["source"])
    return None if made is None else {"encryption_key_id": made}


def _drop_key(run: Run) -> None:
    keys.drop(_worker(run), run.resource_id)


def _create(run: Run) -> dict[str, Any]:
    worker, source = _worker(run), run.arguments["source"]
    volume = worker.volume(run.resource_id)
    made = {"provider_location": _make(run, worker, volume, source), **(run.results["key"] or {})}
    if source["kind"] == "backup":
        # a volume that could boot does so when it comes back; backups of before know nothing of it
        about = chunks.manifest(targets.load(worker.conf), source["backup_id"])["about"]
        made.update({key: about[key] for key in ("bootable", "image_metadata") if about.get(key)})
    return made


def _make(run: Run, worker: VolumeWorker, volume: Volume, source: dict[str, Any]) -> Location:
    kind, driver = source["kind"], worker.driver
    if kind == "migration":
        return driver.create(volume)  # all of it is copied, the header of an encrypted one, too
    if kind == "empty":
        if volume.header_bytes:
            return keys.encrypter(worker, volume.id, _key_id(run)).create(volume)
        return driver.create(volume)
    if kind == "snapshot":
        return driver.create_from_snapshot(volume, worker.snapshot(source["snapshot_id"]))
    if kind == "volume":
        return driver.clone(volume, worker.volume(source["volume_id"]))
    if kind == "image":
        return write_image(run, worker, volume, source)
    if kind == "backup":
        return _write_backup(run, worker, volume, source["backup_id"])
    raise DriverError(f"a volume can't be made from a {kind}")


def _write_backup(run: Run, worker: VolumeWorker, volume: Volume, backup_id: str) -> Location:
    location = worker.driver.create(volume)
    made = dataclasses.replace(volume, location=location)
    with worker.driver.open(made, write=True) as opened:
        chunks.restore(targets.load(worker.conf), backup_id, opened, lambda _bytes: run.check_cancelled())
    return location


def _key_id(run: Run) -> str | None:
    """Of the volume that is being made; None: its row names it already."""
    return (run.results.get("key") or {}).get("encryption_key_id")


def _clone_image(worker: VolumeWorker, volume: Volume, source: dict[str, Any]) -> Location:
    """Copy on write from where the image lies, only of raw content without a LUKS header; None: it has to be copied."""
    plain = not volume.header_bytes and not source["image"].get("key_id")
    if not worker.driver.clones_images or source["image"]["disk_format"] != "raw" or not plain:
        return None
    made = worker.driver.clone_image(volume, worker.image_locations(source["image_id"]))
    return made if isinstance(made, dict) else None


def write_image(run: Run, worker: VolumeWorker, volume: Volume, source: dict[str, Any]) -> Location:
    """``source``: {"image_id":, "image": {"disk_format":, "key_id": of an encrypted image}}"""
    if cloned := _clone_image(worker, volume, source):
        return cloned
    with worker.image(source["image_id"]) as path:
        disk_format = qemu_img.check_content(path, source["image"]["disk_format"])
        if not volume.header_bytes:
            return worker.driver.write_image(volume, path, disk_format, lambda _bytes: run.check_cancelled())
        image = {"id": source["image_id"], "key_id": source["image"].get("key_id")}
        found = (path, disk_format, lambda _bytes: run.check_cancelled())
        return keys.write_image(worker, volume, _key_id(run), image, found)


def _remove(run: Run) -> None:
    worker = _worker(run)
    try:
        volume = worker.volume(run.resource_id)
    except NotFound:
        return
    worker.driver.delete(volume)


def _delete_snapshots(run: Run) -> None:
    worker = _worker(run)
    for snapshot_id in run.arguments["snapshot_ids"]:
        run.check_cancelled()
        snapshot = worker.snapshot_or_none(snapshot_id)
        if snapshot is not None:
            worker.driver.delete_snapshot(snapshot)


def _extend(run: Run) -> dict[str, Any]:
    worker, size = _worker(run), run.arguments["size_gib"]
    volume = worker.volume(run.resource_id, run.arguments["previous_gib"])
    worker.driver.extend(volume, size)
    return {"size_gib": size}


def _tell_servers(run: Run) -> dict[str, Any]:
    """Guests are shown the new size by the Compute API.

    What it does not take now is tried again for a while. Then the volume's owner is told: the guest
    sees the size at its next start, since hosts grow what they connect.
    """
    worker = _worker(run)
    waiting = list(run.arguments.get("server_ids") or []) if configured(worker.conf) else []
    why = ""
    for pause in (*_TELL_PAUSES_S, 0.0):
        if not waiting:
            break
        waiting, why = _tell(worker.conf, run.resource_id, waiting)
        if waiting:
            LOG.warning("compute does not take the new size of volume %s: %s", run.resource_id, why)
            run.check_fenced()
            time.sleep(pause)
    if waiting:
        worker.tell_owner(
            run.context,
            run.resource_id,
            "VOLUME_VOLUME_EXTEND",
            f"extend volume: it has its new size, but server {', '.join(waiting)} was not told ({why});"
            " it will see the size when it is stopped and started",
        )
    return {"size_gib": run.arguments["size_gib"]}


def _tell(conf: cfg.ConfigOpts, volume_id: str, server_ids: list[str]) -> tuple[list[str], str]:
    """(the servers that are not told yet, why): an answer of 207 has a code for each of them."""
    event = {"name": "volume-extended", "tag": volume_id, "status": "completed"}
    try:
        answer = service_adapter(conf, "compute").post(
            "/os-server-external-events",
            json={"events": [{**event, "server_uuid": server_id} for server_id in server_ids]},
            headers={"OpenStack-API-Version": "compute 2.51"},
            raise_exc=False,
        )
    except ks_exc.ClientException as error:
        return server_ids, str(error)
    if answer.status_code == 404:
        return [], ""  # there are no such servers any more
    if answer.status_code not in (200, 207):
        return server_ids, f"it answered {answer.status_code}"
    codes = {each["server_uuid"]: int(each.get("code") or 200) for each in answer.json()["events"]}
    left = [each for each in server_ids if codes.get(each, 200) not in (200, 404)]
    return left, ", ".join(f"{codes[each]} for server {each}" for each in left)


def _revert(run: Run) -> dict[str, Any]:
    worker = _worker(run)
    snapshot = worker.snapshot(run.arguments["snapshot_id"])
    return {"provider_location": worker.driver.revert(worker.volume(run.resource_id), snapshot)}


def _manage(run: Run) -> dict[str, Any]:
    worker = _worker(run)
    location, size = worker.driver.manage(worker.volume(run.resource_id), run.arguments["ref"])
    return {"provider_location": location, "size_gib": size}


def _unmanage(run: Run) -> None:
    worker = _worker(run)
    worker.driver.unmanage(worker.volume(run.resource_id))


_DELETE = (
    Step("snapshots", _delete_snapshots, no_undo="what is deleted stays so"),
    Step("data", _remove, no_undo="what is deleted stays so"),
    Step("key", _drop_key, no_undo="what is deleted stays so"),
)
ACTIONS = Registry(
    Action("volume.create", (Step("key", _make_key, _drop_key), Step("data", _create, _remove))),
    Action("volume.delete", _DELETE, undo_on_failure=False),
    Action("volume.force_delete", _DELETE, undo_on_failure=False),
    Action(
        "volume.extend",
        (
            Step("data", _extend, no_undo="a larger volume loses nothing"),
            Step("servers", _tell_servers, no_undo="what is told is true"),
        ),
    ),
    Action("volume.revert", (Step("data", _revert, no_undo="what was there before is gone"),)),
    Action("volume.manage", (Step("take_over", _manage, _unmanage),)),
    Action(
        "volume.unmanage",
        (Step("let_go", _unmanage, no_undo="the data stays where it is"),),
        undo_on_failure=False,
    ),
)
