"""Rules that new security groups begin with: operators make and remove them, everybody may read them."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from api.common.operations import Call
from api.network import attributes as a
from api.network.attributes import Attr
from api.network.resource import ResourceController, Row
from api.network.security_group_rules import ATTRIBUTES as RULE_ATTRIBUTES
from api.network.security_group_rules import checked
from db import address_groups as db_address_groups
from db import default_security_group_rules as db_rules
from db import network_base as base
from db import security_groups as db_security_groups

ATTRIBUTES: dict[str, Attr] = {
    **{key: RULE_ATTRIBUTES[key] for key in ("id", "description", *db_rules.MATCHED)},
    "used_in_default_sg": a.boolean(False, put=False),
    "used_in_non_default_sg": a.boolean(True, put=False),
}


class DefaultSecurityGroupRulesController(ResourceController):
    """Default rules: created and deleted, never changed. Groups that exist keep what they have."""

    name, collection = "default_security_group_rule", "default_security_group_rules"
    path = "/default-security-group-rules"
    attributes = ATTRIBUTES
    model = db_rules.MODEL
    actions = ("index", "show", "create", "delete")

    def target(self, call: Call, connection: sa.Connection, row: Row) -> Row:  # type: ignore[override]
        return dict(row)

    def before_list(self, call: Call) -> None:
        with self.database.write() as connection:
            db_rules.ensure(connection)

    def extra(self, call: Call) -> Sequence[base.Condition]:
        return (db_rules.RULES,)

    def show(self, call: Call) -> Row:
        """Show one."""
        self.before_list(call)
        return super().show(call)

    def insert(self, call: Call, connection: sa.Connection, values: Row, asked: Row) -> str:
        row = checked(values)
        row.pop("project_id", None)
        if row["remote_group_id"] not in (None, "", db_rules.PARENT):
            base.find(connection, db_security_groups.MODEL, row["remote_group_id"], base.GOD)
        if row["remote_address_group_id"]:
            base.find(connection, db_address_groups.MODEL, row["remote_address_group_id"], base.GOD)
        return db_rules.create(connection, row)

    def remove(self, call: Call, connection: sa.Connection, row: Row) -> None:
        db_rules.delete(connection, row["id"])
