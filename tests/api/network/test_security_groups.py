"""Security groups, their rules, address groups."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.network.conftest import ADMIN, OTHER, Api


def rule(api: Api, group: str, status: int | None = None, **values: Any) -> dict[str, Any]:
    body = {"security_group_id": group, "direction": "ingress", **values}
    answer = api.request("post", "/security-group-rules", {"security_group_rule": body}, status=status)
    return dict(answer.json["security_group_rule"])


@pytest.fixture
def group(api: Api) -> str:
    return str(api.post("/security-groups", {"security_group": {"name": "web"}})["security_group"]["id"])


def test_every_project_has_a_default_group(api: Api) -> None:
    (default,) = api.get("/security-groups")["security_groups"]
    assert default["name"] == "default" and default["project_id"] == "p1" and default["stateful"] is True
    rules = {
        (each["direction"], each["ethertype"], each["remote_group_id"])
        for each in default["security_group_rules"]
    }
    assert rules == {
        ("egress", "IPv4", None),
        ("egress", "IPv6", None),
        ("ingress", "IPv4", default["id"]),
        ("ingress", "IPv6", default["id"]),
    }
    assert len(api.get("/security-groups")["security_groups"]) == 1
    assert len(api.get("/security-group-rules")["security_group_rules"]) == 4
    path = f"/security-groups/{default['id']}"
    renamed = {"security_group": {"name": "other"}}
    api.refused("put", path, renamed, 409, "SecurityGroupCannotUpdateDefault")
    api.refused("delete", path, None, 409, "SecurityGroupCannotRemoveDefault")
    second = {"security_group": {"name": "default"}}
    api.refused("post", "/security-groups", second, 409, "SecurityGroupDefaultAlreadyExists")


def test_a_new_group_lets_everything_out(api: Api, group: str) -> None:
    rules = api.get(f"/security-groups/{group}")["security_group"]["security_group_rules"]
    assert [(each["direction"], each["protocol"]) for each in rules] == [("egress", None)] * 2


def test_a_rule_and_its_shape(api: Api, group: str) -> None:
    made = rule(
        api, group, protocol="tcp", port_range_min=22, port_range_max="22", remote_ip_prefix="10.0.0.0/8"
    )
    assert made["port_range_max"] == 22 and made["ethertype"] == "IPv4"
    assert made["normalized_cidr"] == "10.0.0.0/8" and made["belongs_to_default_sg"] is False
    assert api.get(f"/security-group-rules/{made['id']}")["security_group_rule"] == made
    inside = api.get(f"/security-groups/{group}")["security_group"]["security_group_rules"]
    assert made in inside
    api.refused(
        "get", f"/security-group-rules/{made['id']}", None, 404, "SecurityGroupRuleNotFound", as_=OTHER
    )
    api.delete(f"/security-group-rules/{made['id']}", status=204)
    api.delete(f"/security-group-rules/{made['id']}", status=404)


def test_the_same_rule_twice(api: Api, group: str) -> None:
    first = rule(api, group, protocol="udp", port_range_min=53, port_range_max=53, description="one")
    body = {
        "security_group_id": group,
        "direction": "ingress",
        "protocol": "UDP",
        "port_range_min": 53,
        "port_range_max": 53,
        "description": "two",
    }
    message = api.refused(
        "post", "/security-group-rules", {"security_group_rule": body}, 409, "SecurityGroupRuleExists"
    )
    assert first["id"] in message


@pytest.mark.parametrize(
    "values",
    [
        {"protocol": "tcp", "port_range_min": 1, "port_range_max": 65535},
        {"protocol": "tcp"},
        {"protocol": None},
        {"protocol": "any"},
        {"protocol": 50},
        {"protocol": "17", "port_range_min": 5, "port_range_max": 6},
        {"protocol": "icmp", "port_range_min": 8, "port_range_max": 0},
        {"protocol": "icmp", "port_range_min": 8},
        {"protocol": "icmpv6", "ethertype": "IPv6", "port_range_min": 128},
        {"protocol": "sctp", "port_range_min": 7, "port_range_max": 7},
        {"protocol": "vrrp", "direction": "egress"},
        {"ethertype": "IPv6", "remote_ip_prefix": "2001:db8::/32"},
        {"remote_ip_prefix": "10.1.2.3"},
    ],
)
def test_rules_that_make_sense(api: Api, group: str, values: dict[str, Any]) -> None:
    made = rule(api, group, status=201, **values)
    shown = api.get(f"/security-group-rules/{made['id']}")["security_group_rule"]
    for name in ("port_range_min", "port_range_max", "direction"):
        assert shown[name] == values.get(name, shown[name])


@pytest.mark.parametrize(
    ("values", "type_"),
    [
        ({"protocol": "nonsense"}, "SecurityGroupRuleInvalidProtocol"),
        ({"protocol": 256}, "SecurityGroupRuleInvalidProtocol"),
        ({"port_range_min": 1, "port_range_max": 2}, "SecurityGroupProtocolRequiredWithPorts"),
        ({"protocol": "tcp", "port_range_min": 80, "port_range_max": 22}, "SecurityGroupInvalidPortRange"),
        ({"protocol": "tcp", "port_range_min": 80}, "SecurityGroupInvalidPortRange"),
        ({"protocol": "tcp", "port_range_min": -1, "port_range_max": 2}, "SecurityGroupInvalidPortValue"),
        ({"protocol": "tcp", "port_range_min": 1, "port_range_max": 65536}, "SecurityGroupInvalidPortValue"),
        ({"protocol": "tcp", "port_range_min": "a", "port_range_max": 2}, "SecurityGroupInvalidPortValue"),
        (
            {"protocol": "esp", "port_range_min": 1, "port_range_max": 2},
            "SecurityGroupInvalidProtocolForPort",
        ),
        ({"protocol": "icmp", "port_range_max": 2}, "SecurityGroupMissingIcmpType"),
        ({"protocol": "icmp", "port_range_min": 256}, "SecurityGroupInvalidIcmpValue"),
        ({"protocol": "icmpv6"}, "SecurityGroupEthertypeConflictWithProtocol"),
        ({"ethertype": "IPv5"}, "SecurityGroupRuleInvalidEtherType"),
        ({"remote_ip_prefix": "ten"}, "InvalidCIDR"),
        ({"remote_ip_prefix": "2001:db8::/32"}, "SecurityGroupRuleParameterConflict"),
        ({"direction": "sideways"}, "HTTPBadRequest"),
    ],
)
def test_rules_that_make_none(api: Api, group: str, values: dict[str, Any], type_: str) -> None:
    body = {"security_group_id": group, "direction": "ingress", **values}
    before = api.get(f"/security-groups/{group}")
    assert api.refused("post", "/security-group-rules", {"security_group_rule": body}, 400, type_)
    assert api.get(f"/security-groups/{group}") == before


def test_remotes(api: Api, group: str) -> None:
    remote = rule(api, group, remote_group_id=group)
    assert remote["remote_group_id"] == group
    both = {"remote_group_id": group, "remote_ip_prefix": "10.0.0.0/8"}
    body = {"security_group_id": group, "direction": "ingress", **both}
    api.request("post", "/security-group-rules", {"security_group_rule": body}, status=400)
    foreign = api.post("/security-groups", {"security_group": {"name": "x"}}, as_=OTHER)["security_group"][
        "id"
    ]
    for key in ("security_group_id", "remote_group_id"):
        body = {"security_group_id": group, "direction": "ingress", key: foreign}
        api.refused(
            "post", "/security-group-rules", {"security_group_rule": body}, 404, "SecurityGroupNotFound"
        )


def test_address_groups(api: Api, group: str) -> None:
    made = api.post("/address-groups", {"address_group": {"name": "a", "addresses": ["10.0.0.1/32"]}})
    path = f"/address-groups/{made['address_group']['id']}"
    added = api.put(f"{path}/add_addresses", {"addresses": ["10.1.0.0/24"]})["address_group"]["addresses"]
    assert added == ["10.0.0.1/32", "10.1.0.0/24"]
    api.refused("put", f"{path}/add_addresses", {"addresses": ["10.1.0.0/24"]}, 400, "AddressesAlreadyExist")
    api.refused("put", f"{path}/remove_addresses", {"addresses": ["10.9.0.0/24"]}, 404, "AddressesNotFound")
    api.request("put", f"{path}/add_addresses", {"addresses": ["10.1.0.9/24"]}, status=400)
    user = rule(api, group, remote_address_group_id=made["address_group"]["id"])
    api.refused("delete", path, None, 409, "AddressGroupInUse")
    api.delete(f"/security-group-rules/{user['id']}")
    api.delete(path, status=204)


def test_a_group_shared_with_one_project(api: Api, group: str) -> None:
    api.refused("get", f"/security-groups/{group}", None, 404, "SecurityGroupNotFound", as_=OTHER)
    policy = {
        "object_type": "security_group",
        "object_id": group,
        "action": "access_as_shared",
        "target_tenant": "p2",
    }
    made = api.post("/rbac-policies", {"rbac_policy": policy})["rbac_policy"]
    assert made["target_tenant"] == "p2" and made["project_id"] == "p1"
    api.refused("post", "/rbac-policies", {"rbac_policy": policy}, 409, "DuplicateRbacPolicy")
    everyone = {**policy, "target_tenant": "*"}
    api.refused("post", "/rbac-policies", {"rbac_policy": everyone}, 403, "PolicyNotAuthorized")
    # what one can't see one can't share
    api.refused(
        "post", "/rbac-policies", {"rbac_policy": policy}, 404, "SecurityGroupNotFound", as_="member@p3"
    )
    assert api.get(f"/security-groups/{group}", as_=OTHER)["security_group"]["shared"] is True
    network = api.network(as_=OTHER)["id"]
    port = api.port(network, as_=OTHER, security_groups=[group])
    path = f"/rbac-policies/{made['id']}"
    api.refused("delete", path, None, 409, "RbacPolicyInUse")
    api.delete(f"/ports/{port['id']}", as_=OTHER)
    api.delete(path, status=204)
    api.get(f"/security-groups/{group}", as_=OTHER, status=404)
    api.post("/rbac-policies", {"rbac_policy": everyone}, as_=ADMIN)
    assert api.get(f"/security-groups/{group}", as_="member@p3")["security_group"]["shared"] is True
