"""The schemas that clients ask for."""

from __future__ import annotations

from typing import Any

from api.common.operations import NO_POLICY, Call, Controller, operation
from api.image import metadef_schemas, schemas
from api.image.services import ImageServices
from core.errors import NotFound


class SchemasController(Controller):
    """/v2/schemas."""

    services: ImageServices

    def _image(self) -> dict[str, Any]:
        options = self.services.options
        return schemas.image_document(
            schemas.base_properties(options.container_formats, options.disk_formats)
        )

    @operation("GET", "/schemas/image", policy=NO_POLICY)
    def image(self, call: Call) -> dict[str, Any]:
        """Show the schema of an image."""
        return self._image()

    @operation("GET", "/schemas/images", policy=NO_POLICY)
    def images(self, call: Call) -> dict[str, Any]:
        """Show the schema of a list of images."""
        return schemas.collection_document("images", self._image())

    @operation("GET", "/schemas/member", policy=NO_POLICY)
    def member(self, call: Call) -> dict[str, Any]:
        """Show the schema of a member."""
        return schemas.MEMBER

    @operation("GET", "/schemas/members", policy=NO_POLICY)
    def members(self, call: Call) -> dict[str, Any]:
        """Show the schema of a list of members."""
        return schemas.collection_document("members", schemas.MEMBER)

    @operation("GET", "/schemas/task", policy=NO_POLICY)
    def task(self, call: Call) -> dict[str, Any]:
        """Show the schema of a task."""
        return schemas.TASK

    @operation("GET", "/schemas/tasks", policy=NO_POLICY)
    def tasks(self, call: Call) -> dict[str, Any]:
        """Show the schema of a list of tasks."""
        return schemas.collection_document("tasks", schemas.TASK)

    @operation("GET", "/schemas/metadefs/{schema_name}", policy=NO_POLICY)
    def metadefs(self, call: Call) -> dict[str, Any]:
        """Show a schema of metadata definitions."""
        found = metadef_schemas.DOCUMENTS.get(call.params["schema_name"])
        if found is None:
            raise NotFound("The resource could not be found.")
        return found
