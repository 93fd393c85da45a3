"""A server's NICs as plain data: what the driver, the API's views and the metadata are made from.

One NIC is one port.  The list stands in ``GuestSpec.nics`` and, the same, in the
server's ``network_info``:

    {"port_id", "network_id", "label": the network's name, "mac_address",
     "device": name of the tap, "mtu", "vif_type", "vif_details", "vnic_type",
     "tag": device tag or None, "preserve_on_delete": not ours to delete,
     "security_groups": [names], "active": is it plugged,
     "addresses": [{"address", "version": 4 | 6, "type": "fixed" | "floating", "mac",
                    "subnet_id" (fixed), "fixed_address" (floating)}],
     "subnets": [{"id", "cidr", "ip_version", "gateway_ip", "enable_dhcp", "ipv6_address_mode",
                  "ipv6_ra_mode", "dns_nameservers", "host_routes": [{"destination", "nexthop"}]}]}
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from lifecycle.host_network import tap_name
from lifecycle.network_client import NetworkClient

Nic = dict[str, Any]
Port = Mapping[str, Any]
_SUBNET = ["id", "cidr", "ip_version", "gateway_ip", "enable_dhcp", "ipv6_address_mode", "ipv6_ra_mode"] + [
    "dns_nameservers",
    "host_routes",
]
_KEEP_S = 10.0
_MOST = 2000


@dataclasses.dataclass(frozen=True)
class Facts:
    """What ports refer to, by id."""

    networks: Mapping[str, Mapping[str, Any]]
    subnets: Mapping[str, Mapping[str, Any]]
    groups: Mapping[str, str]
    """security group → name"""
    floating: Sequence[Mapping[str, Any]] = ()


def nic_of(port: Port, facts: Facts, *, tag: str | None = None, kept: bool = False) -> Nic:
    """The NIC of a port as the Network API shows it."""
    network = facts.networks.get(port["network_id"]) or {}
    fixed = [dict(each) for each in port.get("fixed_ips") or ()]
    subnets = [
        facts.subnets[id_]
        for id_ in dict.fromkeys(each["subnet_id"] for each in fixed)
        if id_ in facts.subnets
    ]
    addresses = []
    for each in fixed:
        addresses.append(
            {**_address(each["ip_address"], "fixed", port["mac_address"]), "subnet_id": each["subnet_id"]}
        )
        for floating in facts.floating:
            if floating["port_id"] == port["id"] and floating["fixed_ip_address"] == each["ip_address"]:
                outer = _address(floating["floating_ip_address"], "floating", port["mac_address"])
                addresses.append({**outer, "fixed_address": each["ip_address"]})
    return {
        "port_id": port["id"],
        "network_id": port["network_id"],
        "label": network.get("name") or port["network_id"],
        "mac_address": port["mac_address"],
        "device": tap_name(port["id"]),
        "mtu": network.get("mtu"),
        "vif_type": port.get("binding:vif_type") or "unbound",
        "vif_details": dict(port.get("binding:vif_details") or {}),
        "vnic_type": port.get("binding:vnic_type") or "normal",
        "tag": tag,
        "preserve_on_delete": kept,
        "security_groups": [facts.groups.get(id_, id_) for id_ in port.get("security_groups") or ()],
        "active": port.get("status") == "ACTIVE",
        "addresses": addresses,
        "subnets": [{key: subnet.get(key) for key in _SUBNET} for subnet in subnets],
    }


def _address(text: str, type_: str, mac: str) -> dict[str, Any]:
    return {"address": text, "version": 6 if ":" in text else 4, "type": type_, "mac": mac}


class FactFinder:
    """Looks up what ports refer to; networks and the like are kept for some seconds.

    Many servers of one network are built at once, and its name changes seldom.
    """

    def __init__(self, client: NetworkClient) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, str], tuple[float, Any]] = {}

    def facts(self, ports: Collection[Port], *, floating: bool = True, fresh: bool = False) -> Facts:
        """``floating``: with floating IPs. ``fresh``: ask anew, whatever is kept."""
        if fresh:
            with self._lock:
                self._kept.clear()
        networks = {port["network_id"] for port in ports}
        groups = {group for port in ports for group in port.get("security_groups") or ()}
        found = self._networks(networks)
        names = self._groups(groups)
        subnets = {subnet["id"]: subnet for _, listed in found.values() for subnet in listed}
        outer: Sequence[Mapping[str, Any]] = ()
        if floating and ports:
            outer = self._client.get("/floatingips", port_id=sorted(port["id"] for port in ports))[
                "floatingips"
            ]
        return Facts({id_: network for id_, (network, _) in found.items()}, subnets, names, outer)

    def _networks(self, ids: Collection[str]) -> dict[str, tuple[Mapping[str, Any], list[Any]]]:
        found, missing = self._known("network", ids)
        if missing:
            networks = self._client.get("/networks", id=missing, fields=["id", "name", "mtu"])["networks"]
            subnets = self._client.get("/subnets", network_id=missing, fields=[*_SUBNET, "network_id"])[
                "subnets"
            ]
            new = {
                network["id"]: (network, [each for each in subnets if each["network_id"] == network["id"]])
                for network in networks
            }
            self._keep("network", new)
            found.update(new)
        return found

    def _groups(self, ids: Collection[str]) -> dict[str, str]:
        found, missing = self._known("group", ids)
        if missing:
            answer = self._client.get("/security-groups", id=missing, fields=["id", "name"])
            new = {group["id"]: group["name"] for group in answer["security_groups"]}
            self._keep("group", new)
            found.update(new)
        return found

    def _known(self, kind: str, ids: Collection[str]) -> tuple[dict[str, Any], list[str]]:
        """(what is kept of these, the others)"""
        moment = time.monotonic()
        with self._lock:
            kept = {id_: self._kept.get((kind, id_)) for id_ in ids}
        found = {id_: entry[1] for id_, entry in kept.items() if entry is not None and entry[0] > moment}
        return found, sorted(set(ids) - set(found))

    def _keep(self, kind: str, new: Mapping[str, Any]) -> None:
        until = time.monotonic() + _KEEP_S
        with self._lock:
            if len(self._kept) > _MOST:
                self._kept.clear()
            self._kept.update({(kind, id_): (until, value) for id_, value in new.items()})
