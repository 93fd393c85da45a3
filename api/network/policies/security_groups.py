"""Rules of security groups, their rules, and address groups."""

from __future__ import annotations

from api.network.policies.base import ADMIN, ANYONE, MEMBER, READER, SHARED, rule, rules_of

_OWN_GROUP = "role:member and project_id:%(security_group:project_id)s"

RULES = [
    *rules_of("security_group", "/security-groups", get=f"{READER} or {SHARED}"),
    *rules_of(
        "security_group_rule",
        "/security-group-rules",
        get=f"{READER} or role:reader",
        create=f"{MEMBER} or {_OWN_GROUP}",
        update=None,
        delete=f"{MEMBER} or {_OWN_GROUP}",
    ),
    *rules_of(
        "default_security_group_rule",
        "/default-security-group-rules",
        get=ANYONE,
        create=ADMIN,
        update=None,
        delete=ADMIN,
    ),
    *rules_of("address_group", "/address-groups", get=f"{READER} or {SHARED}"),
    rule("add_addresses", MEMBER, "Add addresses.", ("PUT", "/address-groups/{id}/add_addresses")),
    rule("remove_addresses", MEMBER, "Remove addresses.", ("PUT", "/address-groups/{id}/remove_addresses")),
]
