"""Security groups and their rules; every project's default group is made when first needed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exc

from db import default_security_group_rules
from db import network_base as base
from db.network_base import TABLES, Viewer
from db.network_errors import conflict, not_found

groups = TABLES["security_groups"]
rules = TABLES["security_group_rules"]
members = TABLES["port_security_groups"]
RBAC = "security_group"
DEFAULT = "default"


def _expand(connection: sa.Connection, rows: Sequence[dict[str, Any]], viewer: Viewer) -> None:
    by_id = {row["id"]: row for row in rows}
    base.add_shared(connection, rows, viewer, RBAC)
    for row in rows:
        row["security_group_rules"] = []
    found = connection.execute(
        sa.select(rules).where(rules.c.security_group_id.in_(list(by_id))).order_by(rules.c.created_at)
    )
    for rule in found.mappings():
        group = by_id[rule["security_group_id"]]
        group["security_group_rules"].append({**rule, "group_default": group["default_of"] is not None})


MODEL = base.Model(
    name="security_group",
    noun="Security group",
    not_found_type="SecurityGroupNotFound",
    table=groups,
    columns=base.columns_of(groups, "default_of"),
    filters={"shared": base.shared_filter(RBAC, groups.c.id)},
    expand=_expand,
    rbac_type=RBAC,
)


def _expand_rules(connection: sa.Connection, rows: Sequence[dict[str, Any]], viewer: Viewer) -> None:
    default = set(
        connection.execute(
            sa.select(groups.c.id).where(
                groups.c.id.in_({row["security_group_id"] for row in rows}), groups.c.default_of.is_not(None)
            )
        ).scalars()
    )
    for row in rows:
        row["group_default"] = row["security_group_id"] in default


def _rule_visible(viewer: Viewer) -> base.Condition:
    """Rules of one's own groups, whoever made them, and of shared ones."""
    own = sa.exists().where(
        groups.c.id == rules.c.security_group_id, groups.c.project_id == viewer.project_id
    )
    return sa.or_(own, base.granted(RBAC, rules.c.security_group_id, viewer))


def _belongs_to_default(values: Sequence[str], _viewer: Viewer) -> base.Condition:
    default = sa.exists().where(groups.c.id == rules.c.security_group_id, groups.c.default_of.is_not(None))
    return base.either(default if base.truth(value) else sa.not_(default) for value in values)


RULE_MODEL = base.Model(
    name="security_group_rule",
    noun="Security group rule",
    not_found_type="SecurityGroupRuleNotFound",
    table=rules,
    columns=base.columns_of(rules, "fingerprint"),
    filters={"belongs_to_default_sg": _belongs_to_default},
    expand=_expand_rules,
    visible=_rule_visible,
    tagged=False,
)


def create(connection: sa.Connection, values: Mapping[str, Any]) -> str:
    """A group with its first rules. :raises Conflict: a second default group."""
    default = values.get("default_of") is not None
    identifier = base.insert(connection, groups, values)
    for rule in default_security_group_rules.rules_for(
        connection, values["project_id"], identifier, default=default
    ):
        _insert_rule(connection, rule)
    return identifier


def ensure_default(connection: sa.Connection, project_id: str) -> str:
    """The id of the project's default group, made if it is not there; safe against races."""
    statement = sa.select(groups.c.id).where(groups.c.default_of == project_id)
    if (found := connection.execute(statement).scalar()) is not None:
        return str(found)
    values = {
        "project_id": project_id,
        "name": DEFAULT,
        "description": "Default security group",
        "default_of": project_id,
    }
    try:
        with connection.begin_nested():
            return create(connection, values)
    except db_exc.DBDuplicateEntry:
        return str(connection.execute(statement).scalar_one())


def has_default(connection: sa.Connection, project_id: str) -> bool:
    statement = sa.select(groups.c.id).where(groups.c.default_of == project_id)
    return connection.execute(statement).first() is not None


def check_usable(connection: sa.Connection, group_ids: Iterable[str], project_id: str) -> None:
    """Are these the project's groups, or shared with it? One statement. :raises NotFound:"""
    wanted = list(dict.fromkeys(group_ids))
    if not wanted:
        return
    viewer = Viewer(project_id)
    found = set(
        connection.execute(
            sa.select(groups.c.id).where(groups.c.id.in_(wanted), base.visible_to(MODEL, viewer))
        ).scalars()
    )
    for each in wanted:
        if each not in found:
            raise not_found("SecurityGroupNotFound", "Security group", each)


def fingerprint(rule: Mapping[str, Any]) -> str:
    """What makes two rules of a group the same: a unique index is on it."""
    text = "|".join(str(rule.get(key)) for key in default_security_group_rules.MATCHED)
    return hashlib.sha256(text.encode()).hexdigest()


def _insert_rule(connection: sa.Connection, values: Mapping[str, Any]) -> str:
    return base.insert(connection, rules, {**values, "fingerprint": fingerprint(values)})


def create_rule(connection: sa.Connection, values: Mapping[str, Any]) -> str:
    """:raises Conflict: the group has such a rule, named by its id."""
    try:
        with connection.begin_nested():
            identifier = _insert_rule(connection, values)
    except db_exc.DBDuplicateEntry as error:
        same = connection.execute(
            sa.select(rules.c.id).where(
                rules.c.security_group_id == values["security_group_id"],
                rules.c.fingerprint == fingerprint(values),
            )
        ).scalar()
        raise conflict(
            "SecurityGroupRuleExists", f"Security group rule already exists. Rule id is {same}."
        ) from error
    base.change(connection, groups, values["security_group_id"], {})
    return identifier


def delete_rule(connection: sa.Connection, rule: Mapping[str, Any]) -> None:
    connection.execute(rules.delete().where(rules.c.id == rule["id"]))
    base.change(connection, groups, rule["security_group_id"], {})


def in_use(connection: sa.Connection, group_id: str) -> bool:
    statement = sa.select(members.c.port_id).where(members.c.security_group_id == group_id).limit(1)
    return connection.execute(statement).first() is not None


def used(group_id: str) -> Exception:
    return conflict("SecurityGroupInUse", f"Security Group {group_id} in use.")


def delete(connection: sa.Connection, group_id: str) -> None:
    """:raises Conflict: a port has it."""
    if in_use(connection, group_id):
        raise used(group_id)
    try:
        base.delete(connection, groups, group_id)
    except db_exc.DBReferenceError as error:
        raise used(group_id) from error
