"""Interoperable import: stage data, import it by a method, and the tasks that imports are."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from api.common import validation as v
from api.common.app import CONTENT_TYPE
from api.common.operations import Call, Controller, operation
from api.image.common import find, permit, refuse_nul, timestamp
from api.image.image_data import declared_size
from api.image.services import ImageServices
from api.image.signing import signature_of
from core.errors import BadRequest, Conflict, NotFound, Unsupported
from core.intents import IntentState
from db import image_imports
from db.image_imports import Row
from db.images import Image
from db.sessions import retrying
from image.imports import ADD_LOCATION, METHODS

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
_STATUSES = {
    IntentState.WAITING: "pending",
    IntentState.RUNNING: "processing",
    IntentState.ENDING: "processing",
    IntentState.DONE: "success",
}


class ImportsController(Controller):
    """/v2/images/{image_id}/stage, …/import and …/tasks; /v2/tasks."""

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
        return {"tasks": [{**_task(row), **_details(row)} for row in found]}

    @operation("GET", "/tasks", policy="tasks_api_access")
    def index(self, call: Call) -> dict[str, Any]:
        """List tasks; all of them are imports."""
        options = self.services.options
        text, marker = call.first("limit"), call.first("marker")
        if text is not None and not (text.isascii() and text.isdecimal()):
            raise BadRequest("limit param must be an integer that is not negative")
        limit = min(int(text or options.limit_param_default), int(options.api_limit_max))
        refuse_nul(marker)
        with self.services.databases.global_.read() as connection:
            if marker is not None and not image_imports.tasks(connection, task_id=marker):
                raise NotFound(f"No task found with ID {marker}")
            found = image_imports.tasks(connection, marker=marker, limit=limit)
        answer: dict[str, Any] = {
            "tasks": [_task(row) for row in found],
            "first": "/v2/tasks",
            "schema": "/v2/schemas/tasks",
        }
        if found and len(found) == limit:
            answer["next"] = "/v2/tasks?" + urlencode({"limit": limit, "marker": found[-1]["id"]})
        return answer

    @operation("GET", "/tasks/{task_id}", policy="tasks_api_access")
    def show(self, call: Call) -> dict[str, Any]:
        """Show a task."""
        refuse_nul(call.params["task_id"])
        with self.services.databases.global_.read() as connection:
            found = image_imports.tasks(connection, task_id=call.params["task_id"])
        if not found:
            raise NotFound(f"No task found with ID {call.params['task_id']}")
        return {**_task(found[0]), **_details(found[0])}


def _task(row: Row) -> dict[str, Any]:
    return {
        "id": row["id"],
        "type": "location_import" if row["arguments"]["method"] == ADD_LOCATION else "api_image_import",
        "status": _STATUSES.get(IntentState(row["state"]), "failure"),
        "owner": row["project_id"],
        "expires_at": None,
        "created_at": timestamp(row["created_at"]),
        "updated_at": timestamp(row["updated_at"]),
        "self": f"/v2/tasks/{row['id']}",
        "schema": "/v2/schemas/task",
    }


def _details(row: Row) -> dict[str, Any]:
    arguments = row["arguments"]
    return {
        "image_id": row["resource_id"],
        "request_id": row["request_id"],
        "user_id": row["user_id"],
        "input": {
            "image_id": row["resource_id"],
            "import_req": arguments["request"],
            "backend": arguments["stores"],
        },
        "result": {"image_id": row["resource_id"]} if row["state"] == IntentState.DONE else None,
        "message": (row["error"] or {}).get("message", ""),
    }
