"""Quotas of the Compute API: limits, and usage counted from what there is (global database).

Nothing is cached or reserved: ``Quotas.check`` runs inside the transaction that
creates something.  It bumps the project's row in ``quota_generations`` first, so
two creations of one project follow one another, and the second counts the first.

Limits, most specific first: the user's within the project, the project's, the
quota class "default", the options in ``[quota]``.  -1 is no limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from oslo_config import cfg
from oslo_db import exception as db_exc

from core.errors import OverQuota
from db.global_schema import (
    keypairs,
    quota_classes,
    quota_generations,
    quotas,
    server_groups,
    server_mappings,
)

GROUP = "quota"
SERVICE = "compute"
DEFAULT_CLASS = "default"


def _limit(name: str, default: int, what: str) -> cfg.IntOpt:
    return cfg.IntOpt(name, default=default, min=-1, help=f"{what}; -1 for no limit.")


OPTS: list[cfg.Opt] = [
    _limit("instances", 10, "Servers per project"),
    _limit("cores", 20, "vCPUs per project"),
    _limit("ram", 51200, "MiB of memory per project"),
    _limit("metadata_items", 128, "Metadata items per server"),
    _limit("key_pairs", 100, "Key pairs per user"),
    _limit("server_groups", 10, "Server groups per project"),
    _limit("server_group_members", 10, "Servers per server group"),
    _limit("injected_files", 5, "Files that may be given when a server is created"),
    _limit("injected_file_content_bytes", 10 * 1024, "Bytes per such file"),
    _limit("injected_file_path_length", 255, "Length of such a file's path"),
]
_OPTION_OF = {"injected_file_path_bytes": "injected_file_path_length"}
RESOURCES = (
    "instances",
    "cores",
    "ram",
    "metadata_items",
    "key_pairs",
    "server_groups",
    "server_group_members",
    "injected_files",
    "injected_file_content_bytes",
    "injected_file_path_bytes",
)
NETWORK_RESOURCES = ("fixed_ips", "floating_ips", "security_groups", "security_group_rules")
"""The network service counts these: here they have no limit, until clients stop asking at 2.36."""
_PER_SERVER = ("instances", "cores", "ram")
_MESSAGES = {
    "key_pairs": "Quota exceeded, too many key pairs.",
    "server_groups": "Quota exceeded, too many server groups.",
    "server_group_members": "Quota exceeded, too many servers in group",
}


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [(GROUP, OPTS)]


def lock(connection: sa.Connection, key: str) -> None:
    """Let the transactions that count for ``key`` (a project id) follow one another."""
    bump = (
        quota_generations.update()
        .where(quota_generations.c.project_id == key)
        .values(generation=quota_generations.c.generation + 1)
    )
    if connection.execute(bump).rowcount:
        return
    try:
        with connection.begin_nested():
            connection.execute(quota_generations.insert().values(project_id=key, generation=1))
    except db_exc.DBDuplicateEntry:
        connection.execute(bump)


_LIMITS = sa.union_all(
    # built once: every POST of a server asks
    sa.select(sa.literal(0).label("rank"), quota_classes.c.resource, quota_classes.c.hard_limit).where(
        quota_classes.c.service == SERVICE, quota_classes.c.class_name == DEFAULT_CLASS
    ),
    sa.select(
        sa.case((quotas.c.user_id == "", 1), else_=2).label("rank"), quotas.c.resource, quotas.c.hard_limit
    ).where(
        quotas.c.service == SERVICE,
        quotas.c.project_id == sa.bindparam("project_id"),
        quotas.c.user_id.in_(["", sa.bindparam("user_id")]),
    ),
)
"""Limits with their rank: 0 of the default class, 1 of the project, 2 of the user in it."""


class Quotas:
    """The limits of one deployment."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        conf.register_opts(OPTS, group=GROUP)
        self._options = conf[GROUP]

    def configured(self, names: Iterable[str] = RESOURCES) -> dict[str, int]:
        """What the options say, for every resource, or for some: each look at an option takes time."""
        limits = {name: int(self._options[_OPTION_OF.get(name, name)]) for name in names}
        return {**limits, **dict.fromkeys(NETWORK_RESOURCES, -1)}

    def class_limits(self, connection: sa.Connection, class_name: str = DEFAULT_CLASS) -> dict[str, int]:
        """The limits of a quota class; the options fill in what it does not set."""
        rows = connection.execute(
            sa.select(quota_classes.c.resource, quota_classes.c.hard_limit).where(
                quota_classes.c.service == SERVICE, quota_classes.c.class_name == class_name
            )
        )
        return {**self.configured(), **dict(rows.tuples().all())}

    def limits(
        self, connection: sa.Connection, project_id: str, user_id: str | None = None
    ) -> dict[str, int]:
        """A project's limits, or a user's in it; one statement."""
        return self._both_limits(connection, project_id, user_id)[1]

    def _both_limits(
        self,
        connection: sa.Connection,
        project_id: str,
        user_id: str | None,
        names: Iterable[str] = RESOURCES,
    ) -> tuple[dict[str, int], dict[str, int]]:
        """(the project's, the user's), of these resources at least"""
        ranked: list[dict[str, int]] = [{}, {}, {}]
        asked = {"project_id": project_id, "user_id": user_id or ""}
        for rank, resource, limit in connection.execute(_LIMITS, asked):
            ranked[rank][resource] = limit
        project = {**self.configured(names), **ranked[0], **ranked[1]}
        return project, {**project, **ranked[2]}

    def check(
        self, connection: sa.Connection, project_id: str, user_id: str, amounts: Mapping[str, int]
    ) -> None:
        """Refuse what would exceed a limit. Call it first in the transaction that creates.

        ``amounts``: how many more of instances, cores, ram (MiB), key_pairs, server_groups.
        :raises OverQuota: names every resource that is over, as upstream's message does.
        """
        project_limits, user_limits = self._both_limits(connection, project_id, user_id, amounts)
        if all(project_limits[name] < 0 and user_limits[name] < 0 for name in amounts):
            return  # nothing is limited: nobody has to wait, nothing to count
        # limits do not change with what is counted, so they are read before others have to wait
        lock(connection, f"user:{user_id}" if set(amounts) == {"key_pairs"} else project_id)
        used = usage(connection, project_id, resources=tuple(amounts), key_pairs_of=user_id)
        self._refuse(amounts, used, project_limits)
        if user_limits != project_limits:
            mine = usage(connection, project_id, user_id, tuple(amounts), key_pairs_of=user_id)
            self._refuse(amounts, mine, user_limits)

    def _refuse(self, amounts: Mapping[str, int], used: Mapping[str, int], limits: Mapping[str, int]) -> None:
        over = [name for name, more in amounts.items() if more > 0 and 0 <= limits[name] < used[name] + more]
        if not over:
            return
        if over[0] in _MESSAGES:
            raise OverQuota(_MESSAGES[over[0]])
        names = ", ".join(over)
        asked = ", ".join(str(amounts[name]) for name in over)
        already = ", ".join(str(used[name]) for name in over)
        allowed = ", ".join(str(limits[name]) for name in over)
        raise OverQuota(
            f"Quota exceeded for {names}: Requested {asked}, but already used {already} of {allowed} {names}"
        )


