"""An oslo.messaging driver for one process that wakes its listeners at once.

oslo.messaging's own in-process driver (``fake://``) polls every 50 ms: too slow
for a doorbell and never idle.  This one keeps its queues and adds an event per
listener.  Registered as ``local`` (entry point ``oslo.messaging.drivers``); the
virtual host of the URL (``local:///name``) tells several brokers apart.
"""

from __future__ import annotations

import collections
import threading
import time
from typing import Any

import oslo_messaging
from oslo_messaging._drivers import base, impl_fake

Key = tuple[str, str | None]


class _Exchange(impl_fake.FakeExchange):
    """Queues as in the fake driver, plus who waits for which."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.waiters: dict[Key, set[threading.Event]] = collections.defaultdict(set)

    def deliver_message(
        self,
        topic: str,
        ctxt: Any,
        message: Any,
        server: str | None = None,
        fanout: bool = False,
        reply_q: Any = None,
    ) -> None:
        super().deliver_message(topic, ctxt, message, server=server, fanout=fanout, reply_q=reply_q)
        with self._queues_lock:
            if fanout:
                keys = [key for key in self.waiters if key[0] == topic]
            else:
                keys = [(topic, server)]
            for key in keys:
                for event in self.waiters.get(key, ()):
                    event.set()


class _ExchangeManager(impl_fake.FakeExchangeManager):
    """Exchanges are shared by all transports of the process with the same virtual host."""

    _shared: dict[tuple[str, str], _Exchange] = {}
    _lock = threading.Lock()

    def __init__(self, virtual_host: str, default_exchange: str | None) -> None:
        super().__init__(default_exchange)
        self._virtual_host = virtual_host

    def get_exchange(self, name: str | None) -> _Exchange:
        key = (self._virtual_host, name or self._default_exchange or "")
        with self._lock:
            if key not in self._shared:
                self._shared[key] = _Exchange(key[1])
            return self._shared[key]

    def cleanup(self) -> None:
        """One transport closes; the others of the process keep their queues."""


class _Listener(impl_fake.FakeListener):
    """Sleeps until its own event is set instead of polling."""

    def __init__(self, exchange_manager: _ExchangeManager, targets: list[oslo_messaging.Target]) -> None:
        super().__init__(exchange_manager, targets)
        self._event = threading.Event()
        for target in targets:
            exchange = exchange_manager.get_exchange(target.exchange)
            with exchange._queues_lock:
                exchange.waiters[(target.topic, target.server)].add(self._event)

    @base.batch_poll_helper
    def poll(self, timeout: float | None = None) -> Any:
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._stopped.is_set():
            # cleared before the look: a delivery after the look sets it again
            self._event.clear()
            for target in self._targets:
                exchange = self._exchange_manager.get_exchange(target.exchange)
                ctxt, message, reply_q, requeue = exchange.poll(target, None)
                if message is not None:
                    return impl_fake.FakeIncomingMessage(ctxt, message, reply_q, requeue)
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return None
            self._event.wait(left)
        return None

    def stop(self) -> None:
        super().stop()
        for target in self._targets:
            exchange = self._exchange_manager.get_exchange(target.exchange)
            with exchange._queues_lock:
                exchange.waiters[(target.topic, target.server)].discard(self._event)
        self._event.set()


class LocalDriver(impl_fake.FakeDriver):
    """``transport_url = local://``"""

    def __init__(
        self, conf: Any, url: Any, default_exchange: str | None = None, allowed_remote_exmods: Any = None
    ) -> None:
        super().__init__(conf, url, default_exchange, allowed_remote_exmods)
        self._exchange_manager = _ExchangeManager(url.virtual_host or "", default_exchange)

    def listen(self, target: oslo_messaging.Target, batch_size: int, batch_timeout: float) -> Any:
        exchange = target.exchange or self._default_exchange
        targets = [oslo_messaging.Target(topic=target.topic, exchange=exchange)]
        if target.server:
            targets.insert(
                0, oslo_messaging.Target(topic=target.topic, server=target.server, exchange=exchange)
            )
        return base.PollStyleListenerAdapter(
            _Listener(self._exchange_manager, targets), batch_size, batch_timeout
        )
