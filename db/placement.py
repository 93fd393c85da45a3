"""Providers, inventories and allocations: who offers what, and who uses it.

Usage is counted from allocations, never cached.  A claim bumps the provider's
generation conditionally, so two schedulers can't both take the last place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from db.global_schema import (
    allocations,
    consumers,
    hosts,
    inventories,
    provider_changes,
    providers,
    server_group_members,
    server_mappings,
)
from db.types import now

# Built once: the scheduler's claims are carried out for every server.
_BUMP = (
    sa.update(providers)
    .where(providers.c.id == sa.bindparam("provider"), providers.c.generation == sa.bindparam("was"))
    .values(generation=providers.c.generation + 1)
)
SERVICE = "a service"
"""as the source of a change: it is in the host's service, which stands in the cell's database"""
_NOTE, _CONSUME, _ALLOCATE = sa.insert(provider_changes), sa.insert(consumers), sa.insert(allocations)
_HOLD = (
    sa.select(server_mappings.c.server_id)
    .where(
        server_mappings.c.server_id.in_(sa.bindparam("ids", expanding=True)),
        server_mappings.c.deleted.is_(sa.false()),
    )
    .order_by(server_mappings.c.server_id)
    .with_for_update()  # left out by SQLite, where a writer is alone
)


def note_changes(connection: sa.Connection, provider_ids: Iterable[int], source: str | None = None) -> None:
    """Tell the schedulers that these providers changed; ``source``: the one that knows already."""
    rows = [{"provider_id": id_, "source": source, "created_at": now()} for id_ in sorted(set(provider_ids))]
    if rows:
        connection.execute(_NOTE, rows)


def upsert_host(
    connection: sa.Connection,
    *,
    host: str,
    uuid: str,
    cell_id: int,
    traits: Sequence[str],
    totals: Mapping[str, Mapping[str, Any]],
) -> bool:
    """Write what a host offers; True if anything changed (schedulers are told).

    ``totals``: {resource class: {total, reserved, min_unit, max_unit, step_size, allocation_ratio}}.
    """
    found = connection.execute(sa.select(providers).where(providers.c.uuid == uuid)).mappings().first()
    if found is None:
        connection.execute(sa.delete(hosts).where(hosts.c.name == host))
        connection.execute(sa.insert(hosts).values(name=host, cell_id=cell_id))
        result = connection.execute(
            sa.insert(providers).values(
                uuid=uuid, name=host, host=host, cell_id=cell_id, traits=sorted(traits), generation=0
            )
        )
        key = result.inserted_primary_key
        assert key is not None
        provider_id, changed = int(key[0]), True
    else:
        provider_id, changed = found["id"], found["traits"] != sorted(traits)
        if changed:
            connection.execute(
                sa.update(providers).where(providers.c.id == provider_id).values(traits=sorted(traits))
            )
    changed = _upsert_inventories(connection, provider_id, totals) or changed
    if changed:
        connection.execute(
            sa.update(providers)
            .where(providers.c.id == provider_id)
            .values(generation=providers.c.generation + 1)
        )
        note_changes(connection, [provider_id])
    return changed


def _upsert_inventories(
    connection: sa.Connection, provider_id: int, totals: Mapping[str, Mapping[str, Any]]
) -> bool:
    """Write a provider's inventories where they differ; True if any did."""
    own = inventories.c.provider_id == provider_id
    rows = connection.execute(sa.select(inventories).where(own)).mappings()
    known = {row["resource_class"]: row for row in rows.all()}
    changed = False
    for resource_class, values in totals.items():
        old = known.get(resource_class)
        if old is None:
            connection.execute(
                sa.insert(inventories).values(
                    provider_id=provider_id, resource_class=resource_class, **values
                )
            )
            changed = True
        elif any(old[key] != value for key, value in values.items()):
            connection.execute(
                sa.update(inventories)
                .where(own, inventories.c.resource_class == resource_class)
                .values(**values)
            )
            changed = True
    return changed


def claim(
    connection: sa.Connection,
    claims: Mapping[tuple[int, int], Sequence[Mapping[str, Any]]],
    source: str,
) -> list[int]:
    """Allocate for many servers, each provider only if its generation still is what was read.

    ``claims``: {(provider id, generation): [{server_id, project_id, user_id, resources}, …]}.
    Returns the providers that someone else changed meanwhile: for these nothing is
    written, the caller reads them again.  The caller has asked ``allocated`` before.
    """
    lost, taken = [], []
    for (provider_id, generation), servers in claims.items():
        done = connection.execute(_BUMP, {"provider": provider_id, "was": generation})
        if done.rowcount == 1:
            taken.append((provider_id, servers))
        else:
            lost.append(provider_id)
    moment = now()
    owners = [
        {
            "uuid": server["server_id"],
            "project_id": server["project_id"],
            "user_id": server["user_id"],
            "generation": 1,
            "created_at": moment,
        }
        for _, servers in taken
        for server in servers
    ]
    rows = [
        {
            "consumer_uuid": server["server_id"],
            "provider_id": provider_id,
            "resource_class": name,
            "used": amount,
        }
        for provider_id, servers in taken
        for server in servers
        for name, amount in server["resources"].items()
        if amount
    ]
    if owners:
        connection.execute(_CONSUME, owners)
    if rows:
        connection.execute(_ALLOCATE, rows)
    note_changes(connection, [provider_id for provider_id, _ in taken], source)
    return lost


