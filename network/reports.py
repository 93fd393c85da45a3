"""What network agents tell their conductor: that they live, and what became of ports, routers, floating IPs.

One ``Reporter`` per process serves all its agents (a real host has one, a simulation
hundreds). Statuses wait here until a conductor has taken them; of two for the same thing the
newer counts. It also wakes agents whose pause before another try is over.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from typing import Any, Protocol

import oslo_messaging

from core.messaging import Messaging
from core.pools import Periodic, Pool
from lifecycle.network_rpc import NetworkConductorClient
from network.drivers.base import Applied, NetworkDriver

LOG = logging.getLogger(__name__)
_TICK_S = 1.0
_SPACING_S = 0.02
_THREADS = 8
_FIRST_S = 5.0
"""A report sent before a conductor listens may be lost: the first one is not waited for long."""
KINDS = ("ports", "routers", "floating_ips")


class Agent(Protocol):
    """What the reporter sees of an agent."""

    host: str
    driver: NetworkDriver

    def retry(self) -> None:
        """Look again at what failed."""


@dataclasses.dataclass
class _Entry:
    """What is known of one agent."""

    agent: Agent
    statuses: dict[str, dict[str, str]] = dataclasses.field(
        default_factory=lambda: {kind: {} for kind in KINDS}
    )
    beat_at: float = 0.0
    retry_at: float | None = None
    started: bool = True
    busy: bool = False

    def due(self, now: float) -> bool:
        return not self.busy and (now >= self.beat_at or any(self.statuses.values()))


class Reporter:
    """Sends the reports of a process's agents."""

    def __init__(self, messaging: Messaging, interval_s: float, availability_zone: str | None = None) -> None:
        self._conductor = NetworkConductorClient(messaging)
        self._interval_s = interval_s
        self._zone = availability_zone or None
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.Lock()
        self._pool = Pool("network-reports", _THREADS)
        self._periodic = Periodic("network-reporter", min(_TICK_S, interval_s), self._tick, _SPACING_S)

    def start(self) -> None:
        self._periodic.start()

    def stop(self) -> None:
        self._periodic.stop()
        self._pool.shutdown(wait=False)

    def add(self, agent: Agent) -> None:
        with self._lock:
            self._entries[agent.host] = _Entry(agent)
        self._periodic.ring()

    def remove(self, agent: Agent) -> None:
        with self._lock:
            self._entries.pop(agent.host, None)

    def add_statuses(self, agent: Agent, applied: Applied) -> None:
        with self._lock:
            entry = self._entries.get(agent.host)
            if entry is None:
                return
            for kind in KINDS:
                entry.statuses[kind].update(getattr(applied, kind))
        self._periodic.ring()

    def wake(self, agent: Agent, pause_s: float) -> None:
        """Have ``agent`` try again after a pause."""
        with self._lock:
            entry = self._entries.get(agent.host)
            if entry is not None:
                entry.retry_at = time.monotonic() + pause_s

    def _tick(self) -> None:
        now = time.monotonic()
        with self._lock:
            due = [entry for entry in self._entries.values() if entry.due(now)]
            waiting = [entry for entry in self._entries.values() if (entry.retry_at or now + 1) <= now]
            for entry in due:
                entry.busy = True
            for entry in waiting:
                entry.retry_at = None
        for entry in waiting:
            entry.agent.retry()
        for entry in due:
            self._pool.spawn(self._send, entry)

    def _send(self, entry: _Entry) -> None:
        with self._lock:
            statuses, entry.statuses = entry.statuses, {kind: {} for kind in KINDS}
        try:
            self._report(entry, statuses)
        except oslo_messaging.MessagingException as error:
            LOG.warning("host %s: its report was not taken (%s); it is sent again", entry.agent.host, error)
            with self._lock:
                for kind in KINDS:
                    entry.statuses[kind] = {**statuses[kind], **entry.statuses[kind]}
        finally:
            with self._lock:
                entry.busy = False
                more = any(entry.statuses.values())
            if more:
                self._periodic.ring()

    def _report(self, entry: _Entry, statuses: dict[str, dict[str, str]]) -> None:
        report: dict[str, Any] = {kind: some for kind, some in statuses.items() if some}
        beat = time.monotonic() >= entry.beat_at
        if beat:
            report.update(configurations=entry.agent.driver.configurations(), availability_zone=self._zone)
            report["started"] = entry.started
        self._conductor.report(entry.agent.host, report, _FIRST_S if entry.started else None)
        if beat:
            entry.started = False
            entry.beat_at = time.monotonic() + self._interval_s
