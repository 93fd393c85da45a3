"""Building blocks of this API's schemas."""

from __future__ import annotations

from typing import Any

from api.common import validation as v

NAME = {"type": ["string", "null"], "maxLength": 255}
NEW_NAME = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"\S"}
DESCRIPTION = {"type": ["string", "null"], "maxLength": 255}
BOOLEAN = v.BOOLEAN
UUID = v.UUID
MAYBE_UUID = {"anyOf": [v.UUID, {"type": "null"}]}
TEXT = {"type": "string", "minLength": 1, "maxLength": 255}
MAYBE_TEXT = {"type": ["string", "null"], "maxLength": 255}
METADATA = {
    "type": ["object", "null"],
    "patternProperties": {r"^[\s\S]{1,255}$": {"type": "string", "maxLength": 255}},
    "additionalProperties": False,
}
SPECS = {
    "type": "object",
    "patternProperties": {r"^[a-zA-Z0-9-_:. ]{1,255}$": {"type": "string", "maxLength": 255}},
    "additionalProperties": False,
}
SIZE = {
    "anyOf": [
        {"type": "integer", "minimum": 1, "maximum": 0x7FFFFFFF},
        {"type": "string", "pattern": r"^0*[1-9][0-9]{0,8}$"},
    ]
}


def action(name: str, content: dict[str, Any]) -> dict[str, Any]:
    """The body of an action: one key."""
    return v.obj({name: content}, [name])


def empty(name: str) -> dict[str, Any]:
    """An action without arguments."""
    return action(name, {"type": ["object", "null", "string"], "maxProperties": 0, "maxLength": 0})


def reset(name: str, statuses: str) -> dict[str, Any]:
    """The action that sets a status by hand; ``statuses``: a pattern."""
    return action(name, v.obj({"status": {"type": "string", "pattern": statuses}}, ["status"]))


def wrapped(name: str, properties: dict[str, Any], required: tuple[str, ...] = ()) -> dict[str, Any]:
    """``{name: {…}}``, unknown keys refused."""
    return v.obj({name: v.obj(properties, required)}, [name])
