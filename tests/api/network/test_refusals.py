"""What is refused, over all kinds of things: another project's (404), what is in use (409), wrong or overlapping CIDRs, used up.

Types and codes are Neutron's (its exceptions' names); the two that differ stand in ``doc/network-api.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.api.network.conftest import ADMIN, OTHER, Api


def _post(api: Api, path: str, key: str, **values: Any) -> str:
    return str(api.post(path, {key: values})[key]["id"])


def _network(api: Api) -> str:
    return str(api.network()["id"])


def _subnet(api: Api) -> str:
    return str(api.subnet(_network(api))["id"])


def _port(api: Api) -> str:
    return str(api.port(_network(api))["id"])


def _pool(api: Api, **values: Any) -> str:
    return _post(api, "/subnetpools", "subnetpool", name="p", prefixes=["10.0.0.0/24"], **values)


def _group(api: Api) -> str:
    return _post(api, "/security-groups", "security_group", name="g")


def _rule(api: Api) -> str:
    values = {"security_group_id": _group(api), "direction": "ingress"}
    return _post(api, "/security-group-rules", "security_group_rule", **values)


def _router(api: Api) -> str:
    return _post(api, "/routers", "router", name="r")


def _floating(api: Api) -> str:
    network, _ = api.external()
    return _post(api, "/floatingips", "floatingip", floating_network_id=network["id"])


def _addresses(api: Api) -> str:
    return _post(api, "/address-groups", "address_group", name="a", addresses=["10.0.0.0/8"])


def _scope(api: Api) -> str:
    return _post(api, "/address-scopes", "address_scope", name="s", ip_version=4)


def _qos(api: Api) -> str:
    return str(
        api.post("/qos/policies", {"policy": {"name": "q", "project_id": "p1"}}, as_=ADMIN)["policy"]["id"]
    )


def _shared(api: Api) -> str:
    body = {
        "object_type": "network",
        "object_id": _network(api),
        "action": "access_as_shared",
        "target_tenant": "p9",
    }
    return _post(api, "/rbac-policies", "rbac_policy", **body)


THINGS: dict[str, tuple[Callable[[Api], str], str, str]] = {
    "networks": (_network, "network", "NetworkNotFound"),
    "subnets": (_subnet, "subnet", "SubnetNotFound"),
    "ports": (_port, "port", "PortNotFound"),
    "subnetpools": (_pool, "subnetpool", "SubnetPoolNotFound"),
    "security-groups": (_group, "security_group", "SecurityGroupNotFound"),
    "security-group-rules": (_rule, "", "SecurityGroupRuleNotFound"),
    "routers": (_router, "router", "RouterNotFound"),
    "floatingips": (_floating, "floatingip", "FloatingIPNotFound"),
    "address-groups": (_addresses, "address_group", "AddressGroupNotFound"),
    "address-scopes": (_scope, "address_scope", "AddressScopeNotFound"),
    "qos/policies": (_qos, "policy", "QosPolicyNotFound"),
    "rbac-policies": (_shared, "", "RbacPolicyNotFound"),
}


@pytest.mark.parametrize("collection", THINGS)
def test_another_projects_is_not_found(api: Api, collection: str) -> None:
    make, name, missing = THINGS[collection]
    path = f"/{collection}/{make(api)}"
    api.get(path)
    api.refused("get", path, None, 404, missing, as_=OTHER)
    api.refused("delete", path, None, 404, missing, as_=OTHER)
    if name:
        api.refused(
            "put",
            path,
            {name: {"description" if name == "floatingip" else "name": "x"}},
            404,
            missing,
            as_=OTHER,
        )
    assert path.rpartition("/")[2] not in str(api.get(f"/{collection}", as_=OTHER))
    nobody = f"/{collection}/00000000-0000-0000-0000-000000000001"
    api.refused("get", nobody, None, 404, missing)
    api.get(path)


def _used_network(api: Api) -> str:
    network = _network(api)
    api.port(network)
    return f"/networks/{network}"


def _used_subnet(api: Api) -> str:
    subnet = api.subnet(_network(api))
    api.port(subnet["network_id"])
    return f"/subnets/{subnet['id']}"


def _used_group(api: Api) -> str:
    group = _group(api)
    api.port(_network(api), security_groups=[group])
    return f"/security-groups/{group}"


def _used_pool(api: Api) -> str:
    pool = _pool(api, default_prefixlen=26)
    body = {"network_id": _network(api), "subnetpool_id": pool, "ip_version": 4}
    api.post("/subnets", {"subnet": body})
    return f"/subnetpools/{pool}"


def _used_scope(api: Api) -> str:
    scope = _scope(api)
    _pool(api, address_scope_id=scope)
    return f"/address-scopes/{scope}"


def _used_addresses(api: Api) -> str:
    addresses = _addresses(api)
    values = {
        "security_group_id": _group(api),
        "direction": "ingress",
        "remote_address_group_id": addresses,
    }
    _post(api, "/security-group-rules", "security_group_rule", **values)
    return f"/address-groups/{addresses}"


def _used_router(api: Api) -> str:
    router = _router(api)
    api.put(f"/routers/{router}/add_router_interface", {"subnet_id": _subnet(api)})
    return f"/routers/{router}"


def _a_routers_port(api: Api) -> str:
    router = _router(api)
    answer = api.put(f"/routers/{router}/add_router_interface", {"subnet_id": _subnet(api)})
    return f"/ports/{answer['port_id']}"


def _used_qos(api: Api) -> str:
    policy = _qos(api)
    api.port(_network(api), qos_policy_id=policy)
    return f"/qos/policies/{policy}"


IN_USE: dict[str, tuple[Callable[[Api], str], str]] = {
    "network with a port": (_used_network, "NetworkInUse"),
    "subnet with a port": (_used_subnet, "SubnetInUse"),
    "security group of a port": (_used_group, "SecurityGroupInUse"),
    "subnet pool with a subnet": (_used_pool, "SubnetPoolDeleteError"),
    "address scope with a pool": (_used_scope, "AddressScopeInUse"),
    "address group of a rule": (_used_addresses, "AddressGroupInUse"),
    "router with an interface": (_used_router, "RouterInUse"),
    "port of a router": (_a_routers_port, "ServicePortInUse"),
    "QoS policy of a port": (_used_qos, "QosPolicyInUse"),
}


@pytest.mark.parametrize("case", IN_USE)
def test_what_is_in_use_is_not_deleted(api: Api, case: str) -> None:
    make, type_ = IN_USE[case]
    path = make(api)
    api.refused("delete", path, None, 409, type_, as_=ADMIN)
    api.get(path, as_=ADMIN)


@pytest.mark.parametrize(
    "values",
    [
        {"cidr": "10.0.0.0/33"},
        {"cidr": "10.0.0.300/24"},
        {"cidr": "nonsense"},
        {"cidr": "10.0.0.0/24", "ip_version": 6},
        {"cidr": "2001:db8::/129", "ip_version": 6},
        {"cidr": "10.0.0.0/24", "gateway_ip": "2001:db8::1"},
        {"cidr": "10.0.0.0/24", "allocation_pools": [{"start": "10.0.0.9", "end": "10.0.0.2"}]},
        {"cidr": "10.0.0.0/24", "allocation_pools": [{"start": "10.0.1.2", "end": "10.0.1.9"}]},
        {"cidr": "10.0.0.0/24", "dns_nameservers": ["nonsense"]},
        {"cidr": "10.0.0.0/24", "host_routes": [{"destination": "10.9.0.0/40", "nexthop": "10.0.0.2"}]},
        {"cidr": "10.0.0.0/24", "ipv6_ra_mode": "slaac"},
        {},
    ],
    ids=str,
)
def test_a_subnet_that_makes_no_sense(api: Api, values: dict[str, Any]) -> None:
    body = {"network_id": _network(api), "ip_version": 4, **values}
    answer = api.request("post", "/subnets", {"subnet": body}, status=400).json
    assert answer["NeutronError"]["message"] and answer["NeutronError"]["type"] != "HTTPInternalServerError"
    assert api.get("/subnets")["subnets"] == []


@pytest.mark.parametrize("cidr", ["10.0.0.0/24", "10.0.0.128/25", "10.0.0.0/16"])
def test_overlapping_subnets(api: Api, cidr: str) -> None:
    network = _network(api)
    first = api.subnet(network, "10.0.0.0/24")
    body = {"subnet": {"network_id": network, "cidr": cidr, "ip_version": 4}}
    message = api.refused("post", "/subnets", body, 400, "InvalidInput")
    assert "overlaps" in message and first["id"] in message
    # another network may have the same addresses; a router between them may not exist
    other = api.subnet(_network(api), cidr)
    path = f"/routers/{_router(api)}/add_router_interface"
    api.put(path, {"subnet_id": first["id"]})
    assert "overlaps" in api.refused("put", path, {"subnet_id": other["id"]}, 400, "BadRequest")


def test_what_is_used_up_says_what_is_left(api: Api) -> None:
    network = _network(api)
    subnet = api.subnet(network, "10.0.0.0/29")
    for _ in range(5):
        api.port(network)
    message = api.refused(
        "post", "/ports", {"port": {"network_id": network}}, 409, "IpAddressGenerationFailure"
    )
    assert network in message and subnet["id"] in message
    pool = _pool(api, default_prefixlen=25)
    body = {"subnet": {"network_id": network, "subnetpool_id": pool, "ip_version": 4}}
    body["subnet"]["network_id"] = _network(api)
    api.post("/subnets", body)
    body["subnet"]["network_id"] = _network(api)
    api.post("/subnets", body)
    body["subnet"]["network_id"] = _network(api)
    assert "/25" in api.refused("post", "/subnets", body, 409, "SubnetAllocationError")
