"""Rings for schedulers, conductors and agents, sent behind the request.

What counts is in the database before anything is rung, so a ring may be late or
lost: no request waits for a broker, and none fails because of it.  Rings of
many requests at once are sent as one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from oslo_config import cfg

from core.messaging import Messaging
from core.pools import Periodic
from db.sessions import Databases
from lifecycle.rpc import AgentClient, ConductorClient, SchedulerClient

_IDLE_S = 3600.0
_SPACING_S = 0.02
_MOST = 10_000
"""Ids kept for a broker that does not answer; the sweeper finds what is beyond."""


class Bell:
    """One destination: what is to be sent, and the thread that sends it."""

    def __init__(self, name: str, send: Callable[[list[Any]], None]) -> None:
        self._send = send
        self._waiting: list[Any] = []
        self._lock = threading.Lock()
        self._periodic = Periodic(name, _IDLE_S, self._flush, _SPACING_S)
        self._periodic.start()

    def ring(self, items: list[Any]) -> None:
        with self._lock:
            if len(self._waiting) < _MOST:
                self._waiting.extend(items)
        self._periodic.ring()

    def _flush(self) -> None:
        with self._lock:
            items, self._waiting = self._waiting, []
        if items:
            self._send(items)

    def stop(self) -> None:
        self._periodic.stop()


class Doorbells:
    """All that this API says to other roles."""

    def __init__(self, conf: cfg.ConfigOpts, databases: Databases) -> None:
        self._conf = conf
        self._databases = databases
        self._messaging: dict[str | None, Messaging] = {}
        self._bells: dict[Any, Bell] = {}
        self._agents: dict[int, AgentClient] = {}
        self._lock = threading.RLock()

    def ring_scheduler(self) -> None:
        """There are servers that need a host."""
        self._bell("scheduler", self._make_scheduler).ring([True])

    def ring_conductor(self, cell_id: int, intent_ids: list[str]) -> None:
        """Intents of a cell wait to be sent to their hosts."""
        self._bell(("conductor", cell_id), lambda: self._make_conductor(cell_id)).ring(intent_ids)

    def cancel(self, cell_id: int, host: str, intent_ids: list[str]) -> None:
        """Running intents were overtaken: the host's agent should stop them."""
        self._bell(("cancel", cell_id), lambda: self._make_cancel(cell_id)).ring(
            [(host, each) for each in intent_ids]
        )

    def tell(self, cell_id: int, host: str, event: dict[str, Any]) -> None:
        """An external event that concerns a server of this host."""
        self._bell(("events", cell_id), lambda: self._make_events(cell_id)).ring([(host, event)])

    def agent(self, cell_id: int) -> AgentClient:
        """For calls that wait for the answer: console output, diagnostics."""
        with self._lock:
            if cell_id not in self._agents:
                self._agents[cell_id] = AgentClient(self._messaging_of(cell_id))
            return self._agents[cell_id]

    def close(self) -> None:
        with self._lock:
            for bell in self._bells.values():
                bell.stop()
            for messaging in self._messaging.values():
                messaging.close()
            self._bells.clear()
            self._messaging.clear()

    def _bell(self, key: Any, make: Callable[[], Bell]) -> Bell:
        bell = self._bells.get(key)
        if bell is None:
            with self._lock:
                bell = self._bells.get(key)
                if bell is None:
                    bell = self._bells[key] = make()
        return bell

    def _transport(self, url: str | None) -> Messaging:
        with self._lock:
            if url not in self._messaging:
                self._messaging[url] = Messaging(self._conf, url)
            return self._messaging[url]

    def _messaging_of(self, cell_id: int) -> Messaging:
        urls = {row["id"]: row["transport_url"] for row in self._databases.cell_rows()}
        return self._transport(urls.get(cell_id) or None)

    def _make_scheduler(self) -> Bell:
        return Bell("ring-scheduler", lambda _items: SchedulerClient(self._transport(None)).ring())

    def _make_conductor(self, cell_id: int) -> Bell:
        return Bell(
            f"ring-conductor-{cell_id}",
            lambda ids: ConductorClient(self._messaging_of(cell_id)).ring(ids),
        )

    def _make_cancel(self, cell_id: int) -> Bell:
        def send(pairs: list[tuple[str, str]]) -> None:
            client = self.agent(cell_id)
            for host in {host for host, _ in pairs}:
                client.cancel(host, [intent_id for target, intent_id in pairs if target == host])

        return Bell(f"cancel-{cell_id}", send)

    def _make_events(self, cell_id: int) -> Bell:
        def send(pairs: list[tuple[str, dict[str, Any]]]) -> None:
            client = self.agent(cell_id)
            for host in dict.fromkeys(host for host, _ in pairs):
                client.external_events(host, [event for target, event in pairs if target == host])

        return Bell(f"events-{cell_id}", send)
