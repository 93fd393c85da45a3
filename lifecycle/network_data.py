"""network_data.json: how a guest is to configure its network devices without asking anybody.

Made from a server's ``network_info``, for the config drive and the metadata service alike. The format is
OpenStack's: ``links`` (devices by MAC), ``networks`` (an address and routes on a link), ``services`` (DNS).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_KNOWN_LINKS = frozenset({"bridge", "ovs", "tap", "vhostuser", "hw_veb", "macvtap", "hostdev_physical"})
"""Kinds of links that guests know; all else is shown as a physical one."""


def network_data(nics: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """{"links": [...], "networks": [...], "services": [...]}; ``nics`` as in ``servers.network_info``."""
    links: list[dict[str, Any]] = []
    networks: list[dict[str, Any]] = []
    for nic in nics:
        link = _link(nic)
        links.append(link)
        for subnet in nic.get("subnets", ()):
            address = _address_in(subnet, nic.get("addresses", ()))
            if address is not None:
                number = f"network{len(networks)}"
                networks.append(_network(number, link["id"], nic["network_id"], subnet, address))
    services = [_dns(address) for address in _names(s for nic in nics for s in nic.get("subnets", ()))]
    return {"links": links, "networks": networks, "services": services}


def _link(nic: Mapping[str, Any]) -> dict[str, Any]:
    kind = nic.get("vif_type")
    return {
        "id": nic["device"],
        "vif_id": nic["port_id"],
        "type": kind if kind in _KNOWN_LINKS else "phy",
        "ethernet_mac_address": nic["mac_address"],
        "mtu": nic.get("mtu"),
    }


def _address_in(subnet: Mapping[str, Any], addresses: Iterable[Mapping[str, Any]]) -> str | None:
    """The port's first address of a subnet."""
    for each in addresses:
        if each.get("type", "fixed") == "fixed" and each.get("subnet_id") == subnet["id"]:
            return str(each["address"])
    return None


def _network(
    identifier: str, link: str, network_id: str, subnet: Mapping[str, Any], address: str
) -> dict[str, Any]:
    version = subnet["ip_version"]
    data: dict[str, Any] = {"id": identifier, "link": link, "network_id": network_id}
    if version == 4 and subnet.get("enable_dhcp"):
        # the server says the rest, and may say something else tomorrow
        return {**data, "type": "ipv4_dhcp"}
    mode = subnet.get("ipv6_address_mode")
    cidr = ipaddress.ip_network(subnet["cidr"])
    return {
        **data,
        "type": f"ipv6_{mode}" if version == 6 and mode else f"ipv{version}",
        "ip_address": address,
        "netmask": str(cidr.netmask),
        "routes": _routes(subnet, version),
        "services": [_dns(server) for server in _names([subnet])],
    }


def _routes(subnet: Mapping[str, Any], version: int) -> list[dict[str, str]]:
    routes = []
    for route in subnet.get("host_routes") or ():
        routes.append(_route(route["destination"], route["nexthop"]))
    if subnet.get("gateway_ip"):
        routes.append(_route("0.0.0.0/0" if version == 4 else "::/0", subnet["gateway_ip"]))
    return routes


def _route(destination: str, gateway: str) -> dict[str, str]:
    cidr = ipaddress.ip_network(destination, strict=False)
    return {"network": str(cidr.network_address), "netmask": str(cidr.netmask), "gateway": gateway}


def _names(subnets: Iterable[Mapping[str, Any]]) -> list[str]:
    """Name servers, each once. 0.0.0.0 and :: are the API's way to say: none."""
    found = (server for subnet in subnets for server in subnet.get("dns_nameservers") or ())
    return [server for server in dict.fromkeys(found) if server not in ("0.0.0.0", "::")]


def _dns(address: str) -> dict[str, str]:
    return {"type": "dns", "address": address}
