"""Taking over what exists on a backend: volumes and snapshots that this service did not make."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.volume import common, schemas, snapshots, volume_create, volume_views
from core.errors import BadRequest, NotFound
from db import intents as db_intents
from db import snapshots as db_snapshots
from db import volume_moves, volume_quotas, volume_services, volume_types
from db import volumes as db_volumes
from db.sessions import retrying
from db.volume_base import Row, intents, pools
from db.volume_base import volumes as volumes_table

_REF = {"type": ["object", "string"], "minProperties": 1, "minLength": 1}
_VOLUME = {
    "host": schemas.MAYBE_TEXT,
    "ref": _REF,
    "name": schemas.NAME,
    "description": schemas.DESCRIPTION,
    "volume_type": schemas.MAYBE_TEXT,
    "metadata": schemas.METADATA,
    "bootable": v.BOOLEAN,
    "availability_zone": schemas.MAYBE_TEXT,
    "cluster": schemas.MAYBE_TEXT,
}
_SNAPSHOT = {
    "volume_id": v.UUID,
    "ref": _REF,
    "name": schemas.NAME,
    "description": schemas.DESCRIPTION,
    "metadata": schemas.METADATA,
}
MANAGE = schemas.wrapped("volume", _VOLUME, ("ref",))
MANAGE_SNAPSHOT = schemas.wrapped("snapshot", _SNAPSHOT, ("volume_id", "ref"))
_SORT = ("size", "reference")


def _reference(asked: Any) -> dict[str, Any]:
    return dict(asked) if isinstance(asked, dict) else {"source-name": asked}


def _pool(call: Call, connection: sa.Connection, host: str | None) -> Row:
    """The pool that a request names, by itself or by its backend.

    :raises BadRequest: none is named, or its service is down.
    """
    if not host:
        raise BadRequest("Invalid input received: host is required.")
    where = sa.or_(pools.c.name == host, pools.c.service_host == host)
    found = connection.execute(sa.select(pools).where(where).order_by(pools.c.name)).mappings().first()
    if found is None:
        raise BadRequest(f"Invalid host: service {host} was not found.")
    service = volume_services.get(connection, found["service_host"], volume_services.VOLUME)
    if service["disabled"] or not volume_services.is_up(service, call.services.options.service_down_time):
        raise BadRequest(f"Invalid host: service {host} is down or disabled.")
    return dict(found)


def _page(call: Call, rows: list[Row], detail: bool, more: tuple[str, ...]) -> list[Row]:
    """One page of what a backend says that could be taken over, in the order that was asked for."""
    found = common.page_of(call, {key: key for key in _SORT}, (("reference", "asc"),))
    for key, direction in reversed([each for each in found.sort if each[0] in _SORT]):
        rows = sorted(rows, key=lambda row: _sortable(row.get(key)), reverse=direction == "desc")
    if found.marker is not None:
        names = [row["reference"].get("source-name") for row in rows]
        if found.marker not in names and found.marker not in [str(row["reference"]) for row in rows]:
            raise BadRequest(f"marker [{found.marker}] not found")
        position = next(
            index
            for index, row in enumerate(rows)
            if found.marker in (row["reference"].get("source-name"), str(row["reference"]))
        )
        rows = rows[position + 1 :]
    keys = ["reference", "size", "safe_to_manage", *more]
    if detail:
        keys += ["reason_not_safe", "cinder_id", "extra_info"]
    return [{key: row.get(key) for key in keys} for row in rows[found.offset :][: found.limit]]


def _sortable(value: Any) -> tuple[int, str]:
    return (value, "") if isinstance(value, int) else (0, str(value))


class ManageVolumesController(Controller):
    """Volumes of a backend that are not known here."""

    def _list(self, call: Call, detail: bool) -> dict[str, Any]:
        with self.services.databases.global_.read() as connection:
            pool = _pool(call, connection, call.first("host"))
        rows = self.services.doorbells.volume().manageable_volumes(call.context, pool["service_host"])
        return {"manageable-volumes": _page(call, rows, detail, ())}

    @operation("GET", "/manageable_volumes", policy="volume_extension:list_manageable")
    @operation("GET", "/os-volume-manage", policy="volume_extension:list_manageable")
    def index(self, call: Call) -> dict[str, Any]:
        """List what may be taken over."""
        return self._list(call, False)

    @operation("GET", "/manageable_volumes/detail", policy="volume_extension:list_manageable")
    @operation("GET", "/os-volume-manage/detail", policy="volume_extension:list_manageable")
    def detail(self, call: Call) -> dict[str, Any]:
        """List it in full."""
        return self._list(call, True)

    @operation(
        "POST", "/manageable_volumes", policy="volume_extension:volume_manage", body=MANAGE, status=202
    )
    @operation("POST", "/os-volume-manage", policy="volume_extension:volume_manage", body=MANAGE, status=202)
    def create(self, call: Call) -> dict[str, Any]:
        """Take a volume over."""
        row, intent = self._manage(call, call.body["volume"])
        self.services.doorbells.ring_for(intent)
        with self.services.databases.global_.read() as connection:
            return {"volume": volume_views.detailed(call, connection, [row], whole=False)[0]}

    @retrying
    def _manage(self, call: Call, asked: dict[str, Any]) -> tuple[Row, Row]:
        with self.services.databases.global_.write() as connection:
            pool = _pool(call, connection, asked.get("host"))
            type_ = (
                volume_types.by_name_or_id(connection, asked["volume_type"])
                if asked.get("volume_type")
                else volume_create.default_type(call, connection)
            )
            if volume_types.encryption(connection, type_["id"]) is not None:
                raise BadRequest(
                    "Invalid volume_type: what is managed has no key, so its type can't be encrypted."
                )
            service = volume_services.get(connection, pool["service_host"], volume_services.VOLUME)
            row = db_volumes.new_row(
                call.context,
                {
                    "name": asked.get("name"),
                    "description": asked.get("description"),
                    "metadata": dict(asked.get("metadata") or {}),
                    "bootable": common.truth(asked.get("bootable", False)),
                    "availability_zone": asked.get("availability_zone") or service["availability_zone"],
                    "status": "managing",
                    "host": pool["name"],
                    "size_gib": 0,
                    "type_id": type_["id"],
                },
            )
            # its size is not known yet: it counts once the driver has said it
            amounts = volume_quotas.of_volume(0, type_["id"])
            self.services.quotas.check(connection, row["project_id"], amounts)
            intent = db_intents.row(
                "volume.manage",
                "volume",
                row["id"],
                call.context,
                {"ref": _reference(asked["ref"]), "pool": pool["name"]},
                target=pool["service_host"],
            )
            db_volumes.insert(connection, [row])
            db_intents.insert(connection, intents, [intent])
        return row, intent


class ManageSnapshotsController(Controller):
    """Snapshots on a backend that are not known here."""

    def _list(self, call: Call, detail: bool) -> dict[str, Any]:
        with self.services.databases.global_.read() as connection:
            pool = _pool(call, connection, call.first("host"))
        rows = self.services.doorbells.volume().manageable_snapshots(call.context, pool["service_host"])
        return {"manageable-snapshots": _page(call, rows, detail, ("source_reference",))}

    @operation("GET", "/manageable_snapshots", policy="snapshot_extension:list_manageable")
    @operation("GET", "/os-snapshot-manage", policy="snapshot_extension:list_manageable")
    def index(self, call: Call) -> dict[str, Any]:
        """List what may be taken over."""
        return self._list(call, False)

    @operation("GET", "/manageable_snapshots/detail", policy="snapshot_extension:list_manageable")
    @operation("GET", "/os-snapshot-manage/detail", policy="snapshot_extension:list_manageable")
    def detail(self, call: Call) -> dict[str, Any]:
        """List it in full."""
        return self._list(call, True)

    @operation(
        "POST",
        "/manageable_snapshots",
        policy="snapshot_extension:snapshot_manage",
        body=MANAGE_SNAPSHOT,
        status=202,
    )
    @operation(
        "POST",
        "/os-snapshot-manage",
        policy="snapshot_extension:snapshot_manage",
        body=MANAGE_SNAPSHOT,
        status=202,
    )
    def create(self, call: Call) -> dict[str, Any]:
        """Take a snapshot over."""
        row, intent = self._manage(call, call.body["snapshot"])
        self.services.doorbells.ring_for(intent)
        return {"snapshot": snapshots.view(call, row, False)}

    @retrying
    def _manage(self, call: Call, asked: dict[str, Any]) -> tuple[Row, Row]:
        with self.services.databases.global_.write() as connection:
            volume = db_volumes.get(connection, asked["volume_id"])
            if volume["host"] is None:
                raise BadRequest(f"Invalid volume: Volume {volume['id']} is on no backend.")
            if volume["encrypted"]:
                raise BadRequest("Invalid volume: snapshots of an encrypted volume can't be managed.")
            if volume["migration_status"] in volume_moves.MOVING:
                raise BadRequest(f"Invalid volume: Volume {volume['id']} is being migrated.")
            values = {
                "name": asked.get("name"),
                "description": asked.get("description"),
                "metadata": dict(asked.get("metadata") or {}),
            }
            row = db_snapshots.new_row(call.context, volume, values)
            quotas = self.services.quotas
            amounts = volume_quotas.of_snapshot(row["size_gib"], row["type_id"], quotas.snapshots_count_gib)
            quotas.check(connection, row["project_id"], amounts)
            arguments = {"ref": _reference(asked["ref"])}
            return row, db_snapshots.insert(
                connection, call.context, volume, row, "snapshot.manage", arguments
            )


class VolumeEncryptionController(Controller):
    """How a volume is encrypted, for the host that attaches it."""

    def _facts(self, call: Call) -> dict[str, Any]:
        with self.services.databases.global_.read() as connection:
            row = common.found(call, connection, volumes_table, "Volume", call.params["volume_id"])
            encryption = volume_types.encryption(connection, row["type_id"]) if row["type_id"] else None
        if encryption is None or not row["encrypted"]:
            return {"encryption_key_id": row["encryption_key_id"]}
        return {
            "encryption_key_id": row["encryption_key_id"],
            "control_location": encryption["control_location"],
            "cipher": encryption["cipher"],
            "key_size": encryption["key_size"],
            "provider": encryption["provider"],
        }

    @operation(
        "GET",
        "/volumes/{volume_id}/encryption",
        policy="volume_extension:volume_encryption_metadata",
        late_policy=True,
    )
    def index(self, call: Call) -> dict[str, Any]:
        """Show all of it."""
        return self._facts(call)

    @operation(
        "GET",
        "/volumes/{volume_id}/encryption/{key}",
        policy="volume_extension:volume_encryption_metadata",
        late_policy=True,
    )
    def show(self, call: Call) -> dict[str, Any]:
        """Show one item."""
        key, facts = call.params["key"], self._facts(call)
        if key not in facts:
            raise NotFound("The resource could not be found.")
        return {key: facts[key]}
