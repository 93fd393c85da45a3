"""The version document, and the OpenAPI document of this API."""

from __future__ import annotations

import functools
from typing import Any

from api.common import openapi
from api.common.operations import NO_POLICY, Call, Controller, operation

PREFIX = "v1"


class VersionsController(Controller):
    """What is here, for everyone."""

    @operation("GET", "//", policy=NO_POLICY, status=300, needs_auth=False)
    @operation("GET", "/", policy=NO_POLICY, needs_auth=False)
    def index(self, call: Call) -> dict[str, Any]:
        """List the versions of the API."""
        root = call.request.application_url.rstrip("/")
        entry = {
            "id": "v1",
            # upstream's word for the API without microversions: its client asks for newer ones otherwise
            "status": "stable",
            "updated": "2015-04-28T00:00:00Z",
            "links": [{"rel": "self", "href": f"{root}/{PREFIX}/"}],
            "media-types": [
                {
                    "base": "application/json",
                    "type": "application/vnd.openstack.key-manager-v1+json",
                }
            ],
        }
        return {"versions": [entry]}

    @operation("GET", "//openapi.json", policy=NO_POLICY, needs_auth=False)
    @operation("GET", "/openapi.json", policy=NO_POLICY, needs_auth=False)
    def describe(self, call: Call) -> dict[str, Any]:
        """Describe every call of this API in OpenAPI 3.1."""
        return document()


@functools.cache
def document() -> dict[str, Any]:
    """The OpenAPI document: the same in every process, no database needed."""
    # imported here: the table of controllers is made with this module
    from api.key_manager.app import CONTROLLERS

    found = [each for controller in CONTROLLERS for each in controller(None).operations()]
    return openapi.document("haneul key manager", "1.0", found, PREFIX)
