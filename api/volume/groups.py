"""Groups of volumes: create, also from another group or its snapshot, change, delete."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.volume import common, group_types, schemas
from core.errors import BadRequest
from db import volume_groups as db_groups
from db import volume_quotas, volume_services, volume_types
from db import volumes as db_volumes
from db.sessions import retrying
from db.types import now
from db.volume_base import Row, by_ids, find, group_snapshots, groups, page, snapshots, volumes

CREATE = schemas.wrapped(
    "group",
    {
        "name": schemas.NAME,
        "description": schemas.DESCRIPTION,
        "group_type": schemas.TEXT,
        "volume_types": {
            "type": "array",
            "items": schemas.TEXT,
            "minItems": 1,
            "uniqueItems": True,
            "maxItems": 255,
        },
        "availability_zone": schemas.MAYBE_TEXT,
    },
    ("group_type", "volume_types"),
)
_IDS = {"type": ["string", "null"], "maxLength": 40000}
UPDATE = v.obj(
    {
        "group": {
            **v.obj(
                {
                    "name": schemas.NAME,
                    "description": schemas.DESCRIPTION,
                    "add_volumes": _IDS,
                    "remove_volumes": _IDS,
                }
            ),
            "minProperties": 1,
        }
    },
    ["group"],
)
FROM_SOURCE = schemas.action(
    "create-from-src",
    v.obj(
        {
            "name": schemas.NAME,
            "description": schemas.DESCRIPTION,
            "group_snapshot_id": schemas.MAYBE_UUID,
            "source_group_id": schemas.MAYBE_UUID,
        }
    ),
)
SORT_KEYS = {
    key: key
    for key in (
        "id",
        "status",
        "host",
        "availability_zone",
        "name",
        "created_at",
        "updated_at",
        "group_type_id",
    )
}
COLUMNS = {
    "id": "id",
    "name": "name",
    "status": "status",
    "availability_zone": "availability_zone",
    "group_type_id": "group_type_id",
    "group_snapshot_id": "group_snapshot_id",
    "source_group_id": "source_group_id",
}
_ONE = "/groups/{group_id}"
_ACTION = _ONE + "/action"
_STATUSES = (
    "^(?i:creating|available|error|deleting|error_deleting|updating|error_updating|in-use|creating-from-src)$"
)


def brief(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": row["id"], "name": row["name"] or ""}


def _view(call: Call, row: Mapping[str, Any], own: list[Row]) -> dict[str, Any]:
    found: dict[str, Any] = {
        **brief(row),
        "status": row["status"],
        "availability_zone": row["availability_zone"],
        "created_at": common.micro(row["created_at"]),
        "description": row["description"],
        "group_type": row["group_type_id"],
        "volume_types": row["volume_type_ids"],
    }
    if call.since("3.14"):
        found["group_snapshot_id"] = row["group_snapshot_id"]
        found["source_group_id"] = row["source_group_id"]
    if call.since("3.25") and _lists_volumes(call):
        found["volumes"] = [each["id"] for each in own]
    if call.since("3.38"):
        found["replication_status"] = row["replication_status"]
    if call.since("3.58") and call.allowed("group:group_project_attribute", common.mine(call, row)):
        found["project_id"] = row["project_id"]
    return found


def _lists_volumes(call: Call) -> bool:
    return common.strict_truth(call.first("list_volume", "false"), "list_volume")


_FAILOVER = schemas.wrapped(
    "failover_replication",
    {"allow_attached_volume": v.BOOLEAN, "secondary_backend_id": schemas.MAYBE_TEXT},
)


class GroupsController(Controller):
    """The groups of a project."""

    def _row(self, call: Call, connection: sa.Connection) -> Row:
        return common.found(call, connection, groups, "Group", call.params["group_id"])

    def _list(self, call: Call, detail: bool) -> dict[str, Any]:
        found = common.page_of(call, SORT_KEYS)
        columns = dict(COLUMNS)
        if call.since("3.60"):
            columns.update(created_at="created_at", updated_at="updated_at")
        asked = common.asked_filters(call, [*columns, "list_volume"])
        where = common.scope(call, groups) + common.conditions(call, groups, asked, columns)
        with self.services.databases.global_.read() as connection:
            rows = page(
                connection, groups, where, found.sort, found.marker, found.limit, found.offset, "Group"
            )
            own = (
                db_groups.members(connection, [row["id"] for row in rows])
                if detail and call.since("3.25") and _lists_volumes(call)
                else {}
            )
        shown = [_view(call, row, own.get(row["id"], [])) if detail else brief(row) for row in rows]
        path = "groups/detail" if detail else "groups"
        return common.with_links(call, {"groups": shown}, "group", path, rows, found)

    @operation("GET", "/groups", policy="group:get_all", since="3.13")
    def index(self, call: Call) -> dict[str, Any]:
        """List groups."""
        return self._list(call, False)

    @operation("GET", "/groups/detail", policy="group:get_all", since="3.13")
    def detail(self, call: Call) -> dict[str, Any]:
        """List groups in full."""
        return self._list(call, True)

    @operation("GET", _ONE, policy="group:get", since="3.13", late_policy=True)
    def show(self, call: Call) -> dict[str, Any]:
        """Show a group."""
        with self.services.databases.global_.read() as connection:
            row = self._row(call, connection)
            own = db_groups.members(connection, [row["id"]]).get(row["id"], [])
        return {"group": _view(call, row, own)}

    @operation("POST", "/groups", policy="group:create", since="3.13", status=202, body=CREATE)
    def create(self, call: Call) -> dict[str, Any]:
        """Create an empty group."""
        row, intent = self._create(call, call.body["group"])
        self.services.doorbells.ring_for(intent)
        return {"group": brief(row)}

    @retrying
    def _create(self, call: Call, asked: dict[str, Any]) -> tuple[Row, Row]:
        zone = asked.get("availability_zone")
        options = self.services.options
        with self.services.databases.global_.write() as connection:
            type_ = group_types.by_name_or_id(call, connection, asked["group_type"])
            seen = volume_types.visible(call.context.project_id)
            kinds = [
                volume_types.by_name_or_id(connection, each, seen)["id"] for each in asked["volume_types"]
            ]
            known = volume_services.zones(connection, options.service_down_time)
            if zone and zone not in known and zone != options.default_availability_zone:
                raise BadRequest(f"Invalid input received: Availability zone '{zone}' is invalid.")
            values = {
                "name": asked.get("name"),
                "description": asked.get("description"),
                "group_type_id": type_["id"],
                "volume_type_ids": kinds,
                "availability_zone": zone or options.default_availability_zone,
            }
            row = db_groups.new_row(call.context, groups, values)
            self.services.quotas.check(connection, row["project_id"], {"groups": 1})
            arguments = {"source": "empty", "volume_ids": []}
            return row, db_groups.insert(connection, call.context, "group", row, arguments, None)

    # -- from another group --------------------------------------------------

    @operation(
        "POST",
        "/groups/action",
        policy="group:create",
        action="create-from-src",
        since="3.14",
        status=202,
        body=FROM_SOURCE,
    )
    def create_from_source(self, call: Call) -> dict[str, Any]:
        """A group with copies of another group's volumes, or of its snapshot's."""
        asked = call.body["create-from-src"]
        if bool(asked.get("group_snapshot_id")) == bool(asked.get("source_group_id")):
            raise BadRequest("Exactly one of group_snapshot_id and source_group_id must be given.")
        row, intent = self._copy(call, asked)
        self.services.doorbells.ring_for(intent)
        return {"group": brief(row)}

    @retrying
    def _copy(self, call: Call, asked: dict[str, Any]) -> tuple[Row, Row]:
        with self.services.databases.global_.write() as connection:
            if asked.get("group_snapshot_id"):
                taken = self._visible(
                    call, connection, group_snapshots, "GroupSnapshot", asked["group_snapshot_id"]
                )
                source = find(connection, groups, "Group", taken["group_id"])
                made = by_ids(connection, snapshots, [taken["id"]], "group_snapshot_id")
                origins = by_ids(connection, volumes, [each["volume_id"] for each in made])
                by_volume = {each["volume_id"]: each["id"] for each in made}
            else:
                taken, by_volume = None, {}
                source = self._visible(call, connection, groups, "Group", asked["source_group_id"])
                origins = db_groups.members(connection, [source["id"]]).get(source["id"], [])
            if (taken or source)["status"] != "available":
                raise BadRequest(f"Invalid group: {(taken or source)['id']} is not available.")
            if not origins:
                raise BadRequest("Invalid group: there is no volume to copy.")
            row = db_groups.new_row(
                call.context,
                groups,
                {
                    "name": asked.get("name"),
                    "description": asked.get("description"),
                    "group_type_id": source["group_type_id"],
                    "volume_type_ids": source["volume_type_ids"],
                    "availability_zone": source["availability_zone"],
                    "host": source["host"],
                    "group_snapshot_id": taken and taken["id"],
                    "source_group_id": None if taken else source["id"],
                },
            )
            copies = [self._new_volume(call, each, row, by_volume.get(each["id"])) for each in origins]
            amounts: dict[str, int] = {"groups": 1}
            for each in copies:
                for key, more in volume_quotas.of_volume(each["size_gib"], each["type_id"]).items():
                    amounts[key] = amounts.get(key, 0) + more
            self.services.quotas.check(connection, row["project_id"], amounts)
            pairs = [{key: each[key] for key in ("id", "snapshot_id", "source_volume_id")} for each in copies]
            arguments = {"source": "group_snapshot" if taken else "group", "volume_ids": pairs}
            intent = db_groups.insert(connection, call.context, "group", row, arguments, source["host"])
            db_volumes.insert(connection, copies)
        return row, intent

    @staticmethod
    def _visible(call: Call, connection: sa.Connection, table: sa.Table, what: str, identifier: str) -> Row:
        row = find(connection, table, what, identifier)
        call.authorize(common.mine(call, row))
        return row

    @staticmethod
    def _new_volume(call: Call, origin: Row, group: Row, snapshot_id: str | None) -> Row:
        same = ("name", "description", "size_gib", "type_id", "availability_zone", "host", "bootable")
        same += ("image_metadata", "multiattach", "encrypted")  # type: ignore[assignment]
        return db_volumes.new_row(
            call.context,
            {
                **{key: origin[key] for key in same},
                "group_id": group["id"],
                "snapshot_id": snapshot_id,
                "source_volume_id": None if snapshot_id else origin["id"],
            },
        )

    # -- change and delete ---------------------------------------------------

    @operation("PUT", _ONE, policy="group:update", since="3.13", status=202, body=UPDATE, late_policy=True)
    @retrying
    def update(self, call: Call) -> None:
        """Change name and description, add and remove volumes."""
        asked = call.body["group"]
        added, removed = (_ids(asked.get(key)) for key in ("add_volumes", "remove_volumes"))
        with self.services.databases.global_.write() as connection:
            row = self._row(call, connection)
            if row["status"] != "available" and (added or removed):
                raise BadRequest(f"Invalid group: Group status must be available, but it is {row['status']}.")
            if both := set(added) & set(removed):
                raise BadRequest(f"Invalid volume: {', '.join(sorted(both))} can't be added and removed.")
            values = {key: asked[key] for key in ("name", "description") if key in asked}
            if not values and not added and not removed:
                raise BadRequest("Name, description, add_volumes, and remove_volumes can not be all empty.")
            self._add(call, connection, row, added)
            self._remove(connection, row, removed)
            statement = groups.update().where(groups.c.id == row["id"])
            connection.execute(statement.values(updated_at=now(), **values))

    @staticmethod
    def _add(call: Call, connection: sa.Connection, group: Row, ids: list[str]) -> None:
        for identifier in ids:
            volume = find(connection, volumes, "Volume", identifier)
            if volume["project_id"] != group["project_id"] or volume["group_id"] not in (None, group["id"]):
                raise BadRequest(f"Invalid volume: Cannot add volume {identifier} to group {group['id']}.")
            if volume["type_id"] not in group["volume_type_ids"]:
                raise BadRequest(
                    f"Invalid volume: the group does not support the type of volume {identifier}."
                )
            if volume["status"] not in ("available", "in-use"):
                raise BadRequest(f"Invalid volume: volume {identifier} is {volume['status']}.")
            if volume["host"] != group["host"]:
                raise BadRequest(f"Invalid volume: volume {identifier} is not on the group's backend.")
            db_volumes.move(connection, volume, volume["status"], {"group_id": group["id"]})

    @staticmethod
    def _remove(connection: sa.Connection, group: Row, ids: list[str]) -> None:
        for identifier in ids:
            volume = find(connection, volumes, "Volume", identifier)
            if volume["group_id"] != group["id"]:
                raise BadRequest(f"Invalid volume: volume {identifier} is not in group {group['id']}.")
            db_volumes.move(connection, volume, volume["status"], {"group_id": None})

    @operation(
        "POST",
        _ACTION,
        policy="group:delete",
        action="delete",
        since="3.13",
        status=202,
        late_policy=True,
        body=schemas.action("delete", v.obj({"delete-volumes": v.BOOLEAN})),
    )
    def delete(self, call: Call) -> None:
        """Delete a group; with its volumes if that is said."""
        self.services.doorbells.ring_for(self._delete(call))

    @retrying
    def _delete(self, call: Call) -> Row:
        with_volumes = common.truth(call.body["delete"].get("delete-volumes", False))
        with self.services.databases.global_.write() as connection:
            row = self._row(call, connection)
            own = db_groups.members(connection, [row["id"]]).get(row["id"], [])
            if own and not with_volumes:
                raise BadRequest(
                    f"Invalid group: Group {row['id']} still contains volumes: delete-volumes is needed."
                )
            taken = sa.select(group_snapshots.c.id).where(group_snapshots.c.group_id == row["id"]).limit(1)
            if connection.execute(taken).first() is not None:
                raise BadRequest(f"Invalid group: Group {row['id']} has group snapshots.")
            for volume in own:
                db_volumes.refuse_attached(connection, volume["id"])
                if db_volumes.snapshots_of(connection, volume["id"]):
                    raise BadRequest(f"Invalid group: Volume {volume['id']} in the group has snapshots.")
                if volume["status"] not in ("available", "error", "error_deleting"):
                    raise BadRequest(f"Invalid group: Volume {volume['id']} is {volume['status']}.")
                db_volumes.move(connection, volume, "deleting", {"previous_status": volume["status"]})
            arguments = {"volume_ids": [each["id"] for each in own]}
            return db_groups.begin_delete(connection, call.context, "group", row, arguments, row["host"])

    @operation(
        "POST",
        _ACTION,
        policy="group:reset_status",
        action="reset_status",
        since="3.20",
        status=202,
        late_policy=True,
        body=schemas.reset("reset_status", _STATUSES),
    )
    def reset_status(self, call: Call) -> None:
        """Set the status by hand."""
        status = call.body["reset_status"]["status"].lower()
        with self.services.databases.global_.write() as connection:
            row = self._row(call, connection)
            statement = groups.update().where(groups.c.id == row["id"])
            connection.execute(statement.values(status=status, updated_at=now()))

    # -- replication: no backend here replicates -----------------------------

    @operation(
        "POST",
        _ACTION,
        policy="group:enable_replication",
        action="enable_replication",
        since="3.38",
        status=202,
        late_policy=True,
        body=schemas.empty("enable_replication"),
    )
    @operation(
        "POST",
        _ACTION,
        policy="group:disable_replication",
        action="disable_replication",
        since="3.38",
        status=202,
        late_policy=True,
        body=schemas.empty("disable_replication"),
    )
    @operation(
        "POST",
        _ACTION,
        policy="group:failover_replication",
        action="failover_replication",
        since="3.38",
        status=202,
        late_policy=True,
        body=_FAILOVER,
    )
    @operation(
        "POST",
        _ACTION,
        policy="group:list_replication_targets",
        action="list_replication_targets",
        since="3.38",
        late_policy=True,
        body=schemas.empty("list_replication_targets"),
    )
    def replication(self, call: Call) -> None:
        """Change or show replication: refused, as upstream refuses it for groups that are not replicated."""
        with self.services.databases.global_.read() as connection:
            row = self._row(call, connection)
        raise BadRequest(f"Invalid group type: Group {row['id']} is not of a type that is replicated.")


def _ids(text: str | None) -> list[str]:
    return [each.strip() for each in (text or "").split(",") if each.strip()]
