"""The agent's side of the journal: reports to the cell's conductor, in batches.

Engine threads hand their reports to one ``Reporter``; its thread sends what has
come together in one RPC call and tells each waiter the verdict.  While the
conductor can't be reached, reports wait and are sent again: nothing is lost, an
intent only takes longer.  Reports that need not be durable are sent along, and
dropped when a newer one of the same intent stands behind them.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import logging
import threading
import time
from typing import Any

import oslo_messaging

from lifecycle.rpc import ConductorClient
from lifecycle.steps import Cancelled, Fenced, Run

LOG = logging.getLogger(__name__)
_BATCH = 200
_LAZY_S = 0.25
_SPACING_S = 0.02
"""In a busy time (the last call carried several intents) calls begin at least so far apart, to carry more."""
_TRIES = 10


@dataclasses.dataclass
class _Item:
    report: dict[str, Any]
    future: concurrent.futures.Future[str] | None
    """who waits for the verdict; None: nobody"""
    failures: int = 0


class Reporter:
    """Sends reports; one per process, shared by all its agents."""

    def __init__(self, conductor: ConductorClient, sender: str) -> None:
        self._conductor = conductor
        self._sender = sender
        self._pending: list[_Item] = []
        self._condition = threading.Condition()
        self._stopping = threading.Event()
        self._ended = False
        self._began = 0.0
        self._busy = False
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
            if self._ended:  # nobody sends any more; the next process takes the intent up
                return "refused"
            self._pending.append(_Item(report, future))
            # also of what can wait: the thread may sleep until it hears of something
            self._condition.notify_all()
        return future.result() if future is not None else "ok"

    def _urgent(self) -> bool:
        return any(item.future is not None for item in self._pending)

    def _take(self) -> list[_Item]:
        with self._condition:
            while not self._urgent() and not self._stopping.is_set():
                # lazy reports wait a moment for company, and are often overtaken
                if not self._condition.wait(_LAZY_S if self._pending else None):
                    break
        early = self._began + _SPACING_S - time.monotonic()
        if self._busy and early > 0:
            self._stopping.wait(early)
        self._began = time.monotonic()
        with self._condition:
            batch, self._pending = self._pending[:_BATCH], self._pending[_BATCH:]
        newest = {item.report["intent_id"]: index for index, item in enumerate(batch)}
        self._busy = len(newest) > 1
        return [
            item
            for index, item in enumerate(batch)
            if item.future is not None or newest[item.report["intent_id"]] == index
        ]

    def _loop(self) -> None:
        while True:
            with self._condition:
                if self._stopping.is_set() and not self._pending:
                    self._ended = True
                    return
            batch = self._take()
            if batch:
                self._deliver(batch)

    def _deliver(self, batch: list[_Item]) -> None:
        """Send until the conductor answers. A batch that it chokes on is sent report by report."""
        delay = 0.2
        while True:
            try:
                verdicts = self._conductor.report(self._sender, [item.report for item in batch])
                break
            except oslo_messaging.RemoteError as error:
                self._choked(batch, error)
                return
            except (oslo_messaging.MessagingException, OSError) as error:
                if self._stopping.is_set():
                    verdicts = ["refused"] * len(batch)
                    break
                LOG.warning("the conductor does not answer (%s); %d reports wait", error, len(batch))
                self._stopping.wait(delay)
                delay = min(delay * 2, 10)
            except Exception as error:  # noqa: BLE001 - whatever fails must not end the reporter; logged
                self._choked(batch, error)
                return
        for item, verdict in zip(batch, verdicts, strict=True):
            if item.future is not None:
                item.future.set_result(verdict)

    def _choked(self, batch: list[_Item], error: Exception) -> None:
        """The conductor failed over these: one bad report must not hold up the others for ever."""
        if len(batch) > 1:
            for item in batch:
                self._deliver([item])
            return
        item = batch[0]
        item.failures += 1
        LOG.warning("the conductor failed over a report (%s, try %d)", error, item.failures, exc_info=True)
        if item.future is None:
            return
        if self._stopping.is_set() or item.failures >= _TRIES:
            # given up here: the intent's lease runs out, and another attempt is made
            item.future.set_result("refused")
            return
        self._stopping.wait(min(0.1 * 2**item.failures, 5))
        with self._condition:
            self._pending.append(item)


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

    def begin(self, run: Run) -> None:
        self._send(run, "begin", True)
        if run.fenced.is_set():
            raise Fenced(run.intent_id)

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
