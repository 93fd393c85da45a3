"""Servers: where each one lives, writing new ones, changing and deleting them.

A server is in the global database until a scheduler has dispatched it to a
cell; ``server_mappings`` says where it is, and decides when both databases have
a copy.  Every change is conditional on the row's generation: who lost the race
gets ``StaleGeneration`` and reads again (``db.sessions.retrying``).
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from core.block_devices import of_deletion
from core.context import admin_context
from core.errors import NotFound, StaleGeneration
from core.intents import CONDUCTOR, RELEASE_VOLUMES, IntentState
from db import cell_schema, global_schema, intents
from db.global_schema import server_group_members, server_mappings
from db.sessions import Database, Databases
from db.types import now

Row = dict[str, Any]
_MOVES = 5
"""How often a lookup follows a server that moves to its cell meanwhile."""


def table(database: Database) -> sa.Table:
    """The servers table of a database: the global one or a cell's."""
    return global_schema.servers if database.cell_id is None else cell_schema.servers


def tags_table(database: Database) -> sa.Table:
    """The tags table of a database."""
    return global_schema.server_tags if database.cell_id is None else cell_schema.server_tags


@dataclasses.dataclass(frozen=True)
class Located:
    """A server and the database that it lives in."""

    database: Database
    row: Row

    @property
    def placed(self) -> bool:
        """Does it live in a cell (so: has a host)?"""
        return self.database.cell_id is not None

    @property
    def id(self) -> str:
        return str(self.row["id"])


# statements of every request, built once: building costs more than running them
_MAPPING = sa.select(server_mappings).where(server_mappings.c.server_id == sa.bindparam("server_id"))
_GET = {
    table_: sa.select(table_).where(table_.c.id == sa.bindparam("server_id"))
    for table_ in (global_schema.servers, cell_schema.servers)
}
_TAGGED = {
    table_: sa.exists().where(tags.c.server_id == table_.c.id).label("tagged")
    for table_, tags in (
        (global_schema.servers, global_schema.server_tags),
        (cell_schema.servers, cell_schema.server_tags),
    )
}
_SERVICE = ("disabled", "forced_down", "last_seen_at")
_SHOW = {
    # one round trip for what an answer is made of: whether there are tags, and the state of the host
    global_schema.servers: _GET[global_schema.servers].add_columns(_TAGGED[global_schema.servers]),
    cell_schema.servers: _GET[cell_schema.servers]
    .add_columns(
        _TAGGED[cell_schema.servers],
        *(cell_schema.services.c[name].label(f"service_{name}") for name in _SERVICE),
    )
    .outerjoin(
        cell_schema.services,
        sa.and_(
            cell_schema.services.c.host == cell_schema.servers.c.host,
            cell_schema.services.c.binary == "nova-compute",
        ),
    ),
}
_TAGS = {
    tags: sa.select(tags.c.server_id, tags.c.tag)
    .where(tags.c.server_id.in_(sa.bindparam("server_ids", expanding=True)))
    .order_by(tags.c.server_id, tags.c.tag)
    for tags in (global_schema.server_tags, cell_schema.server_tags)
}


def not_found(server_id: str) -> NotFound:
    """In upstream's words, which clients look for."""
    return NotFound(f"Instance {server_id} could not be found.")


def mapping(databases: Databases, server_id: str) -> Row | None:
    """The server's row of ``server_mappings``, or None."""
    with databases.global_.read() as connection:
        found = connection.execute(_MAPPING, {"server_id": server_id}).mappings().first()
        return dict(found) if found is not None else None


def tagged(table_: sa.Table) -> sa.ColumnElement[bool]:
    """For lists: a column that says whether a server has tags at all."""
    return _TAGGED[table_]


