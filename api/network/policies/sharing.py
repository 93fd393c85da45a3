"""Rules of RBAC policies, QoS policies, tags, quotas and auto-allocated topologies."""

from __future__ import annotations

from api.network.policies.base import ADMIN, ADMIN_OR_SERVICE, MEMBER, READER, SHARED, rule, rules_of

_NOT_EVERYONE = f"{ADMIN} or not '*':%(target_tenant)s"

RULES = [
    *rules_of(
        "rbac_policy",
        "/rbac-policies",
        fields={"create": {"target_tenant": _NOT_EVERYONE}, "update": {"target_tenant": _NOT_EVERYONE}},
    ),
    *rules_of(
        "policy",
        "/qos/policies",
        get=f"{READER} or {SHARED}",
        create=ADMIN,
        update=ADMIN,
        delete=ADMIN,
    ),
    *[
        found
        for kind in (
            "bandwidth_limit",
            "dscp_marking",
            "minimum_bandwidth",
            "packet_rate_limit",
            "minimum_packet_rate",
        )
        for found in rules_of(
            f"policy_{kind}_rule",
            f"/qos/policies/{{policy_id}}/{kind}_rules",
            get=READER,
            create=ADMIN,
            update=ADMIN,
            delete=ADMIN,
        )
    ],
    rule(
        "get_rule_type", "role:reader or rule:context_is_admin", "Kinds of rule.", ("GET", "/qos/rule-types")
    ),
    rule("get_tags", READER, "List tags.", ("GET", "/{collection}/{id}/tags")),
    rule("create_tags", MEMBER, "Add tags.", ("POST", "/{collection}/{id}/tags")),
    rule("update_tags", MEMBER, "Replace or add tags.", ("PUT", "/{collection}/{id}/tags")),
    rule("delete_tags", MEMBER, "Remove tags.", ("DELETE", "/{collection}/{id}/tags")),
    rule("get_quota", READER, "See a project's quotas.", ("GET", "/quotas/{project_id}")),
    rule("update_quota", ADMIN_OR_SERVICE, "Set a project's quotas.", ("PUT", "/quotas/{project_id}")),
    rule("delete_quota", ADMIN_OR_SERVICE, "Back to the defaults.", ("DELETE", "/quotas/{project_id}")),
    rule(
        "get_auto_allocated_topology",
        READER,
        "Get a project's network, made when first asked for.",
        ("GET", "/auto-allocated-topology/{project_id}"),
    ),
    rule(
        "delete_auto_allocated_topology",
        MEMBER,
        "Delete it.",
        ("DELETE", "/auto-allocated-topology/{project_id}"),
    ),
]
