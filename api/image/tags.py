"""Tags of images."""

from __future__ import annotations

from api.common.operations import Call, Controller, operation
from api.image.common import find, permit, refuse_nul
from api.image.services import ImageServices
from core.errors import BadRequest, TooLarge
from db import images
from db.sessions import retrying


class TagsController(Controller):
    """/v2/images/{image_id}/tags/{tag_value}."""

    services: ImageServices

    @operation(
        "PUT", "/images/{image_id}/tags/{tag_value}", policy="modify_image", late_policy=True, status=204
    )
    def update(self, call: Call) -> None:
        """Add a tag to an image."""
        tag = call.params["tag_value"]
        refuse_nul(tag)
        if len(tag) > 255:
            raise BadRequest("A tag has at most 255 characters.")

        @retrying
        def add() -> None:
            with self.services.databases.global_.write() as connection:
                image = find(call, connection)
                permit(call, image)
                limit = self.services.limits.options.image_tag_quota
                if tag not in image["tags"] and 0 <= limit <= len(image["tags"]):
                    raise TooLarge(f"Image tag limit exceeded for image {image['id']}: {limit}.")
                images.add_tag(connection, image, tag)

        add()

    @operation(
        "DELETE", "/images/{image_id}/tags/{tag_value}", policy="modify_image", late_policy=True, status=204
    )
    def delete(self, call: Call) -> None:
        """Remove a tag from an image."""

        @retrying
        def remove() -> None:
            with self.services.databases.global_.write() as connection:
                image = find(call, connection)
                permit(call, image)
                images.remove_tag(connection, image, call.params["tag_value"])

        remove()