def find(databases: Databases, server_id: str, *, deleted: bool = False, shown: bool = False) -> Located:
    """The server and where it lives. ``deleted``: also when it is deleted.

    ``shown``: with ``tagged`` and, in a cell, what ``host_state_of`` reads.
    A server that is in a cell stays there, so a process asks the mapping once.
    :raises NotFound: no such server. :raises DBConnectionError: its cell is down.
    """
    statements = _SHOW if shown else _GET
    cell_id = databases.placements.get(server_id)
    if cell_id is not None:
        row = get(databases.cell(cell_id), server_id, statements)
        if row is not None and not row["deleted"]:
            return Located(databases.cell(cell_id), row)
    for _ in range(_MOVES):
        where = mapping(databases, server_id)
        if where is None or (where["deleted"] and not deleted):
            raise not_found(server_id)
        database = databases.cell(where["cell_id"])
        row = get(database, server_id, statements)
        if row is not None:
            if row["deleted"] and not deleted:
                raise not_found(server_id)
            databases.placed(server_id, database.cell_id)
            return Located(database, row)
        # between the two reads it moved to its cell: the mapping knows by now
    raise not_found(server_id)


def get(
    database: Database, server_id: str, statements: Mapping[sa.Table, sa.Select[Any]] = _GET
) -> Row | None:
    """The row in this database, or None."""
    with database.read() as connection:
        found = connection.execute(statements[table(database)], {"server_id": server_id})
        row = found.first()
        return dict(zip(found.keys(), row, strict=True)) if row is not None else None


def insert(
    connection: sa.Connection,
    rows: Sequence[Row],
    intent_rows: Sequence[intents.Row],
    tags: Sequence[str] = (),
) -> None:
    """Write new servers, not placed yet, with the intents that are to place them.

    ``connection`` is a write transaction on the global database.
    """
    connection.execute(sa.insert(global_schema.servers), list(rows))
    connection.execute(
        sa.insert(server_mappings),
        [
            {
                "server_id": row["id"],
                "cell_id": None,
                "project_id": row["project_id"],
                "user_id": row["user_id"],
                "vcpus": row["vcpus"],
                "memory_mib": row["memory_mib"],
                "deleted": False,
                "created_at": row["created_at"],
            }
            for row in rows
        ],
    )
    members = [
        {"group_id": row["server_group_id"], "server_id": row["id"]} for row in rows if row["server_group_id"]
    ]
    if members:
        connection.execute(sa.insert(server_group_members), members)
    if tags:
        connection.execute(
            sa.insert(global_schema.server_tags),
            [{"server_id": row["id"], "tag": tag} for row in rows for tag in tags],
        )
    intents.insert(connection, global_schema.intents, intent_rows)


def change(connection: sa.Connection, database: Database, row: Row, values: Mapping[str, Any]) -> Row:
    """Change a server that still is as ``row`` says; returns the new row.

    :raises StaleGeneration: someone else changed it, or it moved to its cell.
    """
    servers = table(database)
    new = {**values, "generation": row["generation"] + 1, "updated_at": now()}
    changed = connection.execute(
        sa.update(servers)
        .where(servers.c.id == row["id"], servers.c.generation == row["generation"])
        .values(**new)
    ).rowcount
    if changed != 1:
        raise StaleGeneration("The server was changed by another request meanwhile. Try again.")
    return {**row, **new}


def touch(connection: sa.Connection, found: Located) -> None:
    """Mark a server as changed; transactions that do so follow one another.

    :raises NotFound: it is deleted meanwhile.
    """
    servers = table(found.database)
    touched = connection.execute(
        sa.update(servers)
        .where(servers.c.id == found.id, servers.c.deleted == 0)
        .values(updated_at=now(), generation=servers.c.generation + 1)
    ).rowcount
    if not touched:
        raise not_found(found.id)