def allocated(connection: sa.Connection, server_ids: Sequence[str]) -> dict[str, int]:
    """{server id: provider id} of those that have allocations already."""
    if not server_ids:
        return {}
    statement = (
        sa.select(allocations.c.consumer_uuid, allocations.c.provider_id)
        .where(allocations.c.consumer_uuid.in_(server_ids))
        .distinct()
    )
    return {row[0]: row[1] for row in connection.execute(statement)}


def release(connection: sa.Connection, server_ids: Sequence[str]) -> None:
    """Take back all allocations of these servers; content when there are none."""
    if server_ids:
        statement = sa.select(allocations.c.consumer_uuid, allocations.c.provider_id)
        of_them = statement.where(allocations.c.consumer_uuid.in_(server_ids)).distinct()
        _take_back(connection, [(row[0], row[1]) for row in connection.execute(of_them)])
        connection.execute(sa.delete(consumers).where(consumers.c.uuid.in_(server_ids)))


def release_on(connection: sa.Connection, hosts_of: Mapping[str, str]) -> None:
    """Take back what each server ({server id: host}) has on that host, and nothing elsewhere."""
    statement = (
        sa.select(allocations.c.consumer_uuid, allocations.c.provider_id, providers.c.host)
        .join(providers, providers.c.id == allocations.c.provider_id)
        .where(allocations.c.consumer_uuid.in_(list(hosts_of)))
        .distinct()
    )
    pairs = [(row[0], row[1]) for row in connection.execute(statement) if hosts_of[row[0]] == row[2]]
    _take_back(connection, pairs)


def _take_back(connection: sa.Connection, pairs: Sequence[tuple[str, int]]) -> None:
    """Delete the allocations of (consumer, provider) pairs, and consumers that have none left."""
    if not pairs:
        return
    of_pairs = sa.tuple_(allocations.c.consumer_uuid, allocations.c.provider_id).in_(pairs)
    connection.execute(sa.delete(allocations).where(of_pairs))
    left = sa.select(sa.literal(1)).where(allocations.c.consumer_uuid == consumers.c.uuid).exists()
    ids = {consumer for consumer, _ in pairs}
    connection.execute(sa.delete(consumers).where(consumers.c.uuid.in_(ids), ~left))
    touched = sorted({provider_id for _, provider_id in pairs})
    connection.execute(
        sa.update(providers).where(providers.c.id.in_(touched)).values(generation=providers.c.generation + 1)
    )
    note_changes(connection, touched)


def hold_mappings(connection: sa.Connection, server_ids: Sequence[str]) -> set[str]:
    """Those of the servers that are not deleted; a deletion that begins now waits for us."""
    return set(connection.execute(_HOLD, {"ids": server_ids}).scalars())


def cells_of(connection: sa.Connection, server_ids: Sequence[str]) -> dict[str, int]:
    """{server id: id of the cell in which it has allocations}."""
    statement = (
        sa.select(allocations.c.consumer_uuid, providers.c.cell_id)
        .join(providers, providers.c.id == allocations.c.provider_id)
        .where(allocations.c.consumer_uuid.in_(server_ids))
        .distinct()
    )
    return {row[0]: row[1] for row in connection.execute(statement)}


def forget_servers(connection: sa.Connection, server_ids: Sequence[str]) -> None:
    """What the global database holds of deleted servers: allocations, quota usage, groups."""
    release(connection, server_ids)
    if server_ids:
        connection.execute(
            sa.update(server_mappings).where(server_mappings.c.server_id.in_(server_ids)).values(deleted=True)
        )
        connection.execute(
            sa.delete(server_group_members).where(server_group_members.c.server_id.in_(server_ids))
        )


def note_host_changes(
    connection: sa.Connection, host_names: Iterable[str], source: str | None = None
) -> None:
    """Like ``note_changes`` for whoever knows hosts by name (aggregates, services)."""
    names = sorted(set(host_names))
    if names:
        ids = connection.execute(sa.select(providers.c.id).where(providers.c.host.in_(names))).scalars()
        note_changes(connection, list(ids), source)
