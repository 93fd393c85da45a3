"""The image API for the calls that old clients still make here, with the caller's own token."""

from __future__ import annotations

import threading
from typing import Any

import orjson
from keystoneauth1 import exceptions as ks_exc
from oslo_config import cfg

from core.clients import service_adapter
from core.context import RequestContext
from core.errors import BadRequest, Conflict, Forbidden, NotFound, Unavailable

_PATCH_TYPE = "application/openstack-images-v2.1-json-patch"
_SILENT = "The image service does not answer now. Try again later."


class ImageProxy:
    """Lists, shows, changes and deletes images; safe to share between threads."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf
        self._adapter: Any = None
        self._lock = threading.Lock()

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
        self._check(answer.status_code, path)
        return answer.json() if answer.content else None

    def _connected(self) -> Any:
        with self._lock:
            if self._adapter is None:
                self._adapter = service_adapter(self._conf, "image")
            return self._adapter

    def _check(self, status: int, path: str) -> None:
        if status < 400:
            return
        image_id = path.rpartition("/")[2]
        if status == 404:
            raise NotFound(f"Image {image_id} could not be found.")
        if status == 403:
            raise Forbidden(f"Not authorized for image {image_id}.")
        if status == 409:
            raise Conflict(f"Image {image_id} is in a state that does not allow this.")
        if status < 500 and status != 401:
            raise BadRequest("The image service refuses the request.", cause=f"{path}: {status}")
        raise Unavailable(_SILENT, cause=f"{path}: {status}")

    def endpoint(self) -> str:
        """Where clients find the image API; empty when the catalog does not say."""
        try:
            return str(self._connected().get_endpoint() or "").rstrip("/")
        except ks_exc.ClientException:
            return ""

    def list_(self, context: RequestContext, filters: dict[str, str]) -> list[dict[str, Any]]:
        """:raises BadRequest: a filter that the image API refuses, an unknown marker."""
        images: list[dict[str, Any]] = self._request(context, "GET", "/v2/images", params=filters)["images"]
        return images

    def get(self, context: RequestContext, image_id: str) -> dict[str, Any]:
        """:raises NotFound:"""
        image: dict[str, Any] = self._request(context, "GET", f"/v2/images/{image_id}")
        return image

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
