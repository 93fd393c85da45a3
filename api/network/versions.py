"""Version documents, and the OpenAPI document of this API."""

from __future__ import annotations

import functools
from typing import Any

from api.common import openapi
from api.common.links import base_url
from api.common.operations import NO_POLICY, Call, Controller, operation
from api.network.common import PREFIX


class VersionsController(Controller):
    """What is here, for everyone."""

    @operation("GET", "//", policy=NO_POLICY, needs_auth=False)
    def index(self, call: Call) -> dict[str, Any]:
        """List the versions of the API."""
        href = f"{base_url(call, PREFIX)}/"
        return {"versions": [{"id": PREFIX, "status": "CURRENT", "links": [{"rel": "self", "href": href}]}]}

    @operation("GET", "/", policy=NO_POLICY, needs_auth=False)
    def show(self, call: Call) -> dict[str, Any]:
        """List the collections of version 2.0."""
        base = base_url(call, PREFIX)
        return {
            "resources": [
                {
                    "name": name,
                    "collection": collection,
                    "links": [{"rel": "self", "href": f"{base}{path}"}],
                }
                for name, collection, path in _collections()
            ]
        }

    @operation("GET", "//openapi.json", policy=NO_POLICY, needs_auth=False)
    @operation("GET", "/openapi.json", policy=NO_POLICY, needs_auth=False)
    def describe(self, call: Call) -> dict[str, Any]:
        """Describe every call of this API in OpenAPI 3.1."""
        return document()


def _collections() -> list[tuple[str, str, str]]:
    # imported here: the table of controllers names this module
    from api.network.controllers import CONTROLLERS
    from api.network.resource import ResourceController

    return [
        (each.name, each.collection, each.path)
        for each in CONTROLLERS
        if issubclass(each, ResourceController) and "{" not in each.path
    ]


@functools.cache
def document() -> dict[str, Any]:
    """The OpenAPI document: the same in every process, no database needed."""
    from api.network.controllers import CONTROLLERS

    found = [each for controller in CONTROLLERS for each in controller(None).operations()]
    return openapi.document("haneul Network API", "2.0", found, PREFIX)
