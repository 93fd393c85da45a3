"""Schemas of metadata definitions: namespaces, their properties, objects, tags and resource types.

Clients ask for them when they start; requests are checked against the same.
"""

from __future__ import annotations

from typing import Any

from api.image.schemas import collection_document

_TYPES = {"type": "string", "enum": ["array", "boolean", "integer", "number", "object", "string", None]}
_POSITIVE = {"$ref": "#/definitions/positiveInteger"}
_POSITIVE_OR_0 = {"$ref": "#/definitions/positiveIntegerDefault0"}
_TEXTS = {"$ref": "#/definitions/stringArray"}
_TEXT = {"type": "string"}
_SHORT = {"type": "string", "maxLength": 80}
_NAME = {"type": "string", "maxLength": 255}
_READ_ONLY = {"type": "string", "readOnly": True}


def _times(what: str) -> dict[str, Any]:
    moment = {"type": "string", "format": "date-time", "readOnly": True}
    return {
        "created_at": {**moment, "description": f"When the {what} was made"},
        "updated_at": {**moment, "description": f"When the {what} was last changed"},
    }


_PROPERTY: dict[str, Any] = {
    "name": _NAME,
    "title": _TEXT,
    "description": _TEXT,
    "type": _TYPES,
    "operators": {"type": "array", "items": _TEXT},
    "items": {"type": "object", "properties": {"type": _TYPES, "enum": {"type": "array"}}},
    "required": _TEXTS,
    "readonly": {"type": "boolean"},
    "default": {},
    "enum": {"type": "array"},
    "minimum": {"type": "number"},
    "maximum": {"type": "number"},
    "minLength": _POSITIVE_OR_0,
    "maxLength": _POSITIVE,
    "pattern": {"type": "string", "format": "regex"},
    "minItems": _POSITIVE_OR_0,
    "maxItems": _POSITIVE,
    "uniqueItems": {"type": "boolean", "default": False},
    "additionalItems": {"type": "boolean"},
}
_DEFINITIONS: dict[str, Any] = {
    "positiveInteger": {"type": "integer", "minimum": 0},
    "positiveIntegerDefault0": {"allOf": [_POSITIVE, {"default": 0}]},
    "stringArray": {"type": "array", "items": _TEXT, "uniqueItems": True},
    "property": {
        "type": "object",
        "additionalProperties": {"type": "object", "properties": _PROPERTY, "required": ["title", "type"]},
    },
}


def _item(
    name: str, properties: dict[str, Any], required: list[str], defined: bool = False
) -> dict[str, Any]:
    found = {
        "name": name,
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
    return {**found, "definitions": _DEFINITIONS} if defined else found


_PROPERTIES_OF = {"$ref": "#/definitions/property"}
NAMESPACE = _item(
    "namespace",
    {
        "namespace": {**_SHORT, "description": "The name by which the namespace is found."},
        "display_name": {**_SHORT, "description": "The name that people see."},
        "description": {"type": "string", "maxLength": 500, "description": "What the namespace is for."},
        "visibility": {"type": "string", "enum": ["public", "private"], "description": "Who may see it."},
        "protected": {"type": "boolean", "description": "If true, it can't be deleted."},
        "owner": {**_NAME, "description": "Project that owns it."},
        "schema": _READ_ONLY,
        "self": _READ_ONLY,
        "resource_type_associations": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": _TEXT, "prefix": _TEXT, "properties_target": _TEXT},
            },
        },
        "properties": _PROPERTIES_OF,
        "objects": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "name": _TEXT,
                    "description": _TEXT,
                    "required": _TEXTS,
                    "properties": _PROPERTIES_OF,
                },
            },
        },
        "tags": {"type": "array", "items": {"type": "object", "properties": {"name": _TEXT}}},
        **_times("namespace"),
    },
    ["namespace"],
    defined=True,
)
OBJECT = _item(
    "object",
    {
        "name": _NAME,
        "description": _TEXT,
        "required": _TEXTS,
        "properties": _PROPERTIES_OF,
        "schema": _READ_ONLY,
        "self": _READ_ONLY,
        **_times("object"),
    },
    ["name"],
    defined=True,
)
PROPERTY = _item("property", _PROPERTY, ["type", "title", "name"], defined=True)
TAG = _item("tag", {"name": _NAME, **_times("tag")}, ["name"])
TAGS_REQUEST: dict[str, Any] = {
    "type": "object",
    "properties": {"tags": {"type": "array", "maxItems": 1000, "items": TAG}},
    "required": ["tags"],
    "additionalProperties": False,
}
"""What POST …/tags takes; upstream shows no schema of it."""
READ_ONLY = ("created_at", "updated_at", "self", "schema")
RESOURCE_TYPE = _item(
    "resource_type_association",
    {
        "name": {**_SHORT, "description": "Name of the resource type, as the orchestration service has it."},
        "prefix": {**_SHORT, "description": "What properties begin with on this resource type."},
        "properties_target": {
            **_SHORT,
            "description": "Which of the resource's sets of properties is meant.",
        },
        **_times("resource type association"),
    },
    ["name"],
)


def _collection(name: str, item: dict[str, Any]) -> dict[str, Any]:
    """A list; shared definitions stand at the top, where references look for them."""
    inner = {key: value for key, value in item.items() if key != "definitions"}
    found = collection_document(name, inner)
    if name == "properties":
        found["properties"]["properties"] = {"type": "object", "additionalProperties": inner}
    return {**found, "definitions": item["definitions"]} if "definitions" in item else found


DOCUMENTS: dict[str, dict[str, Any]] = {
    "namespace": NAMESPACE,
    "namespaces": _collection("namespaces", NAMESPACE),
    "object": OBJECT,
    "objects": _collection("objects", OBJECT),
    "property": PROPERTY,
    "properties": _collection("properties", PROPERTY),
    "tag": TAG,
    "tags": _collection("tags", TAG),
    "resource_type": RESOURCE_TYPE,
    "resource_types": _collection("resource_type_associations", RESOURCE_TYPE),
}
"""By the last segment of /v2/schemas/metadefs/…."""


def request(document: dict[str, Any]) -> dict[str, Any]:
    """What a request is checked against: the document, with unknown keys refused at every depth.

    The parts of a namespace may come with what only the service sets: a client sends what it has read.
    """
    closed = _closed(document)
    for name in ("resource_type_associations", "objects", "tags") if document is NAMESPACE else ():
        part = closed["properties"][name]["items"]
        part["properties"] = {**dict.fromkeys(READ_ONLY, {}), **part["properties"]}
    return closed


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    result = dict(schema)
    for key in ("properties", "definitions"):
        if key in schema:
            result[key] = {name: _closed(found) for name, found in schema[key].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            result[key] = _closed(schema[key])
    if "properties" in schema:
        result.setdefault("additionalProperties", False)
    return result
