"""The keys of encrypted things: made before the data, deleted behind them, found by name in between.

A key is named after what it opens, so making it again after a crash finds the first one, and an undo or a
deletion needs to know nothing but the id of the volume, backup or image. A copy of a volume has
a key of its own with the same content, as upstream: each outlives the other.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from core.errors import BadRequest, DriverError, NotFound
from core.keys import name_of_backup, name_of_image, name_of_volume
from db.volume_base import backups, snapshots, volumes
from volume.drivers.base import Location, Volume
from volume.encryption import Encrypter
from volume.worker import VolumeWorker

_ORIGINS = {
    "snapshot": (snapshots, "snapshot_id"),
    "volume": (volumes, "volume_id"),
    "backup": (backups, "backup_id"),
}


def make(worker: VolumeWorker, volume_id: str, source: dict[str, Any]) -> str | None:
    """The id of a new volume's key; a copy has its original's content.

    None: the volume is not encrypted, or the new place of one, whose key stays."""
    if not worker.volume_row(volume_id)["encrypted"] or source["kind"] == "migration":
        return None
    name = name_of_volume(volume_id)
    if source["kind"] not in _ORIGINS:
        return worker.keys.create(name)
    table, key = _ORIGINS[source["kind"]]
    with worker.databases.global_.read() as connection:
        statement = sa.select(table.c.encryption_key_id).where(table.c.id == source[key])
        origin = connection.execute(statement).scalar()
    if origin is None:
        # a fresh key would not open what is copied
        raise DriverError(f"the {source['kind']} that the volume is made from has no key")
    return worker.keys.copy(origin, name)


def drop(worker: VolumeWorker, volume_id: str) -> None:
    """No key of the volume is left; its row is still there, or never was."""
    try:
        encrypted = worker.volume_row(volume_id)["encrypted"]
    except NotFound:
        return
    if encrypted:
        worker.keys.delete(name_of_volume(volume_id))


def encrypter(worker: VolumeWorker, volume_id: str, key_id: str | None = None) -> Encrypter:
    """What makes the volume's data; ``key_id`` while its row does not name the key yet."""
    key_id = key_id or worker.volume_row(volume_id)["encryption_key_id"]
    luks = worker.luks(volume_id)
    if key_id is None or luks is None:
        raise DriverError(f"volume {volume_id} has no key")
    return Encrypter(worker.conf, worker.driver, luks, worker.keys.passphrase(key_id))


def write_image(
    worker: VolumeWorker, volume: Volume, key_id: str | None, image: dict[str, Any], found: Any
) -> Location:
    """An encrypted volume with an image's content, which may be encrypted itself.

    ``image``: {"id", "key_id"}. ``found``: (path, qemu_format, progress).
    """
    path, qemu_format, progress = found
    passphrase = None
    if image["key_id"] is not None:
        passphrase = worker.keys.passphrase(of_image(worker, image["id"], image["key_id"]))
    return encrypter(worker, volume.id, key_id).write_image(volume, path, qemu_format, progress, passphrase)


def of_image(worker: VolumeWorker, image_id: str, key_id: str) -> str:
    """The key, if it is this image's. An image's properties are its owner's to write: without
    this whoever has another's ciphertext could have it opened by naming the key.

    :raises BadRequest: it is another's.
    """
    if worker.keys.name(key_id) != name_of_image(image_id):
        raise BadRequest(f"The key that image {image_id} names is not this image's.")
    return key_id


def copy_for_backup(worker: VolumeWorker, volume_id: str, backup_id: str) -> str | None:
    """The id of the backup's key; None: the volume is not encrypted."""
    row = worker.volume_row(volume_id)
    if not row["encrypted"]:
        return None
    if row["encryption_key_id"] is None:
        raise DriverError(f"volume {volume_id} has no key")
    return worker.keys.copy(row["encryption_key_id"], name_of_backup(backup_id))


def copy_for_image(worker: VolumeWorker, volume_id: str, image_id: str) -> str | None:
    """The id of the image's key, which the image then names; None: the volume is not encrypted."""
    row = worker.volume_row(volume_id)
    if not row["encrypted"]:
        return None
    if row["encryption_key_id"] is None:
        raise DriverError(f"volume {volume_id} has no key")
    key_id = worker.keys.copy(row["encryption_key_id"], name_of_image(image_id))
    properties = {
        "cinder_encryption_key_id": key_id,
        "cinder_encryption_key_deletion_policy": "on_image_deletion",
    }
    worker.set_image_properties(image_id, properties)
    return key_id