def usage(
    connection: sa.Connection,
    project_id: str,
    user_id: str | None = None,
    resources: tuple[str, ...] = RESOURCES,
    key_pairs_of: str | None = None,
) -> dict[str, int]:
    """What a project has, or a user in it. Only the tables of ``resources`` are counted.

    Key pairs belong to a user: without ``key_pairs_of`` they count as 0, as upstream shows them.
    """
    result = dict.fromkeys((*RESOURCES, *NETWORK_RESOURCES), 0)
    if any(name in resources for name in _PER_SERVER):
        mapping = server_mappings.c
        statement = sa.select(
            sa.func.count(),
            sa.func.coalesce(sa.func.sum(mapping.vcpus), 0),
            sa.func.coalesce(sa.func.sum(mapping.memory_mib), 0),
        ).where(mapping.project_id == project_id, mapping.deleted.is_(False))
        if user_id is not None:
            statement = statement.where(mapping.user_id == user_id)
        counted = connection.execute(statement).one()
        result.update({name: int(value) for name, value in zip(_PER_SERVER, counted, strict=True)})
    if "server_groups" in resources:
        groups = sa.select(sa.func.count()).where(server_groups.c.project_id == project_id)
        if user_id is not None:
            groups = groups.where(server_groups.c.user_id == user_id)
        result["server_groups"] = connection.execute(groups).scalar_one()
    if "key_pairs" in resources and key_pairs_of is not None:
        pairs = sa.select(sa.func.count()).where(keypairs.c.user_id == key_pairs_of)
        result["key_pairs"] = connection.execute(pairs).scalar_one()
    return result


def set_limits(
    connection: sa.Connection,
    project_id: str,
    user_id: str | None,
    limits: Mapping[str, int],
    service: str = SERVICE,
) -> None:
    """Set a project's limits, or a user's in it."""
    _replace(
        connection,
        quotas,
        {"service": service, "project_id": project_id, "user_id": user_id or ""},
        limits,
    )


def set_class_limits(connection: sa.Connection, class_name: str, limits: Mapping[str, int]) -> None:
    """Set the limits of a quota class."""
    _replace(connection, quota_classes, {"service": SERVICE, "class_name": class_name}, limits)


def _replace(
    connection: sa.Connection, table: sa.Table, owner: Mapping[str, Any], limits: Mapping[str, int]
) -> None:
    if not limits:
        return
    mine = sa.and_(*(table.c[name] == value for name, value in owner.items()))
    connection.execute(table.delete().where(mine, table.c.resource.in_(limits)))
    rows = [{**owner, "resource": name, "hard_limit": limit} for name, limit in limits.items()]
    connection.execute(table.insert(), rows)


def delete_limits(
    connection: sa.Connection, project_id: str, user_id: str | None = None, service: str = SERVICE
) -> int:
    """Back to the defaults: a user's limits, or a project's with those of its users; how many there were."""
    statement = quotas.delete().where(quotas.c.service == service, quotas.c.project_id == project_id)
    if user_id is not None:
        statement = statement.where(quotas.c.user_id == user_id)
    return int(connection.execute(statement).rowcount)
