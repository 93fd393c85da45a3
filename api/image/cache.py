"""The copies that this host's API processes keep: list, fetch in advance, remove."""

from __future__ import annotations

import webob

from api.common.operations import Call, Controller, operation
from api.image.common import ID
from api.image.services import ImageServices
from core.errors import BadRequest, NotFound
from db import images
from db.image_filters import Asker
from db.images import Image

CLEAR = "x-image-cache-clear-target"


class CacheController(Controller):
    """/v2/cache."""

    services: ImageServices

    @operation("GET", "/cache", policy="cache_list")
    def index(self, call: Call) -> dict[str, object]:
        """List the images that are cached, and those that wait for it."""
        cache = self.services.cache
        known = cache.cached()
        with self.services.databases.global_.read() as connection:
            checksums = images.checksums(connection, [str(found["image_id"]) for found in known])
        return {
            "cached_images": [{**found, "checksum": checksums.get(found["image_id"])} for found in known],
            "queued_images": cache.queued(),
        }

    @operation("PUT", "/cache/{image_id}", policy="cache_image", status=202)
    def queue(self, call: Call) -> None:
        """Fetch an image before somebody asks for it."""
        image = self._find(call)
        if image["status"] != "active":
            raise BadRequest("Only images with status active can be targeted for queueing.")
        if self.services.cache.enqueue(image):
            self.services.prefetcher.ring()

    @operation("DELETE", "/cache/{image_id}", policy="cache_delete", status=204)
    def delete(self, call: Call) -> None:
        """Remove an image from the cache and the queue."""
        image_id = call.params["image_id"].lower()
        if ID.fullmatch(image_id) and self.services.cache.delete(image_id):
            return
        self._find(call)

    @operation("DELETE", "/cache", policy="cache_delete", status=204)
    def clear(self, call: Call) -> webob.Response:
        """Remove all images from the cache, from the queue, or from both."""
        target = call.request.headers.get(CLEAR, "").lower()
        if target not in ("", "cache", "queue"):
            raise BadRequest(f"If provided '{CLEAR}' must be 'cache', 'queue' or empty string.")
        if target != "queue":
            self.services.cache.clear_copies()
        if target != "cache":
            self.services.cache.clear_queue()
        return webob.Response(status=204)

    def _find(self, call: Call) -> Image:
        image_id = call.params["image_id"]
        if not ID.fullmatch(image_id):
            raise NotFound(f"No image found with ID {image_id}")
        with self.services.databases.global_.read() as connection:
            return images.get(connection, image_id.lower(), Asker(None, is_admin=True))
