"""Volumes as this API shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from api.common.operations import Call
from api.volume import common
from db import volume_types, volumes
from db.volume_base import Row


def brief(call: Call, row: Mapping[str, Any]) -> dict[str, Any]:
    """What a list without details shows."""
    return {"id": row["id"], "name": row["name"], "links": common.self_links(call, f"volumes/{row['id']}")}


def detailed(
    call: Call, connection: sa.Connection, rows: Sequence[Row], *, whole: bool = True
) -> list[dict[str, Any]]:
    """Volumes in full: two more statements, however many rows.

    ``whole`` False: without what extensions add, as answers to a creation or a change are.
    """
    names = volume_types.names(connection, [row["type_id"] for row in rows if row["type_id"]])
    attached = volumes.attachments_of(connection, [row["id"] for row in rows])
    return [_view(call, row, names, attached.get(row["id"], []), whole) for row in rows]


def _view(
    call: Call, row: Mapping[str, Any], names: Mapping[str, str], attached: Sequence[Row], whole: bool
) -> dict[str, Any]:
    shows_admin = call.allowed("volume_extension:volume_host_attribute", common.mine(call, row))
    found: dict[str, Any] = {
        "id": row["id"],
        "name": row["name"],
        "description": row["description"],
        "size": row["size_gib"],
        "status": row["status"],
        "migration_status": row["migration_status"],
        "availability_zone": row["availability_zone"],
        "created_at": common.micro(row["created_at"]),
        "updated_at": common.micro(row["updated_at"]),
        "bootable": str(bool(row["bootable"])).lower(),
        "encrypted": bool(row["encrypted"]),
        "multiattach": bool(row["multiattach"]),
        "volume_type": names.get(row["type_id"]),
        "snapshot_id": row["snapshot_id"],
        "source_volid": row["source_volume_id"],
        "consistencygroup_id": None,
        "replication_status": row["replication_status"],
        "user_id": row["user_id"],
        "metadata": metadata_of(row),
        "attachments": [
            attachment(call, each, shows_admin) for each in attached if each["status"] == "attached"
        ],
        "links": common.self_links(call, f"volumes/{row['id']}"),
    }
    if whole:
        _add_extended(call, found, row, shows_admin)
    _add_newer(call, found, row)
    return found


def _add_extended(call: Call, found: dict[str, Any], row: Mapping[str, Any], shows_admin: bool) -> None:
    """What extensions add, each by its policy."""
    target = common.mine(call, row)
    if row["image_metadata"]:
        found["volume_image_metadata"] = row["image_metadata"]
    if call.allowed("volume_extension:volume_tenant_attribute", target):
        found["os-vol-tenant-attr:tenant_id"] = row["project_id"]
    if shows_admin:
        found["os-vol-host-attr:host"] = row["host"]
    if call.allowed("volume_extension:volume_mig_status_attribute", target):
        found["os-vol-mig-status-attr:migstat"] = row["migration_status"]
        found["os-vol-mig-status-attr:name_id"] = row["data_id"]


def _add_newer(call: Call, found: dict[str, Any], row: Mapping[str, Any]) -> None:
    """What microversions added."""
    admin = common.is_admin(call)
    if call.since("3.13"):
        found["group_id"] = row["group_id"]
    if call.since("3.21") and admin:
        found["provider_id"] = None
    if call.since("3.48"):
        shared = row["shared_targets"]
        # three values are known from 3.69 on
        found["shared_targets"] = shared if call.since("3.69") else bool(shared)
        found["service_uuid"] = None
    if call.since("3.61") and admin:
        found["cluster_name"] = None
    if call.since("3.63"):
        found["volume_type_id"] = row["type_id"]
    if call.since("3.64") and row["encryption_key_id"]:
        found["encryption_key_id"] = row["encryption_key_id"]
    if call.since("3.65"):
        found["consumes_quota"] = bool(row["use_quota"])


def metadata_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The user's metadata, with what the service itself adds."""
    found = dict(row["metadata"])
    if row["readonly"] is not None:
        found["readonly"] = str(bool(row["readonly"]))
    return found


def attachment(call: Call, row: Mapping[str, Any], shows_host: bool) -> dict[str, Any]:
    """An attachment in its volume."""
    return {
        "id": row["volume_id"],
        "attachment_id": row["id"],
        "volume_id": row["volume_id"],
        "server_id": row["instance_id"],
        "host_name": row["attached_host"] if shows_host else None,
        "device": row["mountpoint"],
        "attached_at": common.micro(row["attached_at"]),
    }
