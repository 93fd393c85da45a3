"""Links in answers: absolute URLs as the client sees this API."""

from __future__ import annotations

from api.common.operations import Call


def base_url(call: Call, prefix: str) -> str:
    """``http://host:port/v2.1`` from the request, without a trailing slash."""
    return f"{call.request.application_url.rstrip('/')}/{prefix}"


def self_and_bookmark(call: Call, prefix: str, path: str) -> list[dict[str, str]]:
    """The two links of compute resources: the versioned one and the bookmark."""
    root = call.request.application_url.rstrip("/")
    return [
        {"rel": "self", "href": f"{root}/{prefix}/{path}"},
        {"rel": "bookmark", "href": f"{root}/{path}"},
    ]
