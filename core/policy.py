"""Policy: oslo.policy with upstream's names, defaults and personas.

Each API lists its rules (``api.*.policies``); ``Policy`` registers them.  Targets
are a resource's project_id and user_id; without one, the asker's own project.
"""

from __future__ import annotations

import time
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


_REMEMBER_S = 5.0
_REMEMBER_MOST = 10_000
_ASKER = (
    ["user_id", "project_id", "domain_id", "system_scope", "user_domain_id", "project_domain_id"]
    + ["is_admin", "is_admin_project", "service_user_id", "service_project_id"]
    + ["service_user_domain_id", "service_project_domain_id"]
)


class Policy:
    """One API's enforcer.

    oslo.policy looks for changed files and inspects signatures at every question:
    milliseconds per request.  A verdict depends on nothing but the rule, the asker's
    attributes and the target, so it is remembered for a few seconds; a changed
    policy file is in force after as long.
    """

    def __init__(self, conf: cfg.ConfigOpts, rules: Sequence[oslo_policy.RuleDefault]) -> None:
        policy_opts.set_defaults(conf)
        self._enforcer = oslo_policy.Enforcer(conf)
        self._enforcer.suppress_deprecation_warnings = True
        self._enforcer.register_defaults(BASE_RULES)
        self._enforcer.register_defaults(rules)
        self._enforcer.load_rules()
        self._verdicts: dict[tuple[Any, ...], bool] = {}
        self._forget_at = 0.0

    def known(self) -> set[str]:
        """Names of all registered rules."""
        return set(self._enforcer.registered_rules)

    def allowed(self, context: RequestContext, rule: str, target: Mapping[str, Any] | None = None) -> bool:
        if target is None:
            target = {"project_id": context.project_id, "user_id": context.user_id}
        verdicts = self._verdicts
        if time.monotonic() > self._forget_at or len(verdicts) > _REMEMBER_MOST:
            # a new dictionary: other threads may write to the old one meanwhile
            verdicts = self._verdicts = {}
            self._forget_at = time.monotonic() + _REMEMBER_S
        key = (
            rule,
            tuple(target.items()),
            tuple(context.roles or ()),
            tuple(context.service_roles or ()),
            *(getattr(context, name, None) for name in _ASKER),
        )
        try:
            found = verdicts.get(key)
        except TypeError:
            # a target with lists in it can't be a key
            return self._ask(context, rule, target)
        if found is None:
            found = verdicts[key] = self._ask(context, rule, target)
        return found

    def _ask(self, context: RequestContext, rule: str, target: Mapping[str, Any]) -> bool:
        return bool(self._enforcer.authorize(rule, dict(target), context, do_raise=False))

    def authorize(self, context: RequestContext, rule: str, target: Mapping[str, Any] | None = None) -> None:
        """:raises Forbidden: with the rule's name, as upstream's message has it."""
        if not self.allowed(context, rule, target):
            raise Forbidden(f"Policy doesn't allow {rule} to be performed.")

    def is_admin(self, context: RequestContext) -> bool:
        return self.allowed(context, "context_is_admin", {})
