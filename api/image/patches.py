"""Changes of an image: the two JSON patch dialects of this API, read and applied.

``application/openstack-images-v2.1-json-patch`` has ``{"op", "path", "value"}``;
the older ``…-v2.0-…`` has ``{"add": "/name", "value": …}``, and there "add" refuses
what exists.  Only whole attributes and properties can be named.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

from api.common.validation import Validators
from api.image.common import refuse_nul
from api.image.schemas import READ_ONLY, RESERVED, RESERVED_PREFIX, WRITABLE
from core.errors import BadRequest, Conflict, Forbidden
from db.images import Image

MEDIA_TYPES = (
    "application/openstack-images-v2.1-json-patch",
    "application/openstack-images-v2.0-json-patch",
)
OPERATIONS = ("add", "remove", "replace")
_DEPTHS = {"add": 2, "remove": 2, "replace": 1}
"""Path lengths for "locations", a list; everything else has one segment."""


@dataclasses.dataclass(frozen=True)
class Change:
    """One operation. ``strict``: "add" refuses what exists (v2.0)."""

    op: str
    name: str
    value: Any
    strict: bool


def read(body: Any, media_type: str, schema: Mapping[str, Any], validators: Validators) -> list[Change]:
    """Parse and check a patch.

    :raises BadRequest: malformed, or a value that can't be. :raises Forbidden: read-only or reserved.
    """
    if not isinstance(body, list):
        raise BadRequest("Request body must be a JSON array of operation objects.")
    old = media_type == MEDIA_TYPES[1]
    changes = []
    for raw in body:
        if not isinstance(raw, dict):
            raise BadRequest("Operations must be JSON objects.")
        op, pointer = _old_operation(raw) if old else _operation(raw)
        path = _pointer(pointer)
        name = path[0]
        if len(path) != (_DEPTHS[op] if name == "locations" else 1):
            raise BadRequest(f"Invalid JSON pointer for this resource: '{pointer}'")
        refuse_protected(name)
        value = None
        if op != "remove":
            if "value" not in raw:
                raise BadRequest(f'Operation "{op}" requires a member named "value".')
            value = raw["value"]
            refuse_nul(value)
            if name != "locations":
                validators.check(schema, {name: value})
        changes.append(Change(op, name, value, old))
    return changes


def refuse_protected(name: str) -> None:
    """:raises Forbidden: nobody but the service sets it. :raises BadRequest: no name of a property."""
    if name in READ_ONLY or name == "id":
        raise Forbidden(f"Attribute '{name}' is read-only.")
    refuse_reserved(name)


def refuse_reserved(name: str) -> None:
    """:raises Forbidden: the name belongs to the service. :raises BadRequest: it is too long."""
    if name in RESERVED or name.startswith(RESERVED_PREFIX):
        raise Forbidden(f"Attribute '{name}' is reserved.")
    if len(name) > 255:
        raise BadRequest("Custom property should not be greater than 255 characters.")
    refuse_nul(name)


def _operation(raw: dict[str, Any]) -> tuple[str, Any]:
    op = raw.get("op")
    if op not in OPERATIONS:
        what = "Unable to find `op`" if op is None else f"Invalid operation: `{op}`"
        raise BadRequest(f"{what}. It must be one of the following: {', '.join(OPERATIONS)}.")
    if "path" not in raw:
        raise BadRequest("Unable to find 'path' in JSON Schema change")
    return str(op), raw["path"]


def _old_operation(raw: dict[str, Any]) -> tuple[str, Any]:
    found = [op for op in OPERATIONS if op in raw]
    if len(found) != 1:
        raise BadRequest(
            'Operation objects must contain exactly one member named "add", "remove", or "replace".'
        )
    return found[0], raw[found[0]]


def _pointer(pointer: Any) -> list[str]:
    """The segments of a JSON pointer (RFC 6901)."""
    if not isinstance(pointer, str) or not pointer.startswith("/"):
        raise BadRequest(f'Pointer `{pointer}` does not start with "/".')
    if (
        re.search(r"/\s*/", pointer)
        or (len(pointer) > 1 and pointer.endswith("/"))
        or not pointer[1:].strip()
    ):
        raise BadRequest(f"Pointer `{pointer}` has an empty segment.")
    if re.search(r"~([^01]|$)", pointer):
        raise BadRequest(f'Pointer `{pointer}` contains "~" not part of a recognized escape sequence.')
    return [part.replace("~1", "/").replace("~0", "~").strip() for part in pointer[1:].split("/")]


def apply(image: Image, changes: list[Change], is_admin: bool, permit: Callable[[Change], None]) -> Image:
    """The image as it would be. ``permit`` is asked before each change.

    :raises Forbidden: not changeable, or not now. :raises Conflict: it is, or is not, there.
    """
    changed: Image = copy.deepcopy(image)
    for change in changes:
        permit(change)
        if change.name == "locations":
            raise Forbidden("It's not allowed to change locations if locations are invisible.")
        if change.name in WRITABLE:
            _set(changed, change, is_admin)
        else:
            _set_property(changed["properties"], change)
    return changed


def _set(image: Image, change: Change, is_admin: bool) -> None:
    name = change.name
    if change.op == "remove":
        raise Forbidden(f"Property {name} may not be removed.")
    if change.op == "add" and change.strict:
        raise Conflict(f"Property {name} already present.")
    if name == "owner" and not is_admin:
        raise Forbidden("Owner can't be updated by non admin.")
    if name in ("disk_format", "container_format") and image["status"] not in ("queued", "importing"):
        raise Forbidden(f"Attribute {name} can be only replaced for a queued image.")
    image[name] = sorted(set(change.value)) if name == "tags" else change.value


def _set_property(properties: dict[str, Any], change: Change) -> None:
    exists = change.name in properties
    if change.op == "add" and change.strict and exists:
        raise Conflict(f"Property {change.name} already present.")
    if change.op != "add" and not exists:
        raise Conflict(f"Property {change.name} does not exist.")
    if change.op == "remove":
        del properties[change.name]
    else:
        properties[change.name] = change.value
