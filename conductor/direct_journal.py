"""The journal for workers that run beside the database: volumes, images, bare metal.

They need no conductor to speak for them: they lease intents of the global database
by conditional updates and write checkpoints and ends themselves.  The rules are
those of ``conductor.journal``: what is written is conditional on the attempt, so a
worker whose lease ran out can't write any more; an intent that waits is taken when
nothing older runs on its resource; the end of an intent and of its resource are one
transaction.  What an end does to a resource is the user's (``end_resource``).
"""

from __future__ import annotations

import datetime
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

from core import metrics
from core.intents import UNFINISHED, IntentState
from db.global_schema import intents
from db.sessions import Database, retrying
from db.types import now
from lifecycle.steps import Fenced, Run

LOG = logging.getLogger(__name__)
Row = dict[str, Any]
EndResource = Callable[[sa.Connection, Row, str, Row, Row | None, datetime.datetime], None]
"""(connection, intent, state, outcome, error, moment): writes what the end does to the resource."""
_RUNNING, _WAITING = IntentState.RUNNING.value, IntentState.WAITING.value
_UNFINISHED = [state.value for state in UNFINISHED]
_MAX_RETRY_S = 300.0


class DirectJournal:
    """The journal of one worker process. ``owner`` names it in leases."""

    def __init__(
        self,
        database: Database,
        owner: str,
        end_resource: EndResource,
        *,
        lease_s: float = 60,
        max_attempts: int = 5,
        retry_s: float = 1,
    ) -> None:
        self._database = database
        self._owner = owner
        self._end_resource = end_resource
        self._lease = datetime.timedelta(seconds=lease_s)
        self._max_attempts = max_attempts
        self._retry_s = retry_s
        self._held: dict[str, Run] = {}
        self._lock = threading.Lock()

    # -- taking ------------------------------------------------------------------

    def take(self, targets: Sequence[str], kinds: Sequence[str], limit: int) -> list[Row]:
        """Lease intents for these targets that may start now, oldest first; returns those leased.

        Also those whose lease ran out: their worker is dead, or will be refused.
        """
        moment = now()
        due = sa.or_(intents.c.available_at.is_(None), intents.c.available_at <= moment)
        waiting = sa.and_(intents.c.state == _WAITING, due, ~_held_back())
        expired = sa.and_(intents.c.state == _RUNNING, intents.c.lease_until < moment)
        statement = (
            sa.select(intents)
            .where(intents.c.target.in_(targets), intents.c.kind.in_(kinds), sa.or_(waiting, expired))
            .order_by(intents.c.created_at, intents.c.id)
            .limit(limit)
        )
        with self._database.read() as connection:
            rows = [dict(row) for row in connection.execute(statement).mappings()]
        return self._grant(rows) if rows else []

    @retrying
    def _grant(self, rows: Sequence[Row]) -> list[Row]:
        moment, granted = now(), []
        with self._database.write() as connection:
            for row in rows:
                values = {
                    "state": _RUNNING,
                    "attempts": row["attempts"] + 1,
                    "lease_owner": self._owner,
                    "lease_until": moment + self._lease,
                    "started_at": row["started_at"] or moment,
                    "updated_at": moment,
                }
                done = connection.execute(
                    sa.update(intents)
                    .where(
                        intents.c.id == row["id"],
                        intents.c.state == row["state"],
                        intents.c.attempts == row["attempts"],
                    )
                    .values(**values)
                )
                if done.rowcount == 1:
                    granted.append({**row, **values})
        return granted

    def hold(self, run: Run) -> None:
        """From here until its end the lease of this run is renewed."""
        with self._lock:
            self._held[run.intent_id] = run

    @property
    def held(self) -> int:
        """How many runs hold a lease here."""
        with self._lock:
            return len(self._held)

    def release(self, run: Run) -> None:
        with self._lock:
            self._held.pop(run.intent_id, None)

    def interrupt(self) -> None:
        """Runs held here end at their next check; another attempt goes on when their leases have run out."""
        with self._lock:
            for run in self._held.values():
                run.fenced.set()

    @retrying
    def renew(self) -> None:
        """Renew what is held; tell runs that they were cancelled or taken away."""
        with self._lock:
            held = dict(self._held)
        if not held:
            return
        moment = now()
        with self._database.write() as connection:
            mine = sa.and_(
                intents.c.id.in_(list(held)),
                intents.c.lease_owner == self._owner,
                intents.c.state == _RUNNING,
            )
            connection.execute(sa.update(intents).where(mine).values(lease_until=moment + self._lease))
            rows = connection.execute(
                sa.select(intents.c.id, intents.c.attempts, intents.c.cancel_requested).where(mine)
            ).all()
        alive = {row.id: row for row in rows}
        for identifier, run in held.items():
            row = alive.get(identifier)
            if row is None or row.attempts != run.attempt:
                run.fenced.set()
            elif row.cancel_requested:
                run.cancelled.set()

    # -- lifecycle.engine.Journal ------------------------------------------------

    def begin(self, run: Run) -> None:
        """:raises Fenced: the attempt does not count any more."""
        self._note(run, {})

    def checkpoint(self, run: Run, step: str, events: list[dict[str, Any]], durable: bool) -> None:
        """Every checkpoint is written at once: the database is next door."""
        self._note(run, {"step": step, "results": run.results, "events": list(events)})

    def undoing(self, run: Run, error: dict[str, Any]) -> None:
        self._note(run, {"error": error, "results": run.results})

    def showing(self, run: Run, task_state: str) -> None:
        """What these resources show comes from the state table."""

    @retrying
    def _note(self, run: Run, values: Row) -> None:
        moment = now()
        with self._database.write() as connection:
            done = connection.execute(
                sa.update(intents)
                .where(self._mine(run))
                .values(updated_at=moment, lease_until=moment + self._lease, **values)
            )
            if done.rowcount != 1 or run.fenced.is_set():
                raise Fenced(run.intent_id)
            asked = sa.select(intents.c.cancel_requested).where(intents.c.id == run.intent_id)
            if connection.execute(asked).scalar_one():
                run.cancelled.set()

    def _mine(self, run: Run) -> sa.ColumnElement[bool]:
        return sa.and_(
            intents.c.id == run.intent_id,
            intents.c.state == _RUNNING,
            intents.c.attempts == run.attempt,
            intents.c.lease_owner == self._owner,
        )

    @retrying
    def end(self, run: Run, ending: str, events: list[dict[str, Any]], **facts: Any) -> None:
        """ "done" (outcome=…), "failed" (error=…), "cancelled" (error=…), "retry" (error=…)."""
        moment, error = now(), facts.get("error")
        state = {
            "done": IntentState.DONE,
            "failed": IntentState.FAILED,
            "cancelled": IntentState.CANCELLED,
        }.get(ending, IntentState.FAILED)
        with self._database.write() as connection:
            found = connection.execute(sa.select(intents).where(self._mine(run))).mappings().first()
            if found is None:
                raise Fenced(run.intent_id)
            row = dict(found)
            values: Row = {
                "results": run.results,
                "events": list(events),
                "updated_at": moment,
                "error": error,
            }
            if ending == "retry" and row["attempts"] < self._max_attempts:
                pause = min(self._retry_s * 2.0 ** min(row["attempts"], 8), _MAX_RETRY_S)
                values.update(
                    state=_WAITING,
                    lease_owner=None,
                    lease_until=None,
                    available_at=moment + datetime.timedelta(seconds=pause),
                )
                connection.execute(sa.update(intents).where(self._mine(run)).values(**values))
                return
            values.update(state=state.value, exclusive_key=None, finished_at=moment)
            values.update(lease_owner=None, lease_until=None)
            if connection.execute(sa.update(intents).where(self._mine(run)).values(**values)).rowcount != 1:
                raise Fenced(run.intent_id)
            self._end_resource(connection, row, state.value, facts.get("outcome") or {}, error, moment)
        metrics.INTENTS_ENDED.labels(row["kind"], state.value).inc()
        metrics.INTENT_SECONDS.labels(row["kind"]).observe((moment - row["created_at"]).total_seconds())


