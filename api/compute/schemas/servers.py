"""What POST and PUT /servers take, by microversion, and the query of the lists.

Facts from upstream's API reference; each microversion is built on the one before.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from api.common import validation as v

MAX_TAGS = 50
TAG = {"type": "string", "minLength": 1, "maxLength": 60, "pattern": r"^[^,/]*$"}
TAGS = {"type": "array", "items": TAG, "maxItems": MAX_TAGS}
DISK_CONFIG = {"enum": ["AUTO", "MANUAL"]}
ACCESS_V4 = {"type": "string", "format": "ipv4"}
ACCESS_V6 = {"type": "string", "format": "ipv6"}
FQDN = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[a-zA-Z0-9._-]*$"}
HOSTNAME = {
    "type": "string",
    "minLength": 2,
    "maxLength": 63,
    "pattern": r"^[a-zA-Z0-9]+[a-zA-Z0-9-]*[a-zA-Z0-9]+$",
}
HOSTNAME_FQDN = {
    "type": "string",
    "minLength": 2,
    "maxLength": 255,
    "pattern": r"^[a-zA-Z0-9]+[a-zA-Z0-9.-]*[a-zA-Z0-9]+$",
}
PERSONALITY = {
    "type": "array",
    "items": v.obj({"path": {"type": "string"}, "contents": {"type": "string", "format": "base64"}}),
}
TRUSTED_CERTIFICATES = {
    "anyOf": [
        {"type": "null"},
        {
            "type": "array",
            "minItems": 1,
            "maxItems": 50,
            "uniqueItems": True,
            "items": {"type": "string", "minLength": 1},
        },
    ]
}
_DEVICE = {
    "virtual_name": {"type": "string", "maxLength": 255},
    "volume_id": v.UUID,
    "snapshot_id": v.UUID,
    "volume_size": {"type": ["integer", "string"], "pattern": r"^[0-9]+$", "minimum": 1, "minLength": 1},
    "device_name": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[a-zA-Z0-9._/-]*$"},
    "delete_on_termination": v.BOOLEAN,
    "no_device": {},
    "connection_info": {"type": "string"},
}
_DEVICE_V2 = {
    **_DEVICE,
    "source_type": {"enum": ["volume", "image", "snapshot", "blank"]},
    "uuid": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[a-zA-Z0-9._-]*$"},
    "image_id": v.UUID,
    "destination_type": {"enum": ["local", "volume"]},
    "guest_format": {"type": "string", "maxLength": 255},
    "device_type": {"type": "string", "maxLength": 255},
    "disk_bus": {"type": "string", "maxLength": 255},
    "boot_index": {"type": ["integer", "string", "null"], "pattern": r"^-?[0-9]+$"},
}
_SERVER_OR_SERVERS = {"anyOf": [{"type": "string"}, {"type": "array", "items": v.UUID}]}
HINTS = {
    "type": "object",
    "properties": {
        "group": v.UUID,
        "different_host": {"anyOf": [v.UUID, {"type": "array", "items": v.UUID}]},
        "same_host": _SERVER_OR_SERVERS,
        "query": {"type": ["string", "object"]},
        "target_cell": v.NAME,
        "different_cell": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
        "build_near_host_ip": {"type": "string", "format": "ip"},
        "cidr": {"type": "string", "pattern": r"^/[0-9a-f.:]+$"},
    },
    # filters that haneul does not know may be installed: their hints pass
    "additionalProperties": True,
}
Properties = dict[str, Any]


def _network(tag: bool, strict: bool) -> dict[str, Any]:
    properties: Properties = {
        "fixed_ip": {"type": "string", "format": "ip"},
        "port": {"anyOf": [v.UUID, {"type": "null"}]},
        "uuid": v.UUID if strict else {"type": "string"},
    }
    if tag:
        properties["tag"] = TAG
    listed = {"type": "array", "items": v.obj(properties)}
    return {"anyOf": [listed, {"enum": ["none", "auto"]}]} if strict else listed


def _base() -> Properties:
    return {
        "name": v.NAME,
        "imageRef": {"anyOf": [v.UUID, {"type": "string", "maxLength": 0}]},
        "flavorRef": {"type": ["string", "integer"], "minLength": 1},
        "adminPass": {"type": "string"},
        "metadata": v.METADATA,
        "networks": _network(tag=False, strict=False),
        "OS-DCF:diskConfig": DISK_CONFIG,
        "accessIPv4": ACCESS_V4,
        "accessIPv6": ACCESS_V6,
        "personality": PERSONALITY,
        "availability_zone": v.NAME,
        "block_device_mapping": {"type": "array", "items": v.obj(_DEVICE)},
        "block_device_mapping_v2": {"type": "array", "items": v.obj(_DEVICE_V2)},
        "config_drive": v.BOOLEAN,
        "key_name": v.NAME,
        "min_count": v.integer(1),
        "max_count": v.integer(1),
        "return_reservation_id": v.BOOLEAN,
        "security_groups": {"type": "array", "items": v.obj({"name": v.NAME})},
        "user_data": {"type": "string", "format": "base64", "maxLength": 65535},
    }


def _device_field(name: str, schema: dict[str, Any] | None) -> Callable[[Properties], None]:
    def change(properties: Properties) -> None:
        fields = properties["block_device_mapping_v2"]["items"]["properties"]
        if schema is None:
            del fields[name]
        else:
            fields[name] = schema

    return change


def _set(**values: Any) -> Callable[[Properties], None]:
    return lambda properties: properties.update(values)


_TAG_DEVICE = _device_field("tag", TAG)
_STEPS: tuple[tuple[str, tuple[Callable[[Properties], Any], ...]], ...] = (
    ("2.1", ()),
    ("2.19", (_set(description=v.DESCRIPTION),)),
    ("2.32", (_set(networks=_network(tag=True, strict=False)), _TAG_DEVICE)),
    ("2.33", (_device_field("tag", None),)),
    ("2.37", (_set(networks=_network(tag=False, strict=True)),)),
    ("2.42", (_set(networks=_network(tag=True, strict=True)), _TAG_DEVICE)),
    ("2.52", (_set(tags=TAGS),)),
    ("2.57", (lambda properties: properties.pop("personality"),)),
    ("2.63", (_set(trusted_image_certificates=TRUSTED_CERTIFICATES),)),
    ("2.67", (_device_field("volume_type", {"type": ["string", "null"], "maxLength": 255}),)),
    ("2.74", (_set(host=FQDN, hypervisor_hostname=FQDN),)),
    ("2.90", (_set(hostname=HOSTNAME),)),
    ("2.94", (_set(hostname=HOSTNAME_FQDN),)),
)


def _create() -> tuple[tuple[str, dict[str, Any]], ...]:
    properties, required, result = _base(), ["name", "flavorRef"], []
    for version, changes in _STEPS:
        for change in changes:
            change(properties)
        if version == "2.37":
            required = [*required, "networks"]
        body = v.obj(
            {
                "server": v.obj(copy.deepcopy(properties), required),
                "os:scheduler_hints": HINTS,
                "OS-SCH-HNT:scheduler_hints": HINTS,
            },
            ["server"],
        )
        result.append((version, body))
    return tuple(result)


CREATE = _create()

_UPDATE = {
    "name": v.NAME,
    "OS-DCF:diskConfig": DISK_CONFIG,
    "accessIPv4": ACCESS_V4,
    "accessIPv6": ACCESS_V6,
}


def _update(**more: Any) -> dict[str, Any]:
    return v.obj({"server": v.obj({**_UPDATE, **more})}, ["server"])


UPDATE = (
    ("2.1", _update()),
    ("2.19", _update(description=v.DESCRIPTION)),
    ("2.90", _update(description=v.DESCRIPTION, hostname=HOSTNAME)),
    ("2.94", _update(description=v.DESCRIPTION, hostname=HOSTNAME_FQDN)),
)

SORT_COLUMNS = {
    "access_ip_v4": "access_ip_v4",
    "access_ip_v6": "access_ip_v6",
    "auto_disk_config": "disk_config",
    "availability_zone": "availability_zone",
    "config_drive": "config_drive",
    "created_at": "created_at",
    "display_description": "description",
    "display_name": "name",
    "host": "host",
    "hostname": "hostname",
    "image_ref": "image_id",
    "instance_type_id": "flavor_id",
    "kernel_id": "",
    "key_name": "key_name",
    "launch_index": "launch_index",
    "launched_at": "launched_at",
    "locked_by": "locked_by",
    "node": "node",
    "power_state": "power_state",
    "progress": "progress",
    "project_id": "project_id",
    "ramdisk_id": "",
    "root_device_name": "root_device_name",
    "task_state": "task_state",
    "terminated_at": "terminated_at",
    "updated_at": "updated_at",
    "user_id": "user_id",
    "uuid": "id",
    "vm_state": "vm_state",
}
"""The API's sort keys and our columns; "" has no column here and sorts nothing."""
_IGNORED_SORT_KEYS = (
    ["architecture", "cell_name", "cleaned", "default_ephemeral_device", "default_swap_device", "deleted"]
    + ["deleted_at", "disable_terminate", "ephemeral_gb", "ephemeral_key_uuid", "id", "key_data"]
    + ["launched_on", "locked", "memory_mb", "os_type", "reservation_id", "root_gb", "shutdown_terminate"]
    + ["user_data", "vcpus", "vm_mode"]
)
_FILTERS = (
    ["user_id", "project_id", "tenant_id", "launch_index", "image_ref", "image", "kernel_id", "ramdisk_id"]
    + ["hostname", "key_name", "power_state", "vm_state", "task_state", "host", "node", "flavor"]
    + ["reservation_id", "launched_at", "terminated_at", "availability_zone", "name", "display_name"]
    + ["description", "display_description", "locked_by", "uuid", "root_device_name", "config_drive"]
    + ["access_ip_v4", "access_ip_v6", "auto_disk_config", "progress", "all_tenants", "soft_deleted"]
    + ["deleted", "status", "changes-since", "ip", "ip6", "created_at", "sort_dir"]
    + ["block_device_mapping", "services", "metadata", "system_metadata", "info_cache", "security_groups"]
    + ["pci_devices"]
)


def _query(filters: list[str], sort_keys: list[str], additional: bool) -> dict[str, Any]:
    text = {"type": "string", "maxLength": 2048}
    return v.query(
        {
            **dict.fromkeys(filters, text),
            "sort_key": {"enum": sort_keys},
            **v.PAGING,
        },
        additional=additional,
    )


_TAG_FILTERS = ["tags", "tags-any", "not-tags", "not-tags-any"]
_KEYS = [*SORT_COLUMNS]
LIST = (
    ("2.1", _query(_FILTERS, _KEYS + _IGNORED_SORT_KEYS, True)),
    ("2.26", _query(_FILTERS + _TAG_FILTERS, _KEYS + _IGNORED_SORT_KEYS, True)),
    ("2.66", _query([*_FILTERS, *_TAG_FILTERS, "changes-before"], _KEYS + _IGNORED_SORT_KEYS, True)),
    (
        "2.73",
        _query([*_FILTERS, *_TAG_FILTERS, "changes-before", "locked"], _KEYS + _IGNORED_SORT_KEYS, True),
    ),
    ("2.75", _query([*_FILTERS, *_TAG_FILTERS, "changes-before", "locked"], [*_KEYS, "locked"], False)),
)
