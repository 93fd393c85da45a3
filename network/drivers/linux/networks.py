"""What a network is on a host: a bridge, and a way to the other hosts (tunnel, VLAN, uplink)."""

from __future__ import annotations

from collections.abc import Iterable

from core.errors import DriverError
from lifecycle.host_network import Network
from network.drivers.linux.bridges import Bridges, bridge_name
from network.drivers.linux.netlink import Links
from network.drivers.linux.tunnels import Tunnels, tunnel_name
from network.drivers.linux.vlans import Uplinks


class Networks:
    """The networks of this host, each with its bridge."""

    def __init__(self, links: Links, bridges: Bridges, tunnels: Tunnels, uplinks: Uplinks) -> None:
        self.links = links
        self.bridges = bridges
        self.tunnels = tunnels
        self.uplinks = uplinks

    def ensure(self, network: Network) -> None:
        """The bridge first: if its way out can't be made, the guests of this host still reach each other.

        :raises DriverError: naming what could not be made.
        """
        bridge = self.bridges.ensure(network)
        if network.network_type == "vxlan":
            self.tunnels.ensure(network, bridge)
        elif network.network_type in ("vlan", "flat"):
            self.uplinks.ensure(network, bridge)
        elif network.network_type != "local":
            raise DriverError(f"network {network.id}: type {network.network_type!r} is not known here")

    def outlet(self, network: Network) -> str | None:
        """The device that leads from its bridge to other hosts."""
        if network.network_type == "vxlan" and network.segmentation_id is not None:
            return tunnel_name(network.segmentation_id)
        return self.uplinks.device_of(network)

    def remove(self, network_id: str) -> None:
        bridge = self.links.get(bridge_name(network_id))
        if bridge is not None:
            self.uplinks.release(network_id, bridge)
        self.tunnels.remove(network_id)
        self.bridges.remove(network_id)

    def remove_strangers(self, wanted: Iterable[str]) -> None:
        """Remove haneul's devices of networks that aren't ``wanted``."""
        keep = set(wanted)
        for network_id in self.links.ours("network").keys() - keep:
            self.remove(network_id)
        self.tunnels.remove_strangers(keep)
        self.uplinks.remove_strangers(keep)
