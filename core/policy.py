"""Policy: oslo.policy with upstream's names, defaults and personas.

Each API lists its rules (``api.*.policies``); ``Policy`` registers them.  Targets
are a resource's project_id and user_id; without one, the asker's own project.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from oslo_config import cfg
from oslo_policy import opts as policy_opts
from oslo_policy import policy as oslo_policy

from core.context import RequestContext
from core.errors import Forbidden

ADMIN = "rule:context_is_admin"
PROJECT_READER = "rule:project_reader_api"
PROJECT_MEMBER = "rule:project_member_api"
PROJECT_MANAGER = "rule:project_manager_api"
PROJECT_READER_OR_ADMIN = "rule:project_reader_or_admin"
PROJECT_MEMBER_OR_ADMIN = "rule:project_member_or_admin"
PROJECT_MANAGER_OR_ADMIN = "rule:project_manager_or_admin"
SERVICE_OR_ADMIN = "rule:service_or_admin"
ANYONE = "@"

BASE_RULES = [
    oslo_policy.RuleDefault("context_is_admin", "role:admin", "Who is an administrator."),
    oslo_policy.RuleDefault("admin_api", "is_admin:True or role:admin", "Administrators."),
    oslo_policy.RuleDefault("service_api", "role:service", "Services that call each other."),
    oslo_policy.RuleDefault("project_reader_api", "role:reader and project_id:%(project_id)s", "Readers."),
    oslo_policy.RuleDefault("project_member_api", "role:member and project_id:%(project_id)s", "Members."),
    oslo_policy.RuleDefault("project_manager_api", "role:manager and project_id:%(project_id)s", "Managers."),
    oslo_policy.RuleDefault("project_reader_or_admin", f"{PROJECT_READER} or {ADMIN}", "Readers and admins."),
    oslo_policy.RuleDefault("project_member_or_admin", f"{PROJECT_MEMBER} or {ADMIN}", "Members and admins."),
    oslo_policy.RuleDefault(
        "project_manager_or_admin", f"{PROJECT_MANAGER} or {ADMIN}", "Managers and admins."
    ),
    oslo_policy.RuleDefault("service_or_admin", f"rule:service_api or {ADMIN}", "Services and admins."),
]


class Policy:
    """One API's enforcer."""

    def __init__(self, conf: cfg.ConfigOpts, rules: Sequence[oslo_policy.RuleDefault]) -> None:
        policy_opts.set_defaults(conf)
        self._enforcer = oslo_policy.Enforcer(conf)
        self._enforcer.suppress_deprecation_warnings = True
        self._enforcer.register_defaults(BASE_RULES)
        self._enforcer.register_defaults(rules)
        self._enforcer.load_rules()

    def known(self) -> set[str]:
        """Names of all registered rules."""
        return set(self._enforcer.registered_rules)

    def allowed(self, context: RequestContext, rule: str, target: Mapping[str, Any] | None = None) -> bool:
        if target is None:
            target = {"project_id": context.project_id, "user_id": context.user_id}
        return bool(self._enforcer.authorize(rule, dict(target), context, do_raise=False))

    def authorize(self, context: RequestContext, rule: str, target: Mapping[str, Any] | None = None) -> None:
        """:raises Forbidden: with the rule's name, as upstream's message has it."""
        if not self.allowed(context, rule, target):
            raise Forbidden(f"Policy doesn't allow {rule} to be performed.")

    def is_admin(self, context: RequestContext) -> bool:
        return self.allowed(context, "context_is_admin", {})
