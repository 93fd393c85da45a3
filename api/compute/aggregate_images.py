"""Images that an aggregate's hosts fetch before a server needs them, and how far they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.compute import common
from api.compute.server_request import guest_image
from core.errors import BadRequest
from db import aggregates as db_aggregates
from db import image_caching

_IMAGE = v.obj({"id": v.UUID}, ["id"])
CACHE = v.obj({"cache": {"type": "array", "items": _IMAGE, "minItems": 1}}, ["cache"])


class AggregateImagesController(Controller):
    """Order, and look at what became of it (the latter is haneul's own)."""

    def _hosts(self, call: Call) -> list[str]:
        aggregate_id = common.number_of(call.params["aggregate_id"], "aggregate_id")
        with self.services.databases.global_.read() as connection:
            hosts: list[str] = db_aggregates.get(connection, aggregate_id)["hosts"]
        return hosts

    @operation(
        "POST",
        "/os-aggregates/{aggregate_id}/images",
        policy="compute:aggregates:images",
        since="2.81",
        status=202,
        body=CACHE,
    )
    def cache(self, call: Call) -> None:
        """Have the hosts of an aggregate fetch images."""
        ids = [each["id"] for each in call.body["cache"]]
        if len(set(ids)) < len(ids):
            raise BadRequest("Duplicate images in request")
        hosts = self._hosts(call)
        images = [self.services.images.get(call.context, image_id) for image_id in ids]
        for image in images:
            if image.get("status") != "active":
                raise BadRequest(f"Image {image['id']} is not active.")
        guests = [dataclasses.asdict(guest_image(image)) for image in images]
        ordered = image_caching.order(self.services.databases, hosts, guests, call.context)
        for cell_id, intent_ids in ordered.items():
            self.services.doorbells.ring_conductor(cell_id, intent_ids)

    @operation("GET", "/haneul/aggregates/{aggregate_id}/images", policy="haneul:aggregates:images")
    def index(self, call: Call) -> dict[str, Any]:
        """Show which hosts of an aggregate have fetched what was ordered."""
        rows = image_caching.progress(self.services.databases, self._hosts(call))
        return {"images": [_view(row) for row in rows]}


def _view(row: Mapping[str, Any]) -> dict[str, Any]:
    image = row["arguments"]["image"]
    return {
        "image_id": image["id"],
        "image_name": image["name"],
        "host": row["target"],
        "state": row["state"],
        "error": (row["error"] or {}).get("message"),
        "created_at": common.zulu(row["created_at"]),
        "finished_at": common.zulu(row["finished_at"]) if row["finished_at"] else None,
    }
