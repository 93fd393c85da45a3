"""Host aggregates and the availability zones that they make (global database).

Every change tells the schedulers which hosts it concerns (``provider_changes``).
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exc

from core.errors import BadRequest, Conflict, NotFound
from db import placement
from db.global_schema import aggregate_hosts, aggregates, hosts
from db.types import now

ZONE = "availability_zone"
Row = dict[str, Any]


def zones(connection: sa.Connection) -> dict[str, str]:
    """{host: zone} of the hosts that an aggregate puts in one; one statement."""
    joined = sa.select(aggregate_hosts.c.host, aggregates.c.metadata).join(
        aggregates, aggregates.c.id == aggregate_hosts.c.aggregate_id
    )
    return {host: meta[ZONE] for host, meta in connection.execute(joined) if meta.get(ZONE)}


def list_(connection: sa.Connection) -> list[Row]:
    """All aggregates with their ``hosts``; two statements."""
    members: dict[int, list[str]] = defaultdict(list)
    for aggregate_id, host in connection.execute(
        sa.select(aggregate_hosts.c.aggregate_id, aggregate_hosts.c.host).order_by(aggregate_hosts.c.host)
    ):
        members[aggregate_id].append(host)
    rows = connection.execute(sa.select(aggregates).order_by(aggregates.c.id)).mappings()
    return [{**row, "hosts": members[row["id"]]} for row in rows]


def get(connection: sa.Connection, aggregate_id: int, *, lock: bool = False) -> Row:
    """One aggregate with its ``hosts``. :raises NotFound:"""
    statement = sa.select(aggregates).where(aggregates.c.id == aggregate_id)
    row = connection.execute(statement.with_for_update() if lock else statement).mappings().first()
    if row is None:
        raise NotFound(f"Aggregate {aggregate_id} could not be found.")
    members = sa.select(aggregate_hosts.c.host).where(aggregate_hosts.c.aggregate_id == aggregate_id)
    return {**row, "hosts": list(connection.execute(members.order_by(aggregate_hosts.c.host)).scalars())}


def create(connection: sa.Connection, name: str, zone: str | None) -> Row:
    """:raises Conflict: the name is taken."""
    values = {"uuid": str(uuid.uuid4()), "name": name, "metadata": {ZONE: zone} if zone else {}}
    try:
        created = connection.execute(aggregates.insert().values(**values))
    except db_exc.DBDuplicateEntry as error:
        raise Conflict(f"Aggregate {name} already exists.") from error
    assert created.inserted_primary_key is not None
    return get(connection, created.inserted_primary_key[0])


def update(
    connection: sa.Connection,
    aggregate_id: int,
    *,
    name: str | None = None,
    metadata: Mapping[str, str | None] | None = None,
    occupied: Iterable[str] = (),
) -> Row:
    """Change name and metadata (a key with None goes).

    ``occupied``: hosts that have servers; they can't change their zone.
    :raises NotFound: :raises Conflict: a name that is taken, a zone that can't change.
    """
    row = get(connection, aggregate_id, lock=True)
    values: dict[str, Any] = {"updated_at": now()}
    if name is not None:
        values["name"] = name
    if metadata is not None:
        merged = {**row["metadata"], **metadata}
        values["metadata"] = {key: value for key, value in merged.items() if value is not None}
        zone = values["metadata"].get(ZONE)
        if zone != row["metadata"].get(ZONE):
            _check_zone(connection, row["id"], row["hosts"], zone, occupied)
    try:
        connection.execute(aggregates.update().where(aggregates.c.id == aggregate_id).values(**values))
    except db_exc.DBDuplicateEntry as error:
        raise Conflict(f"Aggregate {name} already exists.") from error
    placement.note_host_changes(connection, row["hosts"])
    return get(connection, aggregate_id)


def _check_zone(
    connection: sa.Connection,
    aggregate_id: int,
    members: Sequence[str],
    zone: str | None,
    occupied: Iterable[str],
) -> None:
    """A host is in one zone, and keeps it while servers are on it."""
    if zone is not None and members:
        others = sa.select(aggregates.c.metadata).where(
            aggregates.c.id != aggregate_id,
            aggregates.c.id.in_(
                sa.select(aggregate_hosts.c.aggregate_id).where(aggregate_hosts.c.host.in_(members))
            ),
        )
        found = {meta.get(ZONE) for meta in connection.execute(others).scalars()} - {None, zone}
        if found:
            raise Conflict(
                f"Cannot change the zone of aggregate {aggregate_id}. Reason: One or more hosts already in"
                f" availability zone(s) {', '.join(sorted(found))}."
            )
    busy = sorted(set(members) & set(occupied))
    if busy:
        raise Conflict(
            f"Cannot change the zone of aggregate {aggregate_id}. Reason: hosts with servers would change"
            f" their availability zone: {', '.join(busy)}."
        )


def delete(connection: sa.Connection, aggregate_id: int) -> None:
    """:raises NotFound: :raises BadRequest: it has hosts."""
    row = get(connection, aggregate_id, lock=True)
    if row["hosts"]:
        raise BadRequest(f"Cannot remove aggregate {aggregate_id}. Reason: Host aggregate is not empty.")
    connection.execute(aggregates.delete().where(aggregates.c.id == aggregate_id))


def add_host(connection: sa.Connection, aggregate_id: int, host: str, *, occupied: bool) -> Row:
    """:raises NotFound: no such aggregate or host. :raises Conflict: a member already, or of another zone."""
    row = get(connection, aggregate_id, lock=True)
    if connection.execute(sa.select(hosts.c.name).where(hosts.c.name == host)).first() is None:
        raise NotFound(f"Compute host {host} could not be found.")
    if host in row["hosts"]:
        raise Conflict(f"Aggregate {aggregate_id} already has host {host}.")
    zone = row["metadata"].get(ZONE)
    if zone is not None:
        before = zones(connection).get(host)
        _check_zone(connection, aggregate_id, [host], zone, [host] if occupied and before != zone else [])
    connection.execute(aggregate_hosts.insert().values(aggregate_id=aggregate_id, host=host))
    placement.note_host_changes(connection, [host])
    return get(connection, aggregate_id)


def remove_host(connection: sa.Connection, aggregate_id: int, host: str, *, occupied: bool) -> Row:
    """:raises NotFound: not a member. :raises Conflict: servers on it would change their zone."""
    row = get(connection, aggregate_id, lock=True)
    if host not in row["hosts"]:
        raise NotFound(f"Aggregate {aggregate_id} has no host {host}.")
    if row["metadata"].get(ZONE):
        _check_zone(connection, aggregate_id, [host], None, [host] if occupied else [])
    connection.execute(
        aggregate_hosts.delete().where(
            aggregate_hosts.c.aggregate_id == aggregate_id, aggregate_hosts.c.host == host
        )
    )
    placement.note_host_changes(connection, [host])
    return get(connection, aggregate_id)
