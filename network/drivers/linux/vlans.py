"""Ways from a network's bridge to a physical network: a VLAN of an uplink, the uplink itself, or the host as gateway.

``[network_linux] physical_interfaces`` names the uplinks, ``host_gateways`` the physical networks that exist on this host
only: a veth pair, whose outer end has the host's address and whose inner end is on the flat
network's bridge. (A veth and not an address on the bridge: so the host's packets are tracked outside of
the network's conntrack zone, and the bridges stay without addresses.)
"""

from __future__ import annotations

import ipaddress
import zlib
from collections.abc import Iterable, Mapping, Sequence

from core.errors import DriverError
from lifecycle.host_network import Network
from network.drivers.linux.netlink import Link, Links, alias_of, speak_nothing, sysctl
from network.drivers.linux.options import Interface

VLAN = "vlan"
UPLINK = "uplink"
GATEWAY = "gateway"
GATEWAY_INNER = "gateway-inner"


def vlan_name(device: str, vlan_id: int) -> str:
    """``eth1.100``; a device name too long for that is shortened to a checksum of itself."""
    name = f"{device}.{vlan_id}"
    return name if len(name) <= 15 else f"vl{zlib.crc32(device.encode()):08x}.{vlan_id}"


def gateway_names(physical_network: str) -> tuple[str, str]:
    """(outer end, with the host's address; inner end, on the bridge)."""
    short = (
        physical_network if len(physical_network) <= 11 else f"{zlib.crc32(physical_network.encode()):08x}"
    )
    return f"hgw-{short}", f"hgb-{short}"


