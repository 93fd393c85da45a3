"""Images as POST /servers needs them, from the image API at its public door.

The caller's own token is used, so that visibility is the image API's to judge.
An answer is kept for a few seconds per (image, project): many servers are
made from one image at once, and an active image's bytes never change.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Any

from keystoneauth1 import exceptions as ks_exc
from oslo_config import cfg

from core.clients import service_adapter
from core.context import RequestContext
from core.errors import NotFound, Unavailable

Image = dict[str, Any]
_KEEP_S = 5.0
_MOST = 1000
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
    """Reads images; safe to share between threads."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf
        self._adapter: Any = None
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str], tuple[float, Image]] = OrderedDict()

    def get(self, context: RequestContext, image_id: str) -> Image:
        """The image as GET /v2/images/{id} answers the asker.

        :raises NotFound: none that the asker may see. :raises Unavailable: no answer.
        """
        key = (image_id, str(context.project_id))
        with self._lock:
            found = self._kept.get(key)
        if found is not None and found[0] > time.monotonic():
            return found[1]
        image = self._fetch(context, image_id)
        if image.get("status") == "active":
            with self._lock:
                self._kept[key] = (time.monotonic() + _KEEP_S, image)
                while len(self._kept) > _MOST:
                    self._kept.popitem(last=False)
        return image

    def _fetch(self, context: RequestContext, image_id: str) -> Image:
        headers = {"X-Auth-Token": context.auth_token or "", "Accept": "application/json"}
        try:
            with self._lock:
                if self._adapter is None:
                    self._adapter = service_adapter(self._conf, "image")
            answer = self._adapter.get(
                f"/v2/images/{image_id}", headers=headers, authenticated=False, raise_exc=False
            )
        except ks_exc.ClientException as error:
            raise Unavailable(
                "The image service does not answer now. Try again later.", cause=error
            ) from error
        if answer.status_code in (403, 404):
            raise NotFound(f"Image {image_id} could not be found.")
        if answer.status_code != 200:
            raise Unavailable(
                "The image service does not answer now. Try again later.",
                cause=f"GET image {image_id}: status {answer.status_code}",
            )
        image: Image = answer.json()
        return image
