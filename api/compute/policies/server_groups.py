"""Rules of server groups."""

from __future__ import annotations

from api.compute.policies.base import rule
from core.policy import ADMIN, PROJECT_MEMBER_OR_ADMIN, PROJECT_READER_OR_ADMIN

_ONE = "/os-server-groups/{group_id}"
_ALL = "/os-server-groups"

RULES = [
    rule("os-server-groups:index", PROJECT_READER_OR_ADMIN, "List server groups.", ("GET", _ALL)),
    rule("os-server-groups:index:all_projects", ADMIN, "List those of all projects.", ("GET", _ALL)),
    rule("os-server-groups:show", PROJECT_READER_OR_ADMIN, "Show a server group.", ("GET", _ONE)),
    rule("os-server-groups:create", PROJECT_MEMBER_OR_ADMIN, "Create a server group.", ("POST", _ALL)),
    rule("os-server-groups:delete", PROJECT_MEMBER_OR_ADMIN, "Delete a server group.", ("DELETE", _ONE)),
]
