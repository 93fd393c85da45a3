"""network_data.json, from what a server's row knows of its ports."""

from __future__ import annotations

from typing import Any

from lifecycle.network_data import network_data

SUBNET = {
    "id": "s4",
    "cidr": "10.0.0.0/24",
    "ip_version": 4,
    "gateway_ip": "10.0.0.1",
    "enable_dhcp": True,
    "ipv6_address_mode": None,
    "ipv6_ra_mode": None,
    "dns_nameservers": ["8.8.8.8"],
    "host_routes": [{"destination": "192.168.0.0/16", "nexthop": "10.0.0.9"}],
}
SUBNET6 = {
    **SUBNET,
    "id": "s6",
    "cidr": "2001:db8::/64",
    "ip_version": 6,
    "gateway_ip": "2001:db8::1",
    "ipv6_address_mode": "slaac",
    "dns_nameservers": ["8.8.8.8", "2001:db8::53"],
    "host_routes": [],
}


def nic(*subnets: dict[str, Any], **values: Any) -> dict[str, Any]:
    addresses = [
        {"address": "2001:db8::5" if each["ip_version"] == 6 else "10.0.0.5", "version": each["ip_version"],
         "type": "fixed", "subnet_id": each["id"]}
        for each in subnets
    ]  # fmt: skip
    return {
        "port_id": "f2a1c0de-0000-0000-0000-000000000000",
        "network_id": "n1",
        "label": "net",
        "mac_address": "fa:16:3e:00:00:01",
        "device": "tapf2a1c0de-00",
        "mtu": 1450,
        "vif_type": "bridge",
        "tag": None,
        "addresses": addresses,
        "subnets": list(subnets),
        **values,
    }


def test_a_link_per_port_and_dhcp_is_left_to_the_server() -> None:
    data = network_data([nic(SUBNET)])
    assert data["links"] == [
        {
            "id": "tapf2a1c0de-00",
            "vif_id": "f2a1c0de-0000-0000-0000-000000000000",
            "type": "bridge",
            "ethernet_mac_address": "fa:16:3e:00:00:01",
            "mtu": 1450,
        }
    ]
    assert data["networks"] == [
        {"id": "network0", "type": "ipv4_dhcp", "link": "tapf2a1c0de-00", "network_id": "n1"}
    ]
    assert data["services"] == [{"type": "dns", "address": "8.8.8.8"}]


def test_without_dhcp_address_routes_and_dns_are_told() -> None:
    data = network_data([nic({**SUBNET, "enable_dhcp": False})])
    assert data["networks"] == [
        {
            "id": "network0",
            "type": "ipv4",
            "link": "tapf2a1c0de-00",
            "network_id": "n1",
            "ip_address": "10.0.0.5",
            "netmask": "255.255.255.0",
            "routes": [
                {"network": "192.168.0.0", "netmask": "255.255.0.0", "gateway": "10.0.0.9"},
                {"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "10.0.0.1"},
            ],
            "services": [{"type": "dns", "address": "8.8.8.8"}],
        }
    ]


def test_ipv6_says_how_addresses_come() -> None:
    data = network_data([nic(SUBNET, SUBNET6)])
    assert [each["type"] for each in data["networks"]] == ["ipv4_dhcp", "ipv6_slaac"]
    six = data["networks"][1]
    assert six["id"] == "network1"
    assert six["ip_address"] == "2001:db8::5"
    assert six["netmask"] == "ffff:ffff:ffff:ffff::"
    assert six["routes"] == [{"network": "::", "netmask": "::", "gateway": "2001:db8::1"}]
    # each name server once, however many subnets name it
    assert data["services"] == [
        {"type": "dns", "address": "8.8.8.8"},
        {"type": "dns", "address": "2001:db8::53"},
    ]
    fixed = network_data([nic({**SUBNET6, "ipv6_address_mode": None})])
    assert fixed["networks"][0]["type"] == "ipv6"


def test_strange_devices_are_physical_and_a_subnet_without_an_address_is_not_told() -> None:
    odd = nic({**SUBNET, "dns_nameservers": ["0.0.0.0"]}, vif_type="binding_failed", addresses=[])
    data = network_data([odd])
    assert data["links"][0]["type"] == "phy"
    assert data["networks"] == []
    assert data["services"] == []
    assert network_data([]) == {"links": [], "networks": [], "services": []}
