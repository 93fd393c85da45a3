"""Routers, floating IPs, port forwarding, auto-allocated topologies."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.network.conftest import ADMIN, OTHER, Api


def router(api: Api, **values: Any) -> dict[str, Any]:
    return dict(api.post("/routers", {"router": values})["router"])


@pytest.fixture
def routed(api: Api) -> dict[str, Any]:
    """An external network, a router with its gateway there and a subnet with a port."""
    external, outside = api.external()
    network = api.network()["id"]
    subnet = api.subnet(network, "10.0.0.0/24")
    made = router(api, external_gateway_info={"network_id": external["id"]})
    api.put(f"/routers/{made['id']}/add_router_interface", {"subnet_id": subnet["id"]})
    return {
        "external": external["id"], "outside": outside["id"], "network": network, "subnet": subnet["id"],
        "router": made["id"], "port": api.port(network),
    }  # fmt: skip


def test_a_router_and_its_gateway(api: Api) -> None:
    external, outside = api.external()
    made = router(api, name="r")
    path = f"/routers/{made['id']}"
    assert made["external_gateway_info"] is None and made["routes"] == [] and made["status"] == "ACTIVE"
    assert "ha" not in made and "distributed" not in made
    assert api.get(path, as_=ADMIN)["router"]["ha"] is False
    info = {"external_gateway_info": {"network_id": external["id"]}}
    got = api.put(path, {"router": info})["router"]["external_gateway_info"]
    assert got["network_id"] == external["id"] and got["enable_snat"] is True
    (fixed,) = got["external_fixed_ips"]
    assert fixed["subnet_id"] == outside["id"]
    snat = {"external_gateway_info": {"network_id": external["id"], "enable_snat": False}}
    api.refused("put", path, {"router": snat}, 403, "PolicyNotAuthorized")
    done = api.put(path, {"router": snat}, as_=ADMIN)["router"]["external_gateway_info"]
    assert done == {**got, "enable_snat": False}
    (port,) = api.get(f"/ports?device_id={made['id']}", as_=ADMIN)["ports"]
    assert port["device_owner"] == "network:router_gateway" and port["project_id"] == ""
    api.refused("delete", f"/ports/{port['id']}", None, 409, "ServicePortInUse", as_=ADMIN)
    assert api.get("/ports")["ports"] == []
    private = api.network()["id"]
    bad = {"router": {"external_gateway_info": {"network_id": private}}}
    api.refused("put", path, bad, 400, "BadRequest")
    api.refused("delete", f"/networks/{external['id']}", None, 409, "NetworkInUse", as_=ADMIN)
    assert api.put(path, {"router": {"external_gateway_info": {}}})["router"]["external_gateway_info"] is None
    api.delete(path, status=204)
    api.refused("get", path, None, 404, "RouterNotFound")
    assert api.get("/ports", as_=ADMIN)["ports"] == []


def test_a_used_gateway_address_is_a_conflict(api: Api) -> None:
    external, outside = api.external()
    fixed = [{"subnet_id": outside["id"], "ip_address": "203.0.113.9"}]
    info = {"external_gateway_info": {"network_id": external["id"], "external_fixed_ips": fixed}}
    api.post("/routers", {"router": info}, as_=ADMIN)
    api.refused("post", "/routers", {"router": info}, 409, "IpAddressAlreadyAllocated", as_=ADMIN)
    assert len(api.get("/routers", as_=ADMIN)["routers"]) == 1


def test_interfaces(api: Api) -> None:
    made, network = router(api), api.network()["id"]
    path, subnet = f"/routers/{made['id']}", api.subnet(network, "10.0.0.0/24")
    answer = api.put(f"{path}/add_router_interface", {"subnet_id": subnet["id"]})
    assert answer["id"] == made["id"] and answer["subnet_ids"] == [subnet["id"]]
    port = api.get(f"/ports/{answer['port_id']}")["port"]
    assert port["fixed_ips"] == [{"subnet_id": subnet["id"], "ip_address": "10.0.0.1"}]
    assert port["device_owner"] == "network:router_interface" and port["device_id"] == made["id"]
    again = {"subnet_id": subnet["id"]}
    api.refused("put", f"{path}/add_router_interface", again, 400, "BadRequest")
    api.refused("put", f"{path}/add_router_interface", {}, 400, "BadRequest")
    overlapping = api.subnet(api.network()["id"], "10.0.0.0/25")
    api.refused("put", f"{path}/add_router_interface", {"subnet_id": overlapping["id"]}, 400, "BadRequest")
    blind = api.subnet(api.network()["id"], "10.5.0.0/25", gateway_ip=None)
    api.refused("put", f"{path}/add_router_interface", {"subnet_id": blind["id"]}, 400, "BadRequest")
    foreign = api.subnet(api.network(as_=OTHER)["id"], "10.6.0.0/24", as_=OTHER)
    api.refused("put", f"{path}/add_router_interface", {"subnet_id": foreign["id"]}, 404, "SubnetNotFound")
    api.refused("delete", path, None, 409, "RouterInUse")
    api.refused("delete", f"/ports/{port['id']}", None, 409, "ServicePortInUse")
    api.refused("delete", f"/subnets/{subnet['id']}", None, 409, "SubnetInUse")
    other = api.subnet(network, "10.1.0.0/24")
    by_port = api.port(network, fixed_ips=[{"subnet_id": other["id"]}])
    api.put(f"{path}/add_router_interface", {"port_id": by_port["id"]})
    api.refused("put", f"{path}/add_router_interface", {"port_id": by_port["id"]}, 409, "PortInUse")
    api.put(f"{path}/remove_router_interface", {"port_id": by_port["id"]})
    api.request("get", f"/ports/{by_port['id']}", status=404)
    api.put(f"{path}/remove_router_interface", {"subnet_id": subnet["id"]})
    api.refused("put", f"{path}/remove_router_interface", again, 404, "RouterInterfaceNotFoundForSubnet")
    api.delete(path, status=204)


def test_ipv6_subnets_share_a_port(api: Api) -> None:
    made, network = router(api), api.network()["id"]
    one, two = api.subnet(network, "2001:db8:1::/64"), api.subnet(network, "2001:db8:2::/64")
    path = f"/routers/{made['id']}"
    first = api.put(f"{path}/add_router_interface", {"subnet_id": one["id"]})
    second = api.put(f"{path}/add_router_interface", {"subnet_id": two["id"]})
    assert first["port_id"] == second["port_id"]
    api.put(f"{path}/remove_router_interface", {"subnet_id": one["id"]})
    fixed = api.get(f"/ports/{first['port_id']}")["port"]["fixed_ips"]
    assert [each["subnet_id"] for each in fixed] == [two["id"]]


def test_extra_routes(api: Api, routed: dict[str, Any]) -> None:
    path = f"/routers/{routed['router']}"
    route = {"destination": "10.9.0.0/24", "nexthop": "10.0.0.77"}
    assert api.put(path, {"router": {"routes": [route]}})["router"]["routes"] == [route]
    far = {"destination": "10.9.0.0/24", "nexthop": "172.16.0.1"}
    api.refused("put", path, {"router": {"routes": [far]}}, 400, "InvalidRoutes")
    itself = {"destination": "10.9.0.0/24", "nexthop": "10.0.0.1"}
    api.refused("put", path, {"router": {"routes": [itself]}}, 400, "InvalidRoutes")
    subnet = {"subnet_id": routed["subnet"]}
    api.refused("put", f"{path}/remove_router_interface", subnet, 409, "RouterInterfaceInUseByRoute")
    more = {"destination": "10.8.0.0/24", "nexthop": "10.0.0.78"}
    added = api.put(f"{path}/add_extraroutes", {"router": {"routes": [more, route]}})["router"]["routes"]
    assert added == [route, more]
    left = api.put(f"{path}/remove_extraroutes", {"router": {"routes": [route]}})["router"]["routes"]
    assert left == [more]


def test_floating_ips(api: Api, routed: dict[str, Any]) -> None:
    body = {"floating_network_id": routed["external"]}
    fip = api.post("/floatingips", {"floatingip": body})["floatingip"]
    assert fip["status"] == "DOWN" and fip["port_id"] is fip["fixed_ip_address"] is fip["router_id"] is None
    assert fip["floating_ip_address"].startswith("203.0.113.") and fip["port_forwardings"] == []
    path, port = f"/floatingips/{fip['id']}", routed["port"]
    done = api.put(path, {"floatingip": {"port_id": port["id"]}})["floatingip"]
    assert done["fixed_ip_address"] == port["fixed_ips"][0]["ip_address"]
    assert done["router_id"] == routed["router"] and done["port_details"]["network_id"] == routed["network"]
    second = {"floatingip": {**body, "port_id": port["id"]}}
    api.refused("post", "/floatingips", second, 409, "FloatingIPPortAlreadyAssociated")
    assert len(api.get("/floatingips")["floatingips"]) == 1
    subnet = {"subnet_id": routed["subnet"]}
    api.refused(
        "put",
        f"/routers/{routed['router']}/remove_router_interface",
        subnet,
        409,
        "RouterInterfaceInUseByFloatingIP",
    )
    no_gateway = {"router": {"external_gateway_info": None}}
    api.refused(
        "put", f"/routers/{routed['router']}", no_gateway, 409, "RouterExternalGatewayInUseByFloatingIp"
    )
    found = api.get(f"/floatingips?port_id={port['id']}&floating_ip_address={fip['floating_ip_address']}")
    assert [each["id"] for each in found["floatingips"]] == [fip["id"]]
    api.delete(f"/ports/{port['id']}", status=204)
    loose = api.get(path)["floatingip"]
    assert loose["port_id"] is loose["router_id"] is loose["port_details"] is None
    api.refused("get", path, None, 404, "FloatingIPNotFound", as_=OTHER)
    api.delete(path, status=204)
    gone = api.get(f"/ports?device_owner=network:floatingip&network_id={routed['external']}", as_=ADMIN)
    assert gone["ports"] == []


def test_floating_ips_that_can_not_be(api: Api, routed: dict[str, Any]) -> None:
    def refused(status: int, type_: str, **values: Any) -> None:
        body = {"floating_network_id": routed["external"], **values}
        api.refused("post", "/floatingips", {"floatingip": body}, status, type_)

    refused(400, "BadRequest", floating_network_id=routed["network"])
    refused(404, "NetworkNotFound", floating_network_id="11111111-1111-1111-1111-111111111111")
    refused(404, "PortNotFound", port_id="11111111-1111-1111-1111-111111111111")
    refused(400, "BadRequest", port_id=routed["port"]["id"], fixed_ip_address="10.0.0.200")
    refused(403, "PolicyNotAuthorized", floating_ip_address="203.0.113.77")
    lonely = api.network()["id"]
    api.subnet(lonely, "10.3.0.0/24")
    refused(404, "ExternalGatewayForFloatingIPNotFound", port_id=api.port(lonely)["id"])
    assert api.get("/floatingips")["floatingips"] == []


def test_port_forwarding(api: Api, routed: dict[str, Any]) -> None:
    fip = api.post("/floatingips", {"floatingip": {"floating_network_id": routed["external"]}})["floatingip"]
    path, port = f"/floatingips/{fip['id']}/port_forwardings", routed["port"]["id"]
    body = {"protocol": "tcp", "internal_port_id": port, "internal_port": 22, "external_port": 2222}
    made = api.post(path, {"port_forwarding": body}, status=201)["port_forwarding"]
    assert made["internal_ip_address"] == routed["port"]["fixed_ips"][0]["ip_address"]
    assert api.get(f"/floatingips/{fip['id']}")["floatingip"]["router_id"] == routed["router"]
    api.refused("post", path, {"port_forwarding": body}, 400, "BadRequest")
    ranged = {**body, "internal_port_range": "80:90", "external_port_range": "8080:8090"}
    del ranged["internal_port"], ranged["external_port"]
    second = api.post(path, {"port_forwarding": ranged})["port_forwarding"]
    assert second["external_port_range"] == "8080:8090" and "external_port" not in second
    changed = api.put(f"{path}/{made['id']}", {"port_forwarding": {"external_port": 2223}})["port_forwarding"]
    assert (changed["external_port"], changed["internal_port"]) == (2223, 22)
    assert len(api.get(path)["port_forwardings"]) == 2
    api.refused(
        "put", f"/floatingips/{fip['id']}", {"floatingip": {"port_id": port}}, 409, "FipInUseByPortForwarding"
    )
    for each in (made, second):
        api.delete(f"{path}/{each['id']}", status=204)
    assert api.get(f"/floatingips/{fip['id']}")["floatingip"]["router_id"] is None
    api.request("get", f"{path}/{made['id']}", status=404)


def test_a_project_that_asks_for_any_network(api: Api) -> None:
    path = "/auto-allocated-topology/p1"
    api.refused("get", path, None, 409, "AutoAllocationFailure")
    external, _ = api.external()
    api.put(f"/networks/{external['id']}", {"network": {"is_default": True}}, as_=ADMIN)
    pool = {
        "name": "p", "prefixes": ["10.40.0.0/16"], "default_prefixlen": 26, "shared": True, "is_default": True,
    }  # fmt: skip
    api.post("/subnetpools", {"subnetpool": pool}, as_=ADMIN)
    assert api.get(f"{path}?fields=dry-run")["auto_allocated_topology"]["id"] == "dry-run=pass"
    made = api.get(path)["auto_allocated_topology"]
    assert api.get(path)["auto_allocated_topology"] == made
    (subnet,) = api.get(f"/subnets?network_id={made['id']}")["subnets"]
    assert subnet["cidr"] == "10.40.0.0/26"
    (found,) = api.get("/routers")["routers"]
    assert found["external_gateway_info"]["network_id"] == external["id"]
    api.request("get", path, as_=OTHER, status=403)
    api.delete(path, status=204)
    assert api.get("/routers")["routers"] == []
    api.delete(path, status=204)


def test_qos_of_gateways_and_floating_ips(api: Api, routed: dict[str, Any]) -> None:
    qos = api.post("/qos/policies", {"policy": {"name": "q", "shared": True}}, as_=ADMIN)["policy"]["id"]
    own = api.post("/qos/policies", {"policy": {"name": "own"}}, as_=ADMIN)["policy"]["id"]
    path = f"/routers/{routed['router']}"

    def info(**values: Any) -> dict[str, Any]:
        return {"router": {"external_gateway_info": {"network_id": routed["external"], **values}}}

    got = api.put(path, info(qos_policy_id=qos))["router"]["external_gateway_info"]
    assert got["qos_policy_id"] == qos
    assert api.put(path, info())["router"]["external_gateway_info"]["qos_policy_id"] == qos
    api.refused("put", path, info(qos_policy_id=own), 404, "QosPolicyNotFound")
    body = {"floating_network_id": routed["external"], "qos_policy_id": qos}
    fip = api.post("/floatingips", {"floatingip": body})["floatingip"]
    assert fip["qos_policy_id"] == qos
    api.put(path, info(qos_policy_id=None))
    api.refused("delete", f"/qos/policies/{qos}", None, 409, "QosPolicyInUse", as_=ADMIN)
    change = {"floatingip": {"qos_policy_id": None}}
    assert api.put(f"/floatingips/{fip['id']}", change)["floatingip"]["qos_policy_id"] is None
    api.delete(f"/qos/policies/{qos}", as_=ADMIN, status=204)


def test_kinds_of_qos_rules(api: Api) -> None:
    kinds = {each["type"] for each in api.get("/qos/rule-types")["rule_types"]}
    assert kinds == {"bandwidth_limit", "dscp_marking", "minimum_bandwidth"}
    assert {each["type"] for each in api.get("/qos/rule-types?all_supported=True")["rule_types"]} == kinds
    known = {each["type"] for each in api.get("/qos/rule-types?all_rules=True")["rule_types"]}
    assert known == kinds | {"packet_rate_limit", "minimum_packet_rate"}
    api.request("get", "/qos/rule-types?all_supported=True&all_rules=True", status=400)
    assert api.get("/qos/rule-types/dscp_marking")["rule_type"]["type"] == "dscp_marking"
    api.request("get", "/qos/rule-types/minimum_packet_rate", status=404)


def test_a_policy_that_no_host_keeps_is_never_in_use(api: Api) -> None:
    """Packet rates: rules can be made, changed and removed, but the policy can't be used."""
    policy = api.post("/qos/policies", {"policy": {"name": "q", "shared": True}}, as_=ADMIN)["policy"]["id"]
    limits, rates = (
        f"/qos/policies/{policy}/{kind}_rules" for kind in ("packet_rate_limit", "minimum_packet_rate")
    )
    limit = api.post(limits, {"packet_rate_limit_rule": {"max_kpps": 7}}, as_=ADMIN)["packet_rate_limit_rule"]
    assert (limit["max_kpps"], limit["max_burst_kpps"], limit["direction"]) == (7, 0, "egress")
    body = {"minimum_packet_rate_rule": {"min_kpps": 3, "direction": "any"}}
    rate = api.post(rates, body, as_=ADMIN)["minimum_packet_rate_rule"]
    alias = f"/qos/alias_minimum_packet_rate_rules/{rate['id']}"
    change = {"minimum_packet_rate_rule": {"min_kpps": 4}}
    assert api.put(alias, change, as_=ADMIN)["minimum_packet_rate_rule"]["direction"] == "any"
    asked = {"network": {"qos_policy_id": policy}}
    api.refused("post", "/networks", asked, 409, "QosRuleNotSupported")
    api.delete(alias, as_=ADMIN, status=204)
    api.delete(f"{limits}/{limit['id']}", as_=ADMIN, status=204)
    network = api.network(qos_policy_id=policy)["id"]
    api.refused("post", rates, body, 409, "QosRuleNotSupported", as_=ADMIN)
    api.delete(f"/networks/{network}", status=204)
    api.post(rates, body, as_=ADMIN)