def still_here(connection: sa.Connection, server_id: str) -> bool:
    """Does the mapping say that the server has not moved to a cell? (global transaction)"""
    statement = sa.select(server_mappings.c.cell_id).where(server_mappings.c.server_id == server_id)
    if connection.dialect.name != "sqlite":
        # who turns the mapping waits for us, or we for them: a change is never written to the copy left behind
        statement = statement.with_for_update()
    found = connection.execute(statement).first()
    return found is not None and found[0] is None


def stay(connection: sa.Connection, found: Located) -> None:
    """Before a change: the server must still live where it was found (transaction there).

    :raises StaleGeneration: it moved to its cell; look again.
    """
    if not found.placed and not still_here(connection, found.id):
        raise StaleGeneration("The server moved to its cell meanwhile. Try again.")


def delete_unplaced(connection: sa.Connection, database: Database, row: Row, record: intents.Row) -> str:
    """Delete a server that lives in the global database (write transaction there).

    Returns "deleted" (done, with ``record`` as the action's record), "asked" (a
    scheduler is placing it now and has been asked to delete it instead) or
    "moved" (it lives in a cell by now).
    """
    if not still_here(connection, row["id"]):
        return "moved"
    table_ = global_schema.intents
    moment = now()
    of_server = sa.and_(table_.c.resource_id == row["id"], table_.c.kind == "server.create")
    cancelled = connection.execute(
        sa.update(table_)
        .where(of_server, table_.c.state == IntentState.WAITING.value)
        .values(
            state=IntentState.CANCELLED.value,
            exclusive_key=None,
            cancel_requested=True,
            finished_at=moment,
            updated_at=moment,
        )
    ).rowcount
    if not cancelled:
        asked = connection.execute(
            sa.update(table_)
            .where(of_server, table_.c.state.in_([IntentState.RUNNING.value, IntentState.ENDING.value]))
            .values(cancel_requested=True, updated_at=moment)
        ).rowcount
        if asked:
            change(connection, database, row, {"task_state": "deleting"})
            return "asked"
    end_unplaced(connection, row["id"])
    connection.execute(sa.insert(table_), [record])
    return "deleted"


def release_volumes(connection: sa.Connection, server_ids: Sequence[str]) -> None:
    """Have a conductor let go of the volumes of servers that no host will let go of (global transaction).

    To be called before their rows forget them.
    """
    servers = global_schema.servers
    statement = sa.select(servers.c.id, servers.c.block_devices, servers.c.project_id).where(
        servers.c.id.in_(server_ids)
    )
    rows = [
        intents.row(
            RELEASE_VOLUMES,
            "server",
            row.id,
            admin_context(),
            arguments,
            target=CONDUCTOR,
            exclusive=False,
            project_id=row.project_id,
        )
        for row in connection.execute(statement)
        if (arguments := of_deletion(row.block_devices or []))
    ]
    if rows:
        intents.insert(connection, global_schema.intents, rows)


def end_unplaced(connection: sa.Connection, server_id: str) -> None:
    """Mark a server of the global database deleted (write transaction there).

    What was made or reserved for it at the Volume API is let go by a conductor.
    """
    moment = now()
    servers = global_schema.servers
    release_volumes(connection, [server_id])
    connection.execute(
        sa.update(servers)
        .where(servers.c.id == server_id)
        .values(
            deleted=1,
            vm_state="deleted",
            task_state=None,
            power_state=0,
            terminated_at=moment,
            block_devices=[],
            updated_at=moment,
            generation=servers.c.generation + 1,
        )
    )
    connection.execute(
        sa.update(server_mappings).where(server_mappings.c.server_id == server_id).values(deleted=True)
    )
    connection.execute(sa.delete(server_group_members).where(server_group_members.c.server_id == server_id))


