"""network_data.json: how a guest is told to configure its NICs (OpenStack's metadata format).

For the config drive and for the metadata service, from a server's NICs
(``network_info``; the shape is in ``compute.nics``).  Guests read it without DHCP, so
what DHCP or router advertisements give is named as such, and the rest is complete.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Nic = Mapping[str, Any]
_LINK_TYPES = {"bridge": "bridge", "ovs": "ovs", "macvtap": "phy", "hw_veb": "phy"}


def network_data(nics: Iterable[Nic]) -> dict[str, Any]:
    """{"links": …, "networks": …, "services": …}"""
    links: list[dict[str, Any]] = []
    networks: list[dict[str, Any]] = []
    services: list[dict[str, Any]] = []
    for nic in nics:
        links.append(_link(nic))
        for address in nic["addresses"]:
            subnet = _subnet(nic, address)
            if subnet is None:
                continue
            found = _network(nic, address, subnet, len(networks))
            networks.append(found)
            for service in found.get("services", ()):
                if service not in services:
                    services.append(service)
    return {"links": links, "networks": networks, "services": services}


def _link(nic: Nic) -> dict[str, Any]:
    return {
        "id": nic["device"],
        "vif_id": nic["port_id"],
        "type": _LINK_TYPES.get(nic["vif_type"], "vif"),
        "mtu": nic["mtu"],
        "ethernet_mac_address": nic["mac_address"],
    }


def _subnet(nic: Nic, address: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The fixed address's subnet; None of a floating one, which the guest knows nothing of."""
    if address["type"] != "fixed":
        return None
    return next((each for each in nic["subnets"] if each["id"] == address.get("subnet_id")), None)


def _network(nic: Nic, address: Mapping[str, Any], subnet: Mapping[str, Any], number: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": f"network{number}",
        "network_id": nic["network_id"],
        "link": nic["device"],
        "type": _type(subnet),
    }
    if found["type"] == "ipv4_dhcp":
        return found
    network = ipaddress.ip_network(subnet["cidr"])
    services = [{"type": "dns", "address": each} for each in subnet.get("dns_nameservers") or ()]
    found.update(
        ip_address=address["address"], netmask=str(network.netmask), routes=_routes(network, subnet, services)
    )
    found["services"] = services
    return found


def _type(subnet: Mapping[str, Any]) -> str:
    if subnet["ip_version"] == 4:
        return "ipv4_dhcp" if subnet["enable_dhcp"] else "ipv4"
    mode = subnet.get("ipv6_address_mode")
    return f"ipv6_{mode}" if mode else "ipv6"


def _routes(
    network: ipaddress.IPv4Network | ipaddress.IPv6Network,
    subnet: Mapping[str, Any],
    services: Sequence[dict[str, Any]],
) -> list[dict[str, Any]]:
    routes: list[dict[str, Any]] = []
    if subnet["gateway_ip"]:
        everywhere = ipaddress.ip_network("0.0.0.0/0" if network.version == 4 else "::/0")
        routes.append({**_route(everywhere, subnet["gateway_ip"]), "services": list(services)})
    for route in subnet.get("host_routes") or ():
        routes.append(_route(ipaddress.ip_network(route["destination"]), route["nexthop"]))
    return routes


def _route(network: ipaddress.IPv4Network | ipaddress.IPv6Network, gateway: str) -> dict[str, Any]:
    return {"network": str(network.network_address), "netmask": str(network.netmask), "gateway": gateway}


def device_metadata(nics: Iterable[Nic]) -> list[dict[str, Any]]:
    """The tagged NICs as meta_data.json's ``devices`` has them (the guest knows them by MAC)."""
    return [
        {"type": "nic", "bus": "none", "address": "none", "mac": nic["mac_address"], "tags": [nic["tag"]]}
        for nic in nics
        if nic.get("tag")
    ]
