"""Group snapshots: snapshots of all volumes of a group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.volume import common, schemas
from api.volume.groups import brief
from core.errors import BadRequest, Conflict
from db import snapshots as db_snapshots
from db import volume_groups as db_groups
from db import volume_quotas
from db.sessions import retrying
from db.types import now
from db.volume_base import Row, by_ids, find, group_snapshots, groups, page, snapshots

SNAPSHOT = schemas.wrapped(
    "group_snapshot",
    {"group_id": v.UUID, "name": schemas.NAME, "description": schemas.DESCRIPTION},
    ("group_id",),
)
_SNAPSHOT = "/group_snapshots/{group_snapshot_id}"
_SNAPSHOT_COLUMNS = {"id": "id", "name": "name", "status": "status", "group_id": "group_id"}
_SNAPSHOT_STATUSES = "^(?i:creating|available|error|deleting|error_deleting)$"


class GroupSnapshotsController(Controller):
    """Snapshots of all volumes of a group."""

    def _row(self, call: Call, connection: sa.Connection) -> Row:
        identifier = call.params["group_snapshot_id"]
        return common.found(call, connection, group_snapshots, "GroupSnapshot", identifier)

    @staticmethod
    def _view(call: Call, row: Mapping[str, Any]) -> dict[str, Any]:
        found = {
            **brief(row),
            "status": row["status"],
            "created_at": common.micro(row["created_at"]),
            "description": row["description"],
            "group_id": row["group_id"],
            "group_type_id": row["group_type_id"],
        }
        policy = "group:group_snapshot_project_attribute"
        if call.since("3.58") and call.allowed(policy, common.mine(call, row)):
            found["project_id"] = row["project_id"]
        return found

    def _list(self, call: Call, detail: bool) -> dict[str, Any]:
        sort = {key: key for key in ("id", "status", "group_id", "name", "created_at", "updated_at")}
        found = common.page_of(call, sort)
        asked = common.asked_filters(call, list(_SNAPSHOT_COLUMNS))
        where = common.scope(call, group_snapshots)
        where += common.conditions(call, group_snapshots, asked, _SNAPSHOT_COLUMNS)
        with self.services.databases.global_.read() as connection:
            rows = page(
                connection,
                group_snapshots,
                where,
                found.sort,
                found.marker,
                found.limit,
                found.offset,
                "GroupSnapshot",
            )
        shown = [self._view(call, row) if detail else brief(row) for row in rows]
        path = "group_snapshots/detail" if detail else "group_snapshots"
        return common.with_links(call, {"group_snapshots": shown}, "group_snapshot", path, rows, found)

    @operation("GET", "/group_snapshots", policy="group:get_all_group_snapshots", since="3.14")
    def index(self, call: Call) -> dict[str, Any]:
        """List group snapshots."""
        return self._list(call, False)

    @operation("GET", "/group_snapshots/detail", policy="group:get_all_group_snapshots", since="3.14")
    def detail(self, call: Call) -> dict[str, Any]:
        """List group snapshots in full."""
        return self._list(call, True)

    @operation("GET", _SNAPSHOT, policy="group:get_group_snapshot", since="3.14", late_policy=True)
    def show(self, call: Call) -> dict[str, Any]:
        """Show a group snapshot."""
        with self.services.databases.global_.read() as connection:
            return {"group_snapshot": self._view(call, self._row(call, connection))}

    @operation(
        "POST",
        "/group_snapshots",
        policy="group:create_group_snapshot",
        since="3.14",
        status=202,
        body=SNAPSHOT,
        late_policy=True,
    )
    def create(self, call: Call) -> dict[str, Any]:
        """Take snapshots of all volumes of a group."""
        row, intent = self._create(call, call.body["group_snapshot"])
        self.services.doorbells.ring_for(intent)
        return {"group_snapshot": {**brief(row), "group_type_id": row["group_type_id"]}}

    @retrying
    def _create(self, call: Call, asked: dict[str, Any]) -> tuple[Row, Row]:
        with self.services.databases.global_.write() as connection:
            group = common.found(call, connection, groups, "Group", asked["group_id"])
            own = db_groups.members(connection, [group["id"]]).get(group["id"], [])
            if group["status"] not in ("available", "in-use") or not own:
                raise BadRequest(f"Invalid group: Group {group['id']} is empty or not available.")
            busy = [each["id"] for each in own if each["status"] not in ("available", "in-use")]
            if busy:
                raise BadRequest(f"Invalid volume: {busy[0]} of the group is busy.")
            values = {
                "group_id": group["id"],
                "group_type_id": group["group_type_id"],
                "name": asked.get("name"),
                "description": asked.get("description"),
            }
            row = db_groups.new_row(call.context, group_snapshots, values)
            named = {"name": asked.get("name"), "group_snapshot_id": row["id"]}
            made = [db_snapshots.new_row(call.context, volume, named) for volume in own]
            quotas = self.services.quotas
            amounts: dict[str, int] = {}
            for each in made:
                counted = volume_quotas.of_snapshot(
                    each["size_gib"], each["type_id"], quotas.snapshots_count_gib
                )
                for key, more in counted.items():
                    amounts[key] = amounts.get(key, 0) + more
            quotas.check(connection, row["project_id"], amounts)
            arguments = {"snapshot_ids": [each["id"] for each in made]}
            intent = db_groups.insert(
                connection, call.context, "group_snapshot", row, arguments, group["host"]
            )
            connection.execute(snapshots.insert(), made)
        return row, intent

    @operation(
        "DELETE", _SNAPSHOT, policy="group:delete_group_snapshot", since="3.14", status=202, late_policy=True
    )
    def delete(self, call: Call) -> None:
        """Delete a group snapshot and the snapshots that belong to it."""
        self.services.doorbells.ring_for(self._delete(call))

    @retrying
    def _delete(self, call: Call) -> Row:
        with self.services.databases.global_.write() as connection:
            row = self._row(call, connection)
            group = find(connection, groups, "Group", row["group_id"])
            own = by_ids(connection, snapshots, [row["id"]], "group_snapshot_id")
            copied = sa.select(groups.c.id).where(
                groups.c.group_snapshot_id == row["id"], groups.c.status == "creating"
            )
            if connection.execute(copied.limit(1)).first() is not None:
                raise Conflict(f"Group snapshot {row['id']}: a group is being made from it.")
            arguments = {"snapshot_ids": [each["id"] for each in own]}
            intent = db_groups.begin_delete(
                connection, call.context, "group_snapshot", row, arguments, group["host"]
            )
            statement = snapshots.update().where(snapshots.c.group_snapshot_id == row["id"])
            connection.execute(statement.values(status="deleting"))
            return intent

    @operation(
        "POST",
        _SNAPSHOT + "/action",
        policy="group:reset_group_snapshot_status",
        action="reset_status",
        since="3.19",
        status=202,
        late_policy=True,
        body=schemas.reset("reset_status", _SNAPSHOT_STATUSES),
    )
    def reset_status(self, call: Call) -> None:
        """Set the status by hand."""
        status = call.body["reset_status"]["status"].lower()
        with self.services.databases.global_.write() as connection:
            row = self._row(call, connection)
            statement = group_snapshots.update().where(group_snapshots.c.id == row["id"])
            connection.execute(statement.values(status=status, updated_at=now()))
