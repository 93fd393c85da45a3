"""Steps of the intents that exchange a volume's data with an image.

| kind | step | does | undo |
|---|---|---|---|
| volume.upload_image | key | of an encrypted volume: the image gets a copy, and names it | it goes |
| | upload | the volume's data become the image's, as they are | the image, which is not whole, goes |
| volume.reimage | clear, data | the old data go, the image's come | none: what was there before is gone |
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from core import qemu_img
from core.keys import name_of_image
from lifecycle.steps import Action, Run, Step
from volume.actions import keys
from volume.actions.volumes import ACTIONS, write_image
from volume.worker import VolumeWorker


def _give_key(run: Run) -> None:
    worker: VolumeWorker = run.worker
    keys.copy_for_image(worker, run.resource_id, run.arguments["image_id"])


def _take_key(run: Run) -> None:
    worker: VolumeWorker = run.worker
    if worker.volume_row(run.resource_id)["encrypted"]:
        worker.keys.delete(name_of_image(run.arguments["image_id"]))


def _upload(run: Run) -> None:
    worker: VolumeWorker = run.worker
    image_id, disk_format = run.arguments["image_id"], run.arguments["disk_format"]
    if worker.image_is_active(image_id):
        return  # a repeat: an active image's data never change
    with worker.driver.connect(worker.volume(run.resource_id)) as path:
        if disk_format == "raw":
            worker.upload(image_id, path)
            return
        folder = Path(worker.conf.state_path) / "volume-images"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=f"{image_id}.") as made:
            target = Path(made) / "image"
            kind = qemu_img.qemu_name(disk_format)
            qemu_img.qemu_img(worker.conf, "convert", "-f", "raw", "-O", kind, str(path), str(target))
            run.check_cancelled()
            worker.upload(image_id, target)


def _delete_image(run: Run) -> None:
    worker: VolumeWorker = run.worker
    worker.delete_image(run.arguments["image_id"])


def _clear(run: Run) -> None:
    worker: VolumeWorker = run.worker
    worker.driver.delete(worker.volume(run.resource_id))


def _reimage(run: Run) -> dict[str, Any]:
    worker: VolumeWorker = run.worker
    volume = worker.volume(run.resource_id)
    return {"provider_location": write_image(run, worker, volume, run.arguments)}


for _action in (
    Action(
        "volume.upload_image",
        (Step("key", _give_key, _take_key), Step("upload", _upload, _delete_image)),
    ),
    Action(
        "volume.reimage",
        (
            # on record before the next step: repeated behind it, it would take the new data
            Step("clear", _clear, no_undo="what was there before is gone", durable=True),
            Step("data", _reimage, no_undo="what was there before is gone"),
        ),
    ),
):
    ACTIONS.add(_action)
