"""POST /servers/{id}/action createImage: an image of a server's root disk, or of its volumes.

The image is made here, with the asker's own token, so that it is theirs and counts in their
quota; the host uploads its data.  An image that gets none is deleted again: here when the
server's state does not allow it, on the host when a step fails.

A server that boots from a volume is not copied: snapshots of its volumes are asked for, and the
image, which has no data, says which (``block_device_mapping``), so that a server made from it has
volumes made from them.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.compute import server_access
from core import block_devices
from core.block_devices import Device
from core.errors import BadRequest, Forbidden, HaneulError
from db import intents
from db.servers import Located, Row
from lifecycle.states import check_server

LOG = logging.getLogger(__name__)
KIND = "server.create_image"
# what says how an image came to be, or where its data is, is not true of a copy
_NOT_INHERITED = ("cache_in_nova", "bittorrent", "base_image_ref", "image_type", "instance_uuid", "user_id")
_BODY = v.obj(
    {"createImage": v.obj({"name": v.NAME, "metadata": v.METADATA}, ["name"])},
    ["createImage"],
)


class ServerImagesController(Controller):
    """Images of servers."""

    @operation(
        "POST",
        "/servers/{server_id}/action",
        action="createImage",
        policy="os_compute_api:servers:create_image",
        status=202,
        body=_BODY,
    )
    def create_image(self, call: Call) -> dict[str, Any] | None:
        """Make an image of a server."""
        asked = call.body["createImage"]
        found = server_access.find(call)
        row = found.row
        server_access.refuse_locked(call, row)
        check_server(KIND, row["id"], row["vm_state"], row["task_state"])
        server_access.refuse_unplaced(found)
        volume_backed = block_devices.root_volume(row["block_devices"] or []) is not None
        if not row["image"] and not volume_backed:
            raise BadRequest("A server that has no image of its own on the host can't be copied to one.")
        metadata = asked.get("metadata", {})
        with self.services.databases.global_.read() as connection:
            most = self.services.quotas.limits(connection, call.context.project_id or "")["metadata_items"]
        if most >= 0 and len(metadata) > most:
            raise Forbidden("Image metadata limit exceeded")
        if volume_backed:
            image_id = self._of_volumes(call, found, asked["name"], metadata)
        else:
            image_id = self._of_disk(call, row, asked["name"], metadata)
        if call.since("2.45"):
            return {"image_id": image_id}
        call.response.headers["Location"] = f"{self.services.images.endpoint()}/images/{image_id}"
        return None

    def _of_disk(self, call: Call, row: Row, name: str, metadata: dict[str, str]) -> str:
        images = self.services.images
        image_id = str(images.create(call.context, new_image(row, name, metadata))["id"])
        try:
            server_access.start(call, KIND, lambda _call, _found: {"image_id": image_id})
        except HaneulError:
            images.delete(call.context, image_id)
            raise
        return image_id

    def _of_volumes(self, call: Call, found: Located, name: str, metadata: dict[str, str]) -> str:
        """The snapshots are made behind the answer; what is asked for in vain goes again."""
        images, snapshots = self.services.images, Snapshots(call)
        try:
            mapping = [snapshots.mapped(device, name) for device in found.row["block_devices"]]
            image = {
                **new_image(found.row, name, metadata),
                "block_device_mapping": json.dumps(mapping),
                "bdm_v2": "True",
                "root_device_name": found.row["root_device_name"],
                "disk_format": "raw",
                "min_disk": 0,
            }
            image_id = str(images.create(call.context, image)["id"])
        except HaneulError:
            snapshots.discard()
            raise
        try:
            images.upload_nothing(call.context, image_id)
        except HaneulError:
            images.delete(call.context, image_id)
            snapshots.discard()
            raise
        record = intents.finished_row(KIND, "server", found.id, call.context)
        with found.database.write() as connection:
            intents.insert(connection, intents.table(found.database), [record])
        return image_id


class Snapshots:
    """Of a server's volumes, with the asker's token: they are the asker's."""

    def __init__(self, call: Call) -> None:
        self._api = call.services.volumes
        self._as_asker = {
            "token": call.context.auth_token or "",
            "project_id": call.context.project_id,
        }
        self._made: list[str] = []

    def mapped(self, device: Device, image_name: str) -> dict[str, Any]:
        """The mapping of a device for who makes a server from the image."""
        kept = ("boot_index", "device_name", "device_type", "disk_bus", "guest_format", "tag") + (
            "delete_on_termination",
            "destination_type",
        )
        mapping = {
            **dict.fromkeys(("no_device", "image_id", "volume_id", "snapshot_id", "volume_type")),
            **{key: device.get(key) for key in kept},
            "source_type": device["source_type"],
            "volume_size": device.get("size_gib") or device.get("size_mib"),
        }
        if not device.get("volume_id"):
            return mapping
        asked = {
            "volume_id": device["volume_id"],
            "name": f"snapshot for {image_name}",
            "description": "",
            "force": True,
        }
        made = self._api.call("POST", "/snapshots", {"snapshot": asked}, **self._as_asker)["snapshot"]
        self._made.append(made["id"])
        return {**mapping, "source_type": "snapshot", "snapshot_id": made["id"], "volume_size": made["size"]}

    def discard(self) -> None:
        """Those that no image names."""
        for snapshot_id in self._made:
            try:
                self._api.act(snapshot_id, "os-force_delete", kind="snapshots")
            except HaneulError as error:
                LOG.warning("snapshot %s that no image needs can't be deleted: %s", snapshot_id, error)


def new_image(row: Row, name: str, metadata: dict[str, str]) -> dict[str, Any]:
    """The image of a server before it has data. What the asker says wins over what is inherited."""
    base = row["image"] or {"id": ""}
    inherited = {
        key: str(value)
        for key, value in (base.get("properties") or {}).items()
        if key not in _NOT_INHERITED and not key.startswith("img_signature")
    }
    return {
        **inherited,
        "image_type": "snapshot",
        "instance_uuid": row["id"],
        "user_id": row["user_id"],
        **({"base_image_ref": base["id"]} if base["id"] else {}),
        **metadata,
        "name": name,
        "visibility": "private",
        "container_format": "bare",
        "disk_format": "qcow2",
        "min_disk": row["root_gib"],
        "min_ram": int(base.get("min_ram_mib") or 0),
    }
