"""Rules of what is read about the past and the whole: usage, migrations, events, extensions."""

from __future__ import annotations

from api.compute.policies.base import rule
from core.policy import (
    ADMIN,
    ANYONE,
    PROJECT_MANAGER_OR_ADMIN,
    PROJECT_READER_OR_ADMIN,
    SERVICE_OR_ADMIN,
)

_USAGE = "/os-simple-tenant-usage"
_AUDIT = "/os-instance_usage_audit_log"
_TOKEN = "/os-console-auth-tokens/{console_token}"

RULES = [
    rule("os-simple-tenant-usage:list", ADMIN, "Usage of all projects.", ("GET", _USAGE)),
    rule(
        "os-simple-tenant-usage:show",
        PROJECT_READER_OR_ADMIN,
        "Usage of a project.",
        ("GET", _USAGE + "/{project_id}"),
    ),
    rule(
        "os-migrations:index",
        PROJECT_MANAGER_OR_ADMIN,
        "List a project's migrations.",
        ("GET", "/os-migrations"),
    ),
    rule("os-migrations:index:all_projects", ADMIN, "List all migrations.", ("GET", "/os-migrations")),
    rule("os-instance-usage-audit-log:list", ADMIN, "Show the usage audit.", ("GET", _AUDIT)),
    rule("os-instance-usage-audit-log:show", ADMIN, "As of a time.", ("GET", _AUDIT + "/{before}")),
    rule(
        "os-server-external-events:create",
        SERVICE_OR_ADMIN,
        "Tell of events that concern servers.",
        ("POST", "/os-server-external-events"),
    ),
    rule(
        "os-assisted-volume-snapshots:create",
        SERVICE_OR_ADMIN,
        "Have a server's host take a snapshot for a volume's backend.",
        ("POST", "/os-assisted-volume-snapshots"),
    ),
    rule("os-console-auth-tokens", SERVICE_OR_ADMIN, "Where a console's token leads.", ("GET", _TOKEN)),
    rule("extensions", ANYONE, "List extensions.", ("GET", "/extensions"), ("GET", "/extensions/{alias}")),
]