def test_qos_policies(api: Api) -> None:
    api.request("post", "/qos/policies", {"policy": {"name": "q"}}, status=403)
    made = api.post("/qos/policies", {"policy": {"name": "q", "shared": True}}, as_=ADMIN)["policy"]
    rules = f"/qos/policies/{made['id']}/bandwidth_limit_rules"
    body = {"bandwidth_limit_rule": {"max_kbps": 1000}}
    rule = api.post(rules, body, as_=ADMIN, status=201)["bandwidth_limit_rule"]
    assert rule["direction"] == "egress" and rule["max_burst_kbps"] == 0
    api.refused("post", rules, body, 409, "QoSRulesConflict", as_=ADMIN)
    seen = api.get(f"/qos/policies/{made['id']}")["policy"]
    assert seen["shared"] is True and seen["rules"] == [{**rule, "type": "bandwidth_limit"}]
    change = {"bandwidth_limit_rule": {"max_kbps": 5}}
    alias = f"/qos/alias_bandwidth_limit_rules/{rule['id']}"
    assert api.put(alias, change, as_=ADMIN)["bandwidth_limit_rule"]["max_kbps"] == 5
    api.request("put", alias, change, status=403)
    marks = f"/qos/policies/{made['id']}/dscp_marking_rules"
    api.post(marks, {"dscp_marking_rule": {"dscp_mark": 26}}, as_=ADMIN)
    api.request("post", marks, {"dscp_marking_rule": {"dscp_mark": 27}}, as_=ADMIN, status=400)
    network = api.network(qos_policy_id=made["id"])
    api.refused("delete", f"/qos/policies/{made['id']}", None, 409, "QosPolicyInUse", as_=ADMIN)
    api.put(f"/networks/{network['id']}", {"network": {"qos_policy_id": None}})
    api.delete(f"{rules}/{rule['id']}", as_=ADMIN, status=204)
    api.delete(f"/qos/policies/{made['id']}", as_=ADMIN, status=204)
