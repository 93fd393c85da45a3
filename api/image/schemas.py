"""JSON schemas of the Image API: what requests are checked against, and what /v2/schemas shows.

Attributes that only the service sets are of no type in the request's schema: naming
one is forbidden (403), not malformed (400).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

UUID_PATTERN = "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$"
STATUSES = [
    "queued",
    "saving",
    "active",
    "killed",
    "deleted",
    "uploading",
    "importing",
    "pending_delete",
    "deactivated",
]
VISIBILITIES = ["community", "public", "private", "shared"]
MEMBER_STATUSES = ["pending", "accepted", "rejected"]
_MAX_INT = 0x7FFFFFFF

READ_ONLY = (
    "created_at",
    "updated_at",
    "status",
    "checksum",
    "size",
    "virtual_size",
    "direct_url",
    "self",
    "file",
    "schema",
    "stores",
    "os_hash_algo",
    "os_hash_value",
)
RESERVED = ("location", "deleted", "deleted_at")
RESERVED_PREFIX = "os_glance_"
WRITABLE = (
    "name",
    "visibility",
    "protected",
    "os_hidden",
    "min_disk",
    "min_ram",
    "tags",
    "container_format",
    "disk_format",
    "owner",
)
"""Attributes that a PATCH may set; "tags" is a list, the others are columns."""


def _text(description: str, maximum: int | None = None, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "string", "description": description, **more}
    if maximum is not None:
        found["maxLength"] = maximum
    return found


def _or_null(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "type": ["null", found["type"]]}


def _read_only(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "readOnly": True}


_WELL_KNOWN = {
    "kernel_id": _or_null(_text("Image with the kernel for an AMI-style image.", pattern=UUID_PATTERN)),
    "ramdisk_id": _or_null(_text("Image with the RAM disk for an AMI-style image.", pattern=UUID_PATTERN)),
    "instance_uuid": _text("The server that the image was made from; for information only."),
    "architecture": _text("Architecture that the image needs."),
    "os_distro": _text("Common name of the distribution."),
    "os_version": _text("Version of the operating system."),
    "description": _text("What the image is, for people."),
    "cinder_encryption_key_id": _text("The key of a volume that was encrypted."),
    "cinder_encryption_key_deletion_policy": _text(
        "What becomes of that key when the image is deleted.", enum=["on_image_deletion", "do_not_delete"]
    ),
}
"""Properties with a meaning that everyone knows."""

LOCATIONS = {
    "type": "array",
    "description": "Where the data is.",
    "items": {
        "type": "object",
        "properties": {"url": {"type": "string", "maxLength": 255}, "metadata": {"type": "object"}},
        "required": ["url", "metadata"],
    },
}


def _one_of(description: str, formats: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"type": ["null", "string"], "description": description}
    return {**found, "enum": [None, *formats]} if formats else {**found, "maxLength": 32}


def base_properties(
    container_formats: Sequence[str] = (), disk_formats: Sequence[str] = ()
) -> dict[str, Any]:
    """Every attribute of an image; the formats are those that are configured, if any are given."""
    return {
        "id": _text("An identifier for the image", pattern=UUID_PATTERN),
        "name": _or_null(_text("Descriptive name for the image", 255)),
        "status": _read_only(_text("Status of the image", enum=STATUSES)),
        "visibility": _text("Scope of image accessibility", enum=VISIBILITIES),
        "protected": {"type": "boolean", "description": "If true, the image can't be deleted."},
        "os_hidden": {"type": "boolean", "description": "If true, lists leave the image out."},
        "checksum": _read_only(_or_null(_text("md5 of the data", 32))),
        "os_hash_algo": _read_only(_or_null(_text("How os_hash_value is computed", 64))),
        "os_hash_value": _read_only(_or_null(_text("Digest of the data, as hexadecimal digits", 128))),
        "owner": _or_null(_text("Project that owns the image", 255)),
        "size": _read_only({"type": ["null", "integer"], "description": "Bytes of the data"}),
        "virtual_size": _read_only(
            {"type": ["null", "integer"], "description": "Bytes of the disk that a guest sees"}
        ),
        "container_format": _one_of("Format of the container", container_formats),
        "disk_format": _one_of("Format of the disk", disk_formats),
        "created_at": _read_only(_text("When the image was registered")),
        "updated_at": _read_only(_text("When the image was last changed")),
        "tags": {
            "type": "array",
            "description": "Strings related to the image",
            "items": {"type": "string", "maxLength": 255},
        },
        "direct_url": _read_only(_text("URL of the data in its store")),
        "min_ram": {"type": "integer", "description": "MiB of memory that a server needs", "minimum": 0},
        "min_disk": {"type": "integer", "description": "GiB of disk that a server needs", "minimum": 0},
        "self": _read_only(_text("URL of the image")),
        "file": _read_only(_text("URL of the image's data")),
        "stores": _read_only(_text("Stores that have the data, separated by commas")),
        "schema": _read_only(_text("URL of the image's schema")),
        "locations": LOCATIONS,
    }


def image_document(properties: dict[str, Any]) -> dict[str, Any]:
    """GET /v2/schemas/image."""
    extra = {name: {**found, "is_base": False} for name, found in _WELL_KNOWN.items()}
    return {
        "name": "image",
        "properties": {**properties, **extra},
        "additionalProperties": {"type": "string"},
        "links": [
            {"rel": "self", "href": "{self}"},
            {"rel": "enclosure", "href": "{file}"},
            {"rel": "describedby", "href": "{schema}"},
        ],
    }


def collection_document(name: str, item: dict[str, Any]) -> dict[str, Any]:
    """GET /v2/schemas/images and the like."""
    return {
        "name": name,
        "properties": {
            name: {"type": "array", "items": item},
            "first": {"type": "string"},
            "next": {"type": "string"},
            "schema": {"type": "string"},
        },
        "links": [
            {"rel": "first", "href": "{first}"},
            {"rel": "next", "href": "{next}"},
            {"rel": "describedby", "href": "{schema}"},
        ],
    }


def request_schema(properties: dict[str, Any]) -> dict[str, Any]:
    """An image as POST takes it, and as one attribute of a PATCH is checked."""
    known = {name: found for name, found in properties.items() if name not in READ_ONLY}
    for name in ("min_ram", "min_disk"):
        known[name] = {**known[name], "maximum": _MAX_INT}
    return {
        "type": "object",
        "properties": {
            **known,
            **{name: {"readOnly": True} for name in (*READ_ONLY, *RESERVED)},
            **_WELL_KNOWN,
        },
        "additionalProperties": {"type": "string"},
    }


MEMBER = {
    "name": "member",
    "properties": {
        "member_id": _text("An identifier for the image member (a project)"),
        "image_id": _text("An identifier for the image", pattern=UUID_PATTERN),
        "created_at": _text("When the image was shared"),
        "updated_at": _text("When the status last changed"),
        "status": _text("What the member made of it", enum=MEMBER_STATUSES),
        "schema": {"type": "string", "readOnly": True},
    },
}

PATCH_DOCUMENT = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "op": {"enum": ["add", "remove", "replace"]},
            "path": {"type": "string", "pattern": "^/"},
            "value": {},
        },
        "required": ["op", "path"],
    },
}

_JSON_OR_NULL = {"type": ["null", "object"], "description": "A JSON object"}
TASK = {
    "name": "task",
    "properties": {
        "id": _text("An identifier for the task", pattern=UUID_PATTERN),
        "type": _text("What the task does", enum=["import", "api_image_import", "location_import"]),
        "status": _text("Where it is", enum=["pending", "processing", "success", "failure"]),
        "input": {**_JSON_OR_NULL, "description": "What the task works on"},
        "result": {**_JSON_OR_NULL, "description": "What came of it"},
        "owner": _text("Project that owns the task"),
        "message": _text("What went wrong, for people; usually only on failure"),
        "expires_at": _or_null(_text("When the task is forgotten")),
        "created_at": _text("When the task was made"),
        "updated_at": _text("When the task last changed"),
        "self": {"type": "string", "readOnly": True},
        "schema": {"type": "string", "readOnly": True},
    },
}
