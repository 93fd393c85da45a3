"""A stand-in for keystonemiddleware in API tests: the token names the user.

``member@p1`` is a member of project p1, ``admin@p1,system`` adds roles; the
headers are those that the real middleware sets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

IMPLIED = {
    "admin": ["admin", "manager", "member", "reader"],
    "manager": ["manager", "member", "reader"],
    "member": ["member", "reader"],
    "reader": ["reader"],
    "service": ["service"],
    "cloud": ["admin", "manager", "member", "reader", "service"],
}
IDENTITY_HEADERS = tuple(
    f"HTTP_X_{name}"
    for name in (
        "IDENTITY_",
        "PROJECT_",
        "USER_",
        "DOMAIN_",
        "SERVICE_",
        "TENANT",
        "ROLE",
        "IS_ADMIN",
        "SYSTEM_",
    )
)
"""What the middleware sets, and takes away when a client sends it."""


def authenticate(application: Callable[..., Any]) -> Callable[..., Any]:
    def middleware(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        for key in list(environ):
            if key.startswith(IDENTITY_HEADERS):
                del environ[key]
        token = environ.get("HTTP_X_AUTH_TOKEN", "")
        role, _, project = token.partition("@")
        if role in IMPLIED and project:
            environ.update(
                HTTP_X_IDENTITY_STATUS="Confirmed",
                HTTP_X_PROJECT_ID=project,
                HTTP_X_USER_ID=f"{role}-of-{project}",
                HTTP_X_ROLES=",".join(IMPLIED[role]),
                HTTP_X_PROJECT_DOMAIN_ID="default",
                HTTP_X_USER_DOMAIN_ID="default",
            )
        elif token:
            environ["HTTP_X_IDENTITY_STATUS"] = "Invalid"
        return application(environ, start_response)

    return middleware
