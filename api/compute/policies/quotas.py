"""Rules of quotas, quota classes and limits."""

from __future__ import annotations

from api.compute.policies.base import rule
from core.policy import ADMIN, ANYONE, PROJECT_READER_OR_ADMIN

_SET = "/os-quota-sets/{project_id}"
_CLASS = "/os-quota-class-sets/{class_name}"

RULES = [
    rule("os-quota-sets:show", PROJECT_READER_OR_ADMIN, "Show a project's quotas.", ("GET", _SET)),
    rule("os-quota-sets:detail", PROJECT_READER_OR_ADMIN, "With usage.", ("GET", _SET + "/detail")),
    rule("os-quota-sets:defaults", ANYONE, "Show the default quotas.", ("GET", _SET + "/defaults")),
    rule("os-quota-sets:update", ADMIN, "Set a project's quotas.", ("PUT", _SET)),
    rule("os-quota-sets:delete", ADMIN, "Put the default quotas back.", ("DELETE", _SET)),
    rule("os-quota-class-sets:show", ADMIN, "Show the quotas of a class.", ("GET", _CLASS)),
    rule("os-quota-class-sets:update", ADMIN, "Set the quotas of a class.", ("PUT", _CLASS)),
    rule("limits", ANYONE, "Show one's own limits.", ("GET", "/limits")),
    rule("limits:other_project", ADMIN, "Show another project's limits.", ("GET", "/limits")),
]
