"""Actions on volumes that change what is said of them, or their image: no data is touched by the first."""

from __future__ import annotations

import uuid
from typing import Any

import sqlalchemy as sa

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.volume import common, schemas, volume_create
from api.volume.volume_actions import PATH
from core import luks, volume_states
from core.errors import BadRequest, NotFound
from db import volume_types
from db import volumes as db_volumes
from db.sessions import retrying
from db.volume_base import Row, volumes

_POLICY = "volume_extension:volume_actions:"
_IMAGE_METADATA = "volume_extension:volume_image_metadata:"
_UPLOAD = {
    "image_name": schemas.TEXT,
    "force": v.BOOLEAN,
    "container_format": {"enum": ["ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed", None]},
    "disk_format": {"type": ["string", "null"], "pattern": "^(raw|vmdk|vdi|qcow2|vhd|vhdx|ploop)$"},
}
UPLOAD = (
    ("3.0", schemas.action("os-volume_upload_image", v.obj(_UPLOAD, ["image_name"]))),
    (
        "3.1",
        schemas.action(
            "os-volume_upload_image",
            v.obj(
                {
                    **_UPLOAD,
                    "visibility": {"enum": ["community", "public", "private", "shared"]},
                    "protected": v.BOOLEAN,
                },
                ["image_name"],
            ),
        ),
    ),
)
REIMAGE = schemas.action(
    "os-reimage", v.obj({"image_id": v.UUID, "reimage_reserved": v.BOOLEAN}, ["image_id"])
)
_SPECS = {**schemas.METADATA, "type": "object"}


