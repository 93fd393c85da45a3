"""Validation of bodies and queries against JSON schemas (2020-12), and building blocks for them.

Every object says ``additionalProperties``; ``obj`` makes that the default.
A failure is a BadRequest that names the field and says what would be right.
"""

from __future__ import annotations

import ipaddress
import uuid
from collections.abc import Mapping
from typing import Any

import jsonschema_rs

from core.errors import BadRequest

_SHOWN = 120


def is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) in (text.lower(), text.lower().replace("-", "")) or len(text) == 32
    except ValueError:
        return False


def _is_ip(version: int | None) -> Any:
    def check(text: str) -> bool:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        if "%" in text:
            # a scope means something on one machine only, and has no bounded length
            return False
        return version is None or address.version == version

    return check


def _is_base64(text: str) -> bool:
    import base64
    import binascii

    try:
        base64.b64decode(text, validate=False)
    except (binascii.Error, ValueError):
        return False
    return True


FORMATS = {
    "uuid": is_uuid,
    "ipv4": _is_ip(4),
    "ipv6": _is_ip(6),
    "ip": _is_ip(None),
    "base64": _is_base64,
}

UUID = {"type": "string", "format": "uuid"}
NAME = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^(?!\s)[\s\S]*\S$"}
"""A name: 1 to 255 characters, no white space at its ends."""
DESCRIPTION = {"type": ["string", "null"], "maxLength": 255}
BOOLEAN = {
    "enum": [True, "True", "TRUE", "true", "1", "ON", "On", "on", "YES", "Yes", "yes"]
    + [False, "False", "FALSE", "false", "0", "OFF", "Off", "off", "NO", "No", "no"]
}
"""What the compute API takes as a boolean."""
METADATA = {
    "type": "object",
    "patternProperties": {r"^[a-zA-Z0-9-_:. ]{1,255}$": {"type": "string", "maxLength": 255}},
    "additionalProperties": False,
}


def integer(minimum: int, maximum: int = 0x7FFFFFFF) -> dict[str, Any]:
    """An integer, also as text ("12"), as the compute API takes it."""
    return {
        "anyOf": [
            {"type": "integer", "minimum": minimum, "maximum": maximum},
            {"type": "string", "pattern": r"^-?[0-9]+$", "minLength": 1},
        ]
    }


def obj(
    properties: Mapping[str, Any], required: tuple[str, ...] | list[str] = (), additional: bool = False
) -> dict[str, Any]:
    """An object schema that refuses unknown keys unless told otherwise."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": additional,
    }


def query(properties: Mapping[str, Any], additional: bool = True) -> dict[str, Any]:
    """A query schema: each key comes as a list of texts."""
    return obj(
        {
            key: {"type": "array", "items": value, **({"maxItems": 1} if value.pop("single", False) else {})}
            for key, value in ((k, dict(v)) for k, v in properties.items())
        },
        additional=additional,
    )


LIMIT = {"type": "string", "pattern": r"^[0-9]+$"}
PAGING = {"limit": LIMIT, "marker": {"type": "string"}}


class Validators:
    """Compiled validators, made once per schema object."""

    def __init__(self) -> None:
        self._compiled: dict[int, Any] = {}

    def check(self, schema: Mapping[str, Any], value: Any) -> None:
        """:raises BadRequest: names the first field that is wrong."""
        compiled = self._compiled.get(id(schema))
        if compiled is None:
            compiled = jsonschema_rs.Draft202012Validator(
                dict(schema), formats=FORMATS, validate_formats=True
            )
            self._compiled[id(schema)] = compiled
        if compiled.is_valid(value):
            return
        error = next(iter(compiled.iter_errors(value)))
        raise BadRequest(describe(error, value))


def describe(error: Any, value: Any) -> str:
    """In words: which field, what it was, what would be right."""
    path = _keys(list(error.instance_path), value)
    shown = repr(error.instance)
    if len(shown) > _SHOWN:
        shown = shown[:_SHOWN] + "…"
    where = "/".join(path)
    if not where:
        return f"Invalid input: {error.message}"
    return f"Invalid input for field/attribute {where}. Value: {shown}. {error.message}"


def _keys(path: list[Any], value: Any) -> list[str]:
    """The way to a field as its document spells it: the validator gives the key "007" as 7."""
    keys = []
    for part in path:
        key = part
        if isinstance(value, Mapping) and key not in value:
            key = next(
                (each for each in value if each.isascii() and each.isdigit() and int(each) == part), part
            )
        keys.append(str(key))
        value = value.get(key) if isinstance(value, Mapping) else value[key]
    return keys
