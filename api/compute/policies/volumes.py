"""Rules of the old proxies for the Volume API."""

from __future__ import annotations

from api.compute.policies.base import rule
from core.policy import PROJECT_MEMBER_OR_ADMIN, PROJECT_READER_OR_ADMIN

_READ, _CHANGE = PROJECT_READER_OR_ADMIN, PROJECT_MEMBER_OR_ADMIN

RULES = [
    rule("os-volumes:list", _READ, "List volumes.", ("GET", "/os-volumes")),
    rule("os-volumes:detail", _READ, "List volumes.", ("GET", "/os-volumes/detail")),
    rule("os-volumes:show", _READ, "Show a volume.", ("GET", "/os-volumes/{volume_id}")),
    rule("os-volumes:create", _CHANGE, "Create a volume.", ("POST", "/os-volumes")),
    rule("os-volumes:delete", _CHANGE, "Delete a volume.", ("DELETE", "/os-volumes/{volume_id}")),
    rule("os-volumes:snapshots:list", _READ, "List snapshots.", ("GET", "/os-snapshots")),
    rule("os-volumes:snapshots:detail", _READ, "List snapshots.", ("GET", "/os-snapshots/detail")),
    rule("os-volumes:snapshots:show", _READ, "Show a snapshot.", ("GET", "/os-snapshots/{snapshot_id}")),
    rule("os-volumes:snapshots:create", _CHANGE, "Snapshot a volume.", ("POST", "/os-snapshots")),
    rule(
        "os-volumes:snapshots:delete",
        _CHANGE,
        "Delete a snapshot.",
        ("DELETE", "/os-snapshots/{snapshot_id}"),
    ),
]
