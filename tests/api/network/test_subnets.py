"""Subnets and subnet pools: what may be, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.network.conftest import ADMIN, OTHER, Api


def test_a_subnet_with_everything_left_out(api: Api) -> None:
    network = api.network()
    subnet = api.subnet(network["id"], "10.1.0.0/24")
    assert subnet["gateway_ip"] == "10.1.0.1" and subnet["enable_dhcp"] is True
    assert subnet["allocation_pools"] == [{"start": "10.1.0.2", "end": "10.1.0.254"}]
    assert subnet["dns_nameservers"] == subnet["host_routes"] == subnet["service_types"] == []
    assert subnet["ipv6_ra_mode"] is subnet["ipv6_address_mode"] is subnet["subnetpool_id"] is None
    assert api.get(f"/networks/{network['id']}")["network"]["subnets"] == [subnet["id"]]
    assert "prefixlen" not in subnet and "segment_id" not in subnet


def test_gateways(api: Api) -> None:
    network = api.network()["id"]
    none = api.subnet(network, "10.1.0.0/29", gateway_ip=None)
    assert none["gateway_ip"] is None
    assert none["allocation_pools"] == [{"start": "10.1.0.1", "end": "10.1.0.6"}]
    middle = api.subnet(network, "10.2.0.0/29", gateway_ip="10.2.0.3")
    assert middle["allocation_pools"] == [
        {"start": "10.2.0.1", "end": "10.2.0.2"},
        {"start": "10.2.0.4", "end": "10.2.0.6"},
    ]
    assert api.subnet(network, "2001:db8::/64")["gateway_ip"] == "2001:db8::1"


@pytest.mark.parametrize(
    ("values", "status", "type_"),
    [
        ({"cidr": "10.0.0.1/24"}, 400, "HTTPBadRequest"),
        ({"cidr": "10.0.0.0"}, 400, "HTTPBadRequest"),
        ({"cidr": "nonsense"}, 400, "HTTPBadRequest"),
        ({"cidr": "2001:db8::/64"}, 400, "InvalidInput"),
        ({"cidr": "0.0.0.0/0"}, 400, "InvalidInput"),
        ({"cidr": "10.0.0.128/25"}, 400, "InvalidInput"),  # overlaps with the one that is there
        ({"cidr": "10.0.0.0/16"}, 400, "InvalidInput"),
        ({"cidr": None}, 400, "BadRequest"),
        ({"ip_version": 5}, 400, "HTTPBadRequest"),
        ({"gateway_ip": "10.9.0.0"}, 400, "InvalidInput"),
        ({"gateway_ip": "10.9.0.255"}, 400, "InvalidInput"),
        ({"gateway_ip": "2001:db8::1"}, 400, "InvalidInput"),
        ({"allocation_pools": [{"start": "10.9.0.9", "end": "10.9.0.4"}]}, 400, "InvalidAllocationPool"),
        ({"allocation_pools": [{"start": "10.9.1.2", "end": "10.9.1.4"}]}, 400, "OutOfBoundsAllocationPool"),
        (
            {
                "allocation_pools": [
                    {"start": "10.9.0.4", "end": "10.9.0.9"},
                    {"start": "10.9.0.9", "end": "10.9.0.12"},
                ]
            },
            409,
            "OverlappingAllocationPools",
        ),
        (
            {"gateway_ip": "10.9.0.5", "allocation_pools": [{"start": "10.9.0.4", "end": "10.9.0.9"}]},
            409,
            "GatewayConflictWithAllocationPools",
        ),
        ({"ipv6_ra_mode": "slaac"}, 400, "InvalidInput"),
        ({"dns_nameservers": [f"10.9.0.{n}" for n in range(2, 9)]}, 400, "DNSNameServersExhausted"),
        ({"host_routes": [{"destination": "2001:db8::/64", "nexthop": "10.9.0.1"}]}, 400, "InvalidInput"),
        ({"network_id": "11111111-1111-1111-1111-111111111111"}, 404, "NetworkNotFound"),
        ({"cidr": "10.9.0.0/31"}, 400, "InvalidInput"),
    ],
)
def test_what_is_refused(api: Api, values: dict[str, Any], status: int, type_: str) -> None:
    network = api.network()
    first = api.subnet(network["id"], "10.0.0.0/24")
    body = {"network_id": network["id"], "ip_version": 4, "cidr": "10.9.0.0/24", **values}
    api.refused("post", "/subnets", {"subnet": body}, status, type_)
    assert [subnet["id"] for subnet in api.get("/subnets")["subnets"]] == [first["id"]]


@pytest.mark.parametrize(
    "values",
    [
        {"ipv6_ra_mode": "slaac", "ipv6_address_mode": "dhcpv6-stateful"},
        {"ipv6_ra_mode": "slaac", "cidr": "2001:db8::/63"},
        {"ipv6_ra_mode": "slaac", "enable_dhcp": False},
        {"cidr": "fe80::/64"},
    ],
)
def test_ipv6_modes_that_are_refused(api: Api, values: dict[str, Any]) -> None:
    network = api.network()
    body = {"network_id": network["id"], "ip_version": 6, "cidr": "2001:db8::/64", **values}
    assert api.refused("post", "/subnets", {"subnet": body}, 400, "InvalidInput")
    assert api.get("/subnets")["subnets"] == []


def test_change(api: Api) -> None:
    subnet = api.subnet(api.network()["id"], "10.1.0.0/24")
    path = f"/subnets/{subnet['id']}"
    changed = api.put(
        path,
        {
            "subnet": {
                "gateway_ip": "10.1.0.254",
                "allocation_pools": [{"start": "10.1.0.9", "end": "10.1.0.20"}],
                "dns_nameservers": ["9.9.9.9"],
                "host_routes": [{"destination": "10.7.0.0/24", "nexthop": "10.1.0.5"}],
                "enable_dhcp": False,
            }
        },
    )["subnet"]
    assert changed["gateway_ip"] == "10.1.0.254" and changed["dns_nameservers"] == ["9.9.9.9"]
    gateway = {"subnet": {"gateway_ip": "10.1.0.12"}}
    api.refused("put", path, gateway, 409, "GatewayConflictWithAllocationPools")
    api.request("put", path, {"subnet": {"cidr": "10.2.0.0/24"}}, status=400)
    api.refused("put", path, {"subnet": {"name": "x"}}, 404, "SubnetNotFound", as_=OTHER)


def test_a_subnet_with_ports_stays(api: Api) -> None:
    network = api.network()["id"]
    subnet = api.subnet(network)
    port = api.port(network)
    assert port["id"] in api.refused("delete", f"/subnets/{subnet['id']}", None, 409, "SubnetInUse")
    api.delete(f"/ports/{port['id']}")
    api.delete(f"/subnets/{subnet['id']}", status=204)


def test_only_the_networks_owner_adds_subnets(api: Api) -> None:
    network = api.network(as_=ADMIN, shared=True)
    body = {"network_id": network["id"], "cidr": "10.0.0.0/24", "ip_version": 4}
    api.refused("post", "/subnets", {"subnet": body}, 403, "PolicyNotAuthorized")
    foreign = {**body, "network_id": api.network(as_=OTHER)["id"]}
    api.refused("post", "/subnets", {"subnet": foreign}, 404, "NetworkNotFound")
    assert api.get("/subnets", as_=ADMIN)["subnets"] == []


def test_pools_hand_out_what_is_free(api: Api) -> None:
    pool = api.post(
        "/subnetpools",
        {
            "subnetpool": {
                "name": "pool",
                "prefixes": ["10.10.0.0/24", "10.10.1.0/24", "10.20.0.0/24", "10.21.0.0/24"],
                "default_prefixlen": 25,
                "min_prefixlen": 24,
                "max_prefixlen": 26,
            }
        },
    )["subnetpool"]
    assert pool["prefixes"] == ["10.10.0.0/23", "10.20.0.0/24", "10.21.0.0/24"]
    assert pool["ip_version"] == 4 and pool["shared"] is False
    network = api.network()["id"]

    def take(**values: Any) -> str:
        body = {"network_id": network, "subnetpool_id": pool["id"], "ip_version": 4, **values}
        return str(api.post("/subnets", {"subnet": body})["subnet"]["cidr"])

    assert take() == "10.10.0.0/25" and take(prefixlen=26) == "10.10.0.128/26"
    assert take(prefixlen=25) == "10.10.1.0/25" and take(cidr="10.20.0.0/24") == "10.20.0.0/24"
    body = {"network_id": network, "subnetpool_id": pool["id"], "ip_version": 4}
    for values, status, type_ in (
        ({"prefixlen": 27}, 400, "MaxPrefixSubnetAllocationError"),
        ({"prefixlen": 23}, 400, "MinPrefixSubnetAllocationError"),
        ({"cidr": "10.20.0.0/25"}, 409, "SubnetAllocationError"),
        ({"ip_version": 6}, 400, "InvalidInput"),
    ):
        api.refused("post", "/subnets", {"subnet": {**body, **values}}, status, type_)
    path = f"/subnetpools/{pool['id']}"
    api.refused("delete", path, None, 409, "SubnetPoolDeleteError")
    added = api.put(f"{path}/add_prefixes", {"prefixes": ["10.30.0.0/24"]})["prefixes"]
    assert "10.30.0.0/24" in added
    assert (
        "10.30.0.0/24" not in api.put(f"{path}/remove_prefixes", {"prefixes": ["10.30.0.0/24"]})["prefixes"]
    )
    api.refused(
        "put",
        f"{path}/remove_prefixes",
        {"prefixes": ["10.20.0.0/24"]},
        400,
        "IllegalSubnetPoolPrefixUpdate",
    )
    for prefixes, type_ in (
        (["3:7/0", ":9/0"], "HTTPBadRequest"),
        (["fd00::/48"], "PrefixVersionMismatch"),
        ([], "EmptySubnetPoolPrefixList"),
    ):
        for action in ("add_prefixes", "remove_prefixes"):
            api.refused("put", f"{path}/{action}", {"prefixes": prefixes}, 400, type_)
    api.refused("get", path, None, 404, "SubnetPoolNotFound", as_=OTHER)


def test_pools_of_a_scope_do_not_overlap(api: Api) -> None:
    scope = api.post("/address-scopes", {"address_scope": {"name": "s", "ip_version": 4}})["address_scope"]
    pool = {"name": "p", "prefixes": ["10.0.0.0/16"], "address_scope_id": scope["id"]}
    api.post("/subnetpools", {"subnetpool": pool})
    api.refused("post", "/subnetpools", {"subnetpool": pool}, 409, "AddressScopePrefixConflict")
    api.refused("delete", f"/address-scopes/{scope['id']}", None, 409, "AddressScopeInUse")
    assert len(api.get("/subnetpools")["subnetpools"]) == 1


def test_subnets_are_taken_into_a_pool(api: Api) -> None:
    network = api.network()["id"]
    mine = api.subnet(network, "10.1.0.0/24")
    api.subnet(network, "2001:db8::/64")
    body = {"subnetpool": {"name": "p", "prefixes": ["10.1.2.0/24"]}}
    pool = api.post("/subnetpools", body)["subnetpool"]["id"]
    path = f"/subnetpools/{pool}/onboard_network_subnets"
    assert api.put(path, {"network_id": network}) == [{"id": mine["id"], "cidr": "10.1.0.0/24"}]
    assert api.get(f"/subnets/{mine['id']}")["subnet"]["subnetpool_id"] == pool
    assert api.get(f"/subnetpools/{pool}")["subnetpool"]["prefixes"] == ["10.1.0.0/24", "10.1.2.0/24"]
    # what another subnet of the pool has can't be taken in
    other = api.network()["id"]
    api.subnet(other, "10.1.0.0/25")
    api.refused("put", path, {"network_id": other}, 400, "IllegalSubnetPoolUpdate")
    # nor what somebody else merely shares
    shared = api.network(as_=ADMIN, shared=True)["id"]
    api.subnet(shared, "10.9.0.0/24", as_=ADMIN)
    api.request("put", path, {"network_id": shared}, status=403)
    api.refused("put", path, {"network_id": api.network(as_=OTHER)["id"]}, 404, "NetworkNotFound")
