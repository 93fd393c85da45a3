"""Named, bounded thread pools.

Every pool has a name (it shows in thread dumps and metrics) and a bound; what
is submitted beyond it waits in the queue.  An exception in a job that nobody
waits for is logged, never lost.
"""

from __future__ import annotations

import concurrent.futures
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

LOG = logging.getLogger(__name__)


class Pool:
    """A ThreadPoolExecutor with a name that logs what fails unseen."""

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self._executor = concurrent.futures.ThreadPoolExecutor(size, thread_name_prefix=name)

    def spawn(
        self, function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> concurrent.futures.Future[Any]:
        """Run ``function`` in the pool; a failure is logged."""
        future = self._executor.submit(function, *args, **kwargs)
        future.add_done_callback(self._log_failure)
        return future

    def _log_failure(self, future: concurrent.futures.Future[Any]) -> None:
        if not future.cancelled() and (error := future.exception()) is not None:
            LOG.error("a job of pool %s failed", self.name, exc_info=error)

    def shutdown(self, wait: bool = True) -> None:
        self._executor.shutdown(wait=wait, cancel_futures=True)


class Periodic:
    """A thread that calls ``function`` when rung and at least every ``interval_s``.

    The function takes no input and is idempotent; rings while it runs are
    folded into one more call.  Calls begin at least ``spacing_s`` apart: a ring
    after a silence is answered at once, those of a busy time share calls, which
    cost less than one each.  An exception is logged and the next call comes
    at the next ring or interval.
    """

    def __init__(
        self, name: str, interval_s: float, function: Callable[[], Any], spacing_s: float = 0.0
    ) -> None:
        self.name = name
        self._interval_s = interval_s
        self._spacing_s = spacing_s
        self._function = function
        self._bell = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def ring(self) -> None:
        self._bell.set()

    def stop(self, timeout_s: float = 10) -> None:
        self._stopping.set()
        self._bell.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def _loop(self) -> None:
        began = -self._spacing_s
        while not self._stopping.is_set():
            self._bell.wait(self._interval_s)
            early = began + self._spacing_s - time.monotonic()
            if early > 0:
                self._stopping.wait(early)
            # cleared before the call: a ring during it asks for another
            self._bell.clear()
            if self._stopping.is_set():
                return
            began = time.monotonic()
            try:
                self._function()
            except Exception:  # noqa: BLE001 - the loop must outlive any failure; it is logged
                LOG.exception("periodic work %s failed; it is tried again", self.name)
