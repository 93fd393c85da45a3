"""The image API as a host uses it, with haneul's service user: base images in, snapshots out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from keystoneauth1 import exceptions as ks_exc
from oslo_config import cfg

from compute.drivers.base import GuestImage
from core import clients
from core.errors import HaneulError, NotFound

_UPLOAD_PATIENCE_S = 180.0
"""How long an upload waits for one that a dead process began; the image API gives that up by itself."""


class Images:
    """Reads and writes the data of images; safe to share between threads."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf
        self._adapter: Any = None

    def _call(self, method: str, path: str, **options: Any) -> Any:
        if self._adapter is None:
            self._adapter = clients.service_adapter(self._conf, "image")
        try:
            return self._adapter.request(path, method, raise_exc=False, **options)
        except ks_exc.ClientException as error:
            raise HaneulError(
                "the image service does not answer", code="haneul.image_unreachable", cause=error
            ) from error

    def fetch(self, image: GuestImage) -> Iterator[bytes]:
        """The image's bytes."""
        response = self._call("GET", f"/v2/images/{image.id}/file", stream=True)
        if response.status_code != 200:
            raise HaneulError(
                f"image {image.id} can't be read: the image service answered {response.status_code}",
                code="haneul.image_unreadable",
            )
        with response:
            yield from response.iter_content(1 << 20)

    def upload(self, image_id: str, data: Callable[[], Iterator[bytes]], check: Callable[[], None]) -> None:
        """Write the image's data; content if it is there already.

        ``check`` is called between chunks and raises to give up.
        :raises NotFound: somebody has deleted the image. :raises HaneulError: it was refused.
        """
        deadline = time.monotonic() + _UPLOAD_PATIENCE_S
        while True:
            status = self._status(image_id)
            if status == "active":
                return
            if status != "saving" or time.monotonic() > deadline:
                break
            check()
            time.sleep(0.5)

        def pieces() -> Iterator[bytes]:
            for piece in data():
                check()
                yield piece

        headers = {"Content-Type": "application/octet-stream"}
        answer = self._call("PUT", f"/v2/images/{image_id}/file", data=pieces(), headers=headers)
        if answer.status_code != 204:
            raise HaneulError(
                f"image {image_id} can't be written: the image service answered {answer.status_code}",
                code="haneul.image_unwritable",
                cause=answer.text,
            )

    def _status(self, image_id: str) -> str:
        answer = self._call("GET", f"/v2/images/{image_id}")
        if answer.status_code == 404:
            raise NotFound(f"image {image_id} was deleted")
        if answer.status_code != 200:
            raise HaneulError(
                f"image {image_id} can't be looked at: the image service answered {answer.status_code}",
                code="haneul.image_unreadable",
            )
        return str(answer.json()["status"])

    def delete(self, image_id: str) -> None:
        """Content when there is none."""
        answer = self._call("DELETE", f"/v2/images/{image_id}")
        if answer.status_code not in (204, 404):
            raise HaneulError(
                f"image {image_id} can't be deleted: the image service answered {answer.status_code}",
                code="haneul.image_undeletable",
            )
