"""Policies of the Volume API: upstream's rule names and defaults."""

from __future__ import annotations

from oslo_policy import policy as oslo_policy

from api.volume.policies import admin, records, volumes
from core.policy import BASE_RULES

MODULES = (volumes, records, admin)


def all_rules() -> list[oslo_policy.RuleDefault]:
    """What ``core.policy.Policy`` registers for this API."""
    return [found for module in MODULES for found in module.RULES]


def list_rules() -> list[oslo_policy.RuleDefault]:
    """Everything that a policy file of this API may set: for oslopolicy-sample-generator."""
    return [*BASE_RULES, *all_rules()]
