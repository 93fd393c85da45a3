"""The sweeper: finds what nobody holds and gets it going again.

It takes no input and is idempotent.  In one sweep:

1. endings that a crash left between two databases are finished;
2. leases that ran out are granted anew to the same host and sent again; a
   create whose host is down for too long is ended there (and tried elsewhere),
   leaving a cleanup for the host's return; other intents for such a host fail
   with words that say so, a deletion is carried out without the host;
3. waiting intents whose doorbell was lost are sent.
"""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from oslo_config import cfg

from conductor.ends import cleanup_of
from core import metrics
from core.intents import CLEANUP_OF, CLEANUPS
from db import intents as db_intents
from db.cell_schema import intents
from db.types import now
from lifecycle.states import UNFINISHED, IntentState

if TYPE_CHECKING:
    from conductor.service import ConductorRole

LOG = logging.getLogger(__name__)


class Sweeper:
    """Belongs to one conductor role."""

    def __init__(self, conf: cfg.ConfigOpts, role: ConductorRole) -> None:
        self._conf = conf
        self._role = role
        self._beat_at = 0.0

    def sweep(self) -> None:
        if time.monotonic() - self._beat_at > 10:
            self._role.hosts.ensure_service(self._conf.host, "nova-conductor")
            self._beat_at = time.monotonic()
        rows = self._unfinished()
        self._measure(rows)
        targets = {row["target"] for row in rows if row["target"]}
        dead = self._role.hosts.dead(self._conf.service_down_time, targets)
        moment = now()
        expired = [
            row
            for row in rows
            if row["state"] != IntentState.WAITING.value
            and row["lease_until"]
            and row["lease_until"] < moment
        ]
        endings = [row["id"] for row in expired if row["state"] == IntentState.ENDING.value]
        again = self._role.journal.finish_endings(endings) if endings else []
        self._role.journal.cancel_waiting(
            [
                row
                for row in rows
                if row["state"] == IntentState.WAITING.value
                and row["kind"] == "server.create"
                and row["target"] is None
                and row["cancel_requested"]
            ]
        )
        self._resend([row for row in expired if row["state"] == IntentState.RUNNING.value], dead)
        self._give_up([row for row in rows if row["target"] in dead], dead)
        self._role.dispatch()
        if again or any(row["state"] == IntentState.WAITING.value and row["target"] is None for row in rows):
            self._role.ring_scheduler()

    def _unfinished(self) -> list[dict[str, Any]]:
        statement = (
            sa.select(intents)
            .where(intents.c.state.in_([state.value for state in UNFINISHED]))
            .order_by(intents.c.created_at)
            .limit(5000)
        )
        with self._role.cell.read() as connection:
            return [dict(row) for row in connection.execute(statement).mappings()]

    def _measure(self, rows: list[dict[str, Any]]) -> None:
        metrics.INTENTS.clear()
        metrics.OLDEST_INTENT.clear()
        cell = self._role.cell.name
        for row in rows:
            metrics.INTENTS.labels(cell, row["kind"], row["state"]).inc()
        for kind in {row["kind"] for row in rows}:
            oldest = max(db_intents.age_s(row) for row in rows if row["kind"] == kind)
            metrics.OLDEST_INTENT.labels(cell, kind).set(oldest)

    def _resend(self, rows: list[dict[str, Any]], dead: dict[str, float]) -> None:
        alive = self._role.journal.settled([row for row in rows if row["target"] not in dead])
        if alive:
            granted = self._role.journal.grant(alive)
            LOG.info("%d intents had nobody who held them; they are sent again", len(granted))
            self._role.send(granted)

    def _give_up(self, rows: list[dict[str, Any]], dead: dict[str, float]) -> None:
        for row in self._role.journal.settled(rows):
            silent = dead[row["target"]]
            if row["state"] == IntentState.ENDING.value or row["kind"] in CLEANUPS:
                continue  # nothing is left there; or there is no hurry
            if row["kind"] == "server.delete":
                if row["state"] == IntentState.RUNNING.value:
                    self._role.delete_without_host(row)
                continue
            if silent < self._conf.conductor.give_up_s:
                continue
            since = f"has been silent for {int(silent)} seconds" if math.isfinite(silent) else "is not known"
            error = {
                "step": row["step"],
                "code": "haneul.driver.host",
                "message": f"the host {row['target']} {since}"
                if row["resource_type"] == "host"
                else f"the host of this server {since}",
            }
            creating = row["kind"] == "server.create"
            cleanup = cleanup_of(row) if row["kind"] in CLEANUP_OF else None
            if self._role.journal.fail(row, error, cleanup) and creating:
                self._role.journal.finish_endings([row["id"]])
                self._role.ring_scheduler()
