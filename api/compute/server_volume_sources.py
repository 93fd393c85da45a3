"""What POST /servers has to ask the Volume API: may these volumes be used, and please make those.

Both with the asker's own token, so that what may be seen, made and counted is the Volume API's to judge,
and what is made is the asker's.  So volumes are asked for here, before the servers are written; their hosts
wait until they are made.  What was asked for in vain (a quota, an error behind it) is deleted again.
"""

from __future__ import annotations

import dataclasses
import logging
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from api.common.operations import Call
from api.compute.server_devices import INVALID, Devices
from api.compute.volume_lookups import usable
from compute.drivers.base import GuestImage
from core.block_devices import Device
from core.errors import BadRequest, HaneulError, NotFound
from lifecycle import volume_client

LOG = logging.getLogger(__name__)
_GIB = 1024**3
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Made:
    """A server that is going to be written: its id, and its volumes."""

    server_id: str
    devices: list[Device]


class Sources:
    """What the devices of one request are made of, looked up and checked once."""

    def __init__(self, call: Call, devices: Devices, count: int) -> None:
        """:raises BadRequest: one can't be used; the message says which."""
        self._call = call
        self.devices = devices
        self._as_asker = {
            "token": call.context.auth_token or "",
            "project_id": call.context.project_id,
        }
        self._volumes: dict[str, Row] = {}
        self.listed: list[Device] = []
        """the volumes, with their sizes"""
        if not devices.volumes:
            return
        if not call.services.volumes.configured:
            raise BadRequest("There is no volume service: servers can't have volumes.")
        self.listed = [self._checked(device, count) for device in devices.volumes]

    def _checked(self, device: Device, count: int) -> Device:
        source, api = device["source_type"], self._call.services.volumes
        if source == "volume":
            volume_id = device["volume_id"]
            if count > 1:
                raise BadRequest("Cannot attach one or more volumes to multiple instances")
            try:
                volume = usable(self._call, volume_id)
            except NotFound as error:
                raise BadRequest(f"{INVALID}failed to get volume {volume_id}.") from error
            if device["boot_index"] == 0 and str(volume.get("bootable")).lower() != "true":
                raise BadRequest(f"Block Device {volume_id} is not bootable.")
            self._volumes[volume_id] = volume
            known = {"size_gib": volume["size"], "multiattach": bool(volume.get("multiattach"))}
            return {**device, **known}
        if source == "snapshot":
            try:
                snapshot = api.snapshot(device["snapshot_id"], **self._as_asker)
            except NotFound as error:
                raise BadRequest(f"{INVALID}failed to get snapshot {device['snapshot_id']}.") from error
            return {**device, "size_gib": device["size_gib"] or snapshot["size"]}
        if source == "image":
            self._check_image(device)
        return device

    def _check_image(self, device: Device) -> None:
        try:
            image = self._call.services.images.recent(self._call.context, device["image_id"])
        except NotFound as error:
            raise BadRequest(f"{INVALID}failed to get image {device['image_id']}.") from error
        least = int(image.get("min_disk") or 0)
        if least > device["size_gib"]:
            raise BadRequest(
                "Volume is smaller than the minimum size specified in image metadata. Volume size is"
                f" {device['size_gib'] * _GIB} bytes, minimum size is {least * _GIB} bytes."
            )

    # -- what boots ----------------------------------------------------------------

    def root_image(self) -> GuestImage | None:
        """The properties that count when a volume is booted that no image of the request describes."""
        root = self.devices.root
        if root is None:
            return None
        if root["source_type"] == "snapshot":
            snapshot = self._call.services.volumes.snapshot(root["snapshot_id"], **self._as_asker)
            told = self._metadata_of(snapshot["volume_id"])
        else:
            told = self._volumes.get(root["volume_id"] or "", {}).get("volume_image_metadata") or {}
        properties = {key: value for key, value in told.items() if key not in _OF_IMAGES}
        return GuestImage(
            id=str(told.get("image_id") or ""),
            name=str(told.get("image_name") or ""),
            disk_format="raw",
            size_bytes=int(told.get("size") or 0),
            min_ram_mib=int(told.get("min_ram") or 0),
            min_disk_gib=int(told.get("min_disk") or 0),
            properties=properties,
        )

    def _metadata_of(self, volume_id: str) -> Mapping[str, Any]:
        try:
            found: Mapping[str, Any] = (
                self._call.services.volumes.volume(volume_id, **self._as_asker).get("volume_image_metadata")
                or {}
            )
        except NotFound:
            return {}  # the volume may be gone, its snapshot is not
        return found

    # -- making them -----------------------------------------------------------------

    @property
    def makes_some(self) -> bool:
        return any(device["source_type"] != "volume" for device in self.listed)

    def make(self, server_ids: Iterable[str]) -> list[Made]:
        """The devices of each server, volumes asked for. :raises HaneulError: nothing of it stays."""
        made: list[Made] = []
        try:
            for server_id in server_ids:
                made.append(Made(server_id, []))
                for device in self.listed:
                    new = {**device, "id": str(uuid.uuid4())}
                    made[-1].devices.append(new)
                    if device["source_type"] != "volume":
                        new["volume_id"] = self._make(device, server_id)
        except HaneulError:
            self.discard(made)
            raise
        return made

    def _make(self, device: Device, server_id: str) -> str:
        source = device["source_type"]
        asked: Row = {
            "size": device["size_gib"],
            "name": f"{server_id}-blank-vol" if source == "blank" else "",
            "description": "",
        }
        if source == "image":
            asked["imageRef"] = device["image_id"]
        elif source == "snapshot":
            asked["snapshot_id"] = device["snapshot_id"]
        if device.get("volume_type"):
            asked["volume_type"] = device["volume_type"]
        try:
            return str(self._call.services.volumes.create_volume(asked, **self._as_asker)["id"])
        except NotFound as error:
            # of the sources we know: it is the type
            raise BadRequest(error.message) from error

    def discard(self, made: Iterable[Made]) -> None:
        """Volumes that no server was written for."""
        for device in (device for each in made for device in each.devices):
            if device["source_type"] == "volume" or not device["volume_id"]:
                continue
            try:
                volume_client.delete_volume(self._call.services.volumes, device["volume_id"])
            except HaneulError as error:
                # it stays its owner's, who sees it in the list of volumes
                LOG.warning("volume %s that no server needs can't be deleted: %s", device["volume_id"], error)


_OF_IMAGES = frozenset(
    ["image_id", "image_name", "checksum", "container_format", "disk_format", "min_disk", "min_ram", "size"]
    + ["signature_verified"]
)
