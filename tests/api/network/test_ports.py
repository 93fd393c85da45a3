"""Ports: addresses, MACs, groups, bindings, policies."""

from __future__ import annotations

import re
from typing import Any

import pytest

from db import network_agents
from db.addresses import eui64
from tests.api.network.conftest import ADMIN, MEMBER, OTHER, SERVICE, Api


def test_a_port_gets_what_it_needs(api: Api) -> None:
    network = api.network()["id"]
    v4, v6 = api.subnet(network, "10.0.0.0/29"), api.subnet(network, "2001:db8::/64")
    port = api.port(network, name="web")
    assert port["status"] == "DOWN" and port["device_owner"] == port["device_id"] == ""
    assert re.fullmatch("fa:16:3e(:[0-9a-f]{2}){3}", port["mac_address"])
    assert [fixed["subnet_id"] for fixed in port["fixed_ips"]] == [v4["id"], v6["id"]]
    (default,) = api.get("/security-groups?name=default")["security_groups"]
    assert port["security_groups"] == [default["id"]] and port["port_security_enabled"] is True
    assert not any(key.startswith("binding:") and key != "binding:vnic_type" for key in port)
    seen = api.get(f"/ports/{port['id']}", as_=ADMIN)["port"]
    assert seen["binding:vif_type"] == "unbound" and seen["binding:host_id"] == ""
    assert seen["binding:vif_details"] == seen["binding:profile"] == {}


def test_addresses_that_are_asked_for(api: Api) -> None:
    network = api.network()["id"]
    subnet = api.subnet(network, "10.0.0.0/24", allocation_pools=[{"start": "10.0.0.50", "end": "10.0.0.60"}])
    wanted = api.port(network, fixed_ips=[{"ip_address": "10.0.0.9"}])
    assert wanted["fixed_ips"] == [{"subnet_id": subnet["id"], "ip_address": "10.0.0.9"}]
    some = api.port(network, fixed_ips=[{"subnet_id": subnet["id"]}, {"subnet_id": subnet["id"]}])
    assert len({fixed["ip_address"] for fixed in some["fixed_ips"]}) == 2
    assert api.port(network, fixed_ips=[])["fixed_ips"] == []
    for fixed, status, type_ in (
        ({"ip_address": "10.0.0.9"}, 409, "IpAddressAlreadyAllocated"),
        ({"ip_address": "10.0.1.9"}, 400, "InvalidIpForNetwork"),
        ({"ip_address": "10.0.0.255"}, 400, "InvalidIpForNetwork"),
        ({"ip_address": "10.0.1.9", "subnet_id": subnet["id"]}, 400, "InvalidIpForSubnet"),
        ({"subnet_id": "11111111-1111-1111-1111-111111111111"}, 400, "InvalidInput"),
        ({}, 400, "InvalidInput"),
        ({"ip_address": "ten"}, 400, "HTTPBadRequest"),
    ):
        body = {"port": {"network_id": network, "fixed_ips": [fixed]}}
        api.refused("post", "/ports", body, status, type_)
    found = api.get("/ports?fixed_ips=ip_address=10.0.0.9")["ports"]
    assert [port["id"] for port in found] == [wanted["id"]]
    assert len(api.get("/ports?fixed_ips=ip_address_substr=10.0.0.5")["ports"]) == 1
    path = f"/ports/{wanted['id']}"
    moved = api.put(path, {"port": {"fixed_ips": [{"ip_address": "10.0.0.10"}, {"ip_address": "10.0.0.9"}]}})
    assert {fixed["ip_address"] for fixed in moved["port"]["fixed_ips"]} == {"10.0.0.9", "10.0.0.10"}
    kept = api.put(path, {"port": {"fixed_ips": [{"ip_address": "10.0.0.10"}]}})["port"]["fixed_ips"]
    assert [fixed["ip_address"] for fixed in kept] == ["10.0.0.10"]
    api.port(network, fixed_ips=[{"ip_address": "10.0.0.9"}])  # free again


def test_an_exhausted_pool_says_what_is_left(api: Api) -> None:
    network = api.network()["id"]
    subnet = api.subnet(network, "10.0.0.0/29")
    addresses = {api.port(network)["fixed_ips"][0]["ip_address"] for _ in range(5)}
    assert addresses == {f"10.0.0.{number}" for number in range(2, 7)}
    message = api.refused(
        "post", "/ports", {"port": {"network_id": network}}, 409, "IpAddressGenerationFailure"
    )
    assert subnet["id"] in message and "0 of 5" in message
    availability = api.get(f"/network-ip-availabilities/{network}", as_=ADMIN)["network_ip_availability"]
    assert (availability["total_ips"], availability["used_ips"]) == (5, 5)
    # of IPv6 there are more than a machine word holds
    api.subnet(network, "2001:db8::/64")
    (listed,) = api.get("/network-ip-availabilities", as_=ADMIN)["network_ip_availabilities"]
    assert (listed["total_ips"], listed["used_ips"]) == (5 + 2**64 - 2, 5)
    (fourth,) = api.get("/network-ip-availabilities?ip_version=4", as_=ADMIN)["network_ip_availabilities"]
    assert (fourth["total_ips"], len(fourth["subnet_ip_availability"])) == (5, 1)


