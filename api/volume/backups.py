"""Backups: create, full and incremental, restore, delete, and records that travel."""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Mapping
from typing import Any

import orjson
import sqlalchemy as sa

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.volume import common, schemas, volume_create
from core import volume_states
from core.errors import BadRequest, Conflict, NotFound, StaleGeneration
from db import intents as db_intents
from db import volume_services
from db import volumes as db_volumes
from db.sessions import retrying
from db.types import now
from db.volume_base import Condition, Row, backups, count, find, intents, new_id, page, snapshots, volumes

_NEW = {
    "volume_id": v.UUID,
    "name": schemas.NAME,
    "description": schemas.DESCRIPTION,
    "container": schemas.MAYBE_TEXT,
    "incremental": {"anyOf": [v.BOOLEAN, {"type": "null"}]},
    "force": {"anyOf": [v.BOOLEAN, {"type": "null"}]},
    "snapshot_id": schemas.MAYBE_UUID,
}
_METADATA = {"metadata": schemas.METADATA}


def _create(**more: Any) -> dict[str, Any]:
    return schemas.wrapped("backup", {**_NEW, **more}, ("volume_id",))


CREATE = (
    ("3.0", _create()),
    ("3.43", _create(**_METADATA)),
    ("3.51", _create(**_METADATA, availability_zone=schemas.MAYBE_TEXT)),
)
_CHANGED = {"name": schemas.NAME, "description": schemas.DESCRIPTION}
UPDATE = (
    ("3.9", v.obj({"backup": {**v.obj(_CHANGED), "minProperties": 1}}, ["backup"])),
    ("3.43", v.obj({"backup": {**v.obj({**_CHANGED, **_METADATA}), "minProperties": 1}}, ["backup"])),
)
RESTORE = schemas.wrapped("restore", {"name": schemas.NAME, "volume_id": schemas.MAYBE_UUID})
IMPORT = schemas.wrapped(
    "backup-record",
    {"backup_service": schemas.TEXT, "backup_url": {"type": "string", "minLength": 1}},
    ("backup_service", "backup_url"),
)
SORT_KEYS = {
    "id": "id",
    "status": "status",
    "volume_id": "volume_id",
    "snapshot_id": "snapshot_id",
    "size": "size_gib",
    "name": "name",
    "created_at": "created_at",
    "updated_at": "updated_at",
    "data_timestamp": "data_timestamp",
}
COLUMNS = {
    "id": "id",
    "name": "name",
    "status": "status",
    "volume_id": "volume_id",
    "snapshot_id": "snapshot_id",
    "container": "container",
    "availability_zone": "availability_zone",
    "size": "size_gib",
}
_RECORD: dict[str, tuple[type, ...]] = {
    "id": (str,),
    "volume_id": (str,),
    "size_gib": (int,),
    "object_count": (int,),
    "name": (str, type(None)),
    "description": (str, type(None)),
    "container": (str, type(None)),
    "availability_zone": (str, type(None)),
    "parent_id": (str, type(None)),
    "service_metadata": (dict, list, str, type(None)),
    "metadata": (dict,),
}
"""What a record holds: key → types."""
_SERVICE = "cinder.backup.drivers."
"""What clients expect the names of targets to begin with in records."""
_KEY = "encryption_key_id"
"""And this, of an encrypted backup: the key itself does not travel, so the other deployment must have the key manager."""
_ADMIN = "volume_extension:backup_admin_actions:"
_ACTION = "/backups/{backup_id}/action"
_STATUSES = "^(?i:available|error)$"