class Uplinks:
    """What leads out of this host, other than tunnels."""

    def __init__(
        self, links: Links, devices: Mapping[str, str], gateways: Mapping[str, Sequence[Interface]]
    ) -> None:
        self.links = links
        self.devices = dict(devices)
        self.gateways = {name: list(addresses) for name, addresses in gateways.items()}
        both = self.devices.keys() & self.gateways.keys()
        if both:
            raise DriverError(f"physical network {min(both)} has both a device and a host gateway")

    def start(self) -> None:
        """Are the uplinks there? Makes the host gateways. Raises DriverError."""
        for name, device in self.devices.items():
            if self.links.get(device) is None:
                raise DriverError(f"physical network {name}: there is no device {device} on this host")
        for name, addresses in self.gateways.items():
            self._ensure_gateway(name, addresses)
        for name in self.links.ours(GATEWAY):
            if name not in self.gateways:
                self.links.delete(gateway_names(name)[0])

    def _ensure_gateway(self, name: str, addresses: Sequence[Interface]) -> None:
        outer, inner = gateway_names(name)
        link = self.links.get(outer)
        if link is not None and not link.is_ours(GATEWAY, name):
            raise DriverError(f"device {outer} is not haneul's: {name} can't have its host gateway")
        if link is None:
            self.links.forget(inner)
            link = self.links.add(outer, "veth", peer={"ifname": inner})
            self.links.change(link, ifalias=alias_of(GATEWAY, name))
            other = self.links.need(inner)
            self.links.change(other, ifalias=alias_of(GATEWAY_INNER, name))
            link = self.links.need(outer)
        if not link.up:
            self.links.change(link, state="up")
        wanted = {str(address) for address in addresses}
        present = {each for each in self.links.addresses(link) if not each.startswith("fe80:")}
        with self.links.route(f"addresses of {outer}") as route:
            for each in sorted(present - wanted):
                route.addr("del", index=link.index, **_address(each))
            for each in sorted(wanted - present):
                route.addr("add", index=link.index, **_address(each))
        versions = {address.version for address in addresses}
        if 4 in versions:
            sysctl("net/ipv4/ip_forward", "1")
        if 6 in versions:
            sysctl("net/ipv6/conf/all/forwarding", "1")

    def ensure(self, network: Network, bridge: Link) -> str | None:
        """The network's way out on its bridge; returns the device's name (None: it has none, by its type).

        :raises DriverError: its physical network isn't on this host, or the uplink is in use otherwise.
        """
        if network.network_type not in ("vlan", "flat"):
            return None
        physical = network.physical_network or ""
        if network.network_type == "flat" and physical in self.gateways:
            inner = gateway_names(physical)[1]
            outer = self.links.get(gateway_names(physical)[0])
            if outer is None or not outer.up:
                self._ensure_gateway(physical, self.gateways[physical])
                outer = self.links.need(gateway_names(physical)[0])
            if outer.mtu != network.mtu:
                self.links.change(outer, mtu=network.mtu)
            self._enslave(self.links.need(inner), network, bridge)
            return inner
        if physical not in self.devices:
            raise DriverError(
                f"network {network.id} is on physical network {physical!r}, which this host doesn't have:"
                " see [network_linux] physical_interfaces"
            )
        uplink = self.links.need(self.devices[physical])
        if network.network_type == "flat":
            return self._flat(network, uplink, bridge)
        return self._vlan(network, uplink, bridge)

    def _flat(self, network: Network, uplink: Link, bridge: Link) -> str:
        taken = self.links.addresses(uplink)
        if any(not ipaddress.ip_interface(each).ip.is_link_local for each in taken):
            raise DriverError(
                f"network {network.id}: {uplink.name} has addresses of the host ({', '.join(sorted(taken))});"
                " a flat network needs a device without"
            )
        self._enslave(uplink, network, bridge)
        return uplink.name

    def _vlan(self, network: Network, uplink: Link, bridge: Link) -> str:
        vlan_id = network.segmentation_id
        if vlan_id is None:
            raise DriverError(f"network {network.id} has no VLAN id")
        if not uplink.up:
            self.links.change(uplink, state="up")
        name = vlan_name(uplink.name, vlan_id)
        link = self.links.get(name)
        if link is not None and not (link.alias or "").startswith(alias_of(VLAN, "")):
            raise DriverError(f"device {name} is not haneul's: network {network.id} can't have its VLAN")
        if link is not None and (
            not link.is_ours(VLAN, network.id)
            or link.parent != uplink.index
            or link.data.get("IFLA_VLAN_ID") != vlan_id
        ):
            self.links.delete(name)
            link = None
        if link is None:
            try:
                link = self.links.add(name, "vlan", link=uplink.index, vlan_id=vlan_id)
            except DriverError as error:
                raise DriverError(
                    f"{error.message}: does the kernel have the module 8021q?", cause=error
                ) from error
            self.links.change(link, ifalias=alias_of(VLAN, network.id))
            link = self.links.need(name)
        self._enslave(link, network, bridge)
        return name

    def _enslave(self, link: Link, network: Network, bridge: Link) -> None:
        if link.master not in (0, bridge.index) and link.kind != "veth":
            raise DriverError(f"network {network.id}: {link.name} belongs to another bridge already")
        # an uplink keeps its own, larger MTU: the bridge has the network's
        mtu = network.mtu if link.kind == "veth" else max(link.mtu, network.mtu)
        speak_nothing(link.name)
        self.links.settle(link, mtu=mtu, up=True, master=bridge.index)

    def device_of(self, network: Network) -> str | None:
        """The name of the device that ``ensure`` puts on the network's bridge."""
        physical = network.physical_network or ""
        if network.network_type == "flat":
            return gateway_names(physical)[1] if physical in self.gateways else self.devices.get(physical)
        if (
            network.network_type == "vlan"
            and physical in self.devices
            and network.segmentation_id is not None
        ):
            return vlan_name(self.devices[physical], network.segmentation_id)
        return None

    def release(self, network_id: str, bridge: Link) -> None:
        """Before the bridge goes: its VLAN device is removed, a flat uplink let go."""
        link = self.links.ours(VLAN).get(network_id)
        if link is not None:
            self.links.delete(link.name)
        for name in (*self.devices.values(), *(gateway_names(each)[1] for each in self.gateways)):
            uplink = self.links.get(name)
            if uplink is not None and uplink.master == bridge.index:
                self.links.change(uplink, master=0)

    def remove_strangers(self, wanted: Iterable[str]) -> None:
        """Remove haneul's VLAN devices of networks that aren't ``wanted``."""
        keep = set(wanted)
        for network_id, link in self.links.ours(VLAN).items():
            if network_id not in keep:
                self.links.delete(link.name)


def _address(text: str) -> dict[str, object]:
    interface = ipaddress.ip_interface(text)
    return {"address": str(interface.ip), "prefixlen": interface.network.prefixlen}
