"""What a data plane can do: the one door between the network agent and the host.

The agent (``network.agent``) holds the host's whole desired state, merges what the
conductor says has changed, and calls ``apply``. A driver makes the host look like it:
idempotent, never touching what is right already (established connections live on), and removing
only what is marked as haneul's.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any

from lifecycle.host_network import Changed, HostNetwork


@dataclasses.dataclass
class Applied:
    """What became of the things that ``apply`` looked at."""

    ports: dict[str, str] = dataclasses.field(default_factory=dict)
    """port id → ACTIVE (wired: its guest can speak), DOWN (admin state) or ERROR"""
    routers: dict[str, str] = dataclasses.field(default_factory=dict)
    """router id → ACTIVE, DOWN (admin state) or ERROR"""
    floating_ips: dict[str, str] = dataclasses.field(default_factory=dict)
    """floating IP id → ACTIVE or ERROR"""
    errors: list[str] = dataclasses.field(default_factory=list)
    """one line each, naming the thing and the cause; what failed is tried again by the agent"""
    incomplete: bool = False
    """more than these things may be amiss: all is to be looked at again"""


class NetworkDriver(abc.ABC):
    """One host's data plane. Errors are ``core.errors.DriverError``."""

    @abc.abstractmethod
    def start(self) -> None:
        """Look at what the host has. Raises DriverError with one line that says what is missing."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of sockets and threads; the data plane goes on working."""

    @abc.abstractmethod
    def configurations(self) -> dict[str, Any]:
        """What the agent reports: {"interface_mappings": {physical network: device},
        "tunnel_types": ["vxlan"], "tunneling_ip": address, "l3": can it hold routers?,
        "bridge_mappings": {}, "devices": number of ports}."""

    @abc.abstractmethod
    def apply(self, state: HostNetwork, changed: Changed) -> Applied:
        """Make the host look like ``state``, as far as ``changed`` goes; everything: repair and clean up.

        One thing's failure doesn't keep the others from being done: it is in ``Applied.errors``.
        """

    @abc.abstractmethod
    def trace(self, state: HostNetwork, port_id: str) -> list[dict[str, Any]]:
        """The path of a port's packets, from the guest outwards, as the host really has it:
        [{"hop": "tap" | "bridge" | "rules" | "dhcp" | "tunnel" | "uplink" | "router" | "nat",
        "name": device or namespace, "ok": bool, "detail": {...}}, ...].

        A router's port has no tap and no rules: its path begins with the router.

        :raises NotFound: the port is not on this host.
        """
