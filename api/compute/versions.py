"""Version documents, and the OpenAPI document of this API.

``/`` and ``/versions`` list both major versions, ``/v2.1`` and ``/v2`` describe one.
Below ``/v2``, which is what the API was called before microversions, the same calls are served.
"""

from __future__ import annotations

import functools
from typing import Any

from api.common import openapi
from api.common.microversions import VersionRange
from api.common.operations import NO_POLICY, Call, Controller, operation
from core.errors import NotFound

PREFIX = "v2.1"
LEGACY = "v2"
VERSIONS = VersionRange("compute", "2.1", "2.96", "X-OpenStack-Nova-API-Version")
_MEDIA = "application/vnd.openstack.compute+json;version="


def _entry(call: Call, identifier: str) -> dict[str, Any]:
    current = identifier == PREFIX
    root = call.request.application_url.rstrip("/")
    return {
        "id": identifier,
        "status": "CURRENT" if current else "SUPPORTED",
        "version": str(VERSIONS.maximum) if current else "",
        "min_version": str(VERSIONS.minimum) if current else "",
        "updated": "2013-07-23T11:33:21Z" if current else "2011-01-21T11:33:21Z",
        "links": [{"rel": "self", "href": f"{root}/{'v2.1' if current else 'v2'}/"}],
    }


class VersionsController(Controller):
    """What is here, for everyone."""

    @operation("GET", "//", policy=NO_POLICY, needs_auth=False)
    @operation("GET", "//versions", policy=NO_POLICY, needs_auth=False)
    def index(self, call: Call) -> dict[str, Any]:
        """List the versions of the API."""
        return {"versions": [_entry(call, "v2.0"), _entry(call, PREFIX)]}

    @operation("GET", "/", policy=NO_POLICY, needs_auth=False)
    def show(self, call: Call) -> dict[str, Any]:
        """Describe version 2.1 and its microversions; at /v2 the version before them."""
        legacy = call.request.path_info.strip("/").split("/")[0] == LEGACY
        entry = _entry(call, "v2.0" if legacy else PREFIX)
        entry["links"].append(
            {"rel": "describedby", "type": "text/html", "href": "https://docs.openstack.org/api-ref/compute/"}
        )
        entry["media-types"] = [{"base": "application/json", "type": f"{_MEDIA}{'2' if legacy else '2.1'}"}]
        return {"version": entry}

    @operation("GET", "/versions/{version_id}", policy=NO_POLICY)
    def show_by_id(self, call: Call) -> dict[str, Any]:
        """Describe one version."""
        if call.params["version_id"] != PREFIX:
            raise NotFound("The resource could not be found.")
        return self.show(call)

    @operation("GET", "//openapi.json", policy=NO_POLICY, needs_auth=False)
    @operation("GET", "/openapi.json", policy=NO_POLICY, needs_auth=False)
    def describe(self, call: Call) -> dict[str, Any]:
        """Describe every call of this API in OpenAPI 3.1."""
        return document()


@functools.cache
def document() -> dict[str, Any]:
    """The OpenAPI document: the same in every process, no database needed."""
    # imported here: the table of controllers names this module
    from api.compute.controllers import CONTROLLERS

    found = [each for controller in CONTROLLERS for each in controller(None).operations()]
    return openapi.document("haneul Compute API", str(VERSIONS.maximum), found, PREFIX)