def test_hosts_make_their_own_addresses(api: Api) -> None:
    network = api.network()["id"]
    early = api.port(network)
    subnet = api.subnet(network, "2001:db8::/64", ipv6_ra_mode="slaac", ipv6_address_mode="slaac")
    assert api.get(f"/ports/{early['id']}")["port"]["fixed_ips"] == [
        {"subnet_id": subnet["id"], "ip_address": eui64("2001:db8::/64", early["mac_address"])}
    ]
    port = api.port(network, mac_address="FA:16:3E:00:00:01")
    assert port["fixed_ips"][0]["ip_address"] == "2001:db8::f816:3eff:fe00:1"
    body = {"port": {"network_id": network, "fixed_ips": [{"ip_address": "2001:db8::5"}]}}
    api.refused("post", "/ports", body, 400, "AllocationOnAutoAddressSubnet")
    api.delete(f"/subnets/{subnet['id']}", status=204)
    assert api.get(f"/ports/{port['id']}")["port"]["fixed_ips"] == []


def test_macs_are_unique_in_a_network(api: Api) -> None:
    one, two = api.network()["id"], api.network()["id"]
    mac = "fa:16:3e:01:02:03"
    port = api.port(one, mac_address=mac)
    api.port(two, mac_address=mac)
    api.refused("post", "/ports", {"port": {"network_id": one, "mac_address": mac}}, 409, "MacAddressInUse")
    other = api.port(one)
    api.refused(
        "put", f"/ports/{other['id']}", {"port": {"mac_address": mac}}, 409, "MacAddressInUse", as_=ADMIN
    )
    assert api.get(f"/ports?mac_address={mac}&network_id={one}")["ports"][0]["id"] == port["id"]


def test_groups_and_port_security(api: Api) -> None:
    network = api.network()["id"]
    group = api.post("/security-groups", {"security_group": {"name": "web"}})["security_group"]
    foreign = api.post("/security-groups", {"security_group": {"name": "x"}}, as_=OTHER)["security_group"]
    port = api.port(network, security_groups=[group["id"]])
    path = f"/ports/{port['id']}"
    assert port["security_groups"] == [group["id"]]
    api.refused("delete", f"/security-groups/{group['id']}", None, 409, "SecurityGroupInUse")
    body = {"port": {"security_groups": [foreign["id"]]}}
    api.refused("put", path, body, 404, "SecurityGroupNotFound")
    off = {"port": {"port_security_enabled": False}}
    api.refused("put", path, off, 409, "PortSecurityPortHasSecurityGroup")
    done = api.put(path, {"port": {"port_security_enabled": False, "security_groups": []}})["port"]
    assert done["security_groups"] == [] and done["port_security_enabled"] is False
    pairs = {"port": {"allowed_address_pairs": [{"ip_address": "10.0.0.7"}]}}
    api.refused("put", path, pairs, 409, "AddressPairAndPortSecurityRequired")
    api.delete(f"/security-groups/{group['id']}", status=204)
    assert api.port(network, port_security_enabled=False)["security_groups"] == []


def test_pairs_and_dhcp_options(api: Api) -> None:
    port = api.port(api.network()["id"])
    path = f"/ports/{port['id']}"
    pairs = [{"ip_address": "10.0.0.0/24"}, {"ip_address": "10.1.0.1", "mac_address": "fa:16:3e:00:00:09"}]
    got = api.put(path, {"port": {"allowed_address_pairs": pairs}})["port"]["allowed_address_pairs"]
    assert got == [{"ip_address": "10.0.0.0/24", "mac_address": port["mac_address"]}, pairs[1]]
    double = {"port": {"allowed_address_pairs": [pairs[0], pairs[0]]}}
    api.refused("put", path, double, 400, "DuplicateAddressPairInRequest")
    bad = {"port": {"allowed_address_pairs": [{"ip_address": "ten"}]}}
    api.refused("put", path, bad, 400, "HTTPBadRequest")
    options = [{"opt_name": "bootfile-name", "opt_value": "pxe"}, {"opt_name": "mtu", "opt_value": "1400"}]
    api.put(path, {"port": {"extra_dhcp_opts": options}})
    left = api.put(path, {"port": {"extra_dhcp_opts": [{"opt_name": "mtu", "opt_value": None}]}})["port"]
    assert left["extra_dhcp_opts"] == [{**options[0], "ip_version": 4}]


