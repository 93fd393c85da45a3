"""Rules that new security groups begin with."""

from __future__ import annotations

from typing import Any

from tests.api.network.conftest import ADMIN, OTHER, Api

PATH = "/default-security-group-rules"


def _listed(api: Api) -> list[dict[str, Any]]:
    return list(api.get(PATH)["default_security_group_rules"])


def _group(api: Api, name: str, **options: Any) -> set[tuple[Any, ...]]:
    group = api.post("/security-groups", {"security_group": {"name": name}}, **options)["security_group"]
    return {
        (rule["direction"], rule["ethertype"], rule["protocol"], rule["remote_group_id"] == group["id"])
        for rule in group["security_group_rules"]
    }


def test_upstreams_four_are_there_and_may_be_removed(api: Api) -> None:
    rules = _listed(api)
    assert sorted((each["direction"], each["ethertype"], each["remote_group_id"]) for each in rules) == [
        ("egress", "IPv4", None),
        ("egress", "IPv6", None),
        ("ingress", "IPv4", "PARENT"),
        ("ingress", "IPv6", "PARENT"),
    ]
    assert all(each["used_in_default_sg"] for each in rules)
    assert [each["used_in_non_default_sg"] for each in sorted(rules, key=lambda each: each["direction"])] == [
        True, True, False, False,
    ]  # fmt: skip
    (out,) = [each for each in rules if (each["direction"], each["ethertype"]) == ("egress", "IPv6")]
    assert api.get(f"{PATH}/{out['id']}")["default_security_group_rule"] == out
    api.request("delete", f"{PATH}/{out['id']}", status=403)
    api.delete(f"{PATH}/{out['id']}", as_=ADMIN)
    assert len(_listed(api)) == 3
    assert _group(api, "web") == {("egress", "IPv4", None, False)}
    api.refused("delete", f"{PATH}/{out['id']}", None, 404, "DefaultSecurityGroupRuleNotFound", as_=ADMIN)


def test_an_operators_rule_is_in_groups_made_after_it(api: Api) -> None:
    assert len(_group(api, "before")) == 2
    ssh = {"direction": "ingress", "protocol": "tcp", "port_range_min": 22, "port_range_max": 22}
    body = {"default_security_group_rule": {**ssh, "remote_group_id": "PARENT"}}
    api.request("post", PATH, body, status=403)
    made = api.post(PATH, body, as_=ADMIN)["default_security_group_rule"]
    assert made["used_in_default_sg"] is False and made["used_in_non_default_sg"] is True
    api.refused("post", PATH, body, 409, "DefaultSecurityGroupRuleExists", as_=ADMIN)
    assert ("ingress", "IPv4", "tcp", True) in _group(api, "after")
    # a project's default group is another matter
    (default,) = api.get("/security-groups", as_=OTHER)["security_groups"]
    assert len(default["security_group_rules"]) == 4
    api.delete(f"{PATH}/{made['id']}", as_=ADMIN)
    assert len(_group(api, "last")) == 2


def test_what_is_no_rule(api: Api) -> None:
    wrong = {"direction": "ingress", "port_range_min": 22, "port_range_max": 22}
    body = {"default_security_group_rule": wrong}
    api.refused("post", PATH, body, 400, "SecurityGroupProtocolRequiredWithPorts", as_=ADMIN)
    nobody = "00000000-0000-0000-0000-000000000001"
    body = {"default_security_group_rule": {"direction": "ingress", "remote_group_id": nobody}}
    api.refused("post", PATH, body, 404, "SecurityGroupNotFound", as_=ADMIN)
