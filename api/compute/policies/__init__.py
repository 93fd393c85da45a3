"""Policies of the Compute API: upstream's rule names and defaults, one module per noun."""

from __future__ import annotations

from oslo_policy import policy as oslo_policy

from api.compute.policies import (
    flavors,
    hosts,
    keypairs,
    networks,
    quotas,
    records,
    server_groups,
    server_parts,
    servers,
    volumes,
)
from core.policy import BASE_RULES

MODULES = (flavors, keypairs, quotas, hosts, server_groups, records, servers, server_parts, networks, volumes)


def all_rules() -> list[oslo_policy.RuleDefault]:
    """What ``core.policy.Policy`` registers for this API."""
    return [found for module in MODULES for found in module.RULES]


def list_rules() -> list[oslo_policy.RuleDefault]:
    """Everything that a policy file of this API may set: for oslopolicy-sample-generator."""
    return [*BASE_RULES, *all_rules()]
