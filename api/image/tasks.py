"""Tasks: those that imports are, and the older way to begin one, which is the administrator's."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.image.common import refuse_nul
from api.image.images import ImagesController
from api.image.services import ImageServices
from api.image.task_views import task_details, task_view
from core.errors import BadRequest, NotFound
from db import image_imports
from db.image_imports import Row
from db.images import Image
from db.sessions import retrying

_CREATE = v.obj(
    {
        "type": {"type": "string", "enum": ["import"]},
        "input": v.obj(
            {
                "import_from": {"type": "string", "minLength": 1, "maxLength": 2048},
                "import_from_format": {"type": "string", "minLength": 1, "maxLength": 32},
                "image_properties": {"type": "object"},
            },
            ["import_from", "import_from_format", "image_properties"],
        ),
    },
    ["type", "input"],
)


class TasksController(Controller):
    """/v2/tasks."""

    services: ImageServices

    def __init__(self, services: ImageServices) -> None:
        super().__init__(services)
        self._images = ImagesController(services)

    @operation("POST", "/tasks", policy="tasks_api_access", status=201, body=_CREATE)
    def create(self, call: Call) -> dict[str, Any]:
        """Make an image of what is at a URL: deprecated, the same as an import by web-download."""
        given = call.body["input"]
        refuse_nul(given)
        self.services.fetcher.check(given["import_from"])
        properties = {
            "disk_format": given["import_from_format"],
            "container_format": "bare",
            **given["image_properties"],
        }
        row = self._begin(call, self._images.register(call, properties), given)
        call.response.headers["Location"] = f"/v2/tasks/{row['id']}"
        return {**task_view(row), **task_details(row)}

    @retrying
    def _begin(self, call: Call, image: Image, given: dict[str, Any]) -> Row:
        request = {"method": {"name": "web-download", "uri": given["import_from"]}, "task": given}
        stores = [self.services.data.stores.default]
        with self.services.databases.global_.write() as connection:
            row = image_imports.begin(connection, image, call.context, request, stores)
            return image_imports.tasks(connection, task_id=row["id"])[0]

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
            "tasks": [task_view(row) for row in found],
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
        return {**task_view(found[0]), **task_details(found[0])}