def brief(call: Call, row: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": row["id"], "name": row["name"], "links": common.self_links(call, f"backups/{row['id']}")}


def detailed(call: Call, connection: sa.Connection, rows: list[Row]) -> list[dict[str, Any]]:
    """Backups in full; one more statement says which have others standing on them."""
    ids = [row["id"] for row in rows]
    below = sa.select(backups.c.parent_id).where(backups.c.parent_id.in_(ids)).distinct()
    parents = set(connection.execute(below).scalars()) if ids else set()
    return [_view(call, row, row["id"] in parents) for row in rows]


def _view(call: Call, row: Mapping[str, Any], has_dependents: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        **brief(call, row),
        "status": row["status"],
        "size": row["size_gib"],
        "object_count": row["object_count"],
        "availability_zone": row["availability_zone"],
        "container": row["container"],
        "created_at": common.micro(row["created_at"]),
        "updated_at": common.micro(row["updated_at"]),
        "description": row["description"],
        "fail_reason": row["fail_reason"],
        "volume_id": row["volume_id"],
        "is_incremental": row["parent_id"] is not None,
        "has_dependent_backups": has_dependents,
        "snapshot_id": row["snapshot_id"],
        "data_timestamp": common.micro(row["data_timestamp"]),
    }
    if call.allowed("backup:get_project_attribute", common.mine(call, row)) and call.since("3.18"):
        found["os-backup-project-attr:project_id"] = row["project_id"]
    if call.since("3.43"):
        found["metadata"] = row["metadata"]
    if call.since("3.56"):
        found["user_id"] = row["user_id"]
    if call.since("3.64") and row["encryption_key_id"]:
        found["encryption_key_id"] = row["encryption_key_id"]
    return found


class BackupsController(Controller):
    """The backups of a project."""

    def _row(self, call: Call, connection: sa.Connection) -> Row:
        return common.found(call, connection, backups, "Backup", call.params["backup_id"])

    def _filters(self, call: Call) -> list[Condition]:
        columns = dict(COLUMNS)
        if call.since("3.60"):
            columns.update(created_at="created_at", updated_at="updated_at")
        asked = common.asked_filters(call, [*columns, "metadata"])
        where = common.scope(call, backups) + common.conditions(call, backups, asked, columns)
        if "metadata" in asked:
            where += common.has_pairs(backups.c.metadata, asked["metadata"], "metadata")
        return where

    def _list(self, call: Call, detail: bool) -> dict[str, Any]:
        found, where = common.page_of(call, SORT_KEYS), self._filters(call)
        with self.services.databases.global_.read() as connection:
            rows = page(
                connection, backups, where, found.sort, found.marker, found.limit, found.offset, "Backup"
            )
            shown = detailed(call, connection, rows) if detail else [brief(call, row) for row in rows]
            result: dict[str, Any] = {"backups": shown}
            if call.since("3.45") and common.strict_truth(call.first("with_count", "false"), "with_count"):
                result["count"] = count(connection, backups, where)
        path = "backups/detail" if detail else "backups"
        return common.with_links(call, result, "backups", path, rows, found)

    @operation("GET", "/backups", policy="backup:get_all")
    def index(self, call: Call) -> dict[str, Any]:
        """List backups."""
        return self._list(call, False)

    @operation("GET", "/backups/detail", policy="backup:get_all")
    def detail(self, call: Call) -> dict[str, Any]:
        """List backups in full."""
        return self._list(call, True)

    @operation("GET", "/backups/{backup_id}", policy="backup:get", late_policy=True)
    def show(self, call: Call) -> dict[str, Any]:
        """Show a backup."""
        with self.services.databases.global_.read() as connection:
            return {"backup": detailed(call, connection, [self._row(call, connection)])[0]}

    @operation("POST", "/backups", policy="backup:create", body=CREATE, status=202, late_policy=True)
    def create(self, call: Call) -> dict[str, Any]:
        """Back a volume up, or one of its snapshots."""
        row, intent = self._create(call, call.body["backup"])
        self.services.doorbells.ring_for(intent)
        return {"backup": brief(call, row)}

    @retrying
    def _create(self, call: Call, asked: dict[str, Any]) -> tuple[Row, Row]:
        with self.services.databases.global_.write() as connection:
            volume = common.found(call, connection, volumes, "Volume", asked["volume_id"])
            snapshot = self._source(call, connection, asked, volume)
            target = self._service(call, connection, volume["host"])
            parent = (
                self._parent(connection, volume, snapshot) if common.truth(asked.get("incremental")) else None
            )
            row: Row = {column.name: None for column in backups.columns}
            row.update(
                id=new_id(),
                project_id=volume["project_id"],
                user_id=call.context.user_id,
                volume_id=volume["id"],
                snapshot_id=snapshot and snapshot["id"],
                parent_id=parent and parent["id"],
                name=asked.get("name"),
                description=asked.get("description"),
                container=asked.get("container"),
                availability_zone=asked.get("availability_zone"),
                metadata=dict(asked.get("metadata") or {}),
                status="creating",
                size_gib=volume["size_gib"],
                object_count=0,
                host=target,
                created_at=now(),
                data_timestamp=snapshot["created_at"] if snapshot else now(),
            )
            amounts = {"backups": 1, "backup_gigabytes": row["size_gib"]}
            self.services.quotas.check(connection, row["project_id"], amounts)
            connection.execute(backups.insert(), [row])
            if snapshot is None:
                db_volumes.move(connection, volume, "backing-up", {"previous_status": volume["status"]})
            else:
                busy = snapshots.update().where(snapshots.c.id == snapshot["id"])
                connection.execute(busy.values(status="backing-up"))
            arguments = {
                "volume_id": volume["id"],
                "snapshot_id": row["snapshot_id"],
                "parent_id": row["parent_id"],
                "container": row["container"],
            }
            return row, self._intent(connection, call, row, "backup.create", arguments, target)

    @staticmethod
    def _intent(
        connection: sa.Connection, call: Call, row: Row, kind: str, arguments: Row, target: str | None
    ) -> Row:
        intent = db_intents.row(
            kind, "backup", row["id"], call.context, arguments, target=target, project_id=row["project_id"]
        )
        db_intents.insert(connection, intents, [intent])
        return intent

    def _source(self, call: Call, connection: sa.Connection, asked: Row, volume: Row) -> Row | None:
        if asked.get("snapshot_id"):
            snapshot = find(connection, snapshots, "Snapshot", asked["snapshot_id"])
            if snapshot["volume_id"] != volume["id"]:
                raise BadRequest("Invalid snapshot: it is another volume's.")
            if snapshot["status"] != "available":
                raise BadRequest(
                    f"Invalid snapshot: Snapshot to be backed up must be available, but it is {snapshot['status']}."
                )
            return snapshot
        forced = common.truth(asked.get("force", False))
        if volume["status"] not in ("available", *(("in-use",) if forced else ())):
            raise BadRequest(
                f"Invalid volume: Volume to be backed up must be available{' or in-use' if forced else ''}, but it is"
                f" {volume['status']}."
            )
        return None

    def _service(self, call: Call, connection: sa.Connection, pool: str | None = None) -> str:
        """A backup service that lives: that of the volume's host, which reaches its data, if there is one."""
        down_after = self.services.options.service_down_time
        alive = [
            str(row["host"])
            for row in volume_services.list_(connection, binary=volume_services.BACKUP)
            if not row["disabled"] and volume_services.is_up(row, down_after)
        ]
        near = (pool or "").partition("@")[0]
        for host in sorted(alive, key=lambda each: each != near):
            return host
        raise NoService("Service cinder-backup could not be found: no backup service is up.")

    @staticmethod
    def _parent(connection: sa.Connection, volume: Row, snapshot: Row | None) -> Row:
        """The newest backup of the volume that an incremental one may stand on."""
        statement = sa.select(backups).where(
            backups.c.volume_id == volume["id"], backups.c.status == "available"
        )
        if snapshot is not None:
            statement = statement.where(backups.c.data_timestamp < snapshot["created_at"])
        statement = statement.order_by(backups.c.data_timestamp.desc(), backups.c.id.desc())
        found = connection.execute(statement.limit(1)).mappings().first()
        if found is None:
            raise BadRequest("Invalid backup: No backups available to do an incremental backup.")
        return dict(found)

    @operation(
        "PUT", "/backups/{backup_id}", policy="backup:update", body=UPDATE, since="3.9", late_policy=True
    )
    def update(self, call: Call) -> dict[str, Any]:
        """Change name, description, metadata."""
        asked = {
            key: value for key, value in call.body["backup"].items() if key != "metadata" or value is not None
        }
        with self.services.databases.global_.write() as connection:
            row = self._row(call, connection)
            values = {**asked, "updated_at": now()}
            connection.execute(backups.update().where(backups.c.id == row["id"]).values(**values))
        return {"backup": brief(call, {**row, **asked})}

    @operation("DELETE", "/backups/{backup_id}", policy="backup:delete", status=202, late_policy=True)
    def delete(self, call: Call) -> None:
        """Delete a backup that no other stands on."""
        self.services.doorbells.ring_for(self._delete(call, "backup.delete"))

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
        """Delete a backup whatever its status."""
        self.services.doorbells.ring_for(self._delete(call, "backup.force_delete"))

    @retrying
    def _delete(self, call: Call, kind: str) -> Row:
        with self.services.databases.global_.write() as connection:
            row = self._row(call, connection)
            transition = volume_states.check("backup", kind, row["id"], row["status"])
            above = sa.select(backups.c.id).where(backups.c.parent_id == row["id"]).limit(1)
            if connection.execute(above).first() is not None:
                raise BadRequest("Invalid backup: Incremental backups exist for this backup.")
            if transition.overtakes:
                db_intents.overtake(connection, intents, row["id"])
            target = row["host"] or self._service(call, connection)
            intent = self._intent(connection, call, row, kind, {}, target)
            _move(connection, row, str(transition.shows))
            return intent

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
            statement = backups.update().where(backups.c.id == row["id"])
            connection.execute(statement.values(status=status, updated_at=now()))

    # -- restoring -----------------------------------------------------------

    @operation(
        "POST",
        "/backups/{backup_id}/restore",
        policy="backup:restore",
        body=RESTORE,
        status=202,
        late_policy=True,
    )
    def restore(self, call: Call) -> dict[str, Any]:
        """Write a backup to a volume; a new one unless one is named."""
        asked = call.body["restore"]
        with self.services.databases.global_.read() as connection:
            row = self._row(call, connection)
        new = None
        if not asked.get("volume_id"):
            volume_states.check("backup", "backup.restore", row["id"], row["status"])
            new = self._new_volume(call, row, asked)
        volume_id = new or asked["volume_id"]
        volume, intent = self._restore(call, volume_id, new is not None)
        self.services.doorbells.ring_for(intent)
        return {"restore": {"backup_id": row["id"], "volume_id": volume["id"], "volume_name": volume["name"]}}

    @staticmethod
    def _new_volume(call: Call, row: Row, asked: Row) -> str:
        """The volume that a backup is restored to, created as any other."""
        name = asked.get("name") or f"restore_backup_{row['id']}"
        volume, intent = volume_create.create(
            call, {"name": name, "size": row["size_gib"], "backup_id": row["id"]}, {}
        )
        call.services.doorbells.ring_for(intent)
        return str(volume["id"])

    @retrying
    def _restore(self, call: Call, volume_id: str, new: bool) -> tuple[Row, Row]:
        with self.services.databases.global_.write() as connection:
            row = self._row(call, connection)
            volume = common.found(call, connection, volumes, "Volume", volume_id)
            volume_states.check("backup", "backup.restore", row["id"], row["status"])
            if not new:
                if volume["status"] != "available":
                    raise BadRequest(
                        f"Invalid volume: Volume to be restored to must be available, but it is {volume['status']}."
                    )
                if volume["size_gib"] < row["size_gib"]:
                    raise BadRequest(
                        f"Invalid volume: volume size {volume['size_gib']} is too small to restore backup of size"
                        f" {row['size_gib']}."
                    )
                if bool(row[_KEY]) != bool(volume["encrypted"]):
                    raise BadRequest(
                        "Invalid volume: an encrypted backup is restored to an encrypted volume, another to another."
                    )
                db_volumes.refuse_attached(connection, volume["id"])
                db_volumes.move(connection, volume, "restoring-backup", {"previous_status": "available"})
            _move(connection, row, "restoring", {"restore_volume_id": volume["id"]})
            target = self._service(call, connection, volume["host"])
            arguments = {"volume_id": volume["id"], "new_volume": new}
            return volume, self._intent(connection, call, row, "backup.restore", arguments, target)

    # -- records -------------------------------------------------------------

    @operation("GET", "/backups/{backup_id}/export_record", policy="backup:export-import", late_policy=True)
    def export_record(self, call: Call) -> dict[str, Any]:
        """What another deployment needs to know of a backup."""
        with self.services.databases.global_.read() as connection:
            row = self._row(call, connection)
        if row["status"] != "available":
            raise BadRequest(f"Invalid backup: Backup status must be available, but it is {row['status']}.")
        keys = [*_RECORD, "project_id", "user_id", "service"]
        record = {key: row[key] for key in keys}
        if row[_KEY]:
            record[_KEY] = row[_KEY]
        text = base64.b64encode(orjson.dumps(record)).decode()
        service = _SERVICE + (row["service"] or "posix")
        return {"backup-record": {"backup_service": service, "backup_url": text}}

    @operation("POST", "/backups/import_record", policy="backup:backup-import", body=IMPORT, status=201)
    def import_record(self, call: Call) -> dict[str, Any]:
        """Make a record of another deployment known here; its data is checked by the worker."""
        asked = call.body["backup-record"]
        try:
            record = orjson.loads(base64.b64decode(asked["backup_url"], validate=True))
        except (ValueError, binascii.Error):
            raise BadRequest("Invalid input received: Can't parse backup record.") from None
        checked = self._checked(record)
        row, intent = self._import(call, asked["backup_service"].removeprefix(_SERVICE), checked)
        self.services.doorbells.ring_for(intent)
        return {"backup": brief(call, row)}

    @staticmethod
    def _checked(record: Any) -> Row:
        """:raises BadRequest: it is no record of a backup."""
        if not isinstance(record, dict) or any(
            not isinstance(record.get(key), kinds) for key, kinds in _RECORD.items()
        ):
            raise BadRequest("Invalid input received: Can't parse backup record.")
        if record["size_gib"] < 0 or any(
            isinstance(record[key], str) and len(record[key]) > 255
            for key in _RECORD
            if key != "service_metadata"
        ):
            raise BadRequest("Invalid input received: Can't parse backup record.")
        if any(len(str(record[key])) > 36 for key in ("id", "volume_id")):
            raise BadRequest("Invalid input received: Can't parse backup record.")
        checked = {key: record[key] for key in _RECORD}
        if record.get(_KEY) is not None:
            try:
                checked[_KEY] = str(uuid.UUID(str(record[_KEY])))
            except ValueError:
                raise BadRequest("Invalid input received: Can't parse backup record.") from None
        return checked

    @retrying
    def _import(self, call: Call, service: str, record: Row) -> tuple[Row, Row]:
        with self.services.databases.global_.write() as connection:
            target = self._service(call, connection)
            try:
                find(connection, backups, "Backup", record["id"])
            except NotFound:
                pass
            else:
                raise BadRequest(f"Invalid backup: Backup already exists in database: {record['id']}.")
            if record["parent_id"] is not None:
                find(connection, backups, "Backup", record["parent_id"])
            row: Row = {column.name: None for column in backups.columns}
            row.update(
                {**record, _KEY: None},  # it gets a key of its own
                project_id=call.context.project_id,
                user_id=call.context.user_id,
                status="creating",
                service=service,
                host=target,
                created_at=now(),
                data_timestamp=now(),
            )
            amounts = {"backups": 1, "backup_gigabytes": row["size_gib"]}
            self.services.quotas.check(connection, str(row["project_id"]), amounts)
            connection.execute(backups.insert(), [row])
            return row, self._intent(connection, call, row, "backup.import", {"record": record}, target)


class NoService(Conflict):
    """No backup service lives."""

    http_status = 503
    code = "haneul.volume.no_backup_service"


def _move(connection: sa.Connection, row: Row, to: str, values: Row | None = None) -> None:
    """:raises StaleGeneration: someone else changed it meanwhile."""
    done = connection.execute(
        backups.update()
        .where(backups.c.id == row["id"], backups.c.status == row["status"])
        .values(status=to, updated_at=now(), **(values or {}))
    )
    if done.rowcount != 1:
        raise StaleGeneration(f"Backup {row['id']} was changed meanwhile. Try again.")
