"""The journal of one cell: how intents move, in SQL.

Every move is a conditional update on (id, state, attempt): a worker that was
overtaken or declared dead can't write any more, whatever it still believes.

A failed create is ended in three transactions, because the host's share lies in
the global database: the cell notes ``ending``; the global database gives back
the allocations; the cell writes the end.  After a crash in between, the sweeper
finds the ``ending`` and goes on (``finish_endings``).

A create that a scheduler has written into the cell counts only once the mapping in
the global database has turned to this cell: until then a deletion may still take it
back there, so nothing is sent (``settled``).
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from conductor.ends import cleanup_of, end_server, without_secrets
from core import metrics
from core.intents import CLEANUP_OF, CLEANUPS
from db import placement
from db.cell_schema import hypervisors, intents, servers
from db.global_schema import server_mappings
from db.sessions import Database, Databases, retrying
from db.types import now
from lifecycle.states import FINISHED, UNFINISHED, IntentState

LOG = logging.getLogger(__name__)
Row = dict[str, Any]

_RESCHEDULABLE = ("haneul.driver", "haneul.driver.host", "haneul.internal")
_FINISHED = {state.value for state in FINISHED}
_UNFINISHED = [state.value for state in UNFINISHED]
_NOT_WRITTEN = ("begin",)
_ON_THE_WAY = ("begin", "checkpoint", "showing", "undoing")
_MAX_RETRY_S = 60.0


def _unmoved(row: Row) -> sa.ColumnElement[bool]:
    """The fence: the intent still is as it was read; whoever moved it meanwhile wins."""
    return sa.and_(
        intents.c.id == row["id"],
        intents.c.state == row["state"],
        intents.c.attempts == row["attempts"],
    )


_GRANT = (
    sa.update(intents)
    .where(
        intents.c.id.in_(sa.bindparam("ids", expanding=True)),
        intents.c.state == sa.bindparam("was"),
        intents.c.attempts == sa.bindparam("had"),
    )
    .values(
        state=IntentState.RUNNING.value,
        target=sa.bindparam("host"),
        lease_owner=sa.bindparam("host"),
        lease_until=sa.bindparam("until", type_=intents.c.lease_until.type),
        attempts=intents.c.attempts + 1,
        started_at=sa.func.coalesce(
            intents.c.started_at, sa.bindparam("moment", type_=intents.c.started_at.type)
        ),
        updated_at=sa.bindparam("moment", type_=intents.c.updated_at.type),
    )
)
_LOCK = (
    sa.select(intents.c.id, intents.c.state, intents.c.attempts)
    .where(intents.c.id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(intents.c.id)
    .with_for_update()  # SQLite, which has no such thing, leaves it out: there a writer is alone
)


def _still_unmoved(connection: sa.Connection, rows: Sequence[Row]) -> list[Row]:
    """Of ``rows`` those that nobody has moved since they were read; they stay so in this transaction."""
    found = connection.execute(_LOCK, {"ids": [row["id"] for row in rows]})
    current = {(id_, state, attempts) for id_, state, attempts in found}
    return [row for row in rows if (row["id"], row["state"], row["attempts"]) in current]


def _alike(rows: Iterable[Row]) -> dict[tuple[str | None, str, int], list[Row]]:
    """By (host, state, attempts): what one statement can grant."""
    result: dict[tuple[str | None, str, int], list[Row]] = {}
    for row in rows:
        result.setdefault((row["target"], row["state"], row["attempts"]), []).append(row)
    return result


class Journal:
    """The journal of the cell whose database is given."""

    def __init__(
        self,
        databases: Databases,
        cell: Database,
        *,
        lease_s: float,
        max_attempts: int,
        retry_s: float = 1,
    ) -> None:
        self._retry_s = retry_s
        self._databases = databases
        self._cell = cell
        self._lease = datetime.timedelta(seconds=lease_s)
        self._max_attempts = max_attempts

    # -- handing out ---------------------------------------------------------

    def waiting(self, ids: Sequence[str] | None = None, limit: int = 500) -> list[Row]:
        """Intents that may start now: due, and nothing older runs on their resource.

        A deletion goes to the host where the server is now: a failed create that it
        overtook may have moved on since it was written.
        """
        statement = (
            sa.select(intents, servers.c.host.label("server_host"))
            .join(servers, servers.c.id == intents.c.resource_id, isouter=True)
            .where(
                intents.c.state == IntentState.WAITING.value,
                sa.or_(intents.c.target.is_not(None), intents.c.kind != "server.create"),
                sa.or_(intents.c.available_at.is_(None), intents.c.available_at <= now()),
                ~_held_back(),
            )
            .order_by(intents.c.created_at)
            .limit(limit)
        )
        if ids is not None:
            statement = statement.where(intents.c.id.in_(ids))
        with self._cell.read() as connection:
            rows = [dict(row) for row in connection.execute(statement).mappings()]
        for row in rows:
            host = row.pop("server_host")
            if row["kind"] == "server.delete":
                row["target"] = host
        return rows

    def settled(self, rows: Sequence[Row]) -> list[Row]:
        """Without creates whose server still counts as one of the global database."""
        ids = [row["resource_id"] for row in rows if row["kind"] == "server.create"]
        if not ids:
            return list(rows)
        statement = sa.select(server_mappings.c.server_id).where(
            server_mappings.c.server_id.in_(ids), server_mappings.c.cell_id == self._cell.cell_id
        )
        with self._databases.global_.read() as connection:
            here = set(connection.execute(statement).scalars())
        return [row for row in rows if row["kind"] != "server.create" or row["resource_id"] in here]

    @retrying
    def grant(self, rows: Iterable[Row]) -> list[Row]:
        """Lease waiting (or expired) intents to their targets; returns those granted.

        Rows come back with their new attempt number.
        """
        rows, moment, granted = list(rows), now(), []
        if not rows:
            return []
        with self._cell.write() as connection:
            # a batch costs a statement per host, not per intent: what is still as it was read is locked first
            if len(rows) > 1:
                rows = _still_unmoved(connection, rows)
            for (host, state, attempts), alike in _alike(rows).items():
                done = connection.execute(
                    _GRANT,
                    {
                        "ids": [row["id"] for row in alike],
                        "was": state,
                        "had": attempts,
                        "host": host,
                        "until": moment + self._lease,
                        "moment": moment,
                    },
                )
                if done.rowcount == len(alike):
                    granted += [
                        {**row, "attempts": attempts + 1, "state": IntentState.RUNNING.value} for row in alike
                    ]
        return granted

    def held_by(self, host: str, silent_s: float = 0) -> list[Row]:
        """Intents that run on a host, by the journal's word. ``silent_s``: that nothing was heard of for so long."""
        statement = sa.select(intents).where(
            intents.c.target == host, intents.c.state == IntentState.RUNNING.value
        )
        if silent_s:
            before = now() - datetime.timedelta(seconds=silent_s)
            statement = statement.where(intents.c.updated_at < before).limit(100)
        with self._cell.read() as connection:
            return [dict(row) for row in connection.execute(statement).mappings()]

    @retrying
    def renew(self, host: str, held: dict[str, int]) -> dict[str, list[str]]:
        """Renew what a host says it works on; tell it what was cancelled or taken away.

        ``held``: {intent id: attempt}. Refused is what is not the host's in that attempt.
        """
        if not held:
            return {"cancelled": [], "refused": []}
        moment = now()
        with self._cell.write() as connection:
            connection.execute(
                sa.update(intents)
                .where(
                    intents.c.id.in_(list(held)),
                    intents.c.target == host,
                    intents.c.state == IntentState.RUNNING.value,
                )
                .values(lease_until=moment + self._lease)
            )
            rows = connection.execute(
                sa.select(
                    intents.c.id,
                    intents.c.attempts,
                    intents.c.target,
                    intents.c.state,
                    intents.c.cancel_requested,
                ).where(intents.c.id.in_(list(held)))
            ).all()
        valid = {
            row.id
            for row in rows
            if row.target == host and row.state == IntentState.RUNNING.value and row.attempts <= held[row.id]
        }
        return {
            "cancelled": [row.id for row in rows if row.cancel_requested],
            "refused": [id_ for id_ in held if id_ not in valid],
        }

    # -- reports -------------------------------------------------------------

    def report(self, reports: Sequence[Row]) -> tuple[list[str], set[tuple[str, str]]]:
        """Write a batch of reports.

        Returns a verdict per report ("ok", "refused", "cancel") and the resources
        (type, id) for which something else may start now.
        """
        rows = self._rows([report["intent_id"] for report in reports])
        verdicts = [self._verdict(rows.get(report["intent_id"]), report) for report in reports]
        taken = [
            (report, rows[report["intent_id"]])
            for report, verdict in zip(reports, verdicts, strict=True)
            if verdict != "refused"
            and report["type"] not in _NOT_WRITTEN
            and rows[report["intent_id"]]["state"] == IntentState.RUNNING.value
        ]
        # a deletion's resources are free already: given back first, a repeat is harmless
        gone = [
            row["resource_id"]
            for report, row in taken
            if report["type"] == "done" and row["kind"] == "server.delete"
        ]
        if gone:
            self._forget(gone)
        moved = self._write(taken)
        endings = [
            row
            for report, row in taken
            if report["type"] in ("failed", "cancelled", "retry") and row["id"] in moved
        ]
        if endings:
            self.finish_endings([row["id"] for row in endings])
        freed = {
            (row["resource_type"], row["resource_id"])
            for report, row in taken
            if report["type"] not in _ON_THE_WAY
        }
        return verdicts, freed

    def _rows(self, ids: Sequence[str]) -> dict[str, Row]:
        statement = sa.select(intents).where(intents.c.id.in_(set(ids)))
        with self._cell.read() as connection:
            return {row["id"]: dict(row) for row in connection.execute(statement).mappings()}

    @staticmethod
    def _verdict(row: Row | None, report: Row) -> str:
        if row is None:
            return "refused"
        current = row["attempts"] == report["attempt"] and row["target"] == report["host"]
        if row["state"] in _FINISHED:
            # the answer to the same last report was lost: it comes again
            return "ok" if current and report["type"] in (*_FINISHED, "retry") else "refused"
        if not current or row["state"] not in (IntentState.RUNNING.value, IntentState.ENDING.value):
            return "refused"
        return "cancel" if row["cancel_requested"] else "ok"

    @retrying
    def _forget(self, server_ids: list[str]) -> None:
        with self._databases.global_.write() as connection:
            placement.forget_servers(connection, server_ids)

    @retrying
    def _write(self, taken: Sequence[tuple[Row, Row]]) -> set[str]:
        """One transaction for the whole batch; returns the intents that moved."""
        moved: set[str] = set()
        if not taken:
            return moved
        with self._cell.write() as connection:
            for report, row in taken:
                if report["type"] == "showing":
                    self._show(connection, row, report["task_state"])
                elif self._move(connection, report, row):
                    moved.add(row["id"])
        return moved

    @staticmethod
    def _show(connection: sa.Connection, row: Row, task_state: str) -> None:
        if row["resource_type"] == "server" and not row["cancel_requested"]:
            connection.execute(
                sa.update(servers)
                .where(
                    servers.c.id == row["resource_id"],
                    servers.c.task_state.is_not(None),
                    servers.c.task_state != "deleting",
                )
                .values(task_state=task_state, updated_at=now())
            )

    def _move(self, connection: sa.Connection, report: Row, row: Row) -> bool:
        moment = now()
        values: Row = {"updated_at": moment, "results": report.get("results") or {}}
        if "events" in report:
            old = [event for event in row["events"] if event.get("attempt") != report["attempt"]]
            values["events"] = [*old, *({**event, "host": report["host"]} for event in report["events"])]
        type_ = report["type"]
        if type_ == "checkpoint":
            values.update(step=report["step"], lease_until=moment + self._lease)
        elif type_ == "undoing":
            values.update(error=report["error"], lease_until=moment + self._lease)
        elif type_ == "done":
            values.update(self._ended(IntentState.DONE, moment, None))
            values.update(without_secrets(row["arguments"]))
        elif type_ == "retry":
            values.update(self._retried(row, report["error"], moment))
        else:
            values.update(self._failed(row, type_, report["error"], moment))
        done = connection.execute(
            sa.update(intents)
            .where(
                intents.c.id == row["id"],
                intents.c.state == IntentState.RUNNING.value,
                intents.c.attempts == report["attempt"],
            )
            .values(**values)
        )
        if done.rowcount != 1:
            return False
        stuck = (
            type_ == "retry" and values["state"] != IntentState.WAITING.value and report["error"].get("stuck")
        )
        if stuck and row["kind"] in CLEANUP_OF:
            # the undo never worked: the server does not wait for it any longer, the host does
            results = report.get("results") or {}
            connection.execute(sa.insert(intents), [cleanup_of({**row, "results": results})])
        if values.get("state") in _FINISHED:
            self._account(row, values["state"], moment)
            end_server(
                connection, row, values["state"], report.get("outcome") or {}, values.get("error"), moment
            )
        return True

    @staticmethod
    def _ended(state: IntentState, moment: datetime.datetime, error: Any) -> Row:
        return {
            "state": state.value,
            "exclusive_key": None,
            "finished_at": moment,
            "lease_owner": None,
            "lease_until": None,
            "error": error,
        }

    def _retried(self, row: Row, error: Row, moment: datetime.datetime) -> Row:
        """Try again later at the same place; after too many attempts give up and say why.

        What somebody sees fails then. A cleanup goes on: nobody would ask for it again.
        """
        if row["attempts"] >= self._max_attempts and row["kind"] not in CLEANUPS:
            return self._failed(row, "failed", error, moment)
        pause = min(self._retry_s * 2.0 ** min(row["attempts"], 6), _MAX_RETRY_S)
        return {
            "state": IntentState.WAITING.value,
            "lease_owner": None,
            "lease_until": None,
            "available_at": moment + datetime.timedelta(seconds=pause),
            "error": error,
        }

    def _failed(self, row: Row, type_: str, error: Row, moment: datetime.datetime) -> Row:
        if row["kind"] == "server.create":
            return {"state": IntentState.ENDING.value, "error": error, "lease_until": moment + self._lease}
        ending = IntentState.CANCELLED if type_ == "cancelled" else IntentState.FAILED
        return self._ended(ending, moment, error)

    @staticmethod
    def _account(row: Row, state: str, moment: datetime.datetime) -> None:
        metrics.INTENTS_ENDED.labels(row["kind"], state).inc()
        metrics.INTENT_SECONDS.labels(row["kind"]).observe((moment - row["created_at"]).total_seconds())

    # -- creates that failed -------------------------------------------------

    def finish_endings(self, ids: Sequence[str]) -> list[str]:
        """Give back what failed creates held, then write their ends.

        Returns the ids that go back to the scheduler. Idempotent.
        """
        rows = [row for row in self._rows(ids).values() if row["state"] == IntentState.ENDING.value]
        if not rows:
            return []
        self._release({row["resource_id"]: row["target"] for row in rows})
        again = []
        for row in rows:
            if self._finish_ending(row):
                again.append(row["id"])
        return again

    @retrying
    def _release(self, hosts: dict[str, str]) -> None:
        # of that host only: by now another conductor may have finished this, and the server a new one
        with self._databases.global_.write() as connection:
            placement.release_on(connection, hosts)

    @retrying
    def _finish_ending(self, row: Row) -> bool:
        """Write the end of one failed create; True if it is to be scheduled again."""
        error, moment = row["error"] or {}, now()
        arguments = dict(row["arguments"])
        tries = int(arguments.get("attempts", 0)) + 1
        cancelled = row["cancel_requested"] or error.get("code") == "haneul.cancelled"
        again = not cancelled and error.get("code") in _RESCHEDULABLE and tries < self._max_attempts
        if again:
            arguments["attempts"] = tries
            arguments["excluded_hosts"] = [*arguments.get("excluded_hosts", []), row["target"]]
            values: Row = {
                "state": IntentState.WAITING.value,
                "target": None,
                "lease_owner": None,
                "lease_until": None,
                "available_at": None,
                "error": None,
                "step": None,
                "results": {},
                "arguments": arguments,
            }
        else:
            state = IntentState.CANCELLED if cancelled else IntentState.FAILED
            values = {**self._ended(state, moment, error), **without_secrets(row["arguments"])}
        with self._cell.write() as connection:
            done = connection.execute(
                sa.update(intents)
                .where(
                    intents.c.id == row["id"],
                    intents.c.state == IntentState.ENDING.value,
                    # a deletion may overtake it between our look and now: the sweeper looks again
                    intents.c.cancel_requested.is_(sa.true() if row["cancel_requested"] else sa.false()),
                )
                .values(updated_at=moment, **values)
            )
            if done.rowcount != 1:
                return False
            connection.execute(
                sa.update(hypervisors)
                .where(hypervisors.c.host == row["target"])
                .values(failed_builds=hypervisors.c.failed_builds + (0 if cancelled else 1))
            )
            if again:
                connection.execute(
                    sa.update(servers)
                    .where(servers.c.id == row["resource_id"], servers.c.deleted == 0)
                    .values(
                        host=None,
                        node=None,
                        task_state="scheduling",
                        updated_at=moment,
                        generation=servers.c.generation + 1,
                    )
                )
            else:
                self._account(row, values["state"], moment)
                end_server(connection, row, values["state"], {}, error, moment)
        return again

    @retrying
    def fail(self, row: Row, error: Row, cleanup: Row | None = None) -> bool:
        """End an intent that nobody can carry out (its host is gone for too long).

        ``cleanup``: an intent for that host, to remove what is left once it is back.
        """
        moment = now()
        if cleanup is not None:
            error = {**error, "stuck": ["host"]}  # what was made there is there still
        with self._cell.write() as connection:
            done = connection.execute(
                sa.update(intents)
                .where(_unmoved(row))
                .values(
                    updated_at=moment,
                    attempts=row["attempts"] + 1,
                    **self._failed(row, "failed", error, moment),
                )
            )
            if done.rowcount != 1:
                return False
            if cleanup is not None:
                connection.execute(sa.insert(intents), [cleanup])
            if row["kind"] != "server.create":
                self._account(row, IntentState.FAILED.value, moment)
                end_server(connection, row, IntentState.FAILED.value, {}, error, moment)
        return True

    @retrying
    def cancel_waiting(self, rows: Sequence[Row]) -> None:
        """End creates that wait for a new host and were overtaken: nothing of them is left anywhere."""
        moment = now()
        with self._cell.write() as connection:
            for row in rows:
                ended = {
                    **self._ended(IntentState.CANCELLED, moment, None),
                    **without_secrets(row["arguments"]),
                }
                connection.execute(
                    sa.update(intents)
                    .where(
                        intents.c.id == row["id"],
                        intents.c.state == IntentState.WAITING.value,
                        intents.c.target.is_(None),
                    )
                    .values(updated_at=moment, **ended)
                )

    def delete_without_host(self, row: Row, cleanup: Row | None) -> None:
        """Carry out a deletion here: the server has no host, or a dead one.

        ``cleanup``: an intent for the dead host, to remove what is left once it is back.
        """
        self._forget([row["resource_id"]])
        self._write_delete_without_host(row, cleanup)

    @retrying
    def _write_delete_without_host(self, row: Row, cleanup: Row | None) -> None:
        moment = now()
        with self._cell.write() as connection:
            done = connection.execute(
                sa.update(intents)
                .where(_unmoved(row))
                .values(
                    updated_at=moment,
                    attempts=row["attempts"] + 1,
                    started_at=row["started_at"] or moment,
                    **self._ended(IntentState.DONE, moment, None),
                )
            )
            if done.rowcount == 1:
                end_server(connection, row, IntentState.DONE.value, {}, None, moment)
                if cleanup is not None:
                    connection.execute(sa.insert(intents), [cleanup])


def _held_back() -> sa.ColumnElement[bool]:
    """Something else is to be done to the resource first: what was written before, or what runs.

    Cleanups concern only their host: they and the server's own intents wait for each
    other there, and nowhere else.
    """
    other = intents.alias("other")
    older = sa.or_(
        other.c.state != IntentState.WAITING.value,
        other.c.created_at < intents.c.created_at,
        # clocks are no order: of two that wait, written in the same moment, one goes first
        sa.and_(other.c.created_at == intents.c.created_at, other.c.id < intents.c.id),
    )
    neither = sa.and_(intents.c.kind.not_in(CLEANUPS), other.c.kind.not_in(CLEANUPS))
    return (
        sa.select(sa.literal(1))
        .where(
            other.c.resource_id == intents.c.resource_id,
            other.c.id != intents.c.id,
            other.c.state.in_(_UNFINISHED),
            older,
            sa.or_(neither, other.c.target == intents.c.target),
        )
        .exists()
    )
