"""The agent's side of the journal: reports to the cell's conductor, in batches.

Engine threads hand their reports to one ``Reporter``; its thread sends what has
come together in one RPC call and tells each waiter the verdict.  While the
conductor can't be reached, reports wait and are sent again: nothing is lost, an
intent only takes longer.  Reports that need not be durable are sent along, and
dropped when a newer one of the same intent stands behind them.
"""

from __future__ import annotations

import concurrent.futures
import logging
import threading
from typing import Any

import oslo_messaging

from lifecycle.rpc import ConductorClient
from lifecycle.steps import Cancelled, Fenced, Run

LOG = logging.getLogger(__name__)
_BATCH = 200
_LAZY_S = 0.25


class Reporter:
    """Sends reports; one per process, shared by all its agents."""

    def __init__(self, conductor: ConductorClient, sender: str) -> None:
        self._conductor = conductor
        self._sender = sender
        self._pending: list[tuple[dict[str, Any], concurrent.futures.Future[str] | None]] = []
        self._condition = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="reporter", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Send what waits, then end; what can't be sent is found by the sweeper."""
        self._stopping.set()
        with self._condition:
            self._condition.notify_all()
        self._thread.join(5)

    def send(self, report: dict[str, Any], wait: bool) -> str:
        """Queue a report; with ``wait`` return the conductor's verdict."""
        future: concurrent.futures.Future[str] | None = concurrent.futures.Future() if wait else None
        with self._condition:
            self._pending.append((report, future))
            if wait:
                self._condition.notify_all()
        return future.result() if future is not None else "ok"

    def _urgent(self) -> bool:
        return any(future is not None for _, future in self._pending)

    def _take(self) -> list[tuple[dict[str, Any], concurrent.futures.Future[str] | None]]:
        with self._condition:
            while not self._urgent() and not self._stopping.is_set():
                # lazy reports wait a moment for company, and are often overtaken
                if not self._condition.wait(_LAZY_S if self._pending else None):
                    break
            batch, self._pending = self._pending[:_BATCH], self._pending[_BATCH:]
        newest = {report["intent_id"]: index for index, (report, _) in enumerate(batch)}
        return [
            (report, future)
            for index, (report, future) in enumerate(batch)
            if future is not None or newest[report["intent_id"]] == index
        ]

    def _loop(self) -> None:
        while not (self._stopping.is_set() and not self._pending):
            batch = self._take()
            if batch:
                self._deliver(batch)

    def _deliver(self, batch: list[tuple[dict[str, Any], concurrent.futures.Future[str] | None]]) -> None:
        delay = 0.2
        while True:
            try:
                verdicts = self._conductor.report(self._sender, [report for report, _ in batch])
                break
            except (oslo_messaging.MessagingException, OSError) as error:
                if self._stopping.is_set():
                    verdicts = ["refused"] * len(batch)
                    break
                LOG.warning("the conductor does not answer (%s); %d reports wait", error, len(batch))
                self._stopping.wait(delay)
                delay = min(delay * 2, 10)
            except Exception:  # noqa: BLE001 - a conductor that fails must not end the reporter; logged
                LOG.exception("the conductor could not take %d reports; they are sent again", len(batch))
                if self._stopping.wait(delay):
                    verdicts = ["refused"] * len(batch)
                    break
                delay = min(delay * 2, 10)
        for (_, future), verdict in zip(batch, verdicts, strict=True):
            if future is not None:
                future.set_result(verdict)


class ReportingJournal:
    """``lifecycle.engine.Journal`` over a Reporter, for one host."""

    def __init__(self, reporter: Reporter, host: str) -> None:
        self._reporter = reporter
        self._host = host

    def _send(self, run: Run, type_: str, wait: bool, **more: Any) -> None:
        report = {
            "intent_id": run.intent_id,
            "attempt": run.attempt,
            "host": self._host,
            "type": type_,
            "results": run.results,
            **more,
        }
        verdict = self._reporter.send(report, wait)
        if verdict == "refused":
            raise Fenced(run.intent_id)
        if verdict == "cancel":
            run.cancelled.set()

    def checkpoint(self, run: Run, step: str, events: list[dict[str, Any]], durable: bool) -> None:
        if durable:
            self._send(run, "checkpoint", True, step=step, events=list(events))
        if run.cancelled.is_set():
            raise Cancelled(run.intent_id)

    def undoing(self, run: Run, error: dict[str, Any]) -> None:
        self._send(run, "undoing", True, error=error)

    def end(self, run: Run, ending: str, events: list[dict[str, Any]], **facts: Any) -> None:
        self._send(run, ending, True, events=list(events), **facts)

    def showing(self, run: Run, task_state: str) -> None:
        self._send(run, "showing", False, task_state=task_state)
