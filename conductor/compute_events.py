"""Tells Compute what happened to servers' ports, at its public door: POST /os-server-external-events.

Sent behind the work that they are about, many in one call, by one thread. Compute looks by itself, too,
so an event that can't be delivered after some tries is dropped with a line in the log.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Iterable
from typing import Any

from keystoneauth1 import exceptions as ks_exc
from keystoneauth1.adapter import Adapter
from oslo_config import cfg

from core import clients
from core.pools import Periodic

LOG = logging.getLogger(__name__)
PLUGGED, UNPLUGGED = "network-vif-plugged", "network-vif-unplugged"
CHANGED, DELETED = "network-changed", "network-vif-deleted"
_SPACING_S = 0.02
_IDLE_S = 3600.0
_BATCH = 200
_MOST = 10_000
_PAUSES_S = (0.5, 2, 5, 15)
_PATH = "/os-server-external-events"


@dataclasses.dataclass(frozen=True)
class Event:
    """Something that happened to a port of a server."""

    name: str
    server_id: str
    port_id: str

    def to_dict(self) -> dict[str, str]:
        return {"name": self.name, "server_uuid": self.server_id, "tag": self.port_id, "status": "completed"}


class ComputeEvents:
    """Collects events and sends them."""

    def __init__(self, conf: cfg.ConfigOpts, adapter: Adapter | None = None) -> None:
        self._conf = conf
        self._adapter = adapter
        self._waiting: dict[Event, None] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._periodic = Periodic("compute-events", _IDLE_S, self._flush, _SPACING_S)

    def start(self) -> None:
        self._periodic.start()

    def stop(self) -> None:
        self._stopping.set()
        self._periodic.stop(2)

    def send(self, events: Iterable[Event]) -> None:
        """Returns at once; two equal events that wait are one."""
        with self._lock:
            self._waiting.update(dict.fromkeys(events))
            while len(self._waiting) > _MOST:
                del self._waiting[next(iter(self._waiting))]
            if not self._waiting:
                return
        self._periodic.ring()

    def _flush(self) -> None:
        with self._lock:
            events, self._waiting = list(self._waiting), {}
        if not events or not (self._adapter or clients.configured(self._conf)):
            return
        if self._adapter is None:
            self._adapter = clients.service_adapter(self._conf, "compute")
        for start in range(0, len(events), _BATCH):
            self._post([event.to_dict() for event in events[start : start + _BATCH]])

    def _post(self, events: list[dict[str, Any]]) -> None:
        """Try, and try again later and later."""
        for pause in (*_PAUSES_S, None):
            reason = self._try(events)
            if reason is None or self._stopping.is_set():
                return
            if pause is not None:
                self._stopping.wait(pause)
        LOG.warning("Compute did not take %d events about ports: %s", len(events), reason)

    def _try(self, events: list[dict[str, Any]]) -> str | None:
        """Why it did not work; None: it did, or trying again would not help."""
        assert self._adapter is not None
        try:
            answer = self._adapter.post(_PATH, json={"events": events}, raise_exc=False)
        except ks_exc.ClientException as error:
            return str(error)
        if answer.status_code >= 500:
            return f"it answered {answer.status_code}"
        if answer.status_code >= 400 and answer.status_code != 404:
            # 404: none of the servers is there (any more)
            LOG.warning("Compute refused %d events about ports: %s", len(events), answer.status_code)
        return None
