"""Services and pools of block storage: who lives, what there is, what is given away of it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exc

from core.errors import NotFound
from db.types import now
from db.volume_base import Row, messages, new_id, pools, services, volumes

VOLUME, SCHEDULER, BACKUP = "cinder-volume", "cinder-scheduler", "cinder-backup"


def is_up(row: Mapping[str, Any], down_after_s: float) -> bool:
    """Has it given a sign of life lately?"""
    seen = row["last_seen_at"]
    return seen is not None and (now() - seen).total_seconds() <= down_after_s


def list_(connection: sa.Connection, host: str | None = None, binary: str | None = None) -> list[Row]:
    """``host``: also a backend's machine (``h`` finds ``h@lvm``)."""
    statement = sa.select(services).order_by(services.c.id)
    if host is not None:
        statement = statement.where(
            sa.or_(services.c.host == host, services.c.host.startswith(f"{host}@", autoescape=True))
        )
    if binary is not None:
        statement = statement.where(services.c.binary == binary)
    return [dict(row) for row in connection.execute(statement).mappings()]


def get(connection: sa.Connection, host: str, binary: str) -> Row:
    """:raises NotFound:"""
    for row in list_(connection, host, binary):
        if row["host"] == host:
            return row
    raise NotFound(f"Service {binary} could not be found on host {host}.")


def update(connection: sa.Connection, identifier: int, values: Mapping[str, Any]) -> None:
    connection.execute(
        services.update().where(services.c.id == identifier).values(updated_at=now(), **values)
    )


def heartbeat(
    connection: sa.Connection,
    host: str,
    binary: str,
    zone: str,
    capabilities: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """A sign of life; the row is made when it is the first. Returns the log levels that were asked for."""
    moment = now()
    values: Row = {"last_seen_at": moment, "availability_zone": zone}
    if capabilities is not None:
        values["capabilities"] = dict(capabilities)
    here = sa.and_(services.c.host == host, services.c.binary == binary)
    if not connection.execute(services.update().where(here).values(**values)).rowcount:
        row = {"uuid": new_id(), "host": host, "binary": binary, "created_at": moment, **values}
        try:
            with connection.begin_nested():
                connection.execute(services.insert(), [row])
        except db_exc.DBDuplicateEntry:
            # another process of this host was first: it has said the same
            return {}
    return dict(connection.execute(sa.select(services.c.log_levels).where(here)).scalar_one())


def prune_messages(connection: sa.Connection) -> int:
    """User messages are kept for a time only; how many went."""
    return int(connection.execute(messages.delete().where(messages.c.expires_at < now())).rowcount)


def report_pools(
    connection: sa.Connection, service_host: str, found: Mapping[str, Mapping[str, Any]]
) -> None:
    """What a worker's driver says of its pools: {pool name: capabilities in upstream's names}."""
    moment = now()
    present = set(
        connection.execute(sa.select(pools.c.name).where(pools.c.service_host == service_host)).scalars()
    )
    for name, said in found.items():
        values = {
            "service_host": service_host,
            "total_gib": _number(said.get("total_capacity_gb")),
            "free_gib": _number(said.get("free_capacity_gb")),
            "capabilities": dict(said),
            "updated_at": moment,
        }
        if name in present:
            connection.execute(pools.update().where(pools.c.name == name).values(**values))
        else:
            connection.execute(pools.insert().values(name=name, **values))
    if gone := present - set(found):
        connection.execute(pools.delete().where(pools.c.name.in_(gone)))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def given_away(connection: sa.Connection, names: Sequence[str] | None = None) -> dict[str, tuple[int, int]]:
    """{pool: (volumes, GiB)}, counted."""
    size = sa.func.coalesce(sa.func.sum(volumes.c.size_gib), 0)
    statement = sa.select(volumes.c.host, sa.func.count(), size).where(volumes.c.host.is_not(None))
    if names is not None:
        statement = statement.where(volumes.c.host.in_(names))
    rows = connection.execute(statement.group_by(volumes.c.host))
    return {host: (int(number), int(total)) for host, number, total in rows}


def list_pools(connection: sa.Connection) -> list[Row]:
    """All pools with their service (``service``, a row or None) and what is given away
    (``allocated``: (volumes, GiB))."""
    by_host = {row["host"]: row for row in list_(connection, binary=VOLUME)}
    allocated = given_away(connection)
    return [
        {
            **row,
            "service": by_host.get(row["service_host"]),
            "allocated": allocated.get(row["name"], (0, 0)),
        }
        for row in connection.execute(sa.select(pools).order_by(pools.c.name)).mappings()
    ]


def zones(connection: sa.Connection, down_after_s: float) -> dict[str, bool]:
    """{availability zone: can volumes be made there now}"""
    found: dict[str, bool] = {}
    for row in list_(connection, binary=VOLUME):
        usable = not row["disabled"] and is_up(row, down_after_s)
        found[row["availability_zone"]] = found.get(row["availability_zone"], False) or usable
    return found


def seen(row: Mapping[str, Any]) -> datetime.datetime | None:
    """When it was last heard of or changed."""
    times = [row["last_seen_at"], row["updated_at"], row["created_at"]]
    return max((each for each in times if each is not None), default=None)
