"""A server's volumes as its host deals with them: reserved, connected, known on the host, let go.

What the host has connected is written down on the host itself, one file per volume below
``[DEFAULT]state_path`` (readable for the agent only: how a volume is reached may hold secrets).
So what a host takes away is what it once connected: a host that comes back after its server was
built elsewhere touches nothing of the server's new place, and disconnects also when the Volume
API has forgotten the attachment.

The order is always: reserve → write down → connect → use → in use; and back: the guest lets go
→ disconnect → delete the attachment → forget.  Each may be repeated.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from oslo_config import cfg

from compute.drivers.base import ComputeDriver
from compute.volume_keys import VolumeKeys
from core.block_devices import driver_volume
from core.errors import DriverError, HaneulError, NotFound
from lifecycle import volume_client
from lifecycle.volume_client import VolumeApi

Volume = dict[str, Any]
"""as ``GuestSpec.volumes`` has it"""
Check = Callable[[], None]
OPTS: list[cfg.Opt] = [
    cfg.IntOpt(
        "block_device_allocate_retries",
        default=60,
        min=0,
        help="How often it is looked whether a new server's volume is made, before the server fails.",
    ),
    cfg.IntOpt(
        "block_device_allocate_retries_interval", default=3, min=0, help="Seconds between these looks."
    ),
]
_FIRST_PAUSE_S = 0.05
_BEING_MADE = ("creating", "downloading", "restoring-backup")


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [("DEFAULT", OPTS)]


class Records:
    """What this host has of servers' volumes: FOLDER/SERVER/VOLUME.json."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, server_id: str, volume_id: str) -> Path:
        return self._folder / server_id / f"{volume_id}.json"

    def get(self, server_id: str, volume_id: str) -> Volume | None:
        try:
            found: Volume = json.loads(self._path(server_id, volume_id).read_text())
        except FileNotFoundError:
            return None
        return found

    def of_server(self, server_id: str) -> list[Volume]:
        paths = sorted((self._folder / server_id).glob("*.json"))
        return [json.loads(path.read_text()) for path in paths]

    def put(self, server_id: str, volume: Volume) -> None:
        path = self._path(server_id, volume["volume_id"])
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # written beside and renamed: a kill between the two must not leave half a file
        part = path.with_suffix(f".{os.getpid()}")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(volume, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)

    def remove(self, server_id: str, volume_id: str) -> None:
        self._path(server_id, volume_id).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty yet, or never there
            (self._folder / server_id).rmdir()

    def forget(self, server_id: str) -> None:
        shutil.rmtree(self._folder / server_id, ignore_errors=True)


