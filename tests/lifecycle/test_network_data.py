"""network_data.json for each kind of subnet."""

from __future__ import annotations

from typing import Any

from lifecycle.network_data import device_metadata, network_data


def subnet(**values: Any) -> dict[str, Any]:
    return {
        "id": "s1",
        "cidr": "10.0.0.0/24",
        "ip_version": 4,
        "gateway_ip": "10.0.0.1",
        "enable_dhcp": False,
        "ipv6_address_mode": None,
        "ipv6_ra_mode": None,
        "dns_nameservers": ["9.9.9.9"],
        "host_routes": [{"destination": "10.9.0.0/16", "nexthop": "10.0.0.2"}],
        **values,
    }


def nic(*subnets: dict[str, Any], **values: Any) -> dict[str, Any]:
    addresses = [
        {
            "address": "2001:db8::5" if each["ip_version"] == 6 else "10.0.0.5",
            "version": each["ip_version"],
            "type": "fixed",
            "mac": "fa:16:3e:00:00:01",
            "subnet_id": each["id"],
        }
        for each in subnets
    ]
    return {
        "port_id": "p1",
        "network_id": "n1",
        "label": "net",
        "mac_address": "fa:16:3e:00:00:01",
        "device": "tapp1",
        "mtu": 1450,
        "vif_type": "bridge",
        "tag": None,
        "addresses": addresses,
        "subnets": list(subnets),
        **values,
    }


def test_a_static_subnet_is_told_completely() -> None:
    floating = {
        "address": "203.0.113.9",
        "version": 4,
        "type": "floating",
        "mac": "",
        "fixed_address": "10.0.0.5",
    }
    one = nic(subnet())
    one["addresses"].append(floating)
    dns = {"type": "dns", "address": "9.9.9.9"}
    assert network_data([one]) == {
        "links": [
            {
                "id": "tapp1",
                "vif_id": "p1",
                "type": "bridge",
                "mtu": 1450,
                "ethernet_mac_address": "fa:16:3e:00:00:01",
            }
        ],
        "networks": [
            {
                "id": "network0",
                "network_id": "n1",
                "link": "tapp1",
                "type": "ipv4",
                "ip_address": "10.0.0.5",
                "netmask": "255.255.255.0",
                "routes": [
                    {"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "10.0.0.1", "services": [dns]},
                    {"network": "10.9.0.0", "netmask": "255.255.0.0", "gateway": "10.0.0.2"},
                ],
                "services": [dns],
            }
        ],
        "services": [dns],
    }


def test_with_dhcp_the_guest_asks() -> None:
    (network,) = network_data([nic(subnet(enable_dhcp=True))])["networks"]
    assert network == {"id": "network0", "network_id": "n1", "link": "tapp1", "type": "ipv4_dhcp"}


def test_ipv6_beside_ipv4() -> None:
    six = subnet(
        id="s6",
        cidr="2001:db8::/64",
        ip_version=6,
        gateway_ip="2001:db8::1",
        enable_dhcp=True,
        ipv6_address_mode="slaac",
        host_routes=[],
    )
    first, second = network_data([nic(subnet(enable_dhcp=True), six)])["networks"]
    assert (first["type"], second["type"], second["id"]) == ("ipv4_dhcp", "ipv6_slaac", "network1")
    assert second["netmask"] == "ffff:ffff:ffff:ffff::"
    assert second["routes"][0]["network"] == "::"
    static = {**six, "ipv6_address_mode": None}
    assert network_data([nic(static)])["networks"][0]["type"] == "ipv6"


def test_tagged_nics_are_devices() -> None:
    assert device_metadata([nic(subnet()), nic(subnet(), tag="front")]) == [
        {"type": "nic", "bus": "none", "address": "none", "mac": "fa:16:3e:00:00:01", "tags": ["front"]}
    ]
    assert network_data([]) == {"links": [], "networks": [], "services": []}
