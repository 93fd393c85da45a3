"""Letting go of the ports and volumes of servers that no host can let go of: it is down, or there is none.

Otherwise the host's agent does it, as a step.  Two cases:

* a deletion in the cell whose host is down: it is done here in the background, before the deletion is
  written as done; the deletion waits, and a conductor that dies over it leaves it waiting for the
  next one's sweep (``HostlessParts``);
* a deletion of a server that never had a host: it is written in one transaction, with an intent
  ``server.release_volumes`` for any conductor (``UnplacedVolumes``). Such a server has no ports.

Repeats are harmless.
"""

from __future__ import annotations

import datetime
import logging
import threading
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from oslo_config import cfg

from conductor.direct_journal import DirectJournal
from conductor.ends import parts_argument
from core.intents import CONDUCTOR, RELEASE_VOLUMES
from core.pools import Pool
from db.sessions import Database
from lifecycle import server_ports, volume_client
from lifecycle.engine import Engine
from lifecycle.network_client import NetworkClient
from lifecycle.steps import Action, Registry, Run, Step
from lifecycle.volume_client import VolumeApi

LOG = logging.getLogger(__name__)
_THREADS = 4
_FOR_EVER = 1_000_000
"""attempts: nobody would ask again"""


class HostlessParts:
    """Belongs to one conductor role. ``ring`` is called with an intent's id once its server has nothing left."""

    def __init__(self, conf: cfg.ConfigOpts, ring: Callable[[list[str]], None]) -> None:
        self._networks = NetworkClient(conf)
        self._volumes = VolumeApi(conf)
        self._ring = ring
        self._pool = Pool("hostless-parts", _THREADS)
        self._lock = threading.Lock()
        self._working: set[str] = set()
        self._done: set[str] = set()

    def gone(self, row: dict[str, Any]) -> bool:
        """Has the server of this deletion no ports and volumes any more? If it has, they are let go in the background."""
        told = parts_argument(row)
        if not told:
            return True
        with self._lock:
            if row["id"] in self._done:
                self._done.discard(row["id"])
                return True
            if row["id"] in self._working:
                return False
            self._working.add(row["id"])
        self._pool.spawn(self._release, row["id"], row["resource_id"], row["project_id"], told)
        return False

    def _release(self, intent_id: str, server_id: str, project_id: str | None, told: dict[str, Any]) -> None:
        try:
            if "ports" in told:
                server_ports.release(self._networks, server_id, project_id, told["ports"]["kept"])
            if "volumes" in told:
                volume_client.release(self._volumes, server_id, told["volumes"]["doomed"])
            with self._lock:
                self._done.add(intent_id)
        finally:
            with self._lock:
                self._working.discard(intent_id)
        self._ring([intent_id])

    def close(self) -> None:
        self._pool.shutdown(wait=False)


def _release(run: Run) -> None:
    volume_client.release(run.worker, run.resource_id, run.arguments["volumes"]["doomed"])


_ACTIONS = Registry(
    Action(
        RELEASE_VOLUMES,
        (Step("release", _release, no_undo="a deletion only goes forward"),),
        undo_on_failure=False,
    )
)


class UnplacedVolumes:
    """Carries out ``server.release_volumes``; several conductors may."""

    def __init__(self, conf: cfg.ConfigOpts, database: Database) -> None:
        self._api = VolumeApi(conf)
        self._engine = Engine()
        self._journal = DirectJournal(
            database,
            f"conductor-{conf.host}",
            _end_nothing,
            lease_s=conf.conductor.lease_s,
            max_attempts=_FOR_EVER,
            retry_s=conf.conductor.retry_s,
        )

    def run(self) -> None:
        """Those that wait now, one after the other."""
        for row in self._journal.take([CONDUCTOR], _ACTIONS.kinds(), limit=50):
            run = Run.of(row, self._api)
            self._journal.hold(run)
            try:
                self._engine.execute(_ACTIONS[row["kind"]], run, self._journal, row["error"])
            finally:
                self._journal.release(run)


def _end_nothing(
    _connection: sa.Connection,
    _row: dict[str, Any],
    _state: str,
    _outcome: dict[str, Any],
    _error: dict[str, Any] | None,
    _moment: datetime.datetime,
) -> None:
    """The server's row is as it should be: deleted."""
