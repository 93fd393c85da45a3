"""Version documents, and the OpenAPI document of this API."""

from __future__ import annotations

import functools
from typing import Any

from api.common import openapi
from api.common.microversions import VersionRange
from api.common.operations import NO_POLICY, Call, Controller, operation

PREFIX = "v3"
VERSIONS = VersionRange("volume", "3.0", "3.71")


def _entry(call: Call) -> dict[str, Any]:
    root = call.request.application_url.rstrip("/")
    return {
        "id": "v3.0",
        "status": "CURRENT",
        "version": str(VERSIONS.maximum),
        "min_version": str(VERSIONS.minimum),
        "updated": "2023-08-31T00:00:00Z",
        "links": [
            {
                "rel": "describedby",
                "type": "text/html",
                "href": "https://docs.openstack.org/api-ref/block-storage/v3/",
            },
            {"rel": "self", "href": f"{root}/{PREFIX}/"},
        ],
        "media-types": [
            {"base": "application/json", "type": "application/vnd.openstack.volume+json;version=3"}
        ],
    }


class VersionsController(Controller):
    """What is here, for everyone."""

    @operation("GET", "//", policy=NO_POLICY, status=300, needs_auth=False)
    @operation("GET", "//versions", policy=NO_POLICY, status=300, needs_auth=False)
    @operation("GET", "/", policy=NO_POLICY, needs_auth=False)
    def index(self, call: Call) -> dict[str, Any]:
        """List the versions of the API."""
        return {"versions": [_entry(call)]}

    @operation("GET", "//openapi.json", policy=NO_POLICY, needs_auth=False)
    @operation("GET", "/openapi.json", policy=NO_POLICY, needs_auth=False)
    def describe(self, call: Call) -> dict[str, Any]:
        """Describe every call of this API in OpenAPI 3.1."""
        return document()


@functools.cache
def document() -> dict[str, Any]:
    """The OpenAPI document: the same in every process, no database needed."""
    # imported here: the table of controllers names this module
    from api.volume.controllers import CONTROLLERS

    found = [each for controller in CONTROLLERS for each in controller(None).operations()]
    return openapi.document("haneul Volume API", str(VERSIONS.maximum), found, PREFIX)
