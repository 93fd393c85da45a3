"""Server groups: which servers belong together or apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.compute import common
from core.errors import BadRequest
from db import server_groups as db_server_groups

_HARD = ["anti-affinity", "affinity"]
_SOFT = [*_HARD, "soft-anti-affinity", "soft-affinity"]


def _policies(names: list[str]) -> dict[str, Any]:
    policies = {"type": "array", "items": {"enum": names}, "minItems": 1, "maxItems": 1}
    group = v.obj({"name": v.NAME, "policies": policies}, ["name", "policies"])
    return v.obj({"server_group": group}, ["server_group"])


_RULES = v.obj({"max_server_per_host": v.integer(1)})
_GROUP_264 = v.obj({"name": v.NAME, "policy": {"enum": _SOFT}, "rules": _RULES}, ["name", "policy"])
CREATE = (
    ("2.1", _policies(_HARD)),
    ("2.15", _policies(_SOFT)),
    ("2.64", v.obj({"server_group": _GROUP_264}, ["server_group"])),
)
_QUERY = {"all_projects": {"type": "string"}, "limit": v.LIMIT, "offset": v.LIMIT}
LIST = (("2.1", v.query(_QUERY)), ("2.75", v.query(_QUERY, additional=False)))
_PATH = "/os-server-groups"
_ONE = _PATH + "/{group_id}"
_POLICY = "os_compute_api:os-server-groups:"


def view(call: Call, row: Mapping[str, Any]) -> dict[str, Any]:
    """A server group at the call's microversion."""
    result: dict[str, Any] = {"id": row["id"], "name": row["name"], "members": row["members"]}
    if call.since("2.64"):
        result.update(policy=row["policy"], rules=row["rules"])
    else:
        result.update(policies=[row["policy"]], metadata={})
    if call.since("2.13"):
        result.update(project_id=row["project_id"], user_id=row["user_id"])
    return result


class ServerGroupsController(Controller):
    """Create, list, show and delete."""

    @operation("GET", _PATH, policy=_POLICY + "index", query=LIST)
    def index(self, call: Call) -> dict[str, Any]:
        """List the project's server groups; all projects' for administrators who ask."""
        project_id = call.context.project_id
        # the key alone counts, whatever its value: as upstream has it
        if call.first("all_projects") is not None and call.allowed(_POLICY + "index:all_projects"):
            project_id = None
        with self.services.databases.global_.read() as connection:
            rows = db_server_groups.list_(
                connection,
                project_id,
                limit=common.limit_of(call),
                offset=min(int(call.first("offset") or 0), 0x7FFFFFFF),
            )
        return {"server_groups": [view(call, row) for row in rows]}

    @operation("POST", _PATH, policy=_POLICY + "create", body=CREATE)
    def create(self, call: Call) -> dict[str, Any]:
        """Create a server group."""
        asked = call.body["server_group"]
        policy = asked["policy"] if call.since("2.64") else asked["policies"][0]
        rules = dict(asked.get("rules") or {})
        if rules and policy != "anti-affinity":
            raise BadRequest("Only anti-affinity policy supports rules.")
        if "max_server_per_host" in rules:
            rules["max_server_per_host"] = common.whole(
                rules["max_server_per_host"], "max_server_per_host", 1
            )
        project_id, user_id = call.context.project_id or "", call.context.user_id or ""
        values = {
            "project_id": project_id,
            "user_id": user_id,
            "name": asked["name"],
            "policy": policy,
            "rules": rules,
        }
        with self.services.databases.global_.write() as connection:
            self.services.quotas.check(connection, project_id, user_id, {"server_groups": 1})
            return {"server_group": view(call, db_server_groups.create(connection, values))}

    @operation("GET", _ONE, policy=_POLICY + "show")
    def show(self, call: Call) -> dict[str, Any]:
        """Show a server group."""
        with self.services.databases.global_.read() as connection:
            row = db_server_groups.get(connection, call.params["group_id"])
        call.authorize({"project_id": row["project_id"], "user_id": row["user_id"]})
        return {"server_group": view(call, row)}

    @operation("DELETE", _ONE, policy=_POLICY + "delete", status=204)
    def delete(self, call: Call) -> None:
        """Delete a server group; its servers stay."""
        with self.services.databases.global_.write() as connection:
            row = db_server_groups.get(connection, call.params["group_id"])
            call.authorize({"project_id": row["project_id"], "user_id": row["user_id"]})
            db_server_groups.delete(connection, row["id"])
