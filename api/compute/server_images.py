"""POST /servers/{id}/action createImage: an image of a server's root disk.

The image is made here, with the asker's own token, so that it is theirs and counts in their
quota; the host uploads its data.  An image that gets none is deleted again: here when the
server's state does not allow it, on the host when a step fails.
"""

from __future__ import annotations

from typing import Any

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.compute import server_access
from core.errors import BadRequest, Forbidden, HaneulError
from db.servers import Row
from lifecycle.states import check_server

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
        if not row["image"]:
            raise BadRequest("A server that has no image of its own on the host can't be copied to one.")
        metadata = asked.get("metadata", {})
        with self.services.databases.global_.read() as connection:
            most = self.services.quotas.limits(connection, call.context.project_id or "")["metadata_items"]
        if most >= 0 and len(metadata) > most:
            raise Forbidden("Image metadata limit exceeded")
        images = self.services.images
        image_id = images.create(call.context, new_image(row, asked["name"], metadata))["id"]
        try:
            server_access.start(call, KIND, lambda _call, _found: {"image_id": image_id})
        except HaneulError:
            images.delete(call.context, image_id)
            raise
        if call.since("2.45"):
            return {"image_id": image_id}
        call.response.headers["Location"] = f"{images.endpoint()}/images/{image_id}"
        return None


def new_image(row: Row, name: str, metadata: dict[str, str]) -> dict[str, Any]:
    """The image of a server before it has data. What the asker says wins over what is inherited."""
    base = row["image"]
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
        "base_image_ref": base["id"],
        **metadata,
        "name": name,
        "visibility": "private",
        "container_format": "bare",
        "disk_format": "qcow2",
        "min_disk": row["root_gib"],
        "min_ram": int(base.get("min_ram_mib") or 0),
    }