class Attachments:
    """One per agent; safe to share between threads that work on different servers."""

    def __init__(self, conf: cfg.ConfigOpts, host: str, driver: ComputeDriver) -> None:
        self._conf = conf
        self._driver = driver
        self.api = VolumeApi(conf)
        self._keys = VolumeKeys(conf)
        self.records = Records(Path(conf.state_path) / "attachments" / host)

    # -- to the host ---------------------------------------------------------------

    def wait_made(self, volume_id: str, check: Check) -> None:
        """Wait until a volume has its data. ``check`` raises when it is no longer wanted.

        :raises HaneulError: it could not be made, or not in time.
        """
        tries, interval = (
            self._conf.block_device_allocate_retries,
            self._conf.block_device_allocate_retries_interval,
        )
        began, pause = time.monotonic(), _FIRST_PAUSE_S
        while True:
            status = self.api.volume(volume_id)["status"]
            if status not in _BEING_MADE and not status.startswith("error"):
                return
            waited = time.monotonic() - began
            if status.startswith("error") or waited > tries * interval:
                raise HaneulError(
                    f"Volume {volume_id} did not finish being created even after we waited {int(waited)}"
                    f" seconds. And its status is {status}.",
                    code="haneul.volume_not_made",
                )
            check()
            time.sleep(min(pause, interval) if interval else _FIRST_PAUSE_S)
            pause *= 1.5

    def reserve(self, server_id: str, volume_id: str) -> str:
        """An attachment of the volume for the server, for this host alone; its id.

        :raises BadRequest: the volume is another server's. :raises NotFound: there is no such volume.
        """
        found = [row for row in self.api.attachments_of(server_id) if row["volume_id"] == volume_id]
        record = self.records.get(server_id, volume_id)
        mine = next((row for row in found if record and row["id"] == record["attachment_id"]), None)
        if mine is None:
            # first the new one: at no moment is the volume free for somebody else
            mine = self.api.reserve(volume_id, server_id)
            self.records.put(server_id, {"volume_id": volume_id, "attachment_id": mine["id"]})
        for row in found:
            if row["id"] != mine["id"]:
                # of an attempt that died before it could say so, or of a host that was given up
                self.api.delete_attachment(row["id"])
        return str(mine["id"])

    def connect(self, server_id: str, device: Mapping[str, Any]) -> Volume:
        """Make a reserved volume reachable on this host, as ``GuestSpec.volumes`` has it."""
        volume_id = device["volume_id"]
        record = self.records.get(server_id, volume_id)
        attachment_id = record["attachment_id"] if record else device["attachment_id"]
        attachment = self._reachable(self.api.attachment(attachment_id), device)
        return self._connected(server_id, device, attachment, self.api.volume(volume_id))

    def _reachable(self, attachment: Volume, device: Mapping[str, Any]) -> Volume:
        if attachment["connection_info"]:
            return attachment
        # beside what os-brick says, upstream names the device here: the Volume API shows it
        connector = {**self._driver.connector(), "mountpoint": device.get("device_name")}
        return self.api.connect(attachment["id"], connector)

    def _connected(
        self, server_id: str, device: Mapping[str, Any], attachment: Volume, facts: Volume
    ) -> Volume:
        info = attachment["connection_info"]
        volume = {
            **driver_volume(device),
            "attachment_id": attachment["id"],
            "connection_info": info,
            "size_gib": facts["size"],
            "mode": info.get("access_mode") or "rw",
            "multiattach": bool(facts.get("multiattach")),
            "encryption": None,
        }
        self.records.put(server_id, volume)
        volume = self._with_key(volume)
        self._driver.connect_volume(volume)
        return volume

    def _with_key(self, volume: Volume) -> Volume:
        """An encrypted volume with its passphrase, which no record and no result of a step ever holds."""
        return {**volume, "encryption": self._keys.encryption_of(volume)}

    def refresh(self, server_id: str, devices: Sequence[Mapping[str, Any]]) -> list[Volume]:
        """Connect again what a server has, by what the Volume API says of it now.

        :raises DriverError: an attachment is gone: somebody took it away behind our back.
        """
        volumes = []
        for device in devices:
            record = self.records.get(server_id, device["volume_id"]) or device
            try:
                attachment = self.api.attachment(record["attachment_id"])
            except NotFound as error:
                raise DriverError(
                    f"Volume {device['volume_id']} is not attached to this server any more: detach it.",
                    cause=error,
                ) from error
            facts = self.api.volume(device["volume_id"])
            volumes.append(self._connected(server_id, device, self._reachable(attachment, device), facts))
        return volumes

    def known(self, server_id: str, devices: Sequence[Mapping[str, Any]]) -> list[Volume]:
        """The same from what the host knows; what it does not know is asked for."""
        volumes = []
        for device in devices:
            record = self.records.get(server_id, device["volume_id"])
            if record is not None and "connection_info" in record:
                volumes.append(self._with_key({**record, **_changeable(device)}))
            else:
                volumes += self.refresh(server_id, [device])
        return volumes

    # -- and back --------------------------------------------------------------------

    def let_go(self, server_id: str, volume_id: str) -> None:
        """Of one volume that the guest has not any more: disconnect it, delete its attachments."""
        record = self.records.get(server_id, volume_id)
        if record is not None and "connection_info" in record:
            self._driver.disconnect_volume(record)
        if record is not None:
            self.api.delete_attachment(record["attachment_id"])
        volume_client.release(self.api, server_id, only=[volume_id])
        self.records.remove(server_id, volume_id)

    def let_go_here(self, server_id: str) -> None:
        """Of all that this host has connected for a server; nothing of what another host has."""
        for record in self.records.of_server(server_id):
            if "connection_info" in record:
                self._driver.disconnect_volume(record)
            self.api.delete_attachment(record["attachment_id"])
            self.records.remove(server_id, record["volume_id"])

    def let_go_all(self, server_id: str, doomed: Sequence[str]) -> None:
        """Of a server that is being deleted, whatever host connected it; volumes that go with it are deleted."""
        self.let_go_here(server_id)
        volume_client.release(self.api, server_id, doomed)
        self.records.forget(server_id)


def _changeable(device: Mapping[str, Any]) -> Volume:
    return {key: device.get(key) for key in ("delete_on_termination", "device_name", "tag", "boot_index")}
