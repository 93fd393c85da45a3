"""Actions on volumes that change the data or what the volume is: POST /volumes/{id}/action."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.volume import common, schemas, volume_create
from api.volume import volumes as volumes_api
from core import volume_states
from core.errors import BadRequest, Conflict, NotFound
from db import volume_quotas, volume_services, volume_types
from db import volumes as db_volumes
from db.sessions import retrying
from db.volume_base import Row, new_id, pools, snapshots, volumes

PATH = "/volumes/{volume_id}/action"
_STATUSES = (
    "creating|available|deleting|error|error_deleting|error_managing|managing|attaching|detaching|in-use"
    "|maintenance|reserved|awaiting-transfer|downloading|uploading|retyping|extending|error_extending"
    "|error_restoring|restoring-backup|backing-up|error_backing-up|reverting"
)
_MIGRATION = "migrating|error|success|completing|none|starting"
_ADMIN = "volume_extension:volume_admin_actions:"


def _any_case(values: str) -> dict[str, Any]:
    """An enumeration ("a|b"), in small letters or in any."""
    return {"type": ["string", "null"], "pattern": f"^(?i:{values})$"}


RESET = schemas.action(
    "os-reset_status",
    {
        **v.obj(
            {
                "status": _any_case(_STATUSES),
                "attach_status": _any_case("attached|detached"),
                "migration_status": _any_case(_MIGRATION),
            }
        ),
        "minProperties": 1,
    },
)
RETYPE = schemas.action(
    "os-retype",
    v.obj(
        {"new_type": schemas.TEXT, "migration_policy": {"enum": ["never", "on-demand", None]}}, ["new_type"]
    ),
)
_MIGRATE = {
    "host": schemas.MAYBE_TEXT,
    "force_host_copy": v.BOOLEAN,
    "lock_volume": v.BOOLEAN,
}
MIGRATE = (
    ("3.0", schemas.action("os-migrate_volume", v.obj(_MIGRATE, ["host"]))),
    ("3.16", schemas.action("os-migrate_volume", v.obj({**_MIGRATE, "cluster": schemas.MAYBE_TEXT}))),
)
EXTEND = schemas.action("os-extend", v.obj({"new_size": schemas.SIZE}, ["new_size"]))
COMPLETION = schemas.action(
    "os-migrate_volume_completion", v.obj({"new_volume": v.UUID, "error": v.BOOLEAN}, ["new_volume"])
)


class VolumeActionsController(Controller):
    """Extend, retype, migrate, revert, reset, delete by force, unmanage."""

    def _row(self, call: Call, connection: sa.Connection) -> Row:
        return common.found(call, connection, volumes, "Volume", call.params["volume_id"])

    def _ring(self, intent: Row) -> None:
        self.services.doorbells.ring_for(intent)

    @operation(
        "POST", PATH, policy="volume:extend", action="os-extend", body=EXTEND, status=202, late_policy=True
    )
    def extend(self, call: Call) -> None:
        """Make a volume larger; one in use from 3.42 on."""
        self._ring(self._extend(call))

    @retrying
    def _extend(self, call: Call) -> Row:
        size = common.whole(call.body["os-extend"]["new_size"], "new_size", 1)
        with self.services.databases.global_.write() as connection:
            row = self._row(call, connection)
            if row["status"] == "in-use":
                if not call.since("3.42"):
                    raise BadRequest(
                        f"Invalid volume: Volume {row['id']} status must be available to extend,"
                        " but it is in-use."
                    )
                call.authorize(common.mine(call, row), "volume:extend_attached_volume")
            if size <= row["size_gib"]:
                raise BadRequest(
                    "Invalid input received: New size for extend must be greater than current size."
                    f" (current: {row['size_gib']}, extended: {size})."
                )
            volume_states.check("volume", "volume.extend", row["id"], row["status"])
            if row["use_quota"]:
                amounts = volume_quotas.of_volume(size - row["size_gib"], row["type_id"], 0)
                self.services.quotas.check(connection, row["project_id"], amounts, size_gib=size)
            attached = db_volumes.attachments_of(connection, [row["id"]]).get(row["id"], [])
            arguments = {
                "size_gib": size,
                "previous_gib": row["size_gib"],
                "server_ids": [each["instance_id"] for each in attached if each["instance_id"]],
            }
            # the new size counts from now on: what the quota allowed nobody else may use meanwhile
            return db_volumes.begin(
                connection, call.context, row, "volume.extend", arguments, values={"size_gib": size}
            )

    @operation(
        "POST",
        PATH,
        policy="volume:extend_volume_completion",
        action="os-extend_volume_completion",
        body=schemas.action("os-extend_volume_completion", v.obj({"error": v.BOOLEAN})),
        since="3.71",
        status=202,
        late_policy=True,
    )
    @retrying
    def extend_completion(self, call: Call) -> None:
        """The compute service says whether the guest's disk has grown."""
        failed = common.truth(call.body["os-extend_volume_completion"].get("error", False))
        with self.services.databases.global_.write() as connection:
            row = self._row(call, connection)
            if row["status"] != "extending" or "extend_new_size" not in row["admin_metadata"]:
                raise BadRequest(
                    f"Invalid volume: Volume {row['id']} waits for no completion of an extension."
                )
            admin = dict(row["admin_metadata"])
            size = int(admin.pop("extend_new_size"))
            values: Row = {"admin_metadata": admin, "previous_status": None}
            if failed:
                db_volumes.move(connection, row, "error_extending", values)
            else:
                db_volumes.move(
                    connection, row, row["previous_status"] or "in-use", {**values, "size_gib": size}
                )

    @operation(
        "POST",
        PATH,
        policy=_ADMIN + "reset_status",
        action="os-reset_status",
        body=RESET,
        status=202,
        late_policy=True,
    )
    @retrying
    def reset_status(self, call: Call) -> None:
        """Set status, migration status or attach status by hand."""
        asked = {
            key: value.lower() for key, value in call.body["os-reset_status"].items() if value is not None
        }
        if not asked:
            raise BadRequest("Must specify 'status', 'attach_status' or 'migration_status' in the request.")
        with self.services.databases.global_.write() as connection:
            row = self._row(call, connection)
            values: Row = {}
            if "status" in asked:
                values.update(status=asked["status"], previous_status=None)
            if "migration_status" in asked:
                migration = asked["migration_status"]
                values["migration_status"] = None if migration == "none" else migration
            if asked.get("attach_status") == "detached":
                # only what no server uses is forgotten: its record is what protects a server's disk
                table = db_volumes.attachments
                connection.execute(
                    table.delete().where(table.c.volume_id == row["id"], table.c.instance_id.is_(None))
                )
            db_volumes.update(connection, row["id"], values)

    @operation(
        "POST",
        PATH,
        policy=_ADMIN + "force_delete",
        action="os-force_delete",
        body=schemas.empty("os-force_delete"),
        status=202,
        late_policy=True,
    )
    def force_delete(self, call: Call) -> None:
        """Delete a volume whatever its status; what runs on it is cancelled."""
        self._ring(volumes_api.delete(call, force=True))

    @operation(
        "POST", PATH, policy="volume:retype", action="os-retype", body=RETYPE, status=202, late_policy=True
    )
    def retype(self, call: Call) -> None:
        """Give a volume another type, and move it where that type needs it."""
        intent = self._retype(call)
        if intent is not None:
            self._ring(intent)

    @retrying
    def _retype(self, call: Call) -> Row | None:
        asked = call.body["os-retype"]
        with self.services.databases.global_.write() as connection:
            row = self._row(call, connection)
            seen = volume_types.visible(row["project_id"])
            try:
                new = volume_types.by_name_or_id(connection, asked["new_type"], seen)
            except NotFound as error:
                raise NotFound(error.message) from None
            volume_states.check("volume", "volume.retype", row["id"], row["status"])
            if row["group_id"] is not None:
                raise BadRequest(f"Invalid volume: Volume {row['id']} belongs to group {row['group_id']}.")
            if row["migration_status"] not in (None, "error", "success"):
                raise BadRequest(f"Invalid volume: Volume {row['id']} is being migrated.")
            if new["id"] == row["type_id"]:
                raise BadRequest(
                    "Invalid input received: New volume_type same as original: " + new["name"] + "."
                )
            self._refuse_new_type(connection, row, new)
            if row["use_quota"]:
                amounts = volume_quotas.of_volume(row["size_gib"], new["id"])
                typed = {key: more for key, more in amounts.items() if ":" in key}
                self.services.quotas.check(connection, row["project_id"], typed)
            arguments = {
                "type_id": new["id"],
                "previous_type_id": row["type_id"],
                "migration_policy": asked.get("migration_policy") or "never",
                "multiattach": volume_create.is_multiattach(new),
                "destination_id": new_id(),
            }
            return db_volumes.begin(connection, call.context, row, "volume.retype", arguments)

    @staticmethod
    def _refuse_new_type(connection: sa.Connection, row: Row, new: Row) -> None:
        """:raises BadRequest: the step between the types can't be made while the volume is in use."""
        encrypted = volume_create.encryption_of(connection, new["id"])
        old = volume_create.encryption_of(connection, row["type_id"])
        if old != encrypted:
            # all data would have to be written anew: that is a new volume, and a copy inside a server
            raise BadRequest(
                "Invalid volume: a retype can't change how a volume is encrypted: its data would have to be written anew."
            )
        if encrypted is not None and volume_create.is_multiattach(new):
            raise BadRequest("Invalid volume_type: a multi-attach volume can't be encrypted.")
        if row["status"] == "in-use" and volume_create.is_multiattach(new) != bool(row["multiattach"]):
            raise BadRequest("Invalid volume: cannot change multiattach of a volume in use.")

    @operation(
        "POST",
        PATH,
        policy=_ADMIN + "migrate_volume",
        action="os-migrate_volume",
        body=MIGRATE,
        status=202,
        late_policy=True,
    )
    def migrate(self, call: Call) -> None:
        """Move a volume to another pool."""
        self._ring(self._migrate(call))

    @retrying
    def _migrate(self, call: Call) -> Row:
        asked = call.body["os-migrate_volume"]
        if asked.get("cluster"):
            raise BadRequest(f"Invalid input received: No available service named {asked['cluster']}.")
        if not asked.get("host"):
            raise BadRequest("Invalid input received: host is required.")
        with self.services.databases.global_.write() as connection:
            row = self._row(call, connection)
            where = sa.or_(pools.c.name == asked["host"], pools.c.service_host == asked["host"])
            pool = connection.execute(sa.select(pools).where(where).order_by(pools.c.name)).mappings().first()
            if pool is None:
                raise BadRequest(f"Invalid input received: No available service named {asked['host']}.")
            service = volume_services.get(connection, pool["service_host"], volume_services.VOLUME)
            down_after = self.services.options.service_down_time
            if service["disabled"] or not volume_services.is_up(service, down_after):
                raise BadRequest(f"Invalid input received: No available service named {asked['host']}.")
            if row["migration_status"] not in (None, "error", "success"):
                raise BadRequest(f"Invalid volume: Volume {row['id']} is part of an active migration.")
            if db_volumes.snapshots_of(connection, row["id"]):
                raise BadRequest(f"Invalid volume: Volume {row['id']} has snapshots.")
            if row["group_id"] is not None or row["replication_status"] not in (
                None,
                "disabled",
                "not-capable",
            ):
                raise BadRequest(f"Invalid volume: Volume {row['id']} is in a group or replicated.")
            if pool["name"] == row["host"]:
                raise BadRequest(
                    "Invalid input received: Destination host must be different than the current host."
                )
            if row["host"] is None:
                raise Conflict(f"Volume {row['id']} is on no backend.")
            volume_states.check("volume", "volume.migrate", row["id"], row["status"])
            db_volumes.refuse_attached(connection, row["id"])
            lock = common.truth(asked.get("lock_volume", False))
            arguments = {
                "host": pool["name"],
                "force_host_copy": common.truth(asked.get("force_host_copy", False)),
                "lock_volume": lock,
                "destination_id": new_id(),
            }
            return db_volumes.begin(
                connection,
                call.context,
                row,
                "volume.migrate",
                arguments,
                values={"migration_status": "starting"},
                shows="maintenance" if lock else None,
            )

    @operation(
        "POST",
        PATH,
        policy=_ADMIN + "migrate_volume_completion",
        action="os-migrate_volume_completion",
        body=COMPLETION,
        status=202,
        late_policy=True,
    )
    @retrying
    def migrate_completion(self, call: Call) -> dict[str, Any]:
        """The compute service has copied an attached volume to its new one."""
        asked = call.body["os-migrate_volume_completion"]
        with self.services.databases.global_.write() as connection:
            row = self._row(call, connection)
            new = db_volumes.get(connection, asked["new_volume"])
            if row["migrating_to"] != new["id"]:
                raise BadRequest(f"Invalid volume: Volume {new['id']} is not where {row['id']} migrates to.")
            failed = common.truth(asked.get("error", False))
            status = "error" if failed else "success"
            db_volumes.update(connection, row["id"], {"migration_status": status, "migrating_to": None})
        return {"save_volume_id": row["id"] if failed else new["id"]}

    @operation(
        "POST",
        PATH,
        policy="volume:revert_to_snapshot",
        action="revert",
        since="3.40",
        body=schemas.action("revert", v.obj({"snapshot_id": v.UUID}, ["snapshot_id"])),
        status=202,
        late_policy=True,
    )
    def revert(self, call: Call) -> None:
        """Back to the volume's newest snapshot."""
        self._ring(self._revert(call))

    @retrying
    def _revert(self, call: Call) -> Row:
        identifier = call.body["revert"]["snapshot_id"]
        with self.services.databases.global_.write() as connection:
            row = self._row(call, connection)
            own = [
                each
                for each in db_volumes.snapshots_of(connection, row["id"])
                if each["status"] == "available"
            ]
            if not own:
                raise NotFound(f"Volume {row['id']} has no snapshot.")
            newest = own[-1]
            if newest["id"] != identifier:
                raise BadRequest(
                    f"Specified snapshot {identifier} isn't the most recent one of volume {row['id']}."
                )
            volume_states.check("volume", "volume.revert", row["id"], row["status"], conflict=True)
            if newest["size_gib"] != row["size_gib"]:
                raise BadRequest("Can't revert volume to its latest snapshot: the volume was extended since.")
            db_volumes.refuse_attached(connection, row["id"])
            intent = db_volumes.begin(
                connection, call.context, row, "volume.revert", {"snapshot_id": newest["id"]}
            )
            connection.execute(
                snapshots.update()
                .where(snapshots.c.id == newest["id"], snapshots.c.status == "available")
                .values(status="restoring")
            )
            return intent

    @operation(
        "POST",
        PATH,
        policy="volume_extension:volume_unmanage",
        action="os-unmanage",
        body=schemas.empty("os-unmanage"),
        status=202,
        late_policy=True,
    )
    def unmanage(self, call: Call) -> None:
        """Forget a volume and leave its data where they are."""
        self._ring(self._unmanage(call))

    @retrying
    def _unmanage(self, call: Call) -> Row:
        with self.services.databases.global_.write() as connection:
            row = self._row(call, connection)
            volumes_api.refuse_busy(connection, row)
            if db_volumes.snapshots_of(connection, row["id"]):
                raise BadRequest(f"Invalid volume: Volume {row['id']} has snapshots.")
            if row["encryption_key_id"]:
                raise BadRequest("Invalid volume: an encrypted volume can't be unmanaged: its key would go.")
            if row["host"] is None:
                raise Conflict(f"Volume {row['id']} is on no backend.")
            return db_volumes.begin(connection, call.context, row, "volume.unmanage", {})
