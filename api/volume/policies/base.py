"""How the rules of this API are written down: a line per rule, ``name | what | METHOD /path``."""

from __future__ import annotations

from oslo_policy import policy as oslo_policy

from core.policy import ADMIN, ANYONE, PROJECT_MEMBER_OR_ADMIN, PROJECT_READER_OR_ADMIN, SERVICE_OR_ADMIN

SERVICE_OR_MEMBER = f"{PROJECT_MEMBER_OR_ADMIN} or rule:service_api"
__all__ = [
    "ADMIN",
    "ANYONE",
    "PROJECT_MEMBER_OR_ADMIN",
    "PROJECT_READER_OR_ADMIN",
    "SERVICE_OR_ADMIN",
    "SERVICE_OR_MEMBER",
    "rules",
]


def rules(check: str, text: str) -> list[oslo_policy.RuleDefault]:
    """The documented defaults that ``text`` describes, all with the same ``check``."""
    found: list[oslo_policy.RuleDefault] = []
    for line in text.strip().splitlines():
        name, description, calls = (part.strip() for part in line.split("|"))
        operations: list[oslo_policy.Operation] = []
        for call in calls.split(","):
            method, path = call.split()
            operations.append({"method": method, "path": path})
        found.append(
            oslo_policy.DocumentedRuleDefault(name, check, description, operations, scope_types=["project"])
        )
    return found
