"""What the network agents, the conductors and the Network API say to each other.

Network agent (topic ``network``, server = host, the cell's transport):
    changed(changed)                 a doorbell: these ids may have changed for you (``Changed.to_dict()``)
    trace(port_id)                   → the hops of ``NetworkDriver.trace``
Conductor (topic ``conductor``, the cell's transport):
    network_state(host, changed)     → ``HostNetwork.to_dict()`` of what was asked for
    network_report(host, report)     → {}: the agent lives, and what became of things;
                                     {"configurations", "availability_zone", "started": bool, "ports",
                                     "routers", "floating_ips": {id: status}}
Conductors (topic ``network-changes``, fanout, the global transport):
    network_changed(changes)         said by the Network API after a commit (``NetworkChanges.to_dict()``);
                                     each conductor finds out which of its hosts it concerns and rings them

A lost doorbell costs time, never correctness: an agent asks for everything when it
starts and every ``[network_agent] resync_interval_s``.
"""

from __future__ import annotations

from typing import Any

from core.context import admin_context
from core.messaging import Messaging
from core.network_changes import NetworkChanges
from lifecycle.host_network import Changed, HostNetwork
from lifecycle.rpc import CONDUCTOR_TOPIC

NETWORK_AGENT_TOPIC = "network"
NETWORK_CHANGES_TOPIC = "network-changes"


class NetworkConductorClient:
    """An agent's: speaks to the conductors of its cell."""

    def __init__(self, messaging: Messaging, timeout_s: float = 30) -> None:
        self._client = messaging.client(CONDUCTOR_TOPIC, timeout_s)

    def state(self, host: str, changed: Changed) -> HostNetwork:
        """The desired state of what is asked for; what is missing in the answer is gone."""
        answer = self._client.call(admin_context(), "network_state", host=host, changed=changed.to_dict())
        return HostNetwork.from_dict(answer)

    def report(self, host: str, report: dict[str, Any], timeout_s: float | None = None) -> dict[str, Any]:
        """``timeout_s``: shorter than usual, for a report that may go unheard."""
        client = self._client.prepare(timeout=timeout_s) if timeout_s is not None else self._client
        answer: dict[str, Any] = client.call(admin_context(), "network_report", host=host, report=report)
        return answer


class NetworkAgentClient:
    """A conductor's: speaks to the network agents of its cell."""

    def __init__(self, messaging: Messaging, timeout_s: float = 20) -> None:
        self._client = messaging.client(NETWORK_AGENT_TOPIC, timeout_s)

    def changed(self, host: str, changed: Changed) -> None:
        self._client.prepare(server=host).cast(admin_context(), "changed", changed=changed.to_dict())

    def trace(self, host: str, port_id: str) -> list[dict[str, Any]]:
        hops: list[dict[str, Any]] = self._client.prepare(server=host).call(
            admin_context(), "trace", port_id=port_id
        )
        return hops


class NetworkChangesClient:
    """The Network API's and conductors': tells all conductors what a commit has changed."""

    def __init__(self, messaging: Messaging) -> None:
        self._client = messaging.client(NETWORK_CHANGES_TOPIC)

    def changed(self, changes: NetworkChanges) -> None:
        self._client.prepare(fanout=True).cast(admin_context(), "network_changed", changes=changes.to_dict())
