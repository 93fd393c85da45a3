"""Quotas of projects and of users in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.compute import common
from core.errors import BadRequest
from db import quotas as db_quotas
from db.quotas import NETWORK_RESOURCES, RESOURCES

INJECTED = ("injected_files", "injected_file_content_bytes", "injected_file_path_bytes")
_LIMIT = {
    "anyOf": [
        {"type": "integer", "minimum": -1, "maximum": 0x7FFFFFFF},
        {"type": "string", "pattern": r"^-?[0-9]{1,10}$"},
    ]
}
_OTHERS = {"tenant_id": {"type": "string"}, "force": v.BOOLEAN}


def limits_schema(names: tuple[str, ...]) -> dict[str, Any]:
    """The limits that may be set."""
    return dict.fromkeys(names, _LIMIT)


def _without(*gone: str) -> tuple[str, ...]:
    return tuple(name for name in (*RESOURCES, *NETWORK_RESOURCES) if name not in gone)


ALL = _without()
SINCE_236 = _without(*NETWORK_RESOURCES)
SINCE_257 = _without(*NETWORK_RESOURCES, *INJECTED)


def _update(names: tuple[str, ...], *more: str) -> dict[str, Any]:
    properties = {**limits_schema((*names, *more)), **_OTHERS}
    return v.obj({"quota_set": v.obj(properties)}, ["quota_set"])


UPDATE = (
    ("2.1", _update(ALL, "networks")),
    ("2.36", _update(SINCE_236)),
    ("2.57", _update(SINCE_257)),
)
_USER = {"user_id": {"type": "string", "minLength": 1}}
QUERY = (("2.1", v.query(_USER)), ("2.75", v.query(_USER, additional=False)))
_PATH = "/os-quota-sets/{project_id}"
_POLICY = "os_compute_api:os-quota-sets:"


def shown(call: Call) -> tuple[str, ...]:
    """The resources that the call's microversion knows."""
    return SINCE_257 if call.since("2.57") else SINCE_236 if call.since("2.36") else ALL


def new_limits(asked: Mapping[str, Any]) -> dict[str, int]:
    """The limits in a body as numbers. :raises BadRequest: out of bounds."""
    return {
        name: common.whole(value, name, -1)
        for name, value in asked.items()
        if name not in ("force", "tenant_id", "networks", "class_name", "id")
    }


class QuotaSetsController(Controller):
    """Show, with usage, defaults, set, and put the defaults back."""

    def _target(self, call: Call) -> tuple[str, str | None]:
        project_id = call.params["project_id"]
        call.authorize({"project_id": project_id, "user_id": call.context.user_id})
        return project_id, call.first("user_id")

    @operation("GET", _PATH, policy=_POLICY + "show", query=QUERY)
    def show(self, call: Call) -> dict[str, Any]:
        """Show a project's quotas."""
        project_id, user_id = self._target(call)
        with self.services.databases.global_.read() as connection:
            limits = self.services.quotas.limits(connection, project_id, user_id)
        return {"quota_set": {"id": project_id, **{name: limits[name] for name in shown(call)}}}

    @operation("GET", _PATH + "/detail", policy=_POLICY + "detail", query=QUERY)
    def detail(self, call: Call) -> dict[str, Any]:
        """Show a project's quotas with what is in use."""
        project_id, user_id = self._target(call)
        with self.services.databases.global_.read() as connection:
            limits = self.services.quotas.limits(connection, project_id, user_id)
            used = db_quotas.usage(connection, project_id, user_id, key_pairs_of=user_id)
        details = {name: {"limit": limits[name], "in_use": used[name], "reserved": 0} for name in shown(call)}
        return {"quota_set": {"id": project_id, **details}}

    @operation("GET", _PATH + "/defaults", policy=_POLICY + "defaults")
    def defaults(self, call: Call) -> dict[str, Any]:
        """Show the quotas of a project for which nobody set any."""
        project_id = call.params["project_id"]
        with self.services.databases.global_.read() as connection:
            limits = self.services.quotas.class_limits(connection)
        return {"quota_set": {"id": project_id, **{name: limits[name] for name in shown(call)}}}

    @operation("PUT", _PATH, policy=_POLICY + "update", body=UPDATE, query=QUERY)
    def update(self, call: Call) -> dict[str, Any]:
        """Set quotas; below what is in use only by force."""
        project_id, user_id = self._target(call)
        asked = call.body["quota_set"]
        wanted = new_limits(asked)
        with self.services.databases.global_.write() as connection:
            db_quotas.lock(connection, project_id)
            if not common.truth(asked.get("force", False)):
                self._check_bounds(connection, project_id, user_id, wanted)
            db_quotas.set_limits(connection, project_id, user_id, wanted)
            limits = self.services.quotas.limits(connection, project_id, user_id)
        return {"quota_set": {name: limits[name] for name in shown(call)}}

    def _check_bounds(
        self, connection: Any, project_id: str, user_id: str | None, wanted: Mapping[str, int]
    ) -> None:
        used = db_quotas.usage(connection, project_id, user_id)
        ceiling = self.services.quotas.limits(connection, project_id) if user_id else {}
        for name, limit in wanted.items():
            if 0 <= limit < used[name]:
                raise BadRequest(
                    f"Quota limit {limit} for {name} must be greater than or equal to already used and"
                    f" reserved {used[name]}."
                )
            most = ceiling.get(name, -1)
            if most >= 0 and (limit > most or limit == -1):
                raise BadRequest(f"Quota limit {limit} for {name} must be less than or equal to {most}.")

    @operation("DELETE", _PATH, policy=_POLICY + "delete", status=202, query=QUERY)
    def delete(self, call: Call) -> None:
        """Put the default quotas back."""
        project_id, user_id = self._target(call)
        with self.services.databases.global_.write() as connection:
            db_quotas.delete_limits(connection, project_id, user_id)
