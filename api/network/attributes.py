"""Attributes of resources: what a body may hold, how it is converted, who may set and see it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

MISSING: Any = object()
"""The default of what must be given."""
_TRUE = ("true", "1", "t", "yes", "on")
_FALSE = ("false", "0", "f", "no", "off")


@dataclasses.dataclass(frozen=True)
class Attr:
    """One attribute.

    ``post``/``put``: may be given. ``default``: at creation (MISSING: required). ``create_rule``,
    ``update_rule``: giving it needs the policy create_X:name. ``get_rule``: seeing it needs
    get_X:name. ``column``: its key in rows, if that differs. ``hidden``: is never shown.
    """

    schema: Mapping[str, Any] | None = None
    post: bool = True
    put: bool = True
    default: Any = None
    convert: Callable[[Any], Any] | None = None
    create_rule: bool = False
    update_rule: bool = False
    get_rule: bool = False
    column: str | None = None
    hidden: bool = False


def truth(value: Any) -> bool:
    """A boolean as the schema lets it through."""
    return value in (True, 1) or str(value).lower() in _TRUE


BOOLEAN = {
    "anyOf": [
        {"type": "boolean"},
        {"enum": [0, 1]},
        {"type": "string", "pattern": "^(?i:" + "|".join(_TRUE + _FALSE) + ")$"},
    ]
}
IP = {"type": "string", "format": "ip"}
UUID = {"type": "string", "format": "uuid"}
NULL = {"type": "null"}
MAC = {"type": "string", "pattern": r"^([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$"}
CIDR = {"type": "string", "pattern": r"^[0-9a-fA-F:.]+/[0-9]{1,3}$", "maxLength": 64}


def or_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"anyOf": [dict(schema), NULL]}


def string(maximum: int = 255) -> dict[str, Any]:
    return {"type": "string", "maxLength": maximum}


def integer(minimum: int, maximum: int = 0x7FFFFFFF) -> dict[str, Any]:
    """A whole number, also as text."""
    return {
        "anyOf": [
            {"type": "integer", "minimum": minimum, "maximum": maximum},
            {"type": "string", "pattern": "^[0-9]{1,10}$"},
        ]
    }


def array(items: Mapping[str, Any], maximum: int = 1000) -> dict[str, Any]:
    return {"type": "array", "items": dict(items), "maxItems": maximum}


def whole(value: Any) -> int | None:
    return None if value is None else int(value)


def listed(value: Any) -> list[Any]:
    return [] if value is None else list(value)


def lower(value: str | None) -> str | None:
    return None if value is None else value.lower()


def blank(value: str | None) -> str:
    return "" if value is None else value


def text(maximum: int = 255, **options: Any) -> Attr:
    """A text, empty by default."""
    return Attr(string(maximum), **{"default": "", **options})


def boolean(default: Any, **options: Any) -> Attr:
    return Attr(BOOLEAN, default=default, convert=truth, **options)


def reference(**options: Any) -> Attr:
    """The id of another object, or null."""
    return Attr(or_null(UUID), **options)


def read_only(**options: Any) -> Attr:
    return Attr(post=False, put=False, **options)


PROJECT = {
    "project_id": Attr(string(), put=False, default=None),
    "tenant_id": Attr(string(), put=False, default=None, column="project_id"),
}
STANDARD: dict[str, Attr] = {
    "id": read_only(),
    "name": text(),
    "description": text(),
    **PROJECT,
    "created_at": read_only(),
    "updated_at": read_only(),
    "revision_number": read_only(),
    "tags": Attr(array(string(255), 50), put=False, default=None),
}
"""What nearly all resources have."""

HOST_NAME = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9-]{1,63})*\.?$")
