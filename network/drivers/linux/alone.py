"""One agent per network namespace: each removes what it does not know, so two would undo one another's work."""

from __future__ import annotations

import socket

from core.errors import DriverError

_NAME = "\0haneul-network-agent"
"""An abstract socket: it belongs to the network namespace, and goes with the process, however that ends."""


def claim() -> socket.socket:
    """Held until it is closed. :raises DriverError: another agent works here."""
    held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        held.bind(_NAME)
    except OSError as error:
        held.close()
        raise DriverError(
            "another network agent works on this host already (of another cloud, maybe): end it first,"
            " or set [network_agent] driver = simulated",
            cause=error,
        ) from error
    return held
