"""Rules of servers: create, list, show, change, delete."""

from __future__ import annotations

from oslo_policy import policy as oslo_policy

from api.compute.policies.base import rule
from core.policy import ADMIN, PROJECT_MEMBER_OR_ADMIN, PROJECT_READER_OR_ADMIN

_LIST = ("GET", "/servers")
_DETAIL = ("GET", "/servers/detail")
_SHOW = ("GET", "/servers/{server_id}")
_CREATE = ("POST", "/servers")

RULES = [
    rule("servers:index", PROJECT_READER_OR_ADMIN, "List servers.", _LIST),
    rule("servers:detail", PROJECT_READER_OR_ADMIN, "List servers with details.", _DETAIL),
    rule("servers:index:get_all_tenants", ADMIN, "List all projects' servers.", _LIST),
    rule("servers:detail:get_all_tenants", ADMIN, "The same with details.", _DETAIL),
    rule("servers:allow_all_filters", ADMIN, "Use every filter of the lists.", _LIST, _DETAIL),
    rule("servers:show", PROJECT_READER_OR_ADMIN, "Show a server.", _SHOW),
    rule("servers:show:flavor-extra-specs", PROJECT_READER_OR_ADMIN, "See a server's extra specs.", _SHOW),
    rule("servers:show:host_status", ADMIN, "See the state of a server's host.", _SHOW, _DETAIL),
    rule(
        "servers:show:host_status:unknown-only",
        ADMIN,
        "See of a server's host only that its state is unknown.",
        _SHOW,
        _DETAIL,
    ),
    rule("os-extended-server-attributes", ADMIN, "See a server's host and the like.", _SHOW, _DETAIL),
    rule("servers:create", PROJECT_MEMBER_OR_ADMIN, "Create servers.", _CREATE),
    rule("servers:create:forced_host", ADMIN, "Create a server on a host, past the scheduler.", _CREATE),
    oslo_policy.DocumentedRuleDefault(
        "compute:servers:create:requested_destination",
        ADMIN,
        "Create a server on a host, if the scheduler agrees.",
        [{"method": "POST", "path": "/servers"}],
        scope_types=["project"],
    ),
    rule("servers:create:attach_volume", PROJECT_MEMBER_OR_ADMIN, "Create with volumes.", _CREATE),
    oslo_policy.DocumentedRuleDefault(
        "network:attach_external_network",
        ADMIN,
        "Attach a server to an external network.",
        [
            {"method": "POST", "path": "/servers"},
            {"method": "POST", "path": "/servers/{server_id}/os-interface"},
        ],
        scope_types=["project"],
    ),
    rule("servers:create:attach_network", PROJECT_MEMBER_OR_ADMIN, "Create with networks.", _CREATE),
    rule(
        "servers:create:trusted_certs", PROJECT_MEMBER_OR_ADMIN, "Create with trusted certificates.", _CREATE
    ),
    rule(
        "servers:create:zero_disk_flavor", ADMIN, "Create from an image with a flavor without disk.", _CREATE
    ),
    rule("servers:update", PROJECT_MEMBER_OR_ADMIN, "Change a server.", ("PUT", "/servers/{server_id}")),
    rule("servers:delete", PROJECT_MEMBER_OR_ADMIN, "Delete a server.", ("DELETE", "/servers/{server_id}")),
]
