"""Options of the Linux data plane."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from oslo_config import cfg

from core.errors import DriverError

GROUP = "network_linux"
OPTS = [
    cfg.HostAddressOpt(
        "tunnel_address",
        help="Address of this host on the underlay, where other hosts send VXLAN to. Empty: the address that"
        " this host uses towards its default gateway, or no tunnels if it has none.",
    ),
    cfg.PortOpt("vxlan_port", default=4789, help="UDP port of VXLAN; the same on all hosts."),
    cfg.ListOpt(
        "physical_interfaces",
        default=[],
        sample_default=["physnet1:eth1"],
        help="Which device leads to which physical network, as NAME:DEVICE. Flat networks need a device of"
        " their own without addresses; VLAN networks use subdevices of it.",
    ),
    cfg.ListOpt(
        "host_gateways",
        default=[],
        sample_default=["public:172.24.4.1/24"],
        help="Physical networks that exist on this host only, with the host as their gateway to the outside"
        " (NAME:ADDRESS/LENGTH): for one machine that is the whole cloud. What comes from them is"
        " masqueraded, and IP forwarding is switched on.",
    ),
    cfg.StrOpt(
        "tap_user",
        help="The user that may open guests' tap devices, if QEMU's network is not set up by root.",
    ),
    cfg.StrOpt(
        "netns_folder",
        default="/run/netns",
        help="Where the names of namespaces are; 'ip netns' looks in /run/netns only.",
    ),
    cfg.StrOpt("dnsmasq_command", default="dnsmasq", help="The dnsmasq program: DHCP and names."),
    cfg.StrOpt("radvd_command", default="radvd", help="The radvd program: IPv6 router advertisements."),
    cfg.StrOpt(
        "dns_domain", default="openstacklocal", help="Domain of guests whose network has none of its own."
    ),
    cfg.ListOpt(
        "dns_servers",
        default=[],
        sample_default=["192.0.2.53"],
        help="Where this host takes guests' questions to that its DHCP servers can't answer: of guests whose subnet"
        " names no servers. Empty: such guests resolve the names of their network only.",
    ),
    cfg.IntOpt("dhcp_lease_duration", default=86400, min=-1, help="Seconds; -1: for ever."),
    cfg.IntOpt("dhcp_lease_max", default=16777216, min=1, help="Leases per network on one host."),
    cfg.StrOpt("nft_command", default="nft", help="The nft program."),
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [(GROUP, OPTS)]


def physical_interfaces(entries: Iterable[str]) -> dict[str, str]:
    """{physical network: device}. Raises DriverError for an entry without a colon or one given twice."""
    found: dict[str, str] = {}
    for entry in entries:
        name, colon, device = entry.partition(":")
        if not (name and colon and device) or len(device) > 15:
            raise DriverError(f"[{GROUP}] physical_interfaces: {entry!r} is not NAME:DEVICE")
        if name in found:
            raise DriverError(f"[{GROUP}] physical_interfaces: {name} is there twice")
        found[name] = device
    return found


Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


def host_gateways(entries: Iterable[str]) -> dict[str, list[Interface]]:
    """{physical network: the host's addresses on it}; one network may have an IPv4 and an IPv6 entry."""
    found: dict[str, list[Interface]] = {}
    for entry in entries:
        name, _colon, address = entry.partition(":")
        try:
            interface = ipaddress.ip_interface(address)
        except ValueError:
            raise DriverError(f"[{GROUP}] host_gateways: {entry!r} is not NAME:ADDRESS/LENGTH") from None
        if not name or "/" not in address:
            raise DriverError(f"[{GROUP}] host_gateways: {entry!r} is not NAME:ADDRESS/LENGTH")
        found.setdefault(name, []).append(interface)
    return found
