"""One bridge per network: every port of the network on this host hangs on it.

A bridge has no address and the host's own stack is deaf and dumb on it. Multicast snooping is off: without a
querier it loses neighbour discovery. Bridged IP packets are shown to the inet hooks of
netfilter by the bridge's own attribute, not by the machine-wide switch, so other
bridges of the machine stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable

from core.errors import DriverError
from lifecycle.host_network import Network
from network.drivers.linux.netlink import Link, Links, alias_of, speak_nothing

KIND = "network"


def bridge_name(network_id: str) -> str:
    """The name of a network's bridge."""
    return f"brq{network_id[:11]}"


class Bridges:
    """The bridges of this network namespace."""

    def __init__(self, links: Links) -> None:
        self.links = links

    def ensure(self, network: Network) -> Link:
        """The network's bridge, as it should be."""
        name, alias = bridge_name(network.id), alias_of(KIND, network.id)
        link = self.links.get(name)
        if link is not None and (link.kind != "bridge" or not link.is_ours(KIND, network.id)):
            raise DriverError(f"device {name} is not haneul's: network {network.id} can't have its bridge")
        if link is None:
            link = self._make(name, alias)
        self._tune(link)
        self.links.settle(link, alias=alias, mtu=network.mtu, up=network.admin_state_up)
        return link

    def _make(self, name: str, alias: str) -> Link:
        link = self.links.add(name, "bridge", br_forward_delay=0, br_stp_state=0)
        self.links.change(link, ifalias=alias)
        speak_nothing(name)
        return self.links.need(name)

    def _tune(self, link: Link) -> None:
        wanted = {
            "IFLA_BR_FORWARD_DELAY": 0,
            "IFLA_BR_STP_STATE": 0,
            "IFLA_BR_MCAST_SNOOPING": 0,
            "IFLA_BR_NF_CALL_IPTABLES": 1,
            "IFLA_BR_NF_CALL_IP6TABLES": 1,
        }
        if any(link.data.get(key) != value for key, value in wanted.items()):
            options = {key.removeprefix("IFLA_").lower(): value for key, value in wanted.items()}
            self.links.change(link, kind="bridge", **options)
        speak_nothing(link.name)

    def attach(self, device: str, network: Network) -> None:
        """Put a device (a veth's outer end, say) on the network's bridge and up.

        :raises DriverError: there is no such device, or no bridge.
        """
        bridge = self.links.need(bridge_name(network.id))
        link = self.links.need(device)
        speak_nothing(device)
        self.links.settle(link, mtu=network.mtu, up=True, master=bridge.index)

    def remove(self, network_id: str) -> None:
        link = self.links.get(bridge_name(network_id))
        if link is not None and link.is_ours(KIND, network_id):
            self.links.delete(link.name)

    def remove_strangers(self, wanted: Iterable[str]) -> None:
        """Remove haneul's bridges of networks that aren't ``wanted``."""
        keep = set(wanted)
        for network_id in self.links.ours(KIND):
            if network_id not in keep:
                self.remove(network_id)
