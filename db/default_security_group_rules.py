"""What a new security group begins with: rules that operators may change (global database).

Four are upstream's own: out everything, and into a project's default group from its members. They
are constants until somebody looks at them or changes them through the API: then they become rows, like
those that operators add, and one more row (``marker``) says that they did, or those that are removed would come back.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exc

from db import network_base as base
from db.network_base import TABLES
from db.network_errors import conflict

templates = TABLES["default_security_group_rules"]
PARENT = "PARENT"
"""A ``remote_group_id``: the group that the rule will be in."""
_IDS = uuid.UUID("5d7e2a3c-0f63-4e1b-9a55-1f2f6a3f9d10")
MATCHED = (
    "direction",
    "ethertype",
    "protocol",
    "port_range_min",
    "port_range_max",
    "remote_ip_prefix",
    "remote_group_id",
    "remote_address_group_id",
)
"""what makes two rules the same"""
MODEL = base.Model(
    name="default_security_group_rule",
    noun="Default security group rule",
    not_found_type="DefaultSecurityGroupRuleNotFound",
    table=templates,
    columns=base.columns_of(templates, "marker"),
    visible=lambda _viewer: sa.true(),
    tagged=False,
)
RULES = templates.c.marker.is_(False)
_MARKER = str(uuid.uuid5(_IDS, "marker"))


def _built_in() -> list[dict[str, Any]]:
    result = []
    for ethertype in ("IPv4", "IPv6"):
        for direction, remote in (("egress", None), ("ingress", PARENT)):
            result.append(
                {
                    **dict.fromkeys(MATCHED),
                    "id": str(uuid.uuid5(_IDS, f"{direction}-{ethertype}")),
                    "description": "",
                    "direction": direction,
                    "ethertype": ethertype,
                    "remote_group_id": remote,
                    "used_in_default_sg": True,
                    "used_in_non_default_sg": direction == "egress",
                    "marker": False,
                }
            )
    return result


_BUILT_IN = _built_in()


def ensure(connection: sa.Connection) -> None:
    """Make rows of upstream's own rules, once."""
    if connection.execute(sa.select(templates.c.id).where(templates.c.id == _MARKER)).first() is not None:
        return
    marker = {**_BUILT_IN[0], "id": _MARKER, "marker": True}
    try:
        with connection.begin_nested():
            for rule in (marker, *_BUILT_IN):
                base.insert(connection, templates, rule)
    except db_exc.DBDuplicateEntry:
        return  # another process was faster


def _all(connection: sa.Connection) -> list[dict[str, Any]]:
    """The rules in force, whether they are rows or not."""
    found = connection.execute(sa.select(templates).order_by(templates.c.id)).mappings()
    rows = [dict(row) for row in found]
    return [row for row in rows if not row["marker"]] if rows else _BUILT_IN


def rules_for(
    connection: sa.Connection, project_id: str, group_id: str, *, default: bool
) -> list[dict[str, Any]]:
    """Rows of the rules that a new group of a project begins with."""
    used = "used_in_default_sg" if default else "used_in_non_default_sg"
    result = []
    for template in _all(connection):
        if template[used]:
            rule = {key: template[key] for key in (*MATCHED, "description")}
            if rule["remote_group_id"] == PARENT:
                rule["remote_group_id"] = group_id
            result.append({**rule, "project_id": project_id, "security_group_id": group_id})
    return result


def create(connection: sa.Connection, values: Mapping[str, Any]) -> str:
    """:raises Conflict: there is such a rule, named by its id."""
    ensure(connection)
    for other in _all(connection):
        if all(other[key] == values[key] for key in MATCHED):
            raise conflict(
                "DefaultSecurityGroupRuleExists",
                f"Default Security group rule already exists. Rule id is {other['id']}.",
            )
    return base.insert(connection, templates, values)


def delete(connection: sa.Connection, identifier: str) -> None:
    base.delete(connection, templates, identifier)
