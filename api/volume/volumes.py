"""Volumes: create, list, show, change, delete, sums."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.volume import common, schemas, volume_create, volume_views
from core import volume_states
from core.errors import BadRequest, NotFound
from db import volume_moves
from db import volumes as db_volumes
from db.sessions import retrying
from db.volume_base import Condition, Row, transfers, volumes

_NEW = {
    "name": schemas.NAME,
    "display_name": schemas.NAME,
    "description": schemas.DESCRIPTION,
    "display_description": schemas.DESCRIPTION,
    "size": {"anyOf": [schemas.SIZE, {"type": "null"}]},
    "volume_type": schemas.MAYBE_TEXT,
    "metadata": schemas.METADATA,
    "snapshot_id": schemas.MAYBE_UUID,
    "source_volid": schemas.MAYBE_UUID,
    "consistencygroup_id": schemas.MAYBE_UUID,
    "availability_zone": schemas.MAYBE_TEXT,
    "multiattach": {"anyOf": [v.BOOLEAN, {"type": "null"}]},
    "image_id": {"type": ["string", "null"]},
    "imageRef": {"type": ["string", "null"]},
}
_IGNORED: dict[str, Any] = dict.fromkeys(
    ("status", "attach_status", "project_id", "user_id", "source_replica"), {"type": ["string", "null"]}
)
"""Older clients send these, and upstream takes no notice."""
_HINTS = {
    "type": ["object", "null"],
    "additionalProperties": True,
}


def _create_schema(**more: Any) -> dict[str, Any]:
    return v.obj(
        {
            "volume": v.obj({**_NEW, **_IGNORED, **more}),
            "OS-SCH-HNT:scheduler_hints": _HINTS,
            "scheduler_hints": _HINTS,
        },
        ["volume"],
    )


CREATE = (
    ("3.0", _create_schema()),
    ("3.13", _create_schema(group_id=schemas.MAYBE_UUID)),
    ("3.47", _create_schema(group_id=schemas.MAYBE_UUID, backup_id=schemas.MAYBE_UUID)),
)
_CHANGED = {
    "name": schemas.NAME,
    "description": schemas.DESCRIPTION,
    "display_name": schemas.NAME,
    "display_description": schemas.DESCRIPTION,
    "metadata": schemas.METADATA,
}
UPDATE = v.obj({"volume": {**v.obj(_CHANGED), "minProperties": 1}}, ["volume"])
SORT_KEYS = {
    "id": "id",
    "status": "status",
    "size": "size_gib",
    "availability_zone": "availability_zone",
    "name": "name",
    "display_name": "name",
    "bootable": "bootable",
    "created_at": "created_at",
    "updated_at": "updated_at",
    "reference": "name",
    "host": "host",
    "volume_type_id": "type_id",
}
COLUMNS = {
    "id": "id",
    "name": "name",
    "display_name": "name",
    "status": "status",
    "size": "size_gib",
    "bootable": "bootable",
    "migration_status": "migration_status",
    "availability_zone": "availability_zone",
    "replication_status": "replication_status",
    "description": "description",
    "encrypted": "encrypted",
    "multiattach": "multiattach",
    "user_id": "user_id",
    "snapshot_id": "snapshot_id",
    "source_volid": "source_volume_id",
    "volume_type_id": "type_id",
    "consumes_quota": "use_quota",
}
"""Filters of lists → columns; host and the newer ones are added by ``_columns``."""
DELETABLE = volume_states.SNAPSHOT["snapshot.delete"].from_ or ()
"""statuses of snapshots that a deletion of their volume takes along"""
_PAIRS = {"metadata": "metadata", "glance_metadata": "image_metadata"}


def filters(call: Call) -> list[Condition]:
    """What a list of volumes is narrowed to."""
    columns = dict(COLUMNS)
    if call.since("3.10"):
        columns["group_id"] = "group_id"
    if call.since("3.60"):
        columns.update(created_at="created_at", updated_at="updated_at")
    if common.is_admin(call):
        columns["host"] = "host"
    asked = common.asked_filters(call, [*columns, *_PAIRS])
    result = [] if common.is_admin(call) else [volume_moves.not_destinations()]
    result += common.scope(call, volumes) + common.conditions(call, volumes, asked, columns)
    for key, column in _PAIRS.items():
        if key in asked and (key == "metadata" or call.since("3.4")):
            result += common.has_pairs(volumes.c[column], asked[key], key)
    return result


class VolumesController(Controller):
    """The volumes of a project."""

    @operation("POST", "/volumes", policy="volume:create", body=CREATE, status=202)
    def create(self, call: Call) -> dict[str, Any]:
        """Create a volume: empty, or from an image, a snapshot, a volume, a backup."""
        asked = dict(call.body["volume"])
        if asked.get("image_id") and not asked.get("imageRef"):
            asked["imageRef"] = asked["image_id"]
        hints = call.body.get("OS-SCH-HNT:scheduler_hints") or call.body.get("scheduler_hints") or {}
        row, intent = volume_create.create(call, asked, hints)
        self.services.doorbells.ring_for(intent)
        with self.services.databases.global_.read() as connection:
            return {"volume": volume_views.detailed(call, connection, [row], whole=False)[0]}

    def _list(self, call: Call, detail: bool) -> dict[str, Any]:
        page, where = common.page_of(call, SORT_KEYS), filters(call)
        path = "volumes/detail" if detail else "volumes"
        with self.services.databases.global_.read() as connection:
            rows = db_volumes.list_(connection, where, page.sort, page.marker, page.limit, page.offset)
            shown = (
                volume_views.detailed(call, connection, rows)
                if detail
                else [volume_views.brief(call, row) for row in rows]
            )
            result: dict[str, Any] = {"volumes": shown}
            if call.since("3.45") and common.strict_truth(call.first("with_count", "false"), "with_count"):
                result["count"] = db_volumes.count_(connection, where)
        return common.with_links(call, result, "volumes", path, rows, page)

    @operation("GET", "/volumes", policy="volume:get_all")
    def index(self, call: Call) -> dict[str, Any]:
        """List volumes."""
        return self._list(call, False)

    @operation("GET", "/volumes/detail", policy="volume:get_all")
    def detail(self, call: Call) -> dict[str, Any]:
        """List volumes in full."""
        return self._list(call, True)

    @operation("GET", "/volumes/summary", policy="volume:get_all", since="3.12")
    def summary(self, call: Call) -> dict[str, Any]:
        """Number and size of the volumes that fit."""
        where = filters(call)
        with self.services.databases.global_.read() as connection:
            number, size = db_volumes.summary(connection, where)
            result: dict[str, Any] = {"total_size": size, "total_count": number}
            if call.since("3.36"):
                result["metadata"] = db_volumes.metadata_values(connection, where)
        return {"volume-summary": result}

    @operation("GET", "/volumes/{volume_id}", policy="volume:get", late_policy=True)
    def show(self, call: Call) -> dict[str, Any]:
        """Show a volume."""
        with self.services.databases.global_.read() as connection:
            row = common.found(call, connection, volumes, "Volume", call.params["volume_id"])
            return {"volume": volume_views.detailed(call, connection, [row])[0]}

    @operation("PUT", "/volumes/{volume_id}", policy="volume:update", body=UPDATE, late_policy=True)
    def update(self, call: Call) -> dict[str, Any]:
        """Change name, description, metadata."""
        asked = call.body["volume"]
        values: Row = {}
        for key, column in (("display_name", "name"), ("display_description", "description")):
            if key in asked:
                values[column] = asked[key]
        for key in ("name", "description"):
            if key in asked:
                values[key] = asked[key]
        if asked.get("metadata") is not None:
            values["metadata"] = asked["metadata"]
        with self.services.databases.global_.write() as connection:
            row = common.found(call, connection, volumes, "Volume", call.params["volume_id"])
            db_volumes.update(connection, row["id"], values)
            row = db_volumes.get(connection, row["id"])
            return {"volume": volume_views.detailed(call, connection, [row], whole=False)[0]}

    @operation("DELETE", "/volumes/{volume_id}", policy="volume:delete", status=202, late_policy=True)
    def delete(self, call: Call) -> None:
        """Delete a volume; with cascade its snapshots, too; with force (3.23) whatever its status."""
        cascade = common.strict_truth(call.first("cascade", "false"), "cascade")
        force = call.since("3.23") and common.strict_truth(call.first("force", "false"), "force")
        if force:
            call.authorize(policy="volume_extension:volume_admin_actions:force_delete")
        intent = delete(call, cascade=cascade, force=force)
        self.services.doorbells.ring_for(intent)


@retrying
def delete(call: Call, *, cascade: bool = False, force: bool = False) -> Row:
    """Write the intent that deletes the volume of the path."""
    with call.services.databases.global_.write() as connection:
        row = common.found(call, connection, volumes, "Volume", call.params["volume_id"])
        refuse_busy(connection, row)
        below = db_volumes.snapshots_of(connection, row["id"])
        if below and not cascade:
            raise BadRequest(f"Invalid volume: Volume still has {len(below)} dependent snapshots.")
        if any(each["status"] not in DELETABLE for each in below) and not force:
            raise BadRequest("Invalid volume: a snapshot of it is neither available nor in error.")
        if any(each["group_snapshot_id"] for each in below):
            raise BadRequest("Invalid volume: a snapshot of it is part of a group snapshot.")
        arguments = {"cascade": cascade, "snapshot_ids": [each["id"] for each in below]}
        kind = "volume.force_delete" if force else "volume.delete"
        return db_volumes.begin(connection, call.context, row, kind, arguments)


def refuse_busy(connection: sa.Connection, row: Row) -> None:
    """:raises BadRequest: it is attached, migrating, offered, or in a group."""
    db_volumes.refuse_attached(connection, row["id"])
    if row["migration_status"] not in (None, "error", "success", "deleting"):
        raise BadRequest(f"Invalid volume: Volume {row['id']} is being migrated.")
    if row["group_id"] is not None:
        raise BadRequest(f"Invalid volume: Volume {row['id']} belongs to group {row['group_id']}.")
    offered = sa.select(transfers.c.id).where(transfers.c.volume_id == row["id"])
    if connection.execute(offered).first() is not None:
        raise BadRequest(f"Invalid volume: Volume {row['id']} is offered to another project.")


METADATA = v.obj({"metadata": {**schemas.METADATA, "type": "object"}}, ["metadata"])
META = v.obj(
    {"meta": {**schemas.METADATA, "type": "object", "minProperties": 1, "maxProperties": 1}}, ["meta"]
)
_PATH = "/volumes/{volume_id}/metadata"


class VolumeMetadataController(Controller):
    """Key-value pairs of a volume."""

    table, what, id_key = volumes, "Volume", "volume_id"

    def _read(self, call: Call) -> dict[str, str]:
        with self.services.databases.global_.read() as connection:
            row = common.found(call, connection, self.table, self.what, call.params[self.id_key])
            return dict(row["metadata"])

    @retrying
    def _change(self, call: Call, added: dict[str, str], *, replace: bool = False) -> dict[str, str]:
        with self.services.databases.global_.write() as connection:
            row = common.found(call, connection, self.table, self.what, call.params[self.id_key])
            if row["status"] == "maintenance":
                raise BadRequest(f"Invalid volume: {row['id']} is in maintenance.")
            metadata = {**({} if replace else row["metadata"]), **added}
            connection.execute(
                self.table.update().where(self.table.c.id == row["id"]).values(metadata=metadata)
            )
        return metadata

    def _item(self, call: Call) -> tuple[str, dict[str, str]]:
        key, metadata = call.params["key"], self._read(call)
        if key not in metadata:
            raise NotFound(f"{self.what} {call.params[self.id_key]} has no metadata with key {key}.")
        return key, metadata

    def _update_item(self, call: Call) -> dict[str, Any]:
        meta = call.body["meta"]
        if set(meta) != {call.params["key"]}:
            raise BadRequest("Request body and URI mismatch")
        self._change(call, meta)
        return {"meta": meta}

    @retrying
    def _delete_item(self, call: Call) -> None:
        key, metadata = self._item(call)
        del metadata[key]
        self._change(call, metadata, replace=True)

    @operation("GET", _PATH, policy="volume:get_volume_metadata", late_policy=True)
    def index(self, call: Call) -> dict[str, Any]:
        """List metadata."""
        return {"metadata": self._read(call)}

    @operation("POST", _PATH, policy="volume:create_volume_metadata", body=METADATA, late_policy=True)
    def create(self, call: Call) -> dict[str, Any]:
        """Add metadata."""
        return {"metadata": self._change(call, call.body["metadata"])}

    @operation("PUT", _PATH, policy="volume:update_volume_metadata", body=METADATA, late_policy=True)
    def replace(self, call: Call) -> dict[str, Any]:
        """Replace all metadata."""
        return {"metadata": self._change(call, call.body["metadata"], replace=True)}

    @operation("GET", _PATH + "/{key}", policy="volume:get_volume_metadata", late_policy=True)
    def show(self, call: Call) -> dict[str, Any]:
        """Show one item."""
        key, metadata = self._item(call)
        return {"meta": {key: metadata[key]}}

    @operation("PUT", _PATH + "/{key}", policy="volume:update_volume_metadata", body=META, late_policy=True)
    def update(self, call: Call) -> dict[str, Any]:
        """Set one item."""
        return self._update_item(call)

    @operation("DELETE", _PATH + "/{key}", policy="volume:delete_volume_metadata", late_policy=True)
    def delete(self, call: Call) -> None:
        """Delete one item."""
        self._delete_item(call)
