"""Rules of the old proxies for the Network API."""

from __future__ import annotations

from api.compute.policies.base import rule
from core.policy import PROJECT_MEMBER_OR_ADMIN, PROJECT_READER_OR_ADMIN

_READ, _CHANGE = PROJECT_READER_OR_ADMIN, PROJECT_MEMBER_OR_ADMIN

RULES = [
    rule("os-networks:list", _READ, "List networks.", ("GET", "/os-networks")),
    rule("os-networks:show", _READ, "Show a network.", ("GET", "/os-networks/{network_id}")),
    rule("os-tenant-networks:list", _READ, "List networks.", ("GET", "/os-tenant-networks")),
    rule("os-tenant-networks:show", _READ, "Show one.", ("GET", "/os-tenant-networks/{network_id}")),
    rule("os-security-groups:get", _READ, "List security groups.", ("GET", "/os-security-groups")),
    rule("os-security-groups:show", _READ, "Show one.", ("GET", "/os-security-groups/{group_id}")),
    rule("os-security-groups:create", _CHANGE, "Create one.", ("POST", "/os-security-groups")),
    rule("os-security-groups:update", _CHANGE, "Rename one.", ("PUT", "/os-security-groups/{group_id}")),
    rule("os-security-groups:delete", _CHANGE, "Delete one.", ("DELETE", "/os-security-groups/{group_id}")),
    rule("os-security-groups:rule:create", _CHANGE, "Add a rule.", ("POST", "/os-security-group-rules")),
    rule(
        "os-security-groups:rule:delete",
        _CHANGE,
        "Delete a rule.",
        ("DELETE", "/os-security-group-rules/{rule_id}"),
    ),
    rule("os-floating-ip-pools", _READ, "List pools.", ("GET", "/os-floating-ip-pools")),
    rule("os-floating-ips:list", _READ, "List floating IPs.", ("GET", "/os-floating-ips")),
    rule("os-floating-ips:show", _READ, "Show one.", ("GET", "/os-floating-ips/{floating_ip_id}")),
    rule("os-floating-ips:create", _CHANGE, "Take one.", ("POST", "/os-floating-ips")),
    rule("os-floating-ips:delete", _CHANGE, "Give it back.", ("DELETE", "/os-floating-ips/{floating_ip_id}")),
]
