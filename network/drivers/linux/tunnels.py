"""VXLAN devices: how the hosts that share a network reach each other.

Frames for all or for unknown receivers are sent, one copy each, to the hosts that the network is
on (``Network.peers``); there is no multicast in the underlay. Where a known MAC lives is learnt from the frames that come from
there: the agents are told no MACs, so a guest that moves is found again by its first frame (QEMU announces
it), and a thousand ports cost no messages. The price: the underlay must be trusted to carry only what hosts send, as
VXLAN has no authentication; doc/networking.md says so.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from core.errors import DriverError
from lifecycle.host_network import Network
from network.drivers.linux.netlink import Link, Links, alias_of, speak_nothing

KIND = "tunnel"
EVERYONE = "00:00:00:00:00:00"
NUD_PERMANENT = 0x80
NUD_NOARP = 0x40


def tunnel_name(vni: int) -> str:
    return f"vx{vni}"


class Tunnels:
    """The VXLAN devices of this network namespace."""

    def __init__(self, links: Links, local: str | None, port: int) -> None:
        self.links = links
        self.local = local
        self.port = port

    def ensure(self, network: Network, bridge: Link) -> str:
        """The network's VXLAN device on its bridge, with its flooding list; returns its name."""
        if self.local is None:
            raise DriverError(f"network {network.id} is a VXLAN, and this host has no tunnel_address")
        vni = network.segmentation_id
        if vni is None:
            raise DriverError(f"network {network.id} has no VNI")
        name = tunnel_name(vni)
        link = self.links.get(name)
        if link is not None and not link.is_ours(KIND, network.id):
            if not (link.alias or "").startswith(alias_of(KIND, "")):
                raise DriverError(
                    f"device {name} is not haneul's: network {network.id} can't have its tunnel"
                )
            self.links.delete(name)  # the VNI's last network is gone, the new one came in the same breath
            link = None
        if link is not None and not self._fits(link, vni):
            self.links.delete(name)
            link = None
        if link is None:
            link = self._make(name, network, vni)
        speak_nothing(name)
        self.links.settle(
            link, alias=alias_of(KIND, network.id), mtu=network.mtu, up=True, master=bridge.index
        )
        self._flood(link, network.peers)
        return name

    def _local_key(self) -> str:
        return "local6" if ":" in (self.local or "") else "local"

    def _fits(self, link: Link, vni: int) -> bool:
        data = link.data
        return (
            link.kind == "vxlan"
            and data.get("IFLA_VXLAN_ID") == vni
            and data.get(f"IFLA_VXLAN_{self._local_key().upper()}") == self.local
            and data.get("IFLA_VXLAN_PORT") == self.port
            and bool(data.get("IFLA_VXLAN_LEARNING"))
        )

    def _make(self, name: str, network: Network, vni: int) -> Link:
        options = {f"vxlan_{self._local_key()}": self.local}
        link = self.links.add(
            name, "vxlan", vxlan_id=vni, vxlan_port=self.port, vxlan_learning=1, mtu=network.mtu, **options
        )
        self.links.change(link, ifalias=alias_of(KIND, network.id))
        return self.links.need(name)

    def _flood(self, link: Link, peers: Iterable[str]) -> None:
        """Bring the flooding list right, and forget what was learnt of hosts that are gone from it."""
        wanted = {str(ipaddress.ip_address(peer)) for peer in peers} - {self.local}
        listed: set[str] = set()
        learnt: list[tuple[str, str]] = []
        with self.links.route(f"flooding list of {link.name}") as route:
            for entry in route.fdb("dump", ifindex=link.index):
                destination = entry.get("NDA_DST")
                if destination is None:
                    continue
                if entry.get("NDA_LLADDR") == EVERYONE:
                    listed.add(destination)
                elif not entry["state"] & (NUD_PERMANENT | NUD_NOARP):
                    learnt.append((entry.get("NDA_LLADDR"), destination))
            for peer in sorted(wanted - listed):
                route.fdb("append", ifindex=link.index, lladdr=EVERYONE, dst=peer)
            for peer in sorted(listed - wanted):
                route.fdb("del", ifindex=link.index, lladdr=EVERYONE, dst=peer)
            for mac, destination in learnt:
                if destination not in wanted:
                    route.fdb("del", ifindex=link.index, lladdr=mac, dst=destination)

    def peers(self, name: str) -> list[str]:
        """The flooding list as the kernel has it."""
        link = self.links.need(name)
        with self.links.route(f"flooding list of {name}") as route:
            entries = route.fdb("dump", ifindex=link.index)
            found = {e.get("NDA_DST") for e in entries if e.get("NDA_LLADDR") == EVERYONE}
        return sorted(found - {None})

    def remove(self, network_id: str) -> None:
        link = self.links.ours(KIND).get(network_id)
        if link is not None:
            self.links.delete(link.name)

    def remove_strangers(self, wanted: Iterable[str]) -> None:
        """Remove haneul's tunnels of networks that aren't ``wanted``."""
        keep = set(wanted)
        for network_id, link in self.links.ours(KIND).items():
            if network_id not in keep:
                self.links.delete(link.name)
