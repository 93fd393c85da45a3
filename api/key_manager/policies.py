"""Policies of the key manager: upstream's rule names. A secret is its project's alone: administrators of others get none."""

from __future__ import annotations

from oslo_policy import policy as oslo_policy

from core.policy import BASE_RULES

_OWN = "(role:member or role:service) and project_id:%(project_id)s"


def _rule(name: str, description: str, method: str, path: str) -> oslo_policy.DocumentedRuleDefault:
    operations: list[oslo_policy.Operation] = [{"method": method, "path": path}]
    return oslo_policy.DocumentedRuleDefault(name, _OWN, description, operations, scope_types=["project"])


RULES: list[oslo_policy.RuleDefault] = [
    _rule("secrets:get", "List the project's secrets.", "GET", "/v1/secrets"),
    _rule("secrets:post", "Store a secret.", "POST", "/v1/secrets"),
    _rule("secret:get", "Show what is known of a secret.", "GET", "/v1/secrets/{secret_id}"),
    _rule("secret:decrypt", "Read a secret.", "GET", "/v1/secrets/{secret_id}/payload"),
    _rule("secret:delete", "Delete a secret.", "DELETE", "/v1/secrets/{secret_id}"),
]


def list_rules() -> list[oslo_policy.RuleDefault]:
    """Everything that a policy file of this API may set: for oslopolicy-sample-generator."""
    return [*BASE_RULES, *RULES]
