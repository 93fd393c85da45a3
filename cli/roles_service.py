"""The oslo.service service that runs the roles of one process.

Apart from ``cli.serve``, because importing oslo.service settles what threads are:
``haneul serve`` chooses the backend before it imports this.
"""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from oslo_config import cfg
from oslo_log import log as logging
from oslo_service import service

from cli.state import write_file
from core.errors import HaneulError
from lifecycle.roles import Role

LOG = logging.getLogger(__name__)
RETRY_S = 5.0


class RolesService(service.ServiceBase):
    """Starts roles, tries again those that can't start, stops them in reverse.

    Roles are made in ``start``, not before: with threads oslo.service runs
    services in a forked worker, which must not inherit threads, locks or
    database connections (and the parent stays small).

    :param load_factory: the name of a role to its factory, (conf) -> Role
    :param record: the file that says what came of each role, as JSON
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        names: list[str],
        load_factory: Callable[[str], Callable[[Any], Role]],
        record: Path,
    ) -> None:
        self._conf = conf
        self._names = names
        self._load_factory = load_factory
        self._file = record
        self._running: list[Role] = []
        self.states: dict[str, str] = {}
        self._stopping = threading.Event()
        self._lock = threading.Lock()

    def start(self) -> None:
        self._serve_metrics()
        waiting = [name for name in self._names if not self._try_start(name)]
        _calm_collector()
        if waiting:
            threading.Thread(target=self._retry, args=(waiting,), daemon=True, name="retry").start()

    def _serve_metrics(self) -> None:
        address = self._conf.metrics
        if not address.port:
            return
        from prometheus_client import start_http_server

        try:
            start_http_server(address.port, address.listen)
        except OSError as failure:
            LOG.error("metrics can't be served on port %s: %s", address.port, failure)

    def _try_start(self, name: str) -> bool:
        """Start one role; False, with one line in the log, if it can't be."""
        try:
            role = self._load_factory(name)(self._conf)
            role.start()
        except HaneulError as error:
            self._failed(name, error.message, with_traceback=False)
            return False
        except Exception as error:  # noqa: BLE001 - a fault in one role must not take the others down
            self._failed(name, f"{type(error).__name__}: {error}", with_traceback=True)
            return False
        with self._lock:
            self._running.append(role)
        LOG.info("%s runs", name)
        self._record(name, "running")
        return True

    def _failed(self, name: str, why: str, with_traceback: bool) -> None:
        """One line, and once only as long as the reason stays the same."""
        why = " ".join(why.split())
        if self.states.get(name) != why:
            LOG.error("%s can't start: %s", name, why, exc_info=with_traceback)
        self._record(name, why)

    def _retry(self, waiting: list[str]) -> None:
        while waiting and not self._stopping.wait(RETRY_S):
            waiting = [name for name in waiting if not self._try_start(name)]

    def _record(self, name: str, state: str) -> None:
        """For 'haneul up' and 'haneul status'."""
        self.states[name] = state
        try:
            write_file(self._file, json.dumps(self.states))
        except OSError as failure:
            LOG.warning("%s can't be written: %s", self._file, failure)

    def stop(self, graceful: bool = False) -> None:
        self._stopping.set()
        with self._lock:
            for role in reversed(self._running):
                role.stop()
            self._running.clear()

    def wait(self) -> None:
        self._stopping.wait()

    def reset(self) -> None:
        """SIGHUP: options that can change at run time are read where they are used."""


def _calm_collector() -> None:
    """What is loaded by now stays: the garbage collector need not walk through it again and again.

    A page of 300 servers makes tens of thousands of objects, and every full collection on the
    way walked through all modules too: a third of the time of such a page.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
