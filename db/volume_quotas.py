"""Quotas of the Volume API: limits, and usage counted from what there is.

Nothing is cached or reserved: see ``db.quotas``, whose tables and lock these are.
Per-type quotas (``volumes_NAME``, ``gigabytes_NAME``, ``snapshots_NAME``) are kept by
the type's id (``gigabytes:ID``), so a type takes its quotas along when it is renamed;
``Names`` translates.

Limits, most specific first: the project's, the quota class "default", the options
in ``[volume_quota]``.  -1 is no limit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from oslo_config import cfg

from core.errors import OverQuota
from db import quotas as db_quotas
from db.global_schema import quota_classes, quotas
from db.volume_base import backups, groups, snapshots, types, volumes

GROUP = "volume_quota"
SERVICE = "volume"
DEFAULT_CLASS = "default"
PLAIN = (
    "volumes",
    "snapshots",
    "gigabytes",
    "per_volume_gigabytes",
    "backups",
    "backup_gigabytes",
    "groups",
)
PER_TYPE = ("volumes", "gigabytes", "snapshots")
OPTS: list[cfg.Opt] = [
    cfg.IntOpt("volumes", default=10, min=-1, help="Volumes per project; -1 for no limit."),
    cfg.IntOpt("snapshots", default=10, min=-1, help="Snapshots per project; -1 for no limit."),
    cfg.IntOpt(
        "gigabytes", default=1000, min=-1, help="GiB of volumes and snapshots per project; -1 for no limit."
    ),
    cfg.IntOpt("per_volume_gigabytes", default=-1, min=-1, help="GiB of one volume; -1 for no limit."),
    cfg.IntOpt("backups", default=10, min=-1, help="Backups per project; -1 for no limit."),
    cfg.IntOpt("backup_gigabytes", default=1000, min=-1, help="GiB of backups; -1 for no limit."),
    cfg.IntOpt("groups", default=10, min=-1, help="Volume groups per project; -1 for no limit."),
    cfg.BoolOpt(
        "no_snapshot_gb_quota", default=False, help="Do not count the size of snapshots as gigabytes."
    ),
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [(GROUP, OPTS)]


@dataclasses.dataclass(frozen=True)
class Names:
    """All quotas there are: the API's name ↔ the key in the tables."""

    keys: dict[str, str]

    @classmethod
    def read(cls, connection: sa.Connection) -> Names:
        """One statement."""
        keys = {name: name for name in PLAIN}
        rows = connection.execute(sa.select(types.c.id, types.c.name).order_by(types.c.name))
        for identifier, name in rows:
            keys.update({f"{each}_{name}": f"{each}:{identifier}" for each in PER_TYPE})
        return cls(keys)


class OverVolumeQuota(OverQuota):
    """A quota would be exceeded: this API answers 413."""

    http_status = 413


Amounts = Mapping[str, int]
"""{key: how many more}: "volumes", "gigabytes", "volumes:TYPE-ID", …"""


def of_volume(size_gib: int, type_id: str | None, volumes_: int = 1) -> dict[str, int]:
    """What a volume takes; ``volumes_`` 0: what growing by ``size_gib`` takes."""
    found = {"gigabytes": size_gib}
    if volumes_:
        found["volumes"] = volumes_
    return _with_type(found, type_id)


def of_snapshot(size_gib: int, type_id: str | None, counts_gib: bool) -> dict[str, int]:
    found = {"snapshots": 1}
    if counts_gib:
        found["gigabytes"] = size_gib
    return _with_type(found, type_id)


def _with_type(amounts: dict[str, int], type_id: str | None) -> dict[str, int]:
    typed = {} if type_id is None else {f"{name}:{type_id}": more for name, more in amounts.items()}
    return {**amounts, **typed}


