"""Rules of flavors, their extra specs and their access lists."""

from __future__ import annotations

from api.compute.policies.base import rule
from core.policy import ADMIN, ANYONE, PROJECT_READER_OR_ADMIN

_SPECS = "/flavors/{flavor_id}/os-extra_specs"
_ACTION = "/flavors/{flavor_id}/action"

RULES = [
    rule("flavors", ANYONE, "List and show flavors.", ("GET", "/flavors"), ("GET", "/flavors/{flavor_id}")),
    rule("os-flavor-manage:create", ADMIN, "Create a flavor.", ("POST", "/flavors")),
    rule("os-flavor-manage:update", ADMIN, "Change a flavor's text.", ("PUT", "/flavors/{flavor_id}")),
    rule("os-flavor-manage:delete", ADMIN, "Delete a flavor.", ("DELETE", "/flavors/{flavor_id}")),
    rule(
        "os-flavor-access",
        ADMIN,
        "See who may use a private flavor.",
        ("GET", "/flavors/{flavor_id}/os-flavor-access"),
    ),
    rule("os-flavor-access:add_tenant_access", ADMIN, "Let a project use a flavor.", ("POST", _ACTION)),
    rule("os-flavor-access:remove_tenant_access", ADMIN, "Take that back.", ("POST", _ACTION)),
    rule("os-flavor-extra-specs:index", PROJECT_READER_OR_ADMIN, "List extra specs.", ("GET", _SPECS)),
    rule("os-flavor-extra-specs:show", PROJECT_READER_OR_ADMIN, "Show one.", ("GET", _SPECS + "/{key}")),
    rule("os-flavor-extra-specs:create", ADMIN, "Set extra specs.", ("POST", _SPECS)),
    rule("os-flavor-extra-specs:update", ADMIN, "Set one extra spec.", ("PUT", _SPECS + "/{key}")),
    rule("os-flavor-extra-specs:delete", ADMIN, "Remove an extra spec.", ("DELETE", _SPECS + "/{key}")),
]
