"""The connection to libvirtd: one per process, opened again when the daemon was restarted.

libvirt's event loop runs in a thread of its own; events become calls of the
listener.  libvirt-python lets go of the GIL while it waits, so calls from
several threads run side by side.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import libvirt

from compute.drivers.base import PowerState
from core.errors import DriverError

LOG = logging.getLogger(__name__)

POWER_STATES = {
    libvirt.VIR_DOMAIN_NOSTATE: PowerState.NOSTATE,
    libvirt.VIR_DOMAIN_RUNNING: PowerState.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: PowerState.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: PowerState.PAUSED,
    libvirt.VIR_DOMAIN_SHUTDOWN: PowerState.RUNNING,
    libvirt.VIR_DOMAIN_SHUTOFF: PowerState.SHUTDOWN,
    libvirt.VIR_DOMAIN_CRASHED: PowerState.CRASHED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: PowerState.SUSPENDED,
}
_EVENTS = {
    libvirt.VIR_DOMAIN_EVENT_STARTED: PowerState.RUNNING,
    libvirt.VIR_DOMAIN_EVENT_RESUMED: PowerState.RUNNING,
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED: PowerState.PAUSED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED: PowerState.SHUTDOWN,
    libvirt.VIR_DOMAIN_EVENT_CRASHED: PowerState.CRASHED,
    libvirt.VIR_DOMAIN_EVENT_PMSUSPENDED: PowerState.SUSPENDED,
}
_loop_lock = threading.Lock()
_loop_started = False

Listener = Callable[[str, PowerState], None]


def _start_event_loop() -> None:
    """Once per process, before the first connection is opened."""
    global _loop_started
    with _loop_lock:
        if _loop_started:
            return
        libvirt.registerErrorHandler(lambda _context, _error: None, None)  # exceptions are enough
        libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=_run_event_loop, name="libvirt-events", daemon=True).start()
        _loop_started = True


def _run_event_loop() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError:
            LOG.exception("libvirt's event loop stumbled; it goes on")


class Connection:
    """Opens, watches and opens again."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._connection: Any = None
        self._listener: Listener | None = None
        self._lock = threading.Lock()

    def get(self) -> Any:
        """The live ``virConnect``. :raises DriverError: libvirtd does not answer."""
        with self._lock:
            if self._connection is not None:
                try:
                    if self._connection.isAlive():
                        return self._connection
                except libvirt.libvirtError:
                    LOG.debug("the old connection is gone")
                self._connection = None
            self._connection = self._open()
            return self._connection

    def _open(self) -> Any:
        _start_event_loop()
        try:
            connection = libvirt.open(self.uri)
            connection.setKeepAlive(5, 3)
            connection.domainEventRegisterAny(
                None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_event, None
            )
        except libvirt.libvirtError as error:
            raise DriverError(f"libvirtd does not answer at {self.uri}: {error}", cause=error) from error
        LOG.info("connected to libvirt at %s", self.uri)
        return connection

    def listen(self, listener: Listener) -> None:
        self._listener = listener

    def _on_event(self, _connection: Any, domain: Any, event: int, _detail: int, _opaque: Any) -> None:
        state, listener = _EVENTS.get(event), self._listener
        if state is None or listener is None:
            return
        server_id = domain.UUIDString()
        # a thread of its own: a listener that waits must not hold up libvirt's event loop
        threading.Thread(
            target=self._tell, args=(listener, server_id, state), name="libvirt-event", daemon=True
        ).start()

    @staticmethod
    def _tell(listener: Listener, server_id: str, state: PowerState) -> None:
        try:
            listener(server_id, state)
        except Exception:  # noqa: BLE001 - an event that can't be told is seen by the next power sync; logged
            LOG.exception("power event of %s could not be told", server_id)

    def close(self) -> None:
        with self._lock:
            connection, self._connection, self._listener = self._connection, None, None
        if connection is not None:
            try:
                connection.close()
            except libvirt.libvirtError as error:
                LOG.debug("closing the connection: %s", error)
