"""Members: the projects that a shared image is shared with."""

from __future__ import annotations

from typing import Any

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.image.common import asker, find, permit, refuse_nul, target
from api.image.schemas import MEMBER_STATUSES
from api.image.services import ImageServices
from api.image.views import member_view
from core.errors import Forbidden, NotFound, TooLarge
from db import images
from db.images import Image

_CREATE = v.obj({"member": {"type": "string", "minLength": 1, "maxLength": 255}}, ["member"])
_UPDATE = v.obj({"status": {"enum": MEMBER_STATUSES}}, ["status"])


class MembersController(Controller):
    """/v2/images/{image_id}/members. A member sees itself, the owner sees all."""

    services: ImageServices

    @operation("POST", "/images/{image_id}/members", policy="add_member", late_policy=True, body=_CREATE)
    def create(self, call: Call) -> dict[str, Any]:
        """Share an image with a project."""
        member_id = call.body["member"]
        refuse_nul(member_id)
        with self.services.databases.global_.write() as connection:
            image = self._shared(call, connection)
            permit(call, image)
            limit = self.services.limits.options.image_member_quota
            if 0 <= limit <= len(images.members(connection, image["id"])):
                raise TooLarge(f"Image member limit exceeded for image {image['id']}: {limit}.")
            return member_view(images.add_member(connection, image["id"], member_id))

    @operation("GET", "/images/{image_id}/members", policy="get_members", late_policy=True)
    def index(self, call: Call) -> dict[str, Any]:
        """List the members of an image."""
        with self.services.databases.global_.read() as connection:
            image = self._shared(call, connection)
            permit(call, image)
            found = images.members(connection, image["id"], self._only(call, image))
        allowed = call.allowed("get_member", target(call, image))
        return {
            "members": [member_view(member) for member in found if allowed],
            "schema": "/v2/schemas/members",
        }

    @operation("GET", "/images/{image_id}/members/{member_id}", policy="get_member", late_policy=True)
    def show(self, call: Call) -> dict[str, Any]:
        """Show a member of an image."""
        with self.services.databases.global_.read() as connection:
            image = find(call, connection)
            if image["visibility"] != "shared" or not call.allowed("get_member", target(call, image)):
                # who may not see members does not learn that there are none
                raise NotFound("Only shared images have members.")
            return member_view(self._member(call, connection, image))

    @operation(
        "PUT",
        "/images/{image_id}/members/{member_id}",
        policy="modify_member",
        late_policy=True,
        body=_UPDATE,
    )
    def update(self, call: Call) -> dict[str, Any]:
        """Accept or reject an image that is shared."""
        with self.services.databases.global_.write() as connection:
            image = self._shared(call, connection)
            permit(call, image, "get_member")
            self._member(call, connection, image)
            permit(call, image)
            return member_view(
                images.set_member_status(
                    connection, image["id"], call.params["member_id"], call.body["status"]
                )
            )

    @operation(
        "DELETE",
        "/images/{image_id}/members/{member_id}",
        policy="delete_member",
        late_policy=True,
        status=204,
    )
    def delete(self, call: Call) -> None:
        """Stop sharing an image with a project."""
        with self.services.databases.global_.write() as connection:
            image = self._shared(call, connection)
            permit(call, image, "get_member")
            self._member(call, connection, image)
            permit(call, image)
            images.remove_member(connection, image["id"], call.params["member_id"])

    def _shared(self, call: Call, connection: Any) -> Image:
        image = find(call, connection)
        if image["visibility"] != "shared":
            raise Forbidden("Only shared images have members.")
        return image

    def _only(self, call: Call, image: Image) -> str | None:
        """Whose membership the asker may see: None is everyone's."""
        who = asker(call)
        return None if who.is_admin or who.project_id == image["owner"] else who.project_id

    def _member(self, call: Call, connection: Any, image: Image) -> dict[str, Any]:
        member_id = call.params["member_id"]
        refuse_nul(member_id)
        only = self._only(call, image)
        found = images.members(connection, image["id"], member_id) if only in (None, member_id) else []
        if not found:
            raise NotFound(f"{member_id} not found in the member list of the image {image['id']}.")
        return found[0]
