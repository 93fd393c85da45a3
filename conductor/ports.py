"""Letting go of the ports of servers that no host can let go of: it is down, or there is none.

Otherwise the host's agent does it, as a step.  Here it is done in the background, before
the deletion is written as done: the deletion waits, and a conductor that dies over it
leaves it waiting for the next one's sweep.  Repeats are harmless.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from oslo_config import cfg

from conductor.ends import ports_argument
from core.pools import Pool
from lifecycle import server_ports
from lifecycle.network_client import NetworkClient

LOG = logging.getLogger(__name__)
_THREADS = 4


class HostlessPorts:
    """Belongs to one conductor role. ``ring`` is called with an intent's id once its ports are gone."""

    def __init__(self, conf: cfg.ConfigOpts, ring: Callable[[list[str]], None]) -> None:
        self._client = NetworkClient(conf)
        self._ring = ring
        self._pool = Pool("hostless-ports", _THREADS)
        self._lock = threading.Lock()
        self._working: set[str] = set()
        self._done: set[str] = set()

    def gone(self, row: dict[str, Any]) -> bool:
        """Has the server of this deletion no ports any more? If it has, they are let go in the background."""
        told = ports_argument(row).get("ports")
        if told is None:
            return True
        with self._lock:
            if row["id"] in self._done:
                self._done.discard(row["id"])
                return True
            if row["id"] in self._working:
                return False
            self._working.add(row["id"])
        self._pool.spawn(self._release, row["id"], row["resource_id"], row["project_id"], told["kept"])
        return False

    def _release(self, intent_id: str, server_id: str, project_id: str | None, kept: list[str]) -> None:
        try:
            server_ports.release(self._client, server_id, project_id, kept)
            with self._lock:
                self._done.add(intent_id)
        finally:
            with self._lock:
                self._working.discard(intent_id)
        self._ring([intent_id])

    def close(self) -> None:
        self._pool.shutdown(wait=False)
