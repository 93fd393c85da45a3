"""Rules of what is done to a server, and of what belongs to it."""

from __future__ import annotations

from api.compute.policies.base import plain, rule
from core.policy import ADMIN, PROJECT_MEMBER_OR_ADMIN, PROJECT_READER_OR_ADMIN

_SERVER = "/servers/{server_id}"
_ACTION = ("POST", _SERVER + "/action")


def _call(method: str, path: str) -> tuple[str, str]:
    return method, _SERVER + path


_ACTIONS = [
    rule("servers:start", PROJECT_MEMBER_OR_ADMIN, "Start a server.", _ACTION),
    rule("servers:stop", PROJECT_MEMBER_OR_ADMIN, "Stop a server.", _ACTION),
    rule("servers:reboot", PROJECT_MEMBER_OR_ADMIN, "Reboot a server.", _ACTION),
    rule("servers:create_image", PROJECT_MEMBER_OR_ADMIN, "Make an image of a server.", _ACTION),
    rule("os-lock-server:lock", PROJECT_MEMBER_OR_ADMIN, "Lock a server.", _ACTION),
    rule("os-lock-server:unlock", PROJECT_MEMBER_OR_ADMIN, "Unlock a server.", _ACTION),
    rule("os-lock-server:unlock:unlock_override", ADMIN, "Unlock what an administrator locked.", _ACTION),
    rule("os-admin-actions:reset_state", ADMIN, "Declare a server active or in error.", _ACTION),
    rule("os-security-groups:add", PROJECT_MEMBER_OR_ADMIN, "Add a security group to a server.", _ACTION),
    rule("os-security-groups:remove", PROJECT_MEMBER_OR_ADMIN, "Take one from a server.", _ACTION),
    rule("os-multinic:add", PROJECT_MEMBER_OR_ADMIN, "Give a server one address more.", _ACTION),
    rule("os-multinic:remove", PROJECT_MEMBER_OR_ADMIN, "Take an address from a server.", _ACTION),
    rule("os-floating-ips:add", PROJECT_MEMBER_OR_ADMIN, "Lead a floating IP to a server.", _ACTION),
    rule("os-floating-ips:remove", PROJECT_MEMBER_OR_ADMIN, "Lead it nowhere.", _ACTION),
    rule("os-console-output", PROJECT_MEMBER_OR_ADMIN, "Read a server's console log.", _ACTION),
]
_METADATA = [
    rule("server-metadata:index", PROJECT_READER_OR_ADMIN, "List metadata.", _call("GET", "/metadata")),
    rule("server-metadata:show", PROJECT_READER_OR_ADMIN, "Show an item.", _call("GET", "/metadata/{key}")),
    rule("server-metadata:create", PROJECT_MEMBER_OR_ADMIN, "Add items.", _call("POST", "/metadata")),
    rule("server-metadata:update_all", PROJECT_MEMBER_OR_ADMIN, "Replace all.", _call("PUT", "/metadata")),
    rule("server-metadata:update", PROJECT_MEMBER_OR_ADMIN, "Set one.", _call("PUT", "/metadata/{key}")),
    rule(
        "server-metadata:delete", PROJECT_MEMBER_OR_ADMIN, "Delete one.", _call("DELETE", "/metadata/{key}")
    ),
]
_TAGS = [
    rule("os-server-tags:index", PROJECT_READER_OR_ADMIN, "List tags.", _call("GET", "/tags")),
    rule("os-server-tags:show", PROJECT_READER_OR_ADMIN, "Look for a tag.", _call("GET", "/tags/{tag}")),
    rule("os-server-tags:update_all", PROJECT_MEMBER_OR_ADMIN, "Replace all tags.", _call("PUT", "/tags")),
    rule("os-server-tags:delete_all", PROJECT_MEMBER_OR_ADMIN, "Remove all tags.", _call("DELETE", "/tags")),
    rule("os-server-tags:update", PROJECT_MEMBER_OR_ADMIN, "Add a tag.", _call("PUT", "/tags/{tag}")),
    rule("os-server-tags:delete", PROJECT_MEMBER_OR_ADMIN, "Remove a tag.", _call("DELETE", "/tags/{tag}")),
]
_RECORD = "/os-instance-actions"
_PARTS = [
    rule("os-instance-actions:list", PROJECT_READER_OR_ADMIN, "List actions.", _call("GET", _RECORD)),
    rule(
        "os-instance-actions:show",
        PROJECT_READER_OR_ADMIN,
        "Show an action.",
        _call("GET", _RECORD + "/{request_id}"),
    ),
    rule(
        "os-instance-actions:events",
        ADMIN,
        "See an action's events with hosts and errors.",
        _call("GET", _RECORD + "/{request_id}"),
    ),
    rule(
        "os-instance-actions:events:details",
        ADMIN,
        "See what a failed event said.",
        _call("GET", _RECORD + "/{request_id}"),
    ),
    rule("ips:index", PROJECT_READER_OR_ADMIN, "List addresses.", _call("GET", "/ips")),
    rule("ips:show", PROJECT_READER_OR_ADMIN, "List a network's addresses.", _call("GET", "/ips/{label}")),
    rule(
        "os-security-groups:list",
        PROJECT_READER_OR_ADMIN,
        "List a server's security groups.",
        _call("GET", "/os-security-groups"),
    ),
    rule("os-attach-interfaces:list", PROJECT_READER_OR_ADMIN, "List ports.", _call("GET", "/os-interface")),
    rule(
        "os-attach-interfaces:create",
        PROJECT_MEMBER_OR_ADMIN,
        "Attach a port.",
        _call("POST", "/os-interface"),
    ),
    rule(
        "os-attach-interfaces:delete",
        PROJECT_MEMBER_OR_ADMIN,
        "Detach a port.",
        _call("DELETE", "/os-interface/{port_id}"),
    ),
    rule(
        "os-attach-interfaces:show",
        PROJECT_READER_OR_ADMIN,
        "Show a port.",
        _call("GET", "/os-interface/{port_id}"),
    ),
    rule(
        "os-volumes-attachments:index",
        PROJECT_READER_OR_ADMIN,
        "List volumes.",
        _call("GET", "/os-volume_attachments"),
    ),
    rule(
        "os-volumes-attachments:show",
        PROJECT_READER_OR_ADMIN,
        "Show a volume.",
        _call("GET", "/os-volume_attachments/{volume_id}"),
    ),
    rule(
        "os-volumes-attachments:create",
        PROJECT_MEMBER_OR_ADMIN,
        "Attach a volume.",
        _call("POST", "/os-volume_attachments"),
    ),
    rule(
        "os-volumes-attachments:update",
        PROJECT_MEMBER_OR_ADMIN,
        "Change whether a volume goes with its server.",
        _call("PUT", "/os-volume_attachments/{volume_id}"),
    ),
    rule(
        "os-volumes-attachments:swap",
        ADMIN,
        "Put another volume in one's place.",
        _call("PUT", "/os-volume_attachments/{volume_id}"),
    ),
    rule(
        "os-volumes-attachments:delete",
        PROJECT_MEMBER_OR_ADMIN,
        "Detach a volume.",
        _call("DELETE", "/os-volume_attachments/{volume_id}"),
    ),
    rule(
        "os-server-password:show",
        PROJECT_READER_OR_ADMIN,
        "Show the guest's password, encrypted.",
        _call("GET", "/os-server-password"),
    ),
    rule(
        "os-server-password:clear",
        PROJECT_MEMBER_OR_ADMIN,
        "Forget it.",
        _call("DELETE", "/os-server-password"),
    ),
    rule("os-server-diagnostics", ADMIN, "See a server's counters.", _call("GET", "/diagnostics")),
    rule("os-remote-consoles", PROJECT_MEMBER_OR_ADMIN, "Open a console.", _call("POST", "/remote-consoles")),
    rule("servers:migrations:index", ADMIN, "List a server's migrations.", _call("GET", "/migrations")),
    rule("servers:migrations:show", ADMIN, "Show one.", _call("GET", "/migrations/{migration_id}")),
    rule("servers:migrations:delete", ADMIN, "Abort one.", _call("DELETE", "/migrations/{migration_id}")),
    plain("compute:server:topology:index", PROJECT_READER_OR_ADMIN, "See NUMA cells.", _SERVER + "/topology"),
    plain(
        "haneul:servers:placement",
        PROJECT_READER_OR_ADMIN,
        "See why a server is where it is, or nowhere.",
        "/haneul" + _SERVER + "/placement",
    ),
    plain(
        "haneul:servers:placement:hosts",
        ADMIN,
        "See the same with the names of hosts.",
        "/haneul" + _SERVER + "/placement",
    ),
]
RULES = [*_ACTIONS, *_METADATA, *_TAGS, *_PARTS]
