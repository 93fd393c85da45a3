"""Services of all cells: who is there, alive, enabled; and taking one away."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exc

from core.errors import BadRequest, Conflict, NotFound
from db import placement, scatter
from db.cell_schema import hypervisors, servers, services
from db.global_schema import aggregate_hosts, hosts, inventories, providers
from db.sessions import Database, Databases
from db.types import now

COMPUTE = "nova-compute"
Row = dict[str, Any]


def is_up(row: Mapping[str, Any], down_after_s: float) -> bool:
    """Has it given a sign of life lately, and has nobody declared it dead?"""
    seen = row["last_seen_at"]
    return not row["forced_down"] and seen is not None and (now() - seen).total_seconds() <= down_after_s


def list_(
    databases: Databases, host: str | None = None, binary: str | None = None
) -> tuple[list[Row], list[str]]:
    """(rows with ``cell_id``, hosts of cells that are down)"""
    statement = sa.select(services).order_by(services.c.id)
    if host is not None:
        statement = statement.where(services.c.host == host)
    if binary is not None:
        statement = statement.where(services.c.binary == binary)
    found, down = scatter.gather(databases, lambda connection: connection.execute(statement).mappings().all())
    rows = [{**row, "cell_id": cell.cell_id} for cell, rows in found for row in rows]
    if not down:
        return rows, []
    with databases.global_.read() as connection:
        missing = connection.execute(
            sa.select(hosts.c.name).where(hosts.c.cell_id.in_([cell.cell_id for cell in down]))
        ).scalars()
        return rows, [name for name in missing if host in (None, name)]


def find(databases: Databases, what: str, *where: sa.ColumnElement[bool]) -> tuple[Database, Row]:
    """The one service that fits. :raises NotFound: :raises BadRequest: there are several."""
    statement = sa.select(services).where(*where)
    found, _ = scatter.gather(databases, lambda connection: connection.execute(statement).mappings().all())
    fitting = [(cell, dict(row)) for cell, rows in found for row in rows]
    if not fitting:
        raise NotFound(f"Service {what} could not be found.")
    if len(fitting) > 1:
        raise BadRequest(f"Service id {what} refers to multiple services. Use its UUID (from 2.53).")
    return fitting[0]


def by_uuid(databases: Databases, uuid: str) -> tuple[Database, Row]:
    return find(databases, uuid, services.c.uuid == uuid)


def by_id(databases: Databases, number: int) -> tuple[Database, Row]:
    return find(databases, str(number), services.c.id == number)


def by_host(databases: Databases, host: str, binary: str) -> tuple[Database, Row]:
    return find(databases, f"{binary} on {host}", services.c.host == host, services.c.binary == binary)


def update(databases: Databases, cell: Database, row: Mapping[str, Any], values: Mapping[str, Any]) -> Row:
    """Change a service; schedulers are told. Returns the new row."""
    with cell.write() as connection:
        connection.execute(
            services.update().where(services.c.id == row["id"]).values(updated_at=now(), **values)
        )
        changed = connection.execute(sa.select(services).where(services.c.id == row["id"])).mappings().one()
    # after the commit: who reads the change finds the row
    with databases.global_.write() as connection:
        placement.note_host_changes(connection, [row["host"]], placement.SERVICE)
    return dict(changed)


def delete(databases: Databases, cell: Database, row: Mapping[str, Any]) -> None:
    """Forget a service; with a compute service its host, provider and places in aggregates.

    The provider goes first: with allocations on it that fails, so a server that a
    scheduler is just placing there is not lost. Repeating after a crash is harmless.

    :raises Conflict: servers are there.
    """
    host = row["host"]
    if row["binary"] == COMPUTE:
        with cell.read() as connection:
            hosted = sa.select(servers.c.id).where(servers.c.host == host, servers.c.deleted == 0).limit(1)
            occupied = connection.execute(hosted).first() is not None
        try:
            if not occupied:
                _forget_host(databases, host)
        except db_exc.DBReferenceError:
            occupied = True
        if occupied:
            raise Conflict(
                "Unable to delete compute service that is hosting instances. Migrate or delete the instances"
                " first."
            )
    with cell.write() as connection:
        if row["binary"] == COMPUTE:
            connection.execute(hypervisors.delete().where(hypervisors.c.host == host))
        connection.execute(services.delete().where(services.c.id == row["id"]))


def _forget_host(databases: Databases, host: str) -> None:
    with databases.global_.write() as connection:
        placement.note_host_changes(connection, [host])
        mine = sa.select(providers.c.id).where(providers.c.host == host)
        connection.execute(inventories.delete().where(inventories.c.provider_id.in_(mine)))
        connection.execute(providers.delete().where(providers.c.host == host))
        connection.execute(aggregate_hosts.delete().where(aggregate_hosts.c.host == host))
        connection.execute(hosts.delete().where(hosts.c.name == host))


def seen(row: Mapping[str, Any]) -> datetime.datetime | None:
    """What the API calls ``updated_at`` of a service."""
    found: datetime.datetime | None = row["last_seen_at"] or row["updated_at"]
    return found
