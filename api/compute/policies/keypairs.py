"""Rules of key pairs: everyone's own, and all of them for administrators."""

from __future__ import annotations

from api.compute.policies.base import rule
from core.policy import ADMIN

_OWN = f"({ADMIN}) or user_id:%(user_id)s"

RULES = [
    rule("os-keypairs:index", _OWN, "List key pairs.", ("GET", "/os-keypairs")),
    rule("os-keypairs:show", _OWN, "Show a key pair.", ("GET", "/os-keypairs/{name}")),
    rule("os-keypairs:create", _OWN, "Create or import a key pair.", ("POST", "/os-keypairs")),
    rule("os-keypairs:delete", _OWN, "Delete a key pair.", ("DELETE", "/os-keypairs/{name}")),
]