def finish(
    connection: sa.Connection,
    row: Row,
    state: IntentState,
    end_resource: EndResource,
    error: Row | None = None,
) -> bool:
    """End a waiting intent that needs no worker; False: someone else moved it meanwhile."""
    moment = now()
    done = connection.execute(
        sa.update(intents)
        .where(intents.c.id == row["id"], intents.c.state == _WAITING, intents.c.attempts == row["attempts"])
        .values(
            state=state.value,
            exclusive_key=None,
            error=error,
            started_at=moment,
            finished_at=moment,
            updated_at=moment,
        )
    )
    if done.rowcount == 1:
        end_resource(connection, row, state.value, {}, error, moment)
    return bool(done.rowcount == 1)


def _held_back() -> sa.ColumnElement[bool]:
    """Something else is to be done to the resource first: what was written before, or what runs."""
    other = intents.alias("other")
    older = sa.or_(
        other.c.state != _WAITING,
        other.c.created_at < intents.c.created_at,
        # clocks are no order: of two that wait, written in the same moment, one goes first
        sa.and_(other.c.created_at == intents.c.created_at, other.c.id < intents.c.id),
    )
    return (
        sa.select(sa.literal(1))
        .where(
            other.c.resource_id == intents.c.resource_id,
            other.c.id != intents.c.id,
            other.c.state.in_(_UNFINISHED),
            older,
        )
        .exists()
    )
