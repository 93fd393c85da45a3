"""The data of images: upload and download."""

from __future__ import annotations

from typing import Any

import webob
from webob.byterange import ContentRange, Range

from api.common.app import CONTENT_TYPE
from api.common.operations import Call, Controller, operation
from api.image.common import find, permit
from api.image.services import ImageServices
from core.errors import BadRequest, Forbidden, HaneulError, NotFound, Unsupported
from db.images import Image
from image.signatures import Verifier

_BINARY = "application/octet-stream"


class RangeNotSatisfiable(HaneulError):
    """The range lies outside of the data."""

    code = "haneul.image.range"
    http_status = 416


class ImageDataController(Controller):
    """/v2/images/{image_id}/file."""

    services: ImageServices

    @operation(
        "PUT",
        "/images/{image_id}/file",
        policy="upload_image",
        late_policy=True,
        raw_body=True,
        media_types=(_BINARY,),
        status=204,
    )
    def upload(self, call: Call) -> None:
        """Upload the data of an image."""
        environ = call.request.environ
        if environ.get(CONTENT_TYPE, "").split(";")[0].strip().lower() != _BINARY:
            raise Unsupported(f"Image data must come as Content-Type {_BINARY}.")
        declared = declared_size(call.request)
        store = call.request.headers.get("x-image-meta-store")
        if store is not None and self.services.data.stores.get(store).read_only:
            raise BadRequest(f"Store {store} is read only.")
        with self.services.databases.global_.read() as connection:
            image = find(call, connection)
        permit(call, image)
        missing = [name for name in ("disk_format", "container_format") if not image[name]]
        if missing and image["status"] == "queued":
            raise BadRequest(f"Properties {', '.join(missing)} must be set prior to saving data.")
        certificate = self.services.data.certificate(image, call.context.auth_token or "")
        verifier = Verifier(image["properties"], certificate) if certificate is not None else None
        self.services.data.upload(image, environ["wsgi.input"], declared, store, verifier)

    @operation("GET", "/images/{image_id}/file", policy="download_image", late_policy=True)
    def download(self, call: Call) -> webob.Response:
        """Download the data of an image, or a part of it."""
        with self.services.databases.global_.read() as connection:
            image = find(call, connection)
        is_admin = self.services.policy.is_admin(call.context)
        if image["status"] == "deactivated" and not is_admin:
            raise Forbidden("The requested image has been deactivated. Image data download is forbidden.")
        permit(call, image)
        prefer = [name.strip() for name in (call.first("prefer") or "").split(",") if name.strip()]
        if prefer:
            permit(call, image, "download_from_store")
            for store in prefer:
                self.services.data.stores.get(store)
        if not image["locations"]:
            return webob.Response(status=204)
        offset, length, status = _part(call.request, image)
        try:
            chunks = self.services.data.open(image, offset, length, prefer)
        except NotFound:
            return webob.Response(status=204)
        return _answer(image, chunks, offset, length, status)


def declared_size(request: webob.Request) -> int | None:
    """Bytes that the client announced; None when it sends chunks without saying how many."""
    length: int | None = request.content_length
    chunked = "chunked" in request.headers.get("Transfer-Encoding", "").lower()
    if (header := request.headers.get("x-openstack-image-size")) is not None:
        if not header.isdecimal():
            raise BadRequest("Invalid or missing image size in request headers.")
        if length is not None and not chunked and int(header) != length:
            raise BadRequest(f"x-openstack-image-size says {header} bytes, Content-Length {length}.")
        return int(header)
    if chunked:
        return None
    return length or 0


def _part(request: webob.Request, image: Image) -> tuple[int, int, int]:
    """(offset, length, status) of what is asked for.

    Content-Range in a request is wrong, but older clients send it, and upstream takes it.
    :raises BadRequest: several ranges. :raises RangeNotSatisfiable:
    """
    size: int = image["size"]
    if (text := request.headers.get("Range")) is not None:
        if "," in text:
            raise BadRequest("Requests with multiple ranges are not supported: ask for one after the other.")
        wanted = Range.parse(text)
        if wanted is None:
            raise RangeNotSatisfiable("Invalid Range header.")
        start, end = wanted.start, wanted.end
        if start < 0:
            start = max(0, size + start)
        end = size if end is None else min(end, size)
    elif (text := request.headers.get("Content-Range")) is not None:
        sent = ContentRange.parse(text)
        if sent is None or sent.start is None or sent.stop > size:
            raise RangeNotSatisfiable("Invalid Content-Range header.")
        start, end = sent.start, sent.stop
    else:
        return 0, size, 200
    if start >= size:
        raise RangeNotSatisfiable(
            f"Invalid start position in Range header. It must be in the inclusive range [0, {size - 1}]."
        )
    return start, end - start, 206


def _answer(image: Image, chunks: Any, offset: int, length: int, status: int) -> webob.Response:
    response = webob.Response(status=status, app_iter=chunks)
    response.headers["Content-Type"] = _BINARY
    response.headers["Content-Length"] = str(length)
    if status == 206:
        response.headers["Content-Range"] = f"bytes {offset}-{offset + length - 1}/{image['size']}"
    if image["checksum"]:
        response.headers["Content-MD5"] = image["checksum"]
    return response
