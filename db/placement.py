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


def note_changes(connection: sa.Connection, provider_ids: Iterable[int]) -> None:
    """Tell the schedulers that these providers changed."""
    rows = [{"provider_id": id_, "created_at": now()} for id_ in sorted(set(provider_ids))]
    if rows:
        connection.execute(sa.insert(provider_changes), rows)


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
    changed = False
    found = connection.execute(sa.select(providers).where(providers.c.uuid == uuid)).mappings().first()
    if found is None:
        connection.execute(sa.delete(hosts).where(hosts.c.name == host))
        connection.execute(sa.insert(hosts).values(name=host, cell_id=cell_id))
        result = connection.execute(
            sa.insert(providers).values(
                uuid=uuid, name=host, host=host, cell_id=cell_id, traits=sorted(traits), generation=0
            )
        )
        provider_id = int(result.inserted_primary_key[0])
        changed = True
    else:
        provider_id = found["id"]
        if found["traits"] != sorted(traits):
            connection.execute(
                sa.update(providers).where(providers.c.id == provider_id).values(traits=sorted(traits))
            )
            changed = True
    known = {
        row["resource_class"]: dict(row)
        for row in connection.execute(
            sa.select(inventories).where(inventories.c.provider_id == provider_id)
        ).mappings()
    }
    for resource_class, values in totals.items():
        old = known.pop(resource_class, None)
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
                .where(
                    inventories.c.provider_id == provider_id,
                    inventories.c.resource_class == resource_class,
                )
                .values(**values)
            )
            changed = True
    if changed:
        connection.execute(
            sa.update(providers)
            .where(providers.c.id == provider_id)
            .values(generation=providers.c.generation + 1)
        )
        note_changes(connection, [provider_id])
    return changed


def claim(
    connection: sa.Connection, provider_id: int, generation: int, claims: Sequence[Mapping[str, Any]]
) -> bool:
    """Allocate for several servers on one provider, if its generation still is what was read.

    ``claims``: {server_id, project_id, user_id, resources}. False: someone else was
    faster, read the provider again. A server that has allocations already keeps
    them only if they are these (the caller asks ``allocated`` before).
    """
    done = connection.execute(
        sa.update(providers)
        .where(providers.c.id == provider_id, providers.c.generation == generation)
        .values(generation=generation + 1)
    )
    if done.rowcount != 1:
        return False
    moment = now()
    connection.execute(
        sa.insert(consumers),
        [
            {
                "uuid": found["server_id"],
                "project_id": found["project_id"],
                "user_id": found["user_id"],
                "generation": 1,
                "created_at": moment,
            }
            for found in claims
        ],
    )
    rows = [
        {
            "consumer_uuid": found["server_id"],
            "provider_id": provider_id,
            "resource_class": name,
            "used": amount,
        }
        for found in claims
        for name, amount in found["resources"].items()
        if amount
    ]
    if rows:
        connection.execute(sa.insert(allocations), rows)
    return True


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
    if not server_ids:
        return
    touched = [
        row[0]
        for row in connection.execute(
            sa.select(allocations.c.provider_id).where(allocations.c.consumer_uuid.in_(server_ids)).distinct()
        )
    ]
    connection.execute(sa.delete(allocations).where(allocations.c.consumer_uuid.in_(server_ids)))
    connection.execute(sa.delete(consumers).where(consumers.c.uuid.in_(server_ids)))
    if touched:
        connection.execute(
            sa.update(providers)
            .where(providers.c.id.in_(touched))
            .values(generation=providers.c.generation + 1)
        )
        note_changes(connection, touched)


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


def note_host_changes(connection: sa.Connection, host_names: Iterable[str]) -> None:
    """Like ``note_changes`` for whoever knows hosts by name (aggregates, services)."""
    names = sorted(set(host_names))
    if names:
        ids = connection.execute(sa.select(providers.c.id).where(providers.c.host.in_(names))).scalars()
        note_changes(connection, list(ids))
