"""From decisions to agents: claims, the move into the cell, the cast.

For a server that waits in the global database, in this order, so that a crash
between any two leaves something that the next pass can finish:

1. global: the intent is leased to this scheduler and the host's resources are
   claimed, with the decision, in one transaction;
2. cell: server and intent are written (idempotent by id), leased to the host; the
   conductor does not touch them before
3. global: the mapping turns, the global copies go; what was changed meanwhile is
   copied again first, a deletion that was asked for is found here and carried out;
4. the intent is cast to its host's agent.

A scheduler that dies after 1 leaves a leased intent: when the lease runs out the
next pass finds the allocation and goes on with the same host.  One that was only
slow finds its work done by the other: nothing that it still writes changes that.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exc

from conductor.ends import end_server, message_of
from db import cell_schema, global_schema, placement
from db import servers as db_servers
from db.sessions import Database, Databases, retrying
from db.types import Time, now
from lifecycle.states import IntentState
from scheduler.placement import Decision

LOG = logging.getLogger(__name__)
Row = dict[str, Any]


_TURNS = 4


def _ids(column: sa.ColumnElement[Any], name: str = "ids") -> sa.ColumnElement[bool]:
    return column.in_(sa.bindparam(name, expanding=True))


def _moment(name: str = "moment") -> sa.BindParameter[Any]:
    return sa.bindparam(name, type_=Time())


# Built once: building one takes as long as the database needs to carry it out, and a pass has a dozen.
_INTENTS, _SERVERS = global_schema.intents, global_schema.servers
_LEASE = (
    sa.update(_INTENTS)
    .where(
        _ids(_INTENTS.c.id),
        sa.or_(
            _INTENTS.c.state == IntentState.WAITING.value,
            sa.and_(_INTENTS.c.state == IntentState.RUNNING.value, _INTENTS.c.lease_until < _moment()),
        ),
    )
    .values(
        state=IntentState.RUNNING.value,
        lease_owner=sa.bindparam("owner"),
        lease_until=_moment("until"),
        attempts=_INTENTS.c.attempts + 1,
        started_at=sa.func.coalesce(_INTENTS.c.started_at, _moment()),
    )
)
_READ = sa.select(_SERVERS, db_servers.tagged(_SERVERS)).where(_ids(_SERVERS.c.id))
_KNOWN = (
    sa.select(
        _SERVERS.c.id,
        _SERVERS.c.generation,
        db_servers.tagged(_SERVERS),
        _INTENTS.c.id.label("intent_id"),
        _INTENTS.c.cancel_requested,
    )
    .join(_INTENTS, _INTENTS.c.resource_id == _SERVERS.c.id)
    .where(_ids(_INTENTS.c.id))
)
_FORGET_INTENTS = sa.delete(_INTENTS).where(_ids(_INTENTS.c.id))
_FORGET_SERVERS = sa.delete(_SERVERS).where(_ids(_SERVERS.c.id))
_TURN = (
    sa.update(global_schema.server_mappings)
    .where(_ids(global_schema.server_mappings.c.server_id))
    .values(cell_id=sa.bindparam("to_cell"))
)
_WRITE_SERVERS, _WRITE_INTENTS = sa.insert(cell_schema.servers), sa.insert(cell_schema.intents)
_RECORD = sa.insert(global_schema.decisions)


class Lost(Exception):
    """Another scheduler took some of these intents: read again."""


class Dispatcher:
    """Writes what a pass decided. ``owner`` names this scheduler in leases."""

    def __init__(self, databases: Databases, owner: str, lease_s: float, host_lease_s: float) -> None:
        self._databases = databases
        self._owner = owner
        self._lease = datetime.timedelta(seconds=lease_s)
        self._host_lease = datetime.timedelta(seconds=host_lease_s)

    # -- step 1 --------------------------------------------------------------

    @retrying
    def claim(
        self,
        source: Database,
        placed: Sequence[tuple[Row, Decision]],
        claims: dict[tuple[int, int], list[Row]],
    ) -> list[int]:
        """Lease the intents (where they lie in the global database) and claim; returns lost providers.

        :raises Lost: an intent was taken by another scheduler, or its server deleted;
            nothing is written.
        """
        try:
            return self._claim(source, placed, claims)
        except db_exc.DBDuplicateEntry as error:
            raise Lost from error  # another scheduler has claimed for the same server

    def _claim(
        self,
        source: Database,
        placed: Sequence[tuple[Row, Decision]],
        claims: dict[tuple[int, int], list[Row]],
    ) -> list[int]:
        moment = now()
        with self._databases.global_.write() as connection:
            if source.cell_id is None:
                done = connection.execute(
                    _LEASE,
                    {
                        "ids": [row["id"] for row, _ in placed],
                        "owner": self._owner,
                        "moment": moment,
                        "until": moment + self._lease,
                    },
                )
                if done.rowcount != len(placed):
                    raise Lost
            else:
                # the intent lies in the cell: what a deletion marks here first keeps us from claiming after it
                ids = [row["resource_id"] for row, _ in placed]
                if len(placement.hold_mappings(connection, ids)) != len(ids):
                    raise Lost
            lost = placement.claim(connection, claims, self._owner)
            self._record(connection, placed, moment)
        return lost

    @staticmethod
    def _record(
        connection: sa.Connection, placed: Sequence[tuple[Row, Decision]], moment: datetime.datetime
    ) -> None:
        rows = [
            {
                "intent_id": row["id"],
                "attempt": row["attempts"] + 1,
                "server_id": row["resource_id"],
                "host": decision.chosen.host if decision.chosen else None,
                "summary": decision.summary,
                "explanation": decision.record,
                "created_at": moment,
            }
            for row, decision in placed
        ]
        if rows:
            keys = sa.tuple_(global_schema.decisions.c.intent_id, global_schema.decisions.c.attempt)
            if any(row["attempt"] > 1 for row in rows):
                connection.execute(
                    sa.delete(global_schema.decisions).where(
                        keys.in_([(row["intent_id"], row["attempt"]) for row in rows])
                    )
                )
            connection.execute(_RECORD, rows)

    @retrying
    def back_to_waiting(self, source: Database, ids: Sequence[str]) -> None:
        """These lost their claim: they wait for the next pass."""
        if source.cell_id is not None or not ids:
            return
        intents = global_schema.intents
        with self._databases.global_.write() as connection:
            connection.execute(
                sa.update(intents)
                .where(intents.c.id.in_(ids), intents.c.lease_owner == self._owner)
                .values(state=IntentState.WAITING.value, lease_owner=None, lease_until=None)
            )

    # -- steps 2 and 3 -------------------------------------------------------

    def move(self, cell: Database, placed: Sequence[tuple[Row, Decision]]) -> list[Row]:
        """Servers from the global database into ``cell``; returns the intents to cast."""
        granted: dict[str, Row] = {}
        left = list(placed)
        for _ in range(_TURNS):
            ids = [row["resource_id"] for row, _ in left]
            servers, tags = self._read_global(ids)
            granted.update({row["id"]: row for row in self._write_cell(cell, left, servers, tags)})
            copied = {id_: row["generation"] for id_, row in servers.items()}
            cancelled, changed = self._turn(cell, left, copied)
            if cancelled:
                # here too: if another scheduler ended these before we wrote, no allocation tells where
                self._drop_copies(cell, [row["resource_id"] for row, _ in left if row["id"] in cancelled])
                self.finish_cancelled([row for row, _ in left if row["id"] in cancelled])
            for intent_id in cancelled:
                granted.pop(intent_id, None)
            left = [(row, decision) for row, decision in left if row["id"] in changed]
            if not left:
                break
        # what goes on being changed is moved by a later pass, once our lease of it has run out
        unmoved = {row["id"] for row, _ in left}
        return [row for id_, row in granted.items() if id_ not in unmoved]

    def _read_global(self, ids: Sequence[str]) -> tuple[dict[str, Row], list[Row]]:
        tags = global_schema.server_tags
        with self._databases.global_.read() as connection:
            found = {row["id"]: dict(row) for row in connection.execute(_READ, {"ids": ids}).mappings()}
            # tags are read after the row that counts their changes
            with_tags = [id_ for id_, row in found.items() if row.pop("tagged")]
            if not with_tags:
                return found, []
            of_them = sa.select(tags).where(tags.c.server_id.in_(with_tags))
            return found, [dict(row) for row in connection.execute(of_them).mappings()]

    @retrying
    def _write_cell(
        self,
        cell: Database,
        placed: Sequence[tuple[Row, Decision]],
        servers: dict[str, Row],
        tags: list[Row],
    ) -> list[Row]:
        """Write the copies; returns the intents that were granted to their hosts by this."""
        moment = now()
        intents, rows = [], []
        for row, decision in placed:
            assert decision.chosen is not None
            choice = decision.chosen
            if row["resource_id"] in servers:  # else another scheduler has moved it already
                intents.append(self._granted(row, choice.host, choice.zone, moment))
                rows.append(
                    {
                        **servers[row["resource_id"]],
                        "host": choice.host,
                        "node": choice.node,
                        "availability_zone": choice.zone,
                        "updated_at": moment,
                    }
                )
        if not rows:
            return []
        try:
            with cell.write() as connection:
                connection.execute(_WRITE_SERVERS, rows)
                if tags:
                    connection.execute(sa.insert(cell_schema.server_tags), tags)
                connection.execute(_WRITE_INTENTS, intents)
        except db_exc.DBDuplicateEntry:
            # a pass that died after this step wrote some of them; the host is the same
            return self._write_cell_again(cell, rows, tags, intents)
        return intents

    @staticmethod
    def _write_cell_again(cell: Database, rows: list[Row], tags: list[Row], intents: list[Row]) -> list[Row]:
        """The same when copies may be there: never over newer ones."""
        granted = []
        servers, server_tags = cell_schema.servers, cell_schema.server_tags
        with cell.write() as connection:
            for row in rows:
                present = connection.execute(
                    sa.select(servers.c.generation).where(servers.c.id == row["id"])
                ).scalar()
                if present is not None and present >= row["generation"]:
                    continue
                connection.execute(sa.delete(server_tags).where(server_tags.c.server_id == row["id"]))
                connection.execute(sa.delete(servers).where(servers.c.id == row["id"]))
                connection.execute(sa.insert(servers).values(**row))
                own = [tag for tag in tags if tag["server_id"] == row["id"]]
                if own:
                    connection.execute(sa.insert(server_tags), own)
            table = cell_schema.intents
            for intent in intents:
                found = connection.execute(
                    sa.select(table.c.attempts, table.c.state).where(table.c.id == intent["id"])
                ).first()
                if found is None:
                    connection.execute(sa.insert(table).values(**intent))
                    granted.append(intent)
                elif found.state == IntentState.RUNNING.value and found.attempts <= intent["attempts"]:
                    keys = ("arguments", "attempts", "lease_owner", "lease_until", "updated_at")
                    connection.execute(
                        sa.update(table)
                        .where(table.c.id == intent["id"])
                        .values(**{key: intent[key] for key in keys})
                    )
                    granted.append(intent)
        return granted

    def _granted(self, row: Row, host: str, zone: str, moment: datetime.datetime) -> Row:
        arguments = dict(row["arguments"])
        if "guest" in arguments:
            arguments["guest"] = {**arguments["guest"], "availability_zone": zone}
        return {
            **row,
            "arguments": arguments,
            "target": host,
            "state": IntentState.RUNNING.value,
            "lease_owner": host,
            "lease_until": moment + self._host_lease,
            "attempts": row["attempts"] + 1,
            "started_at": row["started_at"] or moment,
            "updated_at": moment,
        }

    @retrying
    def _turn(
        self, cell: Database, placed: Sequence[tuple[Row, Decision]], copied: dict[str, int]
    ) -> tuple[set[str], set[str]]:
        """The mapping turns and the global copies go, unless something happened since they were copied.

        ``copied``: {server id: generation} of the copies.  Returns the intents that
        were cancelled, and those whose server was changed, meanwhile.
        """
        server_tags = global_schema.server_tags
        by_intent = {row["id"]: row["resource_id"] for row, _ in placed}
        with self._databases.global_.write() as connection:
            placement.hold_mappings(connection, list(by_intent.values()))
            known = connection.execute(_KNOWN, {"ids": list(by_intent)}).all()
            cancelled = {row.intent_id for row in known if row.cancel_requested}
            now_at = {row.id: row.generation for row in known}
            changed = {
                intent
                for intent, server in by_intent.items()
                if intent not in cancelled and now_at.get(server, -1) > copied.get(server, -1)
            }
            turned = {intent: by_intent[intent] for intent in set(by_intent) - cancelled - changed}
            moved = [server for server in turned.values() if server in now_at]
            if moved:
                connection.execute(_FORGET_INTENTS, {"ids": list(turned)})
                connection.execute(_TURN, {"ids": moved, "to_cell": cell.cell_id})
                connection.execute(_FORGET_SERVERS, {"ids": moved})
                tagged = {row.id for row in known if row.tagged}
                if not tagged.isdisjoint(moved):
                    connection.execute(sa.delete(server_tags).where(server_tags.c.server_id.in_(moved)))
        return cancelled, changed

    def finish_cancelled(self, rows: Sequence[Row]) -> None:
        """Complete the deletion of servers that never got to a host: nothing was cast yet.

        Copies in a cell go first: the allocation that says where they are goes last.
        """
        ids = [row["resource_id"] for row in rows]
        with self._databases.global_.read() as connection:
            cells = placement.cells_of(connection, ids)
        for cell_id in sorted(set(cells.values())):
            here = [server for server, found in cells.items() if found == cell_id]
            self._drop_copies(self._databases.cell(cell_id), here)
        self._end_cancelled(rows)

    @retrying
    def _drop_copies(self, cell: Database, ids: Sequence[str]) -> None:
        intents, servers, tags = cell_schema.intents, cell_schema.servers, cell_schema.server_tags
        with cell.write() as connection:
            connection.execute(sa.delete(intents).where(intents.c.resource_id.in_(ids)))
            connection.execute(sa.delete(tags).where(tags.c.server_id.in_(ids)))
            connection.execute(sa.delete(servers).where(servers.c.id.in_(ids)))

    @retrying
    def _end_cancelled(self, rows: Sequence[Row]) -> None:
        moment = now()
        intents, servers = global_schema.intents, global_schema.servers
        tags = global_schema.server_tags
        ids = [row["resource_id"] for row in rows]
        with self._databases.global_.write() as connection:
            placement.forget_servers(connection, ids)
            connection.execute(
                sa.update(intents)
                .where(intents.c.id.in_([row["id"] for row in rows]))
                .values(
                    state=IntentState.CANCELLED.value,
                    exclusive_key=None,
                    finished_at=moment,
                    updated_at=moment,
                    lease_owner=None,
                    lease_until=None,
                )
            )
            connection.execute(sa.delete(tags).where(tags.c.server_id.in_(ids)))
            db_servers.release_volumes(connection, ids)
            connection.execute(
                sa.update(servers)
                .where(servers.c.id.in_(ids))
                .values(
                    deleted=1,
                    vm_state="deleted",
                    task_state=None,
                    block_devices=[],
                    terminated_at=moment,
                    updated_at=moment,
                )
            )

    # -- again in the same cell ----------------------------------------------

    @retrying
    def replace(self, cell: Database, placed: Sequence[tuple[Row, Decision]]) -> list[Row]:
        """Servers that failed on one host of their cell get another one there."""
        moment, granted = now(), []
        intents, servers = cell_schema.intents, cell_schema.servers
        with cell.write() as connection:
            for row, decision in placed:
                assert decision.chosen is not None
                new = self._granted(row, decision.chosen.host, decision.chosen.zone, moment)
                keys = (
                    "arguments",
                    "target",
                    "state",
                    "lease_owner",
                    "lease_until",
                    "attempts",
                    "updated_at",
                )
                done = connection.execute(
                    sa.update(intents)
                    .where(
                        intents.c.id == row["id"],
                        intents.c.state == IntentState.WAITING.value,
                        intents.c.attempts == row["attempts"],
                        intents.c.cancel_requested.is_(sa.false()),
                    )
                    .values(**{key: new[key] for key in keys})
                )
                if done.rowcount != 1:
                    continue
                connection.execute(
                    sa.update(servers)
                    .where(servers.c.id == row["resource_id"])
                    .values(
                        host=decision.chosen.host,
                        node=decision.chosen.node,
                        updated_at=moment,
                        generation=servers.c.generation + 1,
                    )
                )
                granted.append(new)
        return granted

    # -- no valid host -------------------------------------------------------

    @retrying
    def no_host(self, source: Database, failed: Sequence[tuple[Row, Decision]]) -> None:
        """The servers become ERROR with a fault that says why."""
        moment = now()
        intents = global_schema.intents if source.cell_id is None else cell_schema.intents
        servers = global_schema.servers if source.cell_id is None else cell_schema.servers
        with source.write() as connection:
            for row, decision in failed:
                message = decision.summary.removeprefix("No valid host: ")
                error = {
                    "step": "schedule",
                    "code": "haneul.no_valid_host",
                    "message": f"No valid host was found. {message}"[:255],
                    "details": decision.summary,
                }
                done = connection.execute(
                    sa.update(intents)
                    .where(
                        intents.c.id == row["id"],
                        intents.c.attempts == row["attempts"],
                        intents.c.state == row["state"],
                        intents.c.cancel_requested.is_(sa.false()),
                    )
                    .values(
                        state=IntentState.FAILED.value,
                        exclusive_key=None,
                        error=error,
                        step="schedule",
                        finished_at=moment,
                        updated_at=moment,
                        lease_until=None,
                        events=[
                            {
                                "step": "schedule",
                                "result": "Error",
                                "message": error["message"],
                                "started_at": moment.isoformat(),
                                "finished_at": moment.isoformat(),
                            }
                        ],
                    )
                )
                if done.rowcount == 1:
                    end_server(connection, row, IntentState.FAILED.value, {}, error, moment, servers)
        with (
            contextlib.suppress(db_exc.DBDuplicateEntry),  # another scheduler came to the same end
            self._databases.global_.write() as connection,
        ):
            self._record(connection, failed, moment)


__all__ = ["Dispatcher", "Lost", "message_of"]
