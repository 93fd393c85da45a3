"""Where the data of images is: listed for services, and registered where others keep it.

Only URLs of stores of the kind http can be registered, whose hosts the configuration allows: an
object of our own stores is some image's data, and naming it would be reading it.  The image role
fetches, inspects and hashes the data before the image becomes active.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.image.common import find, permit, refuse_nul
from api.image.services import ImageServices
from api.image.signing import signature_of
from api.image.views import location_url
from core.errors import BadRequest, Conflict
from db import image_imports
from db.sessions import retrying
from image.imports import ADD_LOCATION

ALGORITHMS = ("sha224", "sha256", "sha384", "sha512", "sha3_256", "sha3_384", "sha3_512")
_ADD = v.obj(
    {
        "url": {"type": "string", "minLength": 1, "maxLength": 255},
        "validation_data": v.obj({"os_hash_algo": {"type": "string"}, "os_hash_value": {"type": "string"}}),
    },
    ["url"],
)


class LocationsController(Controller):
    """/v2/images/{image_id}/locations."""

    services: ImageServices

    @operation("GET", "/images/{image_id}/locations", policy="fetch_image_location", late_policy=True)
    def locations(self, call: Call) -> list[dict[str, Any]]:
        """List where the data of an image is; for services."""
        with self.services.databases.global_.read() as connection:
            image = find(call, connection)
        permit(call, image)
        stores = self.services.data.stores
        return [
            {"url": url, "metadata": found["metadata"]}
            for found in image["locations"]
            if (url := location_url(found, stores)) is not None
        ]

    @operation(
        "POST",
        "/images/{image_id}/locations",
        policy="add_image_location",
        late_policy=True,
        status=202,
        body=_ADD,
    )
    def add(self, call: Call) -> None:
        """Make data that lies somewhere else the image's."""
        body = dict(call.body)
        refuse_nul(body)
        said = _validation(body.get("validation_data") or {})
        store = self.services.data.stores.of_url(body["url"])
        signature = signature_of(call)
        request = {"method": {"name": ADD_LOCATION, "uri": body["url"]}, "validation_data": said}

        @retrying
        def begin() -> None:
            with self.services.databases.global_.write() as connection:
                image = find(call, connection)
                permit(call, image)
                if image["status"] != "queued":
                    raise Conflict("Only images with status queued can be given a location.")
                for name in ("container_format", "disk_format"):
                    if not image[name]:
                        raise BadRequest(f"'{name}' needs to be set before a location.")
                image_imports.begin(
                    connection, image, call.context, request, [store.store_id], signature=signature
                )

        begin()


def _validation(said: dict[str, Any]) -> dict[str, str]:
    """:raises BadRequest: one without the other, or a value that no such hash has."""
    if not said:
        return {}
    algorithm, value = said.get("os_hash_algo"), said.get("os_hash_value")
    if algorithm not in ALGORITHMS:
        raise BadRequest(f"os_hash_algo must be one of {', '.join(ALGORITHMS)}.")
    if value is None or not re.fullmatch(rf"[0-9a-fA-F]{{{2 * hashlib.new(algorithm).digest_size}}}", value):
        raise BadRequest(f"os_hash_value is no {algorithm} in hexadecimal digits.")
    return {"os_hash_algo": algorithm, "os_hash_value": value.lower()}
