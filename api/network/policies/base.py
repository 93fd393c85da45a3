"""How the rules of this API are written down, and the personas that they are made of."""

from __future__ import annotations

from collections.abc import Mapping

from oslo_policy import policy as oslo_policy

from core.policy import (
    ADMIN,
    ANYONE,
    PROJECT_MANAGER_OR_ADMIN,
    PROJECT_MEMBER_OR_ADMIN,
    PROJECT_READER_OR_ADMIN,
)

SERVICE = "rule:context_is_advsvc"
ADMIN_OR_SERVICE = f"{ADMIN} or {SERVICE}"
READER = f"{PROJECT_READER_OR_ADMIN} or {SERVICE}"
MEMBER = f"{PROJECT_MEMBER_OR_ADMIN} or {SERVICE}"
SHARED = "True:%(shared)s"
NETWORK_MEMBER = "role:member and project_id:%(network:project_id)s"
NETWORK_OWNER = f"{ADMIN} or {SERVICE} or ({NETWORK_MEMBER})"
NETWORK_SHARED = "role:member and True:%(network:shared)s"

__all__ = [
    "ADMIN",
    "ADMIN_OR_SERVICE",
    "ANYONE",
    "MEMBER",
    "NETWORK_MEMBER",
    "NETWORK_OWNER",
    "NETWORK_SHARED",
    "PROJECT_MANAGER_OR_ADMIN",
    "READER",
    "SERVICE",
    "SHARED",
    "rule",
    "rules_of",
]
_METHODS = {"get": "GET", "create": "POST", "update": "PUT", "delete": "DELETE"}


def rule(name: str, check: str, description: str, *calls: tuple[str, str]) -> oslo_policy.RuleDefault:
    """A documented default; ``calls``: (method, path)."""
    return oslo_policy.DocumentedRuleDefault(
        name,
        check,
        description,
        [{"method": method, "path": path} for method, path in calls],
        scope_types=["project"],
    )


def rules_of(
    name: str,
    path: str,
    *,
    get: str = READER,
    create: str | None = MEMBER,
    update: str | None = MEMBER,
    delete: str | None = MEMBER,
    fields: Mapping[str, Mapping[str, str]] | None = None,
) -> list[oslo_policy.RuleDefault]:
    """The usual rules of a resource. ``fields``: {"create": {"shared": check}, …}."""
    result = []
    words = name.replace("_", " ")
    for verb, check in (("get", get), ("create", create), ("update", update), ("delete", delete)):
        if check is None:
            continue
        call = (_METHODS[verb], path if verb == "create" else path + "/{id}")
        result.append(rule(f"{verb}_{name}", check, f"{verb.capitalize()} a {words}.", call))
    for verb, checks in (fields or {}).items():
        for field, check in checks.items():
            call = (_METHODS[verb], path if verb == "create" else path + "/{id}")
            result.append(rule(f"{verb}_{name}:{field}", check, f"{field} of a {words}.", call))
    return result
