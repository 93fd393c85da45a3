"""Quotas of projects and of the default class, and limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from api.common.operations import Call, Controller, operation
from api.volume import common
from core.errors import BadRequest
from db import quotas as db_quotas
from db import volume_quotas
from db.volume_quotas import Names

_LIMIT = {
    "anyOf": [
        {"type": "integer", "minimum": -1, "maximum": 0x7FFFFFFF},
        {"type": "string", "pattern": r"^-?[0-9]{1,10}$"},
    ]
}


def _schema(name: str) -> dict[str, Any]:
    # names follow from the types that there are: the handler refuses unknown ones
    limits = {"type": "object", "additionalProperties": {"anyOf": [_LIMIT, {"type": ["string", "null"]}]}}
    return {"type": "object", "properties": {name: limits}, "required": [name], "additionalProperties": False}


_IGNORED = ("tenant_id", "class_name", "id", "skip_validation", "force")
_SET = "/os-quota-sets/{project_id}"


def wanted(asked: Mapping[str, Any], names: Names) -> dict[str, int]:
    """{key: limit}. :raises BadRequest: an unknown quota or a bad limit."""
    unknown = sorted(key for key in asked if key not in names.keys and key not in _IGNORED)
    if unknown:
        raise BadRequest(f"Bad key(s) in quota set: {', '.join(unknown)}")
    return {
        names.keys[key]: common.whole(value, key, -1) for key, value in asked.items() if key in names.keys
    }


class QuotaSetsController(Controller):
    """Show with usage, defaults, set, and put the defaults back."""

    def _limits(self, connection: sa.Connection, project_id: str) -> tuple[Names, dict[str, int]]:
        names = Names.read(connection)
        limits = self.services.quotas.limits(connection, project_id)
        return names, {name: limits.get(key, -1) for name, key in names.keys.items()}

    @operation("GET", _SET, policy="volume_extension:quotas:show", late_policy=True)
    def show(self, call: Call) -> dict[str, Any]:
        """Show a project's quotas, with usage=True what is used of them."""
        project_id = call.params["project_id"]
        call.authorize({"project_id": project_id, "user_id": call.context.user_id})
        usage = common.strict_truth(call.first("usage", "false"), "usage")
        with self.services.databases.global_.read() as connection:
            names, limits = self._limits(connection, project_id)
            if not usage:
                return {"quota_set": {"id": project_id, **limits}}
            used = volume_quotas.usage(connection, project_id, self.services.quotas.snapshots_count_gib)
        details = {
            name: {"limit": limits[name], "in_use": used.get(key, 0), "reserved": 0}
            for name, key in names.keys.items()
        }
        return {"quota_set": {"id": project_id, **details}}

    @operation("GET", _SET + "/defaults", policy="volume_extension:quotas:show", late_policy=True)
    def defaults(self, call: Call) -> dict[str, Any]:
        """Show the quotas of a project for which nobody set any."""
        project_id = call.params["project_id"]
        call.authorize({"project_id": project_id, "user_id": call.context.user_id})
        with self.services.databases.global_.read() as connection:
            names = Names.read(connection)
            limits = self.services.quotas.class_limits(connection)
        return {
            "quota_set": {"id": project_id, **{name: limits.get(key, -1) for name, key in names.keys.items()}}
        }

    @operation("PUT", _SET, policy="volume_extension:quotas:update", body=_schema("quota_set"))
    def update(self, call: Call) -> dict[str, Any]:
        """Set quotas."""
        project_id = call.params["project_id"]
        asked = call.body["quota_set"]
        if len(project_id) > 255:
            raise BadRequest("The project's id is too long.")
        with self.services.databases.global_.write() as connection:
            limits = wanted(asked, Names.read(connection))
            db_quotas.lock(connection, f"{volume_quotas.SERVICE}:{project_id}"[:255])
            if common.truth(asked.get("skip_validation", True)) is False:
                self._refuse_below_usage(connection, project_id, limits)
            db_quotas.set_limits(connection, project_id, None, limits, volume_quotas.SERVICE)
            _, shown = self._limits(connection, project_id)
        return {"quota_set": shown}

    def _refuse_below_usage(self, connection: sa.Connection, project_id: str, limits: dict[str, int]) -> None:
        used = volume_quotas.usage(connection, project_id, self.services.quotas.snapshots_count_gib)
        below = [key for key, limit in limits.items() if 0 <= limit < used.get(key, 0)]
        if below:
            raise BadRequest(
                f"Limits below what is used: {', '.join(key.partition(':')[0] for key in below)}."
            )

    @operation("DELETE", _SET, policy="volume_extension:quotas:delete")
    def delete(self, call: Call) -> None:
        """Put the default quotas back."""
        with self.services.databases.global_.write() as connection:
            db_quotas.delete_limits(connection, call.params["project_id"], service=volume_quotas.SERVICE)


_CLASS = "/os-quota-class-sets/{class_name}"


class QuotaClassSetsController(Controller):
    """The default quotas."""

    def _view(self, connection: sa.Connection, class_name: str) -> dict[str, Any]:
        names = Names.read(connection)
        limits = self.services.quotas.class_limits(connection, class_name)
        return {name: limits.get(key, -1) for name, key in names.keys.items()}

    @operation("GET", _CLASS, policy="volume_extension:quota_classes:get")
    def show(self, call: Call) -> dict[str, Any]:
        """Show the quotas of a class."""
        name = call.params["class_name"]
        with self.services.databases.global_.read() as connection:
            return {"quota_class_set": {"id": name, **self._view(connection, name)}}

    @operation("PUT", _CLASS, policy="volume_extension:quota_classes:update", body=_schema("quota_class_set"))
    def update(self, call: Call) -> dict[str, Any]:
        """Set the quotas of a class."""
        name = call.params["class_name"]
        if len(name) > 255:
            raise BadRequest("The name of the class is too long.")
        with self.services.databases.global_.write() as connection:
            limits = wanted(call.body["quota_class_set"], Names.read(connection))
            volume_quotas.set_class_limits(connection, name, limits)
            return {"quota_class_set": self._view(connection, name)}


class LimitsController(Controller):
    """What a project may have and has."""

    @operation("GET", "/limits", policy="limits_extension:used_limits")
    def index(self, call: Call) -> dict[str, Any]:
        """Show limits and what is used."""
        project_id = str(call.context.project_id)
        asked = call.first("project_id") or call.first("tenant_id")
        if asked and call.since("3.39") and common.is_admin(call):
            project_id = asked
        with self.services.databases.global_.read() as connection:
            limits = self.services.quotas.limits(connection, project_id)
            used = volume_quotas.usage(connection, project_id, self.services.quotas.snapshots_count_gib)
        return {
            "limits": {
                "rate": [],
                "absolute": {
                    "maxTotalVolumes": limits["volumes"],
                    "maxTotalSnapshots": limits["snapshots"],
                    "maxTotalVolumeGigabytes": limits["gigabytes"],
                    "maxTotalBackups": limits["backups"],
                    "maxTotalBackupGigabytes": limits["backup_gigabytes"],
                    "totalVolumesUsed": used["volumes"],
                    "totalSnapshotsUsed": used["snapshots"],
                    "totalGigabytesUsed": used["gigabytes"],
                    "totalBackupsUsed": used["backups"],
                    "totalBackupGigabytesUsed": used["backup_gigabytes"],
                },
            }
        }
