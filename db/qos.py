"""QoS policies and their rules: bandwidth limits, DSCP marks, guaranteed bandwidth, packet rates."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exc

from db import network_base as base
from db.network_base import TABLES
from db.network_errors import conflict, not_found

policies = TABLES["qos_policies"]
rules = TABLES["qos_rules"]
RBAC = "qos_policy"
UNUSABLE = ("packet_rate_limit", "minimum_packet_rate")
"""Kinds of rule that no host keeps: a policy is in use, or has one of these."""
_USERS = ("networks", "ports", "floating_ips", "routers")


def _expand(connection: sa.Connection, rows: Sequence[dict[str, Any]], viewer: base.Viewer) -> None:
    base.add_shared(connection, rows, viewer, RBAC)
    by_id = {row["id"]: row for row in rows}
    for row in rows:
        row["rules"] = []
    found = connection.execute(sa.select(rules).where(rules.c.qos_policy_id.in_(list(by_id))))
    for rule in found.mappings():
        by_id[rule["qos_policy_id"]]["rules"].append(rule_view(dict(rule)) | {"type": rule["type"]})


def rule_view(rule: Mapping[str, Any]) -> dict[str, Any]:
    shown = {"id": rule["id"], "qos_policy_id": rule["qos_policy_id"], **rule["values"]}
    return shown | ({"direction": rule["direction"]} if rule["direction"] else {})


MODEL = base.Model(
    name="policy",
    noun="QoS policy",
    not_found_type="QosPolicyNotFound",
    table=policies,
    columns=base.columns_of(policies),
    filters={"shared": base.shared_filter(RBAC, policies.c.id)},
    expand=_expand,
    rbac_type=RBAC,
)


def _user(connection: sa.Connection, policy_id: str) -> str | None:
    """Something that uses the policy, as "kind id"."""
    for name in _USERS:
        table = TABLES[name]
        used = sa.select(table.c.id).where(table.c.qos_policy_id == policy_id).limit(1)
        if (found := connection.execute(used).scalar()) is not None:
            return f"{name.rstrip('s')} {found}"
    return None


def check_deletable(connection: sa.Connection, policy_id: str) -> None:
    """:raises Conflict: something uses it."""
    if (user := _user(connection, policy_id)) is not None:
        raise conflict("QosPolicyInUse", f"QoS Policy {policy_id} is used by {user}.")


def check_usable(connection: sa.Connection, policy_id: str) -> None:
    """:raises Conflict: it has a rule that no host keeps."""
    # its row is held, together with others that begin to use it: none gets such a rule meanwhile
    connection.execute(sa.select(policies.c.id).where(policies.c.id == policy_id).with_for_update(read=True))
    statement = sa.select(rules.c.type).where(rules.c.qos_policy_id == policy_id, rules.c.type.in_(UNUSABLE))
    if (kind := connection.execute(statement.limit(1)).scalar()) is not None:
        raise conflict(
            "QosRuleNotSupported", f"Rule {kind} of QoS Policy {policy_id} is not supported by any host."
        )


def rules_of(connection: sa.Connection, policy_id: str, kind: str) -> list[dict[str, Any]]:
    """Rules of one kind, as they are shown."""
    statement = sa.select(rules).where(rules.c.qos_policy_id == policy_id, rules.c.type == kind)
    return [rule_view(dict(row)) for row in connection.execute(statement.order_by(rules.c.id)).mappings()]


def rule(connection: sa.Connection, rule_id: str, kind: str, policy_id: str | None = None) -> dict[str, Any]:
    """:raises NotFound:"""
    statement = sa.select(rules).where(rules.c.id == rule_id, rules.c.type == kind)
    if policy_id is not None:
        statement = statement.where(rules.c.qos_policy_id == policy_id)
    row = connection.execute(statement).mappings().first()
    if row is None:
        raise not_found("QosRuleNotFound", "QoS rule", rule_id)
    return dict(row)


def set_rule(
    connection: sa.Connection,
    policy_id: str,
    kind: str,
    direction: str,
    values: Mapping[str, Any],
    rule_id: str | None = None,
) -> str:
    """Insert, or with ``rule_id`` change.

    :raises Conflict: there is one of this kind and direction; the policy is in use, and no host keeps such a rule.
    """
    # its row is held: who starts to use the policy meanwhile comes before or after
    connection.execute(sa.select(policies.c.id).where(policies.c.id == policy_id).with_for_update())
    if kind in UNUSABLE and (user := _user(connection, policy_id)) is not None:
        raise conflict("QosRuleNotSupported", f"Rule {kind} is not supported by {user}.")
    row = {"qos_policy_id": policy_id, "type": kind, "direction": direction, "values": dict(values)}
    try:
        with connection.begin_nested():
            if rule_id is None:
                rule_id = str(uuid.uuid4())
                connection.execute(rules.insert().values(id=rule_id, **row))
            else:
                connection.execute(rules.update().where(rules.c.id == rule_id).values(**row))
    except db_exc.DBDuplicateEntry as error:
        raise conflict(
            "QoSRulesConflict",
            f"Rule {kind} conflicts with a rule of the same kind and direction in QoS Policy {policy_id}.",
        ) from error
    base.change(connection, policies, policy_id, {})
    return rule_id


def delete_rule(connection: sa.Connection, row: Mapping[str, Any]) -> None:
    connection.execute(rules.delete().where(rules.c.id == row["id"]))
    base.change(connection, policies, row["qos_policy_id"], {})