@pytest.mark.parametrize(
    "values",
    [
        {"binding:host_id": "h"},
        {"binding:profile": {"a": 1}},
        {"mac_address": "fa:16:3e:00:00:01"},
        {"fixed_ips": [{"ip_address": "10.0.0.5"}]},
        {"port_security_enabled": False},
        {"device_owner": "network:dhcp"},
        {"allowed_address_pairs": [{"ip_address": "10.0.0.5"}]},
    ],
)
def test_what_a_guest_in_a_shared_network_may_not(api: Api, values: dict[str, Any]) -> None:
    network = api.network(as_=ADMIN, shared=True)["id"]
    api.subnet(network, as_=ADMIN)
    body = {"port": {"network_id": network, **values}}
    api.refused("post", "/ports", body, 403, "PolicyNotAuthorized")
    port = api.port(network)
    api.refused("put", f"/ports/{port['id']}", {"port": values}, 403, "PolicyNotAuthorized")
    made = api.port(network, as_=SERVICE, project_id="p1", **values)
    assert {made["id"], port["id"]} == {each["id"] for each in api.get("/ports")["ports"]}


def test_whose_ports_are_seen(api: Api) -> None:
    network = api.network(as_=ADMIN, shared=True, project_id="p1")["id"]
    theirs = api.port(network, as_=OTHER)
    assert [port["id"] for port in api.get("/ports")["ports"]] == [theirs["id"]]  # as the network's owner
    assert api.get("/ports", as_="member@p3")["ports"] == []
    api.refused("get", f"/ports/{theirs['id']}", None, 404, "PortNotFound", as_="member@p3")
    foreign = api.network(as_=OTHER)["id"]
    api.refused("post", "/ports", {"port": {"network_id": foreign}}, 404, "NetworkNotFound")


def test_bindings_follow_the_agents(api: Api, services: Any) -> None:
    network = api.network()["id"]
    port = api.port(network, as_=SERVICE, project_id="p1", **{"binding:host_id": "h1"})
    assert port["binding:vif_type"] == "binding_failed"
    with services.databases.global_.write() as connection:
        for host in ("h1", "h2"):
            network_agents.report(
                connection,
                {"agent_type": network_agents.L2_AGENT, "binary": "haneul-network", "host": host},
            )
    path = f"/ports/{port['id']}"
    bound = api.put(path, {"port": {"binding:host_id": "h1"}}, as_=SERVICE)["port"]
    assert bound["binding:vif_type"] == "bridge" and bound["status"] == "DOWN"
    binding = api.post(f"{path}/bindings", {"binding": {"host": "h2"}}, as_=SERVICE, status=201)["binding"]
    assert binding["status"] == "INACTIVE" and binding["vif_type"] == "bridge"
    api.refused(
        "post", f"{path}/bindings", {"binding": {"host": "h2"}}, 409, "PortBindingAlreadyExists", as_=SERVICE
    )
    nowhere = {"binding": {"host": "h3"}}
    api.refused("post", f"{path}/bindings", nowhere, 409, "PortBindingError", as_=SERVICE)
    api.refused("get", f"{path}/bindings", None, 403, "PolicyNotAuthorized")
    assert api.put(f"{path}/bindings/h2/activate", None, as_=SERVICE)["binding"]["status"] == "ACTIVE"
    api.request("put", f"{path}/bindings/h2/activate", None, as_=SERVICE, status=409)
    assert api.get(path, as_=ADMIN)["port"]["binding:host_id"] == "h2"
    api.delete(f"{path}/bindings/h1", as_=SERVICE, status=204)
    assert [each["host"] for each in api.get(f"{path}/bindings", as_=SERVICE)["bindings"]] == ["h2"]
    agents = api.get("/agents", as_=ADMIN)["agents"]
    assert {agent["host"]: agent["alive"] for agent in agents} == {"h1": True, "h2": True}
    assert api.get("/agents")["agents"] == [], "they are the administrators'"
    api.get(f"/agents/{agents[0]['id']}", status=404)
    assert api.get("/agents", as_=MEMBER)["agents"] == []


def test_quota_counts_ports(api: Api) -> None:
    network = api.network()["id"]
    api.put("/quotas/p1", {"quota": {"port": 1}}, as_=ADMIN)
    api.port(network)
    api.refused("post", "/ports", {"port": {"network_id": network}}, 409, "OverQuota")
    assert api.get("/quotas/p1/details")["quota"]["port"] == {"limit": 1, "used": 1, "reserved": 0}
    assert api.get("/quotas/p1/default")["quota"]["port"] == 500
    api.request("put", "/quotas/p1", {"quota": {"port": 9}}, status=403)
    assert [each["project_id"] for each in api.get("/quotas", as_=ADMIN)["quotas"]] == ["p1"]
    api.delete("/quotas/p1", as_=ADMIN, status=204)
    api.delete("/quotas/p1", as_=ADMIN, status=404)
    assert api.get("/quotas/p1")["quota"]["port"] == 500


def test_names_are_those_that_guests_resolve(api: Api) -> None:
    network = api.network(dns_domain="example.org.")["id"]
    api.subnet(network)
    port = api.port(network, dns_name="web", fixed_ips=[{"ip_address": "10.0.0.9"}])
    assert port["dns_assignment"] == [
        {"ip_address": "10.0.0.9", "hostname": "web", "fqdn": "web.example.org."}
    ]
    other = api.network()["id"]
    api.subnet(other)
    port = api.port(other, fixed_ips=[{"ip_address": "10.0.0.9"}])
    assert port["dns_assignment"][0]["fqdn"] == "host-10-0-0-9.openstacklocal."