class VolumeFlagsController(Controller):
    """Bootable, read only, image metadata, upload to an image, re-image."""

    def _row(self, call: Call, connection: sa.Connection) -> Row:
        return common.found(call, connection, volumes, "Volume", call.params["volume_id"])

    @retrying
    def _set(self, call: Call, values: Row) -> None:
        with self.services.databases.global_.write() as connection:
            db_volumes.update(connection, self._row(call, connection)["id"], values)

    @operation(
        "POST",
        PATH,
        policy=_POLICY + "set_bootable",
        action="os-set_bootable",
        body=schemas.action("os-set_bootable", v.obj({"bootable": v.BOOLEAN}, ["bootable"])),
        late_policy=True,
    )
    def set_bootable(self, call: Call) -> None:
        """Say whether servers may boot from it."""
        self._set(call, {"bootable": common.truth(call.body["os-set_bootable"]["bootable"])})

    @operation(
        "POST",
        PATH,
        policy="volume:update_readonly_flag",
        action="os-update_readonly_flag",
        body=schemas.action("os-update_readonly_flag", v.obj({"readonly": v.BOOLEAN}, ["readonly"])),
        status=202,
        late_policy=True,
    )
    @retrying
    def set_readonly(self, call: Call) -> None:
        """Make a volume read only, while nobody uses it."""
        readonly = common.truth(call.body["os-update_readonly_flag"]["readonly"])
        with self.services.databases.global_.write() as connection:
            row = self._row(call, connection)
            if row["status"] != "available":
                raise BadRequest(
                    f"Invalid volume: Volume {row['id']} status must be available to update readonly flag,"
                    f" but it is {row['status']}."
                )
            db_volumes.move(connection, row, row["status"], {"readonly": readonly})

    # -- image metadata ------------------------------------------------------

    @operation(
        "POST",
        PATH,
        policy=_IMAGE_METADATA + "show",
        action="os-show_image_metadata",
        body=schemas.empty("os-show_image_metadata"),
        late_policy=True,
    )
    def show_image_metadata(self, call: Call) -> dict[str, Any]:
        """What is known of the volume's image."""
        with self.services.databases.global_.read() as connection:
            return {"metadata": self._row(call, connection)["image_metadata"]}

    @operation(
        "POST",
        PATH,
        policy=_IMAGE_METADATA + "set",
        action="os-set_image_metadata",
        body=schemas.action("os-set_image_metadata", v.obj({"metadata": _SPECS}, ["metadata"])),
        late_policy=True,
    )
    @retrying
    def set_image_metadata(self, call: Call) -> dict[str, Any]:
        """Add to what is known of the volume's image."""
        with self.services.databases.global_.write() as connection:
            row = self._row(call, connection)
            metadata = {**row["image_metadata"], **call.body["os-set_image_metadata"]["metadata"]}
            db_volumes.update(connection, row["id"], {"image_metadata": metadata})
        return {"metadata": metadata}

    @operation(
        "POST",
        PATH,
        policy=_IMAGE_METADATA + "remove",
        action="os-unset_image_metadata",
        body=schemas.action("os-unset_image_metadata", v.obj({"key": schemas.TEXT}, ["key"])),
        late_policy=True,
    )
    @retrying
    def unset_image_metadata(self, call: Call) -> None:
        """Remove one item of it."""
        key = call.body["os-unset_image_metadata"]["key"]
        with self.services.databases.global_.write() as connection:
            row = self._row(call, connection)
            if key not in row["image_metadata"]:
                raise NotFound(f"Metadata item {key} was not found.")
            left = {name: value for name, value in row["image_metadata"].items() if name != key}
            db_volumes.update(connection, row["id"], {"image_metadata": left})

    # -- images --------------------------------------------------------------

    @operation(
        "POST",
        PATH,
        policy=_POLICY + "upload_image",
        action="os-volume_upload_image",
        body=UPLOAD,
        status=202,
        late_policy=True,
    )
    def upload_image(self, call: Call) -> dict[str, Any]:
        """Make an image of a volume."""
        asked = call.body["os-volume_upload_image"]
        with self.services.databases.global_.read() as connection:
            row = self._row(call, connection)
        if row["status"] == "in-use" and not common.truth(asked.get("force", False)):
            raise BadRequest(
                f"Invalid volume: Volume {row['id']} status must be available to upload, but it is in-use."
            )
        volume_states.check("volume", "volume.upload_image", row["id"], row["status"])
        if row["encrypted"] and (asked.get("disk_format") or "raw") != "raw":
            raise BadRequest(
                "Invalid volume: an encrypted volume is uploaded as it is: disk_format must be raw."
            )
        if asked.get("visibility") == "public":
            call.authorize(common.mine(call, row), _POLICY + "upload_public")
        image = self.services.images.create(call.context, self._new_image(call, row, asked))
        try:
            intent, type_name = self._upload(call, image)
        except Exception:
            # an image that nothing will ever fill does not stay
            self.services.images.delete(call.context, image["id"])
            raise
        self.services.doorbells.ring_for(intent)
        found = {
            "id": row["id"],
            "updated_at": common.micro(row["updated_at"]),
            "status": "uploading",
            "display_description": row["description"],
            "size": row["size_gib"],
            "volume_type": type_name,
            "image_id": image["id"],
            "container_format": image["container_format"],
            "disk_format": image["disk_format"],
            "image_name": image["name"],
        }
        if call.since("3.1"):
            found.update(visibility=image["visibility"], protected=image["protected"])
        return {"os-volume_upload_image": found}

    @staticmethod
    def _new_image(call: Call, row: Row, asked: dict[str, Any]) -> dict[str, Any]:
        """The image to be, without data."""
        inherited = {
            key: value
            for key, value in row["image_metadata"].items()
            if key not in ("image_id", "image_name", "checksum", "size", "container_format", "disk_format")
            and key not in ("min_disk", "min_ram")
        }
        image: dict[str, Any] = {
            **inherited,
            "name": asked["image_name"],
            "container_format": asked.get("container_format") or "bare",
            "disk_format": asked.get("disk_format") or "raw",
            "min_disk": row["size_gib"],
        }
        if call.since("3.1"):
            image["visibility"] = asked.get("visibility", "private")
            image["protected"] = common.truth(asked.get("protected", False))
        return image

    @retrying
    def _upload(self, call: Call, image: dict[str, Any]) -> tuple[Row, str | None]:
        arguments = {
            "image_id": image["id"],
            "container_format": image["container_format"],
            "disk_format": image["disk_format"],
        }
        with self.services.databases.global_.write() as connection:
            row = self._row(call, connection)
            intent = db_volumes.begin(connection, call.context, row, "volume.upload_image", arguments)
            names = volume_types.names(connection, [row["type_id"]] if row["type_id"] else [])
        return intent, names.get(row["type_id"])

    @operation(
        "POST",
        PATH,
        policy="volume:reimage",
        action="os-reimage",
        body=REIMAGE,
        since="3.68",
        status=202,
        late_policy=True,
    )
    def reimage(self, call: Call) -> None:
        """Write an image over a volume's data."""
        asked = call.body["os-reimage"]
        image = self.services.images.recent(call.context, str(uuid.UUID(asked["image_id"])))
        if image.get("status") != "active":
            raise BadRequest(f"Invalid input received: Image {image['id']} is not active.")
        self.services.doorbells.ring_for(self._reimage(call, asked, image))

    @retrying
    def _reimage(self, call: Call, asked: dict[str, Any], image: dict[str, Any]) -> Row:
        with self.services.databases.global_.write() as connection:
            row = self._row(call, connection)
            if row["status"] == "reserved":
                if not common.truth(asked.get("reimage_reserved", False)):
                    raise BadRequest(f"Invalid volume: Volume {row['id']} is reserved.")
                call.authorize(common.mine(call, row), "volume:reimage_reserved")
            encrypted_image = bool(image.get(volume_create.IMAGE_KEY))
            if encrypted_image and not row["encrypted"]:
                raise BadRequest("Invalid volume: an encrypted image needs an encrypted volume.")
            header = luks.MOST_HEADER_BYTES if encrypted_image else 0
            if max(image.get("size") or 0, image.get("virtual_size") or 0) - header > row["size_gib"] << 30:
                raise BadRequest(f"Image {image['id']} is larger than volume {row['id']}.")
            arguments = {
                "image_id": image["id"],
                "image": volume_create.image_facts(image),
                "image_metadata": volume_create.image_metadata_of(image),
            }
            return db_volumes.begin(connection, call.context, row, "volume.reimage", arguments)
