"""Version documents, and the OpenAPI document of this API.

The image API has no microversions: minor versions are labels of what is offered.
2.18 (``/v2/cache`` of all nodes) is not among them.
"""

from __future__ import annotations

import functools
from typing import Any

import orjson
import webob

from api.common import openapi
from api.common.operations import NO_POLICY, Call, Controller, operation

PREFIX = "v2"
CURRENT = "v2.17"
SUPPORTED = (
    "v2.16",
    "v2.15",
    "v2.14",
    "v2.13",
    "v2.12",
    "v2.11",
    "v2.10",
    "v2.9",
    "v2.8",
    "v2.7",
    "v2.6",
    "v2.5",
    "v2.4",
    "v2.3",
    "v2.2",
    "v2.1",
    "v2.0",
)
ALIASES = (CURRENT, *SUPPORTED)
"""First segments under which the API is served, too, as upstream does."""


class VersionsController(Controller):
    """What is here, for everyone."""

    @operation("GET", "//", policy=NO_POLICY, needs_auth=False, status=300)
    @operation("GET", "/", policy=NO_POLICY, needs_auth=False, status=300)
    @operation("GET", "//versions", policy=NO_POLICY, needs_auth=False)
    def index(self, call: Call) -> webob.Response:
        """List the versions of the API."""
        href = f"{call.request.application_url.rstrip('/')}/{PREFIX}/"
        versions = [
            {
                "id": identifier,
                "status": "CURRENT" if identifier == CURRENT else "SUPPORTED",
                "links": [{"rel": "self", "href": href}],
            }
            for identifier in ALIASES
        ]
        response = webob.Response(status=call.operation.status)
        response.headers["Content-Type"] = "application/json"
        response.body = orjson.dumps({"versions": versions})
        return response

    @operation("GET", "//openapi.json", policy=NO_POLICY, needs_auth=False)
    @operation("GET", "/openapi.json", policy=NO_POLICY, needs_auth=False)
    def describe(self, call: Call) -> dict[str, Any]:
        """Describe every call of this API in OpenAPI 3.1."""
        return document()


@functools.cache
def document() -> dict[str, Any]:
    """The OpenAPI document: the same in every process, no database needed."""
    # imported here: the table of controllers names this module
    from api.image.controllers import CONTROLLERS

    found = [each for controller in CONTROLLERS for each in controller(None).operations()]
    return openapi.document("haneul Image API", CURRENT.removeprefix("v"), found, PREFIX)
