"""Quotas of projects."""

from __future__ import annotations

from typing import Any

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from core.errors import Forbidden
from db import network_quotas as db_quotas
from db.network_errors import not_found
from db.sessions import retrying

_LIMIT = {
    "anyOf": [
        {"type": "integer", "minimum": -1, "maximum": 0x7FFFFFFF},
        {"type": "string", "pattern": "^(-1|[0-9]{1,9})$"},
    ]
}
UPDATE = v.obj(
    {
        "quota": v.obj(
            {
                **dict.fromkeys(db_quotas.RESOURCES, _LIMIT),
                "force": {"type": ["boolean", "string"]},
                "check_limit": {"type": ["boolean", "string"]},
            }
        )
    },
    ["quota"],
)
_ONE = "/quotas/{project_id}"


class QuotasController(Controller):
    """List what is set; show, set, and put the defaults back."""

    def _project(self, call: Call) -> str:
        project_id = call.params["project_id"]
        if not call.allowed(call.operation.policy, {"project_id": project_id}):
            raise Forbidden(f"rule:{call.operation.policy} is disallowed by policy")
        return project_id

    @property
    def _database(self) -> Any:
        return self.services.databases.global_

    @operation("GET", "/quotas", policy="update_quota")
    def index(self, call: Call) -> dict[str, Any]:
        """List the projects that have limits of their own."""
        with self._database.read() as connection:
            found = db_quotas.projects(connection)
        defaults = self.services.quotas.defaults()
        return {
            "quotas": [
                {**defaults, **limits, "project_id": project_id, "tenant_id": project_id}
                for project_id, limits in sorted(found.items())
            ]
        }

    @operation("GET", _ONE, policy="get_quota", late_policy=True)
    def show(self, call: Call) -> dict[str, Any]:
        """Show a project's limits."""
        project_id = self._project(call)
        with self._database.read() as connection:
            return {"quota": self.services.quotas.limits(connection, project_id)}

    @operation("GET", _ONE + "/default", policy="get_quota", late_policy=True)
    def default(self, call: Call) -> dict[str, Any]:
        """Show the limits that projects have when none are set."""
        self._project(call)
        return {"quota": self.services.quotas.defaults()}

    @operation("GET", _ONE + "/details", policy="get_quota", late_policy=True)
    @operation("GET", _ONE + "/details.json", policy="get_quota", late_policy=True)
    def details(self, call: Call) -> dict[str, Any]:
        """Show limits and usage."""
        project_id = self._project(call)
        with self._database.read() as connection:
            limits = self.services.quotas.limits(connection, project_id)
            used = db_quotas.usage(connection, project_id)
        return {
            "quota": {
                name: {"limit": limit, "used": used[name], "reserved": 0} for name, limit in limits.items()
            }
        }

    @operation("PUT", _ONE, policy="update_quota", body=UPDATE, late_policy=True)
    def update(self, call: Call) -> dict[str, Any]:
        """Set limits."""
        project_id = self._project(call)
        limits = {
            name: int(value) for name, value in call.body["quota"].items() if name in db_quotas.RESOURCES
        }

        def run() -> dict[str, int]:
            with self._database.write() as connection:
                db_quotas.set_limits(connection, project_id, limits)
                return dict(self.services.quotas.limits(connection, project_id))

        return {"quota": retrying(run)()}

    @operation("DELETE", _ONE, policy="delete_quota", status=204, late_policy=True)
    def delete(self, call: Call) -> None:
        """Back to the defaults."""
        project_id = self._project(call)
        with self._database.write() as connection:
            if not db_quotas.delete_limits(connection, project_id):
                raise not_found("TenantQuotaNotFound", "Quota for tenant", project_id)
