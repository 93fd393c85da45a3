"""Images and members as the API shows them."""

from __future__ import annotations

import logging
from typing import Any

from api.image.common import BASE, timestamp
from core.errors import DriverError
from db.images import Image
from image.stores import Stores

LOG = logging.getLogger(__name__)
_SHOWN = (
    "id",
    "name",
    "status",
    "visibility",
    "protected",
    "os_hidden",
    "checksum",
    "os_hash_algo",
    "os_hash_value",
    "owner",
    "size",
    "virtual_size",
    "container_format",
    "disk_format",
    "min_ram",
    "min_disk",
    "tags",
)


def image_view(image: Image, stores: Stores, direct_url: bool = False) -> dict[str, Any]:
    """An image; its own properties stand beside the attributes."""
    view: dict[str, Any] = dict(image["properties"])
    view |= {name: image[name] for name in _SHOWN}
    path = f"{BASE}/{image['id']}"
    view |= {
        "created_at": timestamp(image["created_at"]),
        "updated_at": timestamp(image["updated_at"]),
        "self": path,
        "file": f"{path}/file",
        "schema": "/v2/schemas/image",
    }
    if image["locations"]:
        view["stores"] = ",".join(found["store"] for found in image["locations"])
        if direct_url and (url := location_url(image["locations"][0], stores)):
            view["direct_url"] = url
    return view


def location_url(location: dict[str, Any], stores: Stores) -> str | None:
    """The URL of an object in its store; None if the store is not configured here, or can't be asked."""
    if location["store"] not in stores:
        return None
    try:
        return stores.get(location["store"]).url(location["name"])
    except DriverError as error:  # a list of images must not fail with one of its stores
        LOG.warning("store %s gives no URLs: %s", location["store"], error)
        return None


def member_view(member: dict[str, Any]) -> dict[str, Any]:
    return {
        "member_id": member["member_id"],
        "image_id": member["image_id"],
        "status": member["status"],
        "created_at": timestamp(member["created_at"]),
        "updated_at": timestamp(member["updated_at"]),
        "schema": "/v2/schemas/member",
    }
