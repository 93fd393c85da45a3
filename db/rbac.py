"""RBAC policies of the Network API: objects shared with one project, or everyone."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exc

from db import network_base as base
from db.network_base import EVERYONE, EXTERNAL, SHARED, Viewer
from db.network_errors import conflict

policies = base.rbac_policies
ACTIONS = {
    "network": (SHARED, EXTERNAL),
    "qos_policy": (SHARED,),
    "security_group": (SHARED,),
    "address_group": (SHARED,),
    "address_scope": (SHARED,),
    "subnetpool": (SHARED,),
}


def _visible(viewer: Viewer) -> base.Condition:
    """One's own, and those that share something with one's project alone."""
    return policies.c.target_project == viewer.project_id


def _expand(_connection: sa.Connection, rows: Sequence[dict[str, Any]], _viewer: Viewer) -> None:
    for row in rows:
        row["target_tenant"] = row["target_project"]


MODEL = base.Model(
    name="rbac_policy",
    noun="RBAC policy",
    not_found_type="RbacPolicyNotFound",
    table=policies,
    columns=base.columns_of(policies, target_tenant="target_project"),
    expand=_expand,
    visible=_visible,
    tagged=False,
)


def create(connection: sa.Connection, values: Mapping[str, Any]) -> str:
    """:raises Conflict: there is this policy."""
    identifier = str(uuid.uuid4())
    try:
        with connection.begin_nested():
            connection.execute(policies.insert().values(**{**values, "id": identifier}))
    except db_exc.DBDuplicateEntry as error:
        raise conflict("DuplicateRbacPolicy", "An RBAC policy already exists with those values.") from error
    return identifier


def unshare(connection: sa.Connection, object_type: str, object_id: str) -> None:
    """With nobody but those whom policies name; twice is harmless."""
    connection.execute(
        policies.delete().where(
            policies.c.object_id == object_id,
            policies.c.object_type == object_type,
            policies.c.action == SHARED,
            policies.c.target_project == EVERYONE,
        )
    )


def share(connection: sa.Connection, project_id: str, object_type: str, object_id: str) -> None:
    """With everyone; twice is harmless."""
    statement = sa.select(policies.c.id).where(
        policies.c.object_id == object_id,
        policies.c.object_type == object_type,
        policies.c.action == SHARED,
        policies.c.target_project == EVERYONE,
    )
    if connection.execute(statement).first() is None:
        create(
            connection,
            {
                "project_id": project_id,
                "object_type": object_type,
                "object_id": object_id,
                "action": SHARED,
                "target_project": EVERYONE,
            },
        )
