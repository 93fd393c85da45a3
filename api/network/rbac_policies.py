"""RBAC policies: sharing an object with one project, or everyone."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from api.common.operations import Call
from api.network import attributes as a
from api.network import common
from api.network.attributes import MISSING, Attr
from api.network.resource import ResourceController, Row
from db import address_groups as db_address_groups
from db import network_base as base
from db import networks as db_networks
from db import ports as db_ports
from db import qos as db_qos
from db import rbac
from db import security_groups as db_security_groups
from db import subnet_pools as db_subnet_pools
from db.network_errors import bad_request, conflict

_MODELS = {
    model.rbac_type: model
    for model in (
        db_networks.MODEL,
        db_qos.MODEL,
        db_security_groups.MODEL,
        db_address_groups.MODEL,
        db_subnet_pools.MODEL,
        db_subnet_pools.SCOPE_MODEL,
    )
}
_ONCE: dict[str, Any] = {"put": False, "default": MISSING}
ATTRIBUTES: dict[str, Attr] = {
    "id": a.read_only(),
    **a.PROJECT,
    "object_type": Attr({"enum": sorted(rbac.ACTIONS)}, **_ONCE),
    "object_id": Attr(a.UUID, **_ONCE),
    "action": Attr(a.string(32), **_ONCE),
    "target_tenant": Attr(
        {"type": "string", "minLength": 1, "maxLength": 255},
        default=MISSING,
        column="target_project",
        create_rule=True,
        update_rule=True,
    ),
}


class RbacPoliciesController(ResourceController):
    """RBAC policies."""

    name, collection, path = "rbac_policy", "rbac_policies", "/rbac-policies"
    attributes = ATTRIBUTES
    model = rbac.MODEL
    quota = "rbac_policy"

    def enforce(self, call: Call, verb: str, target: Any, given: Any) -> None:
        if "target_tenant" in given:
            target = {**target, "target_tenant": given["target_tenant"]}
        super().enforce(call, verb, target, given)

    def _object(self, call: Call, connection: sa.Connection, row: Row) -> Row:
        """What is shared; only its owner may. :raises NotFound:"""
        model = _MODELS[row["object_type"]]
        found = base.find(connection, model, row["object_id"], common.viewer_of(call), lock=True)
        if not common.is_elevated(call) and found["project_id"] != call.context.project_id:
            raise model.missing(row["object_id"])
        return found

    def insert(self, call: Call, connection: sa.Connection, values: Row, asked: Row) -> str:
        if values["action"] not in rbac.ACTIONS[values["object_type"]]:
            raise bad_request(
                "InvalidInput",
                f"Invalid action '{values['action']}' for object type '{values['object_type']}'."
                f" Valid actions: {', '.join(rbac.ACTIONS[values['object_type']])}",
            )
        found = self._object(call, connection, values)
        if values["action"] == base.EXTERNAL:
            if not self.services.policy.is_admin(call.context):
                raise bad_request("InvalidInput", "Only administrators make networks external.")
            base.change(connection, db_networks.networks, found["id"], {"external": True})
        return rbac.create(connection, values)

    def modify(
        self, call: Call, connection: sa.Connection, row: Row, values: Row, revision: int | None
    ) -> None:
        if values["target_project"] != row["target_project"]:
            self._check_unused(connection, row)
        table = self.model.table
        connection.execute(table.update().where(table.c.id == row["id"]).values(**values))

    def remove(self, call: Call, connection: sa.Connection, row: Row) -> None:
        self._check_unused(connection, row)
        connection.execute(self.model.table.delete().where(self.model.table.c.id == row["id"]))
        if row["action"] == base.EXTERNAL:
            others = sa.select(self.model.table.c.id).where(
                self.model.table.c.object_id == row["object_id"], self.model.table.c.action == base.EXTERNAL
            )
            if connection.execute(others.limit(1)).first() is None:
                base.change(connection, db_networks.networks, row["object_id"], {"external": False})

    def _check_unused(self, connection: sa.Connection, row: Row) -> None:
        """:raises Conflict: the target uses what would no longer be shared with it."""
        if row["object_type"] == "network" and row["action"] == base.SHARED:
            network = base.find(connection, db_networks.MODEL, row["object_id"], base.GOD)
            db_networks.check_unshared(connection, network, row["target_project"])
        elif row["object_type"] == "network":
            routers = base.TABLES["routers"]
            used = sa.select(routers.c.id).where(routers.c.gateway_network_id == row["object_id"])
            if row["target_project"] != base.EVERYONE:
                used = used.where(routers.c.project_id == row["target_project"])
            if connection.execute(used.limit(1)).first() is not None:
                raise self._in_use(row, "routers have their gateway there")
        elif row["object_type"] == "security_group":
            groups, ports = db_ports.port_security_groups, db_ports.ports
            statement = (
                sa.select(ports.c.id)
                .join(groups, groups.c.port_id == ports.c.id)
                .where(groups.c.security_group_id == row["object_id"])
            )
            if row["target_project"] != base.EVERYONE:
                statement = statement.where(ports.c.project_id == row["target_project"])
            else:
                statement = statement.where(ports.c.project_id != row["project_id"])
            if connection.execute(statement.limit(1)).first() is not None:
                raise self._in_use(row, "ports of the target have the security group")

    def _in_use(self, row: Row, reason: str) -> Exception:
        return conflict(
            "RbacPolicyInUse",
            f"RBAC policy on object {row['object_id']} cannot be removed because other objects depend on it:"
            f" {reason}.",
        )
