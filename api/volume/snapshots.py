"""Snapshots: create, list, show, change, delete; their metadata and actions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.volume import common, schemas
from api.volume.volumes import META, METADATA, VolumeMetadataController
from core.errors import BadRequest
from db import snapshots as db_snapshots
from db import volume_quotas
from db.sessions import retrying
from db.types import now
from db.volume_base import Condition, Row, count, page, snapshots, volumes

_NEW = {
    # whatever is no id of a volume is not found
    "volume_id": {"type": ["string", "null"], "maxLength": 255},
    "name": schemas.NAME,
    "display_name": schemas.NAME,
    "description": schemas.DESCRIPTION,
    "display_description": schemas.DESCRIPTION,
    "metadata": schemas.METADATA,
    "force": v.BOOLEAN,
}
CREATE = v.obj({"snapshot": v.obj(_NEW, ["volume_id"])}, ["snapshot"])
_CHANGED = {key: _NEW[key] for key in ("name", "display_name", "description", "display_description")}
UPDATE = v.obj({"snapshot": {**v.obj(_CHANGED), "minProperties": 1}}, ["snapshot"])
SORT_KEYS = {
    "id": "id",
    "status": "status",
    "volume_id": "volume_id",
    "size": "size_gib",
    "volume_size": "size_gib",
    "name": "name",
    "display_name": "name",
    "created_at": "created_at",
    "updated_at": "updated_at",
}
COLUMNS = {
    "id": "id",
    "name": "name",
    "display_name": "name",
    "status": "status",
    "volume_id": "volume_id",
    "user_id": "user_id",
    "volume_size": "size_gib",
    "size": "size_gib",
    "description": "description",
    "progress": "progress",
    "group_snapshot_id": "group_snapshot_id",
    "consumes_quota": "use_quota",
}
_ACTION = "/snapshots/{snapshot_id}/action"
_ADMIN = "volume_extension:snapshot_admin_actions:"
_STATUSES = "^(?i:available|creating|deleting|error|error_deleting|backing-up|restoring|unmanaging)$"
_REPORTED = ("creating", "available", "deleting", "error", "error_deleting")


def view(call: Call, row: Mapping[str, Any], detail: bool) -> dict[str, Any]:
    """A snapshot; with details project and progress."""
    found: dict[str, Any] = {
        "id": row["id"],
        "name": row["name"],
        "description": row["description"],
        "volume_id": row["volume_id"],
        "status": row["status"],
        "size": row["size_gib"],
        "created_at": common.micro(row["created_at"]),
        "updated_at": common.micro(row["updated_at"]),
        "metadata": row["metadata"],
    }
    if call.since("3.14") and detail:
        found["group_snapshot_id"] = row["group_snapshot_id"]
    if call.since("3.41"):
        found["user_id"] = row["user_id"]
    if call.since("3.65") and detail:
        found["consumes_quota"] = bool(row["use_quota"])
    if detail and call.allowed("volume_extension:extended_snapshot_attributes", common.mine(call, row)):
        found["os-extended-snapshot-attributes:project_id"] = row["project_id"]
        found["os-extended-snapshot-attributes:progress"] = f"{row['progress']}%"
    return found


def named(asked: Mapping[str, Any]) -> Row:
    """name and description, also by their old names."""
    values: Row = {}
    for key in ("name", "description"):
        if key in asked or f"display_{key}" in asked:
            values[key] = asked.get(key, asked.get(f"display_{key}"))
    return values


def filters(call: Call) -> list[Condition]:
    columns = dict(COLUMNS)
    if call.since("3.60"):
        columns.update(created_at="created_at", updated_at="updated_at")
    asked = common.asked_filters(call, [*columns, "metadata", "availability_zone"])
    result = common.scope(call, snapshots) + common.conditions(call, snapshots, asked, columns)
    if "metadata" in asked and call.since("3.22"):
        result += common.has_pairs(snapshots.c.metadata, asked["metadata"], "metadata")
    if "availability_zone" in asked:
        zone = volumes.c.availability_zone == asked["availability_zone"]
        result.append(sa.exists().where(volumes.c.id == snapshots.c.volume_id, zone))
    return result


class SnapshotsController(Controller):
    """The snapshots of a project."""

    @operation(
        "POST", "/snapshots", policy="volume:create_snapshot", body=CREATE, status=202, late_policy=True
    )
    def create(self, call: Call) -> dict[str, Any]:
        """Take a snapshot of a volume; of one in use by force, or from 3.66 on."""
        row, intent = self._create(call, call.body["snapshot"])
        self.services.doorbells.ring_for(intent)
        return {"snapshot": view(call, row, call.since("3.14"))}

    @retrying
    def _create(self, call: Call, asked: dict[str, Any]) -> tuple[Row, Row]:
        forced = common.truth(asked.get("force", False))
        if call.since("3.66") and "force" in asked and not forced:
            raise BadRequest("force=False is not a valid value from microversion 3.66 on: leave it out.")
        with self.services.databases.global_.write() as connection:
            volume = common.found(call, connection, volumes, "Volume", str(asked["volume_id"]))
            may = ["available"]
            if forced or call.since("3.66"):
                may.append("in-use")
            if volume["status"] not in may or volume["migration_status"] not in (None, "error", "success"):
                raise BadRequest(
                    f"Invalid volume: Volume {volume['id']} status must be {' or '.join(may)}, but it is"
                    f" {volume['status']}."
                )
            if volume["group_id"] is not None:
                raise BadRequest(
                    f"Invalid volume: Volume {volume['id']} is in a group: take a group snapshot."
                )
            values = {**named(asked), "metadata": dict(asked.get("metadata") or {})}
            row = db_snapshots.new_row(call.context, volume, values)
            quotas = self.services.quotas
            amounts = volume_quotas.of_snapshot(row["size_gib"], row["type_id"], quotas.snapshots_count_gib)
            quotas.check(connection, row["project_id"], amounts)
            return row, db_snapshots.insert(connection, call.context, volume, row)

    def _list(self, call: Call, detail: bool) -> dict[str, Any]:
        found, where = common.page_of(call, SORT_KEYS), filters(call)
        with self.services.databases.global_.read() as connection:
            rows = page(
                connection, snapshots, where, found.sort, found.marker, found.limit, found.offset, "Snapshot"
            )
            result: dict[str, Any] = {"snapshots": [view(call, row, detail) for row in rows]}
            if call.since("3.45") and common.strict_truth(call.first("with_count", "false"), "with_count"):
                result["count"] = count(connection, snapshots, where)
        path = "snapshots/detail" if detail else "snapshots"
        return common.with_links(call, result, "snapshots", path, rows, found)

    @operation("GET", "/snapshots", policy="volume:get_all_snapshots")
    def index(self, call: Call) -> dict[str, Any]:
        """List snapshots."""
        return self._list(call, False)

    @operation("GET", "/snapshots/detail", policy="volume:get_all_snapshots")
    def detail(self, call: Call) -> dict[str, Any]:
        """List snapshots in full."""
        return self._list(call, True)

    def _row(self, call: Call, connection: sa.Connection) -> Row:
        return common.found(call, connection, snapshots, "Snapshot", call.params["snapshot_id"])

    @operation("GET", "/snapshots/{snapshot_id}", policy="volume:get_snapshot", late_policy=True)
    def show(self, call: Call) -> dict[str, Any]:
        """Show a snapshot."""
        with self.services.databases.global_.read() as connection:
            return {"snapshot": view(call, self._row(call, connection), True)}

    @operation(
        "PUT", "/snapshots/{snapshot_id}", policy="volume:update_snapshot", body=UPDATE, late_policy=True
    )
    def update(self, call: Call) -> dict[str, Any]:
        """Change name and description."""
        with self.services.databases.global_.write() as connection:
            row = self._row(call, connection)
            values = {**named(call.body["snapshot"]), "updated_at": now()}
            connection.execute(snapshots.update().where(snapshots.c.id == row["id"]).values(**values))
        return {"snapshot": view(call, {**row, **values}, False)}

    @operation(
        "DELETE", "/snapshots/{snapshot_id}", policy="volume:delete_snapshot", status=202, late_policy=True
    )
    def delete(self, call: Call) -> None:
        """Delete a snapshot."""
        self.services.doorbells.ring_for(self._begin(call, "snapshot.delete"))

    @retrying
    def _begin(self, call: Call, kind: str) -> Row:
        with self.services.databases.global_.write() as connection:
            row = self._row(call, connection)
            if row["group_snapshot_id"] is not None:
                raise BadRequest(f"Invalid snapshot: Snapshot {row['id']} is part of a group snapshot.")
            if kind == "snapshot.unmanage" and row["encryption_key_id"]:
                raise BadRequest("Invalid snapshot: one of an encrypted volume can't be unmanaged.")
            return db_snapshots.begin(connection, call.context, row, kind)

    # -- actions -------------------------------------------------------------

    @operation(
        "POST",
        _ACTION,
        policy=_ADMIN + "reset_status",
        action="os-reset_status",
        body=schemas.reset("os-reset_status", _STATUSES),
        status=202,
        late_policy=True,
    )
    def reset_status(self, call: Call) -> None:
        """Set the status by hand."""
        status = call.body["os-reset_status"]["status"].lower()
        with self.services.databases.global_.write() as connection:
            row = self._row(call, connection)
            self._set(connection, row, {"status": status})

    @staticmethod
    def _set(connection: sa.Connection, row: Row, values: Row) -> None:
        statement = snapshots.update().where(snapshots.c.id == row["id"])
        connection.execute(statement.values(updated_at=now(), **values))

    @operation(
        "POST",
        _ACTION,
        policy=_ADMIN + "force_delete",
        action="os-force_delete",
        body=schemas.empty("os-force_delete"),
        status=202,
        late_policy=True,
    )
    def force_delete(self, call: Call) -> None:
        """Delete a snapshot whatever its status; what runs on it is cancelled."""
        self.services.doorbells.ring_for(self._begin(call, "snapshot.force_delete"))

    @operation(
        "POST",
        _ACTION,
        policy="snapshot_extension:snapshot_unmanage",
        action="os-unmanage",
        body=schemas.empty("os-unmanage"),
        status=202,
        late_policy=True,
    )
    def unmanage(self, call: Call) -> None:
        """Forget a snapshot and leave its data where they are."""
        self.services.doorbells.ring_for(self._begin(call, "snapshot.unmanage"))

    @operation(
        "POST",
        _ACTION,
        policy="snapshot_extension:snapshot_actions:update_snapshot_status",
        action="os-update_snapshot_status",
        body=schemas.action(
            "os-update_snapshot_status",
            v.obj(
                {
                    "status": {"type": "string"},
                    "progress": {"type": ["string", "null"], "pattern": "^[0-9]{1,3}%?$"},
                },
                ["status"],
            ),
        ),
        status=202,
        late_policy=True,
    )
    def report(self, call: Call) -> None:
        """The compute service says how far a snapshot that it makes has come."""
        asked = call.body["os-update_snapshot_status"]
        with self.services.databases.global_.write() as connection:
            row = self._row(call, connection)
            if asked["status"] not in _REPORTED or row["status"] not in ("creating", "deleting"):
                raise BadRequest(
                    f"Provided snapshot status {asked['status']} not allowed for snapshot with status"
                    f" {row['status']}."
                )
            values: Row = {"status": asked["status"]}
            if asked.get("progress"):
                values["progress"] = min(100, int(asked["progress"].rstrip("%")))
            elif asked["status"] == "available":
                values["progress"] = 100
            self._set(connection, row, values)


_PATH = "/snapshots/{snapshot_id}/metadata"


class SnapshotMetadataController(VolumeMetadataController):
    """Key-value pairs of a snapshot."""

    table, what, id_key = snapshots, "Snapshot", "snapshot_id"

    @operation("GET", _PATH, policy="volume:get_snapshot_metadata", late_policy=True)
    def index(self, call: Call) -> dict[str, Any]:
        """List metadata."""
        return {"metadata": self._read(call)}

    @operation("POST", _PATH, policy="volume:create_snapshot_metadata", body=METADATA, late_policy=True)
    def create(self, call: Call) -> dict[str, Any]:
        """Add metadata."""
        return {"metadata": self._change(call, call.body["metadata"])}

    @operation("PUT", _PATH, policy="volume:update_snapshot_metadata", body=METADATA, late_policy=True)
    def replace(self, call: Call) -> dict[str, Any]:
        """Replace all metadata."""
        return {"metadata": self._change(call, call.body["metadata"], replace=True)}

    @operation("GET", _PATH + "/{key}", policy="volume:get_snapshot_metadata", late_policy=True)
    def show(self, call: Call) -> dict[str, Any]:
        """Show one item."""
        key, metadata = self._item(call)
        return {"meta": {key: metadata[key]}}

    @operation("PUT", _PATH + "/{key}", policy="volume:update_snapshot_metadata", body=META, late_policy=True)
    def update(self, call: Call) -> dict[str, Any]:
        """Set one item."""
        return self._update_item(call)

    @operation("DELETE", _PATH + "/{key}", policy="volume:delete_snapshot_metadata", late_policy=True)
    def delete(self, call: Call) -> None:
        """Delete one item."""
        self._delete_item(call)
