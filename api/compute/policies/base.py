"""How the rules of this API are written down."""

from __future__ import annotations

from oslo_policy import policy as oslo_policy

PREFIX = "os_compute_api:"


def rule(name: str, check: str, description: str, *calls: tuple[str, str]) -> oslo_policy.RuleDefault:
    """A documented default. ``name`` without the common prefix; ``calls``: (method, path)."""
    return oslo_policy.DocumentedRuleDefault(
        PREFIX + name,
        check,
        description,
        [{"method": method, "path": path} for method, path in calls],
        scope_types=["project"],
    )


def plain(name: str, check: str, description: str, path: str, method: str = "GET") -> oslo_policy.RuleDefault:
    """A documented default whose name does not begin with the common prefix."""
    return oslo_policy.DocumentedRuleDefault(
        name, check, description, [{"method": method, "path": path}], scope_types=["project"]
    )
