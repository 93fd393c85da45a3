"""Security groups of the Network API in the Compute API's old shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.common.operations import Call

_ANY_PORT: Mapping[str, tuple[int, int]] = {"tcp": (1, 65535), "udp": (1, 65535), "icmp": (-1, -1)}


def group(call: Call, found: Mapping[str, Any]) -> dict[str, Any]:
    """{"id", "name", "description", "tenant_id", "rules"}: only rules for what comes in were known."""
    rules = [each for each in found["security_group_rules"] if each["direction"] == "ingress"]
    return {
        "id": found["id"],
        "name": found["name"],
        "description": found["description"],
        "tenant_id": found["project_id"],
        "rules": [rule(each, found) for each in rules],
    }


def rule(found: Mapping[str, Any], of: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """One rule. ``of``: the group that lists it, to name a remote group that is the same."""
    protocol = found["protocol"]
    first, last = found["port_range_min"], found["port_range_max"]
    if first is None and protocol in _ANY_PORT:
        first, last = _ANY_PORT[protocol]
    ip_range: dict[str, Any] = {}
    remote: dict[str, Any] = {}
    if found["remote_group_id"]:
        name = of["name"] if of and of["id"] == found["remote_group_id"] else found["remote_group_id"]
        remote = {"name": name, "tenant_id": found["project_id"]}
    else:
        everywhere = "::/0" if found["ethertype"] == "IPv6" else "0.0.0.0/0"
        ip_range = {"cidr": found["remote_ip_prefix"] or everywhere}
    return {
        "id": found["id"],
        "parent_group_id": found["security_group_id"],
        "ip_protocol": protocol,
        "from_port": first,
        "to_port": first if last is None and first is not None else last,
        "ip_range": ip_range,
        "group": remote,
    }
