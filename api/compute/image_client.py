"""The image API at its public door, with the caller's own token: visibility is that API's to judge.

Servers are made from images, and old clients still list, change and delete images
through the Compute API.  What POST /servers reads is kept for a few seconds per
(image, project): many servers are made from one image at once, and an active image's
bytes never change.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Any

import orjson
from keystoneauth1 import exceptions as ks_exc
from oslo_config import cfg

from core.clients import service_adapter
from core.context import RequestContext
from core.errors import BadRequest, Conflict, Forbidden, NotFound, Unavailable

Image = dict[str, Any]
_KEEP_S = 5.0
_MOST = 1000
_PATCH_TYPE = "application/openstack-images-v2.1-json-patch"
_SILENT = "The image service does not answer now. Try again later."
_BASE_KEYS = frozenset(
    ["id", "name", "status", "visibility", "protected", "checksum", "owner", "size", "virtual_size"]
    + ["container_format", "disk_format", "created_at", "updated_at", "min_disk", "min_ram", "tags"]
    + ["self", "file", "schema", "os_hidden", "os_hash_algo", "os_hash_value", "locations", "direct_url"]
    + ["stores"]
)


def properties_of(image: Image) -> dict[str, Any]:
    """The image's own properties, without what every image has."""
    return {key: value for key, value in image.items() if key not in _BASE_KEYS and value is not None}


class ImageClient:
    """Reads, lists, changes and deletes images; safe to share between threads.

    Every call raises Unavailable when the image API does not answer.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf
        self._adapter: Any = None
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str], tuple[float, Image]] = OrderedDict()

    def endpoint(self) -> str:
        """Where clients find the image API; empty when the catalog does not say."""
        try:
            return str(self._connected().get_endpoint() or "").rstrip("/")
        except ks_exc.ClientException:
            return ""

    def recent(self, context: RequestContext, image_id: str) -> Image:
        """The image as the asker saw it within the last seconds, if it was active then.

        :raises NotFound: none that the asker may see.
        """
        key = (image_id, str(context.project_id))
        with self._lock:
            found = self._kept.get(key)
        if found is not None and found[0] > time.monotonic():
            return found[1]
        image = self.get(context, image_id)
        if image.get("status") == "active":
            with self._lock:
                self._kept[key] = (time.monotonic() + _KEEP_S, image)
                while len(self._kept) > _MOST:
                    self._kept.popitem(last=False)
        return image

    def get(self, context: RequestContext, image_id: str) -> Image:
        """The image as GET /v2/images/{id} answers the asker now.

        :raises NotFound: none that the asker may see.
        """
        image: Image = self._request(context, "GET", f"/v2/images/{image_id}")
        return image

    def list_(self, context: RequestContext, filters: dict[str, str]) -> list[Image]:
        """:raises BadRequest: a filter that the image API refuses, an unknown marker."""
        images: list[Image] = self._request(context, "GET", "/v2/images", params=filters)["images"]
        return images

    def create(self, context: RequestContext, image: Image) -> Image:
        """A new image without data, the asker's. :raises BadRequest: :raises Forbidden:"""
        made: Image = self._request(context, "POST", "/v2/images", json=image)
        return made

    def upload_nothing(self, context: RequestContext, image_id: str) -> None:
        """Make an image active that is all said by its properties."""
        headers = {"Content-Type": "application/octet-stream"}
        self._request(context, "PUT", f"/v2/images/{image_id}/file", data=b"", headers=headers)

    def delete(self, context: RequestContext, image_id: str) -> None:
        """:raises NotFound: :raises Forbidden: protected, or another's."""
        self._request(context, "DELETE", f"/v2/images/{image_id}")

    def patch(self, context: RequestContext, image_id: str, changes: list[dict[str, Any]]) -> None:
        """JSON patch. :raises NotFound: :raises Forbidden:"""
        if changes:
            self._request(
                context,
                "PATCH",
                f"/v2/images/{image_id}",
                data=orjson.dumps(changes),
                headers={"Content-Type": _PATCH_TYPE},
            )

    def _request(self, context: RequestContext, method: str, path: str, **options: Any) -> Any:
        headers = {
            "X-Auth-Token": context.auth_token or "",
            "Accept": "application/json",
            **options.pop("headers", {}),
        }
        try:
            answer = self._connected().request(
                path, method, headers=headers, authenticated=False, raise_exc=False, **options
            )
        except ks_exc.ClientException as error:
            raise Unavailable(_SILENT, cause=error) from error
        if answer.status_code >= 400:
            raise _refusal(method, path, answer.status_code)
        return answer.json() if answer.content else None

    def _connected(self) -> Any:
        with self._lock:
            if self._adapter is None:
                self._adapter = service_adapter(self._conf, "image")
            return self._adapter


def _refusal(method: str, path: str, status: int) -> Exception:
    """What a status of the image API means to who asked the Compute API."""
    image_id = path.rpartition("/")[2]
    if status == 404 or (status == 403 and method == "GET"):
        return NotFound(f"Image {image_id} could not be found.")
    if status == 403:
        return Forbidden(f"Not authorized for image {image_id}.")
    if status == 409:
        return Conflict(f"Image {image_id} is in a state that does not allow this.")
    if status < 500 and status != 401:
        return BadRequest("The image service refuses the request.", cause=f"{method} {path}: {status}")
    return Unavailable(_SILENT, cause=f"{method} {path}: {status}")