class VolumeQuotas:
    """The limits of one deployment."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        conf.register_opts(OPTS, group=GROUP)
        self._options = conf[GROUP]

    @property
    def snapshots_count_gib(self) -> bool:
        return not self._options.no_snapshot_gb_quota

    def configured(self) -> dict[str, int]:
        """What the options say; per-type quotas have no limit of their own."""
        return {name: int(self._options[name]) for name in PLAIN}

    def class_limits(self, connection: sa.Connection, class_name: str = DEFAULT_CLASS) -> dict[str, int]:
        """{key: limit} of a quota class; the options fill in what it does not set."""
        rows = connection.execute(
            sa.select(quota_classes.c.resource, quota_classes.c.hard_limit).where(
                quota_classes.c.service == SERVICE, quota_classes.c.class_name == class_name
            )
        )
        return {**self.configured(), **dict(rows.tuples().all())}

    def limits(self, connection: sa.Connection, project_id: str) -> dict[str, int]:
        """{key: limit} of a project; what is not there has none. One statement."""
        by_class = sa.select(
            sa.literal(0).label("rank"), quota_classes.c.resource, quota_classes.c.hard_limit
        ).where(quota_classes.c.service == SERVICE, quota_classes.c.class_name == DEFAULT_CLASS)
        own = sa.select(sa.literal(1).label("rank"), quotas.c.resource, quotas.c.hard_limit).where(
            quotas.c.service == SERVICE, quotas.c.project_id == project_id, quotas.c.user_id == ""
        )
        ranked: list[dict[str, int]] = [{}, {}]
        for rank, resource, limit in connection.execute(sa.union_all(by_class, own)):
            ranked[rank][resource] = limit
        return {**self.configured(), **ranked[0], **ranked[1]}

    def check(self, connection: sa.Connection, project_id: str, amounts: Amounts, size_gib: int = 0) -> None:
        """Refuse what would exceed a limit. Call it first in the transaction that creates.

        ``size_gib``: of the one volume, against per_volume_gigabytes.

        :raises OverVolumeQuota: in upstream's words.
        """
        limits = self.limits(connection, project_id)
        most = limits["per_volume_gigabytes"]
        if size_gib and 0 <= most < size_gib:
            raise OverVolumeQuota(
                f"Requested size {size_gib}G is larger than maximum allowed limit {most}G per volume."
            )
        bounded = {key: more for key, more in amounts.items() if limits.get(key, -1) >= 0 and more > 0}
        if not bounded:
            return
        db_quotas.lock(connection, f"{SERVICE}:{project_id}")
        used = usage(connection, project_id, self.snapshots_count_gib)
        for key, more in bounded.items():
            already, limit = used.get(key, 0), limits[key]
            if already + more > limit:
                raise OverVolumeQuota(
                    _message(key, more, already, limit), code=f"haneul.over_quota.{_plain(key)}"
                )


def _plain(key: str) -> str:
    return key.partition(":")[0]


def _message(key: str, more: int, already: int, limit: int) -> str:
    name = _plain(key)
    if name == "gigabytes":
        return (
            f"Requested volume or snapshot exceeds allowed {name} quota. Requested {more}G, quota is"
            f" {limit}G and {already}G has been consumed."
        )
    if name == "backup_gigabytes":
        return (
            f"Requested backup exceeds allowed Backup gigabytes quota. Requested {more}G, quota is"
            f" {limit}G and {already}G has been consumed."
        )
    words = {"volumes": "volumes", "snapshots": "snapshots", "backups": "backups", "groups": "groups"}[name]
    one = words.capitalize()[:-1]
    return f"{one}LimitExceeded: Maximum number of {words} allowed ({limit}) exceeded for quota '{name}'."


def usage(connection: sa.Connection, project_id: str, snapshots_count_gib: bool = True) -> dict[str, int]:
    """{key: what a project has}: four counts, whatever the number of types."""
    used: dict[str, int] = dict.fromkeys(PLAIN, 0)

    def add(name: str, type_id: str | None, amount: int) -> None:
        used[name] += amount
        if type_id is not None:
            key = f"{name}:{type_id}"
            used[key] = used.get(key, 0) + amount

    def grouped(table: sa.Table) -> Any:
        size = sa.func.coalesce(sa.func.sum(table.c.size_gib), 0)
        statement = sa.select(table.c.type_id, sa.func.count(), size)
        statement = statement.where(table.c.project_id == project_id, table.c.use_quota.is_(True))
        return connection.execute(statement.group_by(table.c.type_id))

    for type_id, number, size in grouped(volumes):
        add("volumes", type_id, int(number))
        add("gigabytes", type_id, int(size))
    for type_id, number, size in grouped(snapshots):
        add("snapshots", type_id, int(number))
        if snapshots_count_gib:
            add("gigabytes", type_id, int(size))
    total = sa.func.coalesce(sa.func.sum(backups.c.size_gib), 0)
    counted = sa.select(sa.func.count(), total).where(backups.c.project_id == project_id)
    number, size = connection.execute(counted).one()
    used["backups"], used["backup_gigabytes"] = int(number), int(size)
    counted = sa.select(sa.func.count()).select_from(groups).where(groups.c.project_id == project_id)
    used["groups"] = int(connection.execute(counted).scalar_one())
    return used


def set_class_limits(connection: sa.Connection, class_name: str, limits: Mapping[str, int]) -> None:
    """Set the limits of a quota class ({key: limit})."""
    mine = sa.and_(quota_classes.c.service == SERVICE, quota_classes.c.class_name == class_name)
    connection.execute(quota_classes.delete().where(mine, quota_classes.c.resource.in_(limits)))
    rows = [
        {"service": SERVICE, "class_name": class_name, "resource": key, "hard_limit": limit}
        for key, limit in limits.items()
    ]
    if rows:
        connection.execute(quota_classes.insert(), rows)


def forget_type(connection: sa.Connection, type_id: str) -> None:
    """A type is gone: so are its quotas."""
    keys = [f"{name}:{type_id}" for name in PER_TYPE]
    for table in (quotas, quota_classes):
        connection.execute(table.delete().where(table.c.service == SERVICE, table.c.resource.in_(keys)))
