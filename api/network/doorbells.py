"""What the Network API tells others after a commit: conductors what has changed, Compute what its servers show.

Every operation that may write runs inside ``db.network_changes.collecting`` (``api.network.app``), so none
has to think of it. Sent behind the request, many changes as one: no request waits for a
broker, and none fails because of it.
"""

from __future__ import annotations

import threading
from typing import Any

import sqlalchemy as sa
from oslo_config import cfg

from conductor.compute_events import CHANGED, ComputeEvents, Event
from core.messaging import Messaging
from core.network_changes import NetworkChanges
from core.pools import Periodic
from db.network_base import TABLES
from db.rows import select_in
from db.sessions import Databases
from lifecycle.network_rpc import NetworkAgentClient, NetworkChangesClient

_IDLE_S = 3600.0
_SPACING_S = 0.02
ports = TABLES["ports"]


class Doorbells:
    """Made once per process; starts with the first ring."""

    def __init__(
        self, conf: cfg.ConfigOpts, databases: Databases, events: ComputeEvents | None = None
    ) -> None:
        self._conf = conf
        self._databases = databases
        self._pending = NetworkChanges()
        self._transports: dict[str | None, Messaging] = {}
        self._lock = threading.RLock()
        self._started = False
        self._events = events or ComputeEvents(conf)
        self._periodic = Periodic("ring-conductors", _IDLE_S, self._flush, _SPACING_S)

    def changed(self, changes: NetworkChanges) -> None:
        """Ring for what one request has changed; returns at once."""
        if not changes and not changes.servers:
            return
        with self._lock:
            if not self._started:
                self._started = True
                self._events.start()
                self._periodic.start()
            self._pending.add(changes)
        self._periodic.ring()

    def close(self) -> None:
        with self._lock:
            if self._started:
                self._periodic.stop(2)
                self._events.stop()
            for messaging in self._transports.values():
                messaging.close()
            self._transports.clear()

    def _flush(self) -> None:
        with self._lock:
            changes, self._pending = self._pending, NetworkChanges()
        self._events.send(Event(name, server_id, port_id) for name, server_id, port_id in changes.servers)
        self._events.send(self._shown(changes))
        if changes:
            NetworkChangesClient(self._transport(None)).changed(changes)

    def _shown(self, changes: NetworkChanges) -> list[Event]:
        """Servers whose ports have other addresses, floating IPs or groups than a moment ago."""
        statement = sa.select(ports.c.id, ports.c.device_id).where(
            ports.c.device_owner.like("compute:%"), ports.c.device_id != ""
        )
        # who made a port knows what it is like
        ids = (changes.shown | changes.addressed) - changes.created
        if not ids:
            return []
        with self._databases.global_.read() as connection:
            rows = list(select_in(connection, statement, ports.c.id, ids))
        return [Event(CHANGED, row["device_id"], row["id"]) for row in rows]

    # -- calls that wait for the answer -------------------------------------------------

    def agent(self, cell_id: int | None) -> NetworkAgentClient:
        """Speaks to the network agents of a cell."""
        urls: dict[Any, str | None] = {row["id"]: row["transport_url"] for row in self._databases.cell_rows()}
        return NetworkAgentClient(self._transport(urls.get(cell_id) or None))

    def _transport(self, url: str | None) -> Messaging:
        with self._lock:
            if url not in self._transports:
                self._transports[url] = Messaging(self._conf, url)
            return self._transports[url]
