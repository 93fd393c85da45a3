"""Image data that stays where somebody else's web server has it: read only.

An object's name is its URL.  Only URLs of ``allowed_hosts`` of ``[image_store_ID]`` can be registered,
and each reading passes the same checks as a web download (``image.fetch``): addresses, redirects, ports.
Nothing is ever written or deleted there, so a location that goes leaves the web server as it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from core.errors import BadRequest, DriverError, NotFound
from image.drivers.base import Space, Store
from image.fetch import Fetcher

MAX_URL = 255


class HttpStore(Store):
    """Locations on web servers."""

    kind = "http"
    read_only = True

    def __init__(self, store_id: str, options: Any) -> None:
        super().__init__(store_id)
        self._options = options
        self._fetcher = Fetcher.of(options)

    def check(self, url: str) -> None:
        """:raises BadRequest: data at this URL can't be registered."""
        if not self._options.allowed_hosts:
            raise BadRequest(
                f"Store {self.store_id} allows no hosts: [image_store_{self.store_id}]allowed_hosts."
            )
        if len(url) > MAX_URL:
            raise BadRequest(f"URLs of locations have at most {MAX_URL} characters.")
        self._fetcher.check(url)

    def put(self, chunks: Iterable[bytes], name: str) -> int:
        """:raises BadRequest: always; the data is there, or it is nowhere."""
        raise BadRequest(f"Store {self.store_id} is read only.")

    def get(self, name: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        stack = contextlib.ExitStack()
        try:
            self.check(name)
            chunks = stack.enter_context(self._fetcher.open(name))
        except (BadRequest, DriverError) as error:
            stack.close()
            raise NotFound("The web server has no data of this image.", cause=error) from error
        return _part(stack, chunks, offset, length)

    def delete(self, name: str) -> None:
        """Nothing: it is not ours."""

    def exists(self, name: str) -> bool:
        try:
            self.check(name)
            with self._fetcher.open(name):
                return True
        except (BadRequest, DriverError):
            return False

    def space(self) -> Space | None:
        return None

    def url(self, name: str) -> str:
        return name

    def properties(self) -> dict[str, Any]:
        return {"allowed_hosts": list(self._options.allowed_hosts)}


def _part(
    stack: contextlib.ExitStack, chunks: Iterator[bytes], offset: int, length: int | None
) -> Iterator[bytes]:
    """What lies before the offset is read and thrown away: not every server knows ranges."""
    with stack:
        for chunk in chunks:
            if offset >= len(chunk):
                offset -= len(chunk)
                continue
            part = chunk[offset:] if length is None else chunk[offset : offset + length]
            offset = 0
            if length is not None:
                length -= len(part)
            if part:
                yield part
            if length == 0:
                return
