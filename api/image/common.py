"""What the controllers of the Image API share: finding an image, and who may do what with it."""

from __future__ import annotations

import datetime
import re
from typing import Any

import sqlalchemy as sa
import webob

from api.common import faults
from api.common.operations import Call
from core.errors import BadRequest, NotFound
from db import images
from db.image_filters import Asker
from db.images import Image

ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
BASE = "/v2/images"


def asker(call: Call) -> Asker:
    return Asker(call.context.project_id, call.services.policy.is_admin(call.context))


def find(call: Call, connection: sa.Connection) -> Image:
    """The image of the path. :raises NotFound: there is none that the asker may see."""
    image_id = call.params["image_id"]
    if not ID.fullmatch(image_id):
        raise NotFound(f"No image found with ID {image_id}")
    image = images.get(connection, image_id.lower(), asker(call))
    if not call.allowed("get_image", target(call, image)):
        raise NotFound(f"No image found with ID {image_id}")
    return image


def target(call: Call, image: Image) -> dict[str, Any]:
    """An image as policies see it."""
    return {
        "project_id": image["owner"],
        "owner": image["owner"],
        "user_id": None,
        "visibility": image["visibility"],
        "member_id": call.context.project_id if image["is_member"] else None,
        "image_id": image["id"],
        "status": image["status"],
    }


def permit(call: Call, image: Image, rule: str | None = None) -> None:
    """:raises Forbidden: the operation's policy (or ``rule``) does not allow it on this image."""
    call.authorize(target(call, image), rule)


def permit_visibility(call: Call, visibility: str | None, where: dict[str, Any]) -> None:
    """:raises Forbidden: the asker may not make an image that visible."""
    rules = {"public": "publicize_image", "community": "communitize_image"}
    if visibility in rules:
        call.authorize(where, rules[visibility])


def timestamp(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def refuse_nul(value: Any) -> None:
    """:raises BadRequest: PostgreSQL can't keep the character NUL in a text."""
    if isinstance(value, str):
        if "\0" in value:
            raise BadRequest("The character NUL is not allowed.")
    elif isinstance(value, dict):
        for key, item in value.items():
            refuse_nul(key)
            refuse_nul(item)
    elif isinstance(value, list):
        for item in value:
            refuse_nul(item)


def refused(status: int, message: str, **headers: str) -> webob.Response:
    """An error answer with headers of its own."""
    body, content_type = faults.html_format(status, message, None)
    response = webob.Response(status=status, body=body)
    response.headers["Content-Type"] = content_type
    response.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return response
