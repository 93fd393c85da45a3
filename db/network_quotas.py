"""Quotas of the Network API: limits, and usage counted from what there is.

As in ``db.quotas``, whose tables and lock these are: the check runs in the
transaction that creates, and creations of one project follow one another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from oslo_config import cfg

from db import quotas as db_quotas
from db.global_schema import quotas
from db.network_base import TABLES
from db.network_errors import conflict

GROUP = "network_quota"
SERVICE = "network"
_COUNTED: dict[str, tuple[str, int, str]] = {
    "network": ("networks", 100, "Networks"),
    "subnet": ("subnets", 100, "Subnets"),
    "port": ("ports", 500, "Ports"),
    "router": ("routers", 10, "Routers"),
    "floatingip": ("floating_ips", 50, "Floating IPs"),
    "security_group": ("security_groups", 10, "Security groups"),
    "security_group_rule": ("security_group_rules", 100, "Security group rules"),
    "subnetpool": ("subnet_pools", -1, "Subnet pools"),
    "rbac_policy": ("network_rbac_policies", 10, "RBAC policies"),
}
RESOURCES = tuple(_COUNTED)
OPTS: list[cfg.Opt] = [
    cfg.IntOpt(name, default=default, min=-1, help=f"{what} per project; -1 for no limit.")
    for name, (_, default, what) in _COUNTED.items()
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [(GROUP, OPTS)]


class NetworkQuotas:
    """The limits of one deployment."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        conf.register_opts(OPTS, group=GROUP)
        self._options = conf[GROUP]

    def defaults(self) -> dict[str, int]:
        return {name: int(self._options[name]) for name in RESOURCES}

    def limits(self, connection: sa.Connection, project_id: str) -> dict[str, int]:
        """A project's limits; one statement."""
        return {**self.defaults(), **own_limits(connection, project_id)}

    def check(self, connection: sa.Connection, project_id: str, amounts: Mapping[str, int]) -> None:
        """Refuse what would exceed a limit. Call it first in the transaction that creates.

        :raises Conflict: names what is over.
        """
        if not project_id:
            return  # what belongs to haneul itself is not counted
        db_quotas.lock(connection, f"network:{project_id}")
        limits = self.limits(connection, project_id)
        bounded = [name for name in amounts if limits[name] >= 0]
        used = usage(connection, project_id, bounded)
        over = [name for name in bounded if used[name] + amounts[name] > limits[name]]
        if over:
            raise conflict("OverQuota", f"Quota exceeded for resources: {over}.")


def own_limits(connection: sa.Connection, project_id: str) -> dict[str, int]:
    """What is set for the project itself."""
    statement = sa.select(quotas.c.resource, quotas.c.hard_limit).where(
        quotas.c.service == SERVICE, quotas.c.project_id == project_id, quotas.c.user_id == ""
    )
    return {name: limit for name, limit in connection.execute(statement) if name in _COUNTED}


def projects(connection: sa.Connection) -> dict[str, dict[str, int]]:
    """The limits of all projects that have any of their own."""
    statement = sa.select(quotas.c.project_id, quotas.c.resource, quotas.c.hard_limit).where(
        quotas.c.service == SERVICE
    )
    result: dict[str, dict[str, int]] = {}
    for project_id, resource, limit in connection.execute(statement):
        result.setdefault(project_id, {})[resource] = limit
    return result


def usage(connection: sa.Connection, project_id: str, resources: Any = RESOURCES) -> dict[str, int]:
    """How many the project has of each; one statement per resource asked for."""
    result = {}
    for name in resources:
        table = TABLES[_COUNTED[name][0]]
        statement = sa.select(sa.func.count()).select_from(table).where(table.c.project_id == project_id)
        result[name] = int(connection.execute(statement).scalar_one())
    return result


def set_limits(connection: sa.Connection, project_id: str, limits: Mapping[str, int]) -> None:
    db_quotas.set_limits(connection, project_id, None, limits, service=SERVICE)


def delete_limits(connection: sa.Connection, project_id: str) -> int:
    """Back to the defaults; how many limits there were."""
    return db_quotas.delete_limits(connection, project_id, service=SERVICE)