def hosts_of(databases: Databases, server_ids: Sequence[str]) -> set[str]:
    """The hosts that these servers are on, as far as they are placed."""
    if not server_ids:
        return set()
    with databases.global_.read() as connection:
        rows = connection.execute(
            sa.select(server_mappings.c.cell_id, server_mappings.c.server_id).where(
                server_mappings.c.server_id.in_(server_ids), server_mappings.c.cell_id.is_not(None)
            )
        ).all()
    hosts: set[str] = set()
    for cell_id in {row[0] for row in rows}:
        database = databases.cell(cell_id)
        servers = table(database)
        ids = [row[1] for row in rows if row[0] == cell_id]
        with database.read() as connection:
            found = connection.execute(sa.select(servers.c.host).where(servers.c.id.in_(ids))).scalars()
            hosts.update(host for host in found if host)
    return hosts


def places_of(databases: Databases, server_ids: Sequence[str]) -> dict[str, tuple[int | None, str | None]]:
    """{server: (its cell or None, its host or None)} of those that exist; one statement per cell."""
    mappings = server_mappings.c
    with databases.global_.read() as connection:
        statement = sa.select(mappings.server_id, mappings.cell_id).where(
            mappings.server_id.in_(server_ids), mappings.deleted.is_(sa.false())
        )
        cells = {row[0]: row[1] for row in connection.execute(statement)}
    found: dict[str, tuple[int | None, str | None]] = {id_: (cell, None) for id_, cell in cells.items()}
    for cell_id in {cell for cell in cells.values() if cell is not None}:
        database = databases.cell(cell_id)
        servers = table(database)
        ids = [server_id for server_id, cell in cells.items() if cell == cell_id]
        with database.read() as connection:
            for server_id, host in connection.execute(
                sa.select(servers.c.id, servers.c.host).where(servers.c.id.in_(ids))
            ):
                found[server_id] = (cell_id, host)
    return found


def tags_of(database: Database, server_ids: Sequence[str]) -> dict[str, list[str]]:
    """Tags by server, in alphabetical order; one statement."""
    result: dict[str, list[str]] = {server_id: [] for server_id in server_ids}
    if server_ids:
        with database.read() as connection:
            found = connection.execute(_TAGS[tags_table(database)], {"server_ids": list(server_ids)})
            for server_id, tag in found:
                result[server_id].append(tag)
    return result


def groups_of(databases: Databases, server_id: str) -> list[str]:
    """Ids of the server groups that a server is in: one at most."""
    with databases.global_.read() as connection:
        return list(
            connection.execute(
                sa.select(server_group_members.c.group_id).where(
                    server_group_members.c.server_id == server_id
                )
            ).scalars()
        )


def host_states(cell: Database, hosts: Iterable[str], down_after_s: float) -> dict[str, str]:
    """host_status of these hosts of a cell: UP, UNKNOWN (not seen lately), DOWN (declared so), MAINTENANCE."""
    with cell.read() as connection:
        rows = connection.execute(_HOST_STATES, {"hosts": sorted(hosts)})
        return {
            host: _host_state(disabled, forced_down, seen, down_after_s)
            for host, disabled, forced_down, seen in rows
        }


def host_state_of(row: Row, down_after_s: float) -> str | None:
    """host_status of a server that was read with it (``find``, shown); None: it was not."""
    if "service_disabled" not in row:
        return None
    if row["service_disabled"] is None:
        return "UNKNOWN" if row["host"] else ""
    disabled, forced_down, seen = (row[f"service_{name}"] for name in _SERVICE)
    return _host_state(disabled, forced_down, seen, down_after_s)


def _host_state(
    disabled: bool, forced_down: bool, seen: datetime.datetime | None, down_after_s: float
) -> str:
    if forced_down:
        return "DOWN"
    if seen is None or seen < now() - datetime.timedelta(seconds=down_after_s):
        return "UNKNOWN"
    return "MAINTENANCE" if disabled else "UP"


_HOST_STATES = sa.select(
    cell_schema.services.c.host, *(cell_schema.services.c[name] for name in _SERVICE)
).where(
    cell_schema.services.c.binary == "nova-compute",
    cell_schema.services.c.host.in_(sa.bindparam("hosts", expanding=True)),
)
