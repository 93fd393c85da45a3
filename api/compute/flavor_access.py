"""Who may use a private flavor."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.compute import flavors
from core.errors import Conflict, NotFound
from db import flavors as db_flavors

_TENANT = v.obj({"tenant": {"type": "string", "minLength": 1, "maxLength": 255}}, ["tenant"])
ADD = v.obj({"addTenantAccess": _TENANT}, ["addTenantAccess"])
REMOVE = v.obj({"removeTenantAccess": _TENANT}, ["removeTenantAccess"])
_ACTION = "/flavors/{flavor_id}/action"
_POLICY = "os_compute_api:os-flavor-access"


def _view(connection: Any, row: sa.RowMapping) -> dict[str, Any]:
    return {
        "flavor_access": [
            {"flavor_id": row["flavor_id"], "tenant_id": project}
            for project in db_flavors.projects(connection, row)
        ]
    }


class FlavorAccessController(Controller):
    """List, add and remove projects."""

    @operation("GET", "/flavors/{flavor_id}/os-flavor-access", policy=_POLICY)
    def index(self, call: Call) -> dict[str, Any]:
        """List the projects that may use a private flavor."""
        with self.services.databases.global_.read() as connection:
            row = flavors.find(call, connection)
            if row["is_public"]:
                raise NotFound("Access list not available for public flavors.")
            return _view(connection, row)

    @operation("POST", _ACTION, policy=_POLICY + ":add_tenant_access", action="addTenantAccess", body=ADD)
    def add(self, call: Call) -> dict[str, Any]:
        """Let a project use a private flavor."""
        with self.services.databases.global_.write() as connection:
            row = flavors.find(call, connection)
            if call.since("2.7") and row["is_public"]:
                raise Conflict("Can not add access to a public flavor.")
            db_flavors.add_project(connection, row, call.body["addTenantAccess"]["tenant"])
            return _view(connection, row)

    @operation(
        "POST", _ACTION, policy=_POLICY + ":remove_tenant_access", action="removeTenantAccess", body=REMOVE
    )
    def remove(self, call: Call) -> dict[str, Any]:
        """Take a project's access away."""
        with self.services.databases.global_.write() as connection:
            row = flavors.find(call, connection)
            db_flavors.remove_project(connection, row, call.body["removeTenantAccess"]["tenant"])
            return _view(connection, row)
