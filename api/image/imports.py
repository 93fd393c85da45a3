"""Interoperable import: stage data, import it by a method."""

from __future__ import annotations

from typing import Any

from api.common import validation as v
from api.common.app import CONTENT_TYPE
from api.common.operations import Call, Controller, operation
from api.image.common import find, permit, refuse_nul
from api.image.image_data import declared_size
from api.image.services import ImageServices
from api.image.signing import signature_of
from api.image.task_views import task_details, task_view
from core.errors import BadRequest, Conflict, Unsupported
from db import image_imports
from db.images import Image
from db.sessions import retrying
from image.imports import METHODS

_BINARY = "application/octet-stream"
_IMPORT = v.obj(
    {
        "method": v.obj({"name": {"type": "string"}, "uri": {"type": "string", "maxLength": 2048}}, ["name"]),
        "stores": {"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": True},
        "all_stores": {"type": "boolean"},
        "all_stores_must_succeed": {"type": "boolean"},
    },
    ["method"],
)
_FROM = {"glance-direct": "uploading", "web-download": "queued", "copy-image": "active"}


class ImportsController(Controller):
    """/v2/images/{image_id}/stage, …/import and …/tasks."""

    services: ImageServices

    @operation(
        "PUT",
        "/images/{image_id}/stage",
        policy="upload_image",
        late_policy=True,
        raw_body=True,
        media_types=(_BINARY,),
        status=204,
    )
    def stage(self, call: Call) -> None:
        """Put data where an import finds it."""
        environ = call.request.environ
        if environ.get(CONTENT_TYPE, "").split(";")[0].strip().lower() != _BINARY:
            raise Unsupported(f"Image data must come as Content-Type {_BINARY}.")
        declared = declared_size(call.request)
        with self.services.databases.global_.read() as connection:
            image = find(call, connection)
        permit(call, image)
        self.services.data.stage(image, environ["wsgi.input"], declared)

    @operation(
        "POST",
        "/images/{image_id}/import",
        policy="modify_image",
        late_policy=True,
        status=202,
        body=_IMPORT,
    )
    def import_(self, call: Call) -> None:
        """Make data the image's: staged data, a URL's, or its own in further stores."""
        body = dict(call.body)
        refuse_nul(body)
        method = body["method"]["name"]
        if method not in METHODS:
            raise BadRequest(f"Unknown import method name '{method}'.")
        if method == "web-download":
            if "uri" not in body["method"]:
                raise BadRequest("'uri' is required for web-download.")
            self.services.fetcher.check(body["method"]["uri"])

        plugins = self.services.import_plugins
        signature = signature_of(call) if method != "copy-image" else None

        @retrying
        def begin() -> None:
            with self.services.databases.global_.write() as connection:
                image = find(call, connection)
                permit(call, image, "copy_image" if method == "copy-image" else None)
                stores = self._stores(call, image, method)
                self._check_state(image, method)
                if method == "glance-direct" and image_imports.staged(connection, image["id"]) is None:
                    raise Conflict("The data of the image is still being staged.")
                injected = {} if method == "copy-image" else plugins.injected(call.context.roles)
                image_imports.begin(connection, image, call.context, body, stores, injected, signature)

        begin()

    def _check_state(self, image: Image, method: str) -> None:
        if image["status"] != _FROM[method]:
            raise Conflict(
                f"Only images with status {_FROM[method]} can be targeted with {method}; this one is"
                f" {image['status']}."
            )
        for name in ("container_format", "disk_format"):
            if not image[name]:
                raise BadRequest(f"'{name}' needs to be set before import.")

    def _stores(self, call: Call, image: Image, method: str) -> list[str]:
        """Where the data is to go. :raises BadRequest: no such store, or it has the data already."""
        known, body = self.services.data.stores, call.body
        header = call.request.headers.get("x-image-meta-store")
        if body.get("all_stores") and ("stores" in body or header):
            raise BadRequest("all_stores can't be true when stores are named.")
        if "stores" in body and header:
            raise BadRequest("Stores are named in the body and in a header: only one of them can be.")
        if body.get("all_stores"):
            chosen = known.writable()
        else:
            chosen = body.get("stores") or [header or known.default]
        for store_id in chosen:
            if known.get(store_id).read_only:
                raise BadRequest(f"Store {store_id} is read only.")
        if method != "copy-image":
            return list(chosen)
        have = {found["store"] for found in image["locations"]}
        if not body.get("all_stores") and (already := have & set(chosen)):
            raise BadRequest(f"Image is already present at store '{sorted(already)[0]}'.")
        missing = [store_id for store_id in chosen if store_id not in have]
        if not missing:
            raise BadRequest("The image is in all these stores.")
        return missing

    # -- tasks -----------------------------------------------------------------

    @operation("GET", "/images/{image_id}/tasks", policy="get_image", late_policy=True)
    def image_tasks(self, call: Call) -> dict[str, Any]:
        """List the imports of an image."""
        with self.services.databases.global_.read() as connection:
            image = find(call, connection)
            permit(call, image, "modify_image")
            found = image_imports.tasks(connection, image_id=image["id"])
        return {"tasks": [{**task_view(row), **task_details(row)} for row in found]}
