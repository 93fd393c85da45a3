"""POST /volumes: what was asked for, checked and made into a row and its intent."""

from __future__ import annotations

import dataclasses
import math
import uuid
from typing import Any

import sqlalchemy as sa

from api.common.operations import Call
from api.compute.image_client import properties_of
from api.volume import common
from core import luks
from core.errors import BadRequest, Conflict, NotFound
from db import intents as db_intents
from db import volume_quotas, volume_services, volume_types, volumes
from db.sessions import retrying
from db.volume_base import Row, backups, groups, intents, snapshots
from db.volume_base import volumes as volumes_table

_GIB = 1 << 30
_IMAGE_KEYS = ("checksum", "container_format", "disk_format", "min_disk", "min_ram", "size")
IMAGE_KEY = "cinder_encryption_key_id"
_SOURCES = ("snapshot_id", "source_volid", "imageRef", "backup_id")


@dataclasses.dataclass
class Source:
    """Where the data comes from. ``kind``: empty, image, snapshot, volume, backup."""

    kind: str = "empty"
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    """columns of the new volume"""
    size_gib: int = 0
    """the least that the volume must have"""
    type_id: str | None = None
    pool: str | None = None
    zone: str | None = None
    encrypted: bool | None = None
    """what is copied as it is, is (not) ciphertext; None: nothing is copied"""
    from_encrypted_image: bool = False


def create(call: Call, asked: dict[str, Any], hints: dict[str, Any]) -> tuple[Row, Row]:
    """Check and write; returns (volume, intent). :raises HaneulError: what can't be made."""
    given = [key for key in _SOURCES if asked.get(key)]
    if len(given) > 1:
        raise BadRequest(f"Of {', '.join(given)} only one may be given.")
    call.authorize()
    image = _image(call, str(asked["imageRef"])) if given == ["imageRef"] else None
    return _write(call, asked, hints, given[0] if given else None, image)


@retrying
def _write(
    call: Call, asked: dict[str, Any], hints: dict[str, Any], given: str | None, image: dict[str, Any] | None
) -> tuple[Row, Row]:
    services = call.services
    with services.databases.global_.write() as connection:
        source = _source(call, connection, asked, given, image)
        size = _size(asked, source, given)
        type_ = _type(call, connection, asked, source)
        zone = _zone(call, connection, asked, source)
        values = {**source.values, **_by_type(call, connection, type_, asked)}
        _refuse_other_encryption(connection, type_, source)
        group = _group(call, connection, asked, type_)
        pool = source.pool or (group and group["host"])
        row = volumes.new_row(
            call.context,
            {
                "name": asked.get("name", asked.get("display_name")),
                "description": asked.get("description", asked.get("display_description")),
                "size_gib": size,
                "type_id": type_["id"],
                "availability_zone": zone,
                "metadata": dict(asked.get("metadata") or {}),
                "group_id": group and group["id"],
                **values,
            },
        )
        services.quotas.check(
            connection, row["project_id"], volume_quotas.of_volume(size, type_["id"]), size_gib=size
        )
        intent = db_intents.row(
            "volume.create",
            "volume",
            row["id"],
            call.context,
            {
                "size_gib": size,
                "source": {"kind": source.kind, **source.arguments},
                "scheduler_hints": hints,
                "availability_zone": zone,
                "pool": pool,
                "excluded": [],
            },
        )
        volumes.insert(connection, [row])
        db_intents.insert(connection, intents, [intent])
    return row, intent


# -- where the data comes from -----------------------------------------------


def _image(call: Call, reference: str) -> dict[str, Any]:
    call.authorize(policy="volume:create_from_image")
    image_id = reference.rstrip("/").rpartition("/")[2]
    try:
        image_id = str(uuid.UUID(image_id))
    except ValueError:
        raise BadRequest("Invalid imageRef provided.") from None
    image: dict[str, Any] = call.services.images.recent(call.context, image_id)
    if image.get("status") != "active":
        raise BadRequest(f"Invalid input received: Image {image_id} is not active.")
    return image


def image_facts(image: dict[str, Any]) -> dict[str, Any]:
    """What the worker has to know of an image; ``key_id`` of an encrypted one."""
    facts = {key: image.get(key) for key in ("disk_format", "size")}
    if image.get(IMAGE_KEY):
        facts["key_id"] = image[IMAGE_KEY]
    return facts


def image_metadata_of(image: dict[str, Any]) -> dict[str, str]:
    """What a volume keeps of its image, for whoever boots from it."""
    found = {"image_id": image["id"], "image_name": image.get("name") or ""}
    for key in _IMAGE_KEYS:
        if image.get(key) is not None:
            found[key] = str(image[key])
    for key, value in properties_of(image).items():
        # the image's key is not the volume's
        if isinstance(value, str | int | float | bool) and not key.startswith(IMAGE_KEY.removesuffix("_id")):
            found[key] = str(value)
    return found


def _source(
    call: Call,
    connection: sa.Connection,
    asked: dict[str, Any],
    given: str | None,
    image: dict[str, Any] | None,
) -> Source:
    if image is not None:
        return _from_image(call, connection, image)
    if given == "snapshot_id":
        return _from_snapshot(call, connection, str(asked["snapshot_id"]))
    if given == "source_volid":
        return _from_volume(call, connection, str(asked["source_volid"]))
    if given == "backup_id":
        row = _visible(call, connection, backups, "Backup", str(asked["backup_id"]))
        if row["status"] != "available":
            raise BadRequest(f"Invalid backup: backup {row['id']} is {row['status']}, not available.")
        return _from_backup(connection, row)
    return Source()


def _from_backup(connection: sa.Connection, row: Row) -> Source:
    source = Source("backup", {"backup_id": row["id"]}, {}, row["size_gib"])
    source.encrypted = row["encryption_key_id"] is not None
    if source.encrypted:
        # what is restored is ciphertext: the volume has to be of such a type, too
        statement = sa.select(volumes_table.c.type_id).where(volumes_table.c.id == row["volume_id"])
        source.type_id = connection.execute(statement).scalar()
    return source


def _from_image(call: Call, connection: sa.Connection, image: dict[str, Any]) -> Source:
    needed = max(image.get("size") or 0, image.get("virtual_size") or 0)
    if image.get(IMAGE_KEY):
        needed -= luks.MOST_HEADER_BYTES  # the guest does not see the header
    least = max(math.ceil(needed / _GIB), int(image.get("min_disk") or 0))
    values = {"image_metadata": image_metadata_of(image), "bootable": True}
    arguments = {"image_id": image["id"], "image": image_facts(image)}
    source = Source("image", arguments, values, least)
    source.from_encrypted_image = bool(image.get(IMAGE_KEY))
    if (name := image.get("cinder_img_volume_type")) is not None:
        source.type_id = volume_types.by_name_or_id(
            connection, str(name), volume_types.visible(call.context.project_id)
        )["id"]
    return source


def _from_snapshot(call: Call, connection: sa.Connection, identifier: str) -> Source:
    snapshot = _visible(call, connection, snapshots, "Snapshot", identifier)
    if snapshot["status"] != "available":
        raise BadRequest(
            f"Invalid snapshot: Originating snapshot status must be one of available values, but it is"
            f" {snapshot['status']}."
        )
    volume = volumes.get(connection, snapshot["volume_id"])
    values = {"snapshot_id": snapshot["id"], **_inherited(volume)}
    return Source(
        "snapshot",
        {"snapshot_id": snapshot["id"]},
        values,
        snapshot["size_gib"],
        snapshot["type_id"] or volume["type_id"],
        volume["host"],
        volume["availability_zone"],
        bool(volume["encrypted"]),
    )


def _from_volume(call: Call, connection: sa.Connection, identifier: str) -> Source:
    volume = _visible(call, connection, volumes_table, "Volume", identifier)
    if volume["status"] not in ("available", "in-use"):
        raise BadRequest(
            "Invalid volume: Unable to create a volume from an originating source volume when its status is"
            f" not one of ('available', 'in-use') values, but it is {volume['status']}."
        )
    values = {"source_volume_id": volume["id"], **_inherited(volume)}
    return Source(
        "volume",
        {"volume_id": volume["id"]},
        values,
        volume["size_gib"],
        volume["type_id"],
        volume["host"],
        volume["availability_zone"],
        bool(volume["encrypted"]),
    )


def _inherited(volume: Row) -> dict[str, Any]:
    """What a copy has like its original."""
    return {"bootable": volume["bootable"], "image_metadata": volume["image_metadata"]}


def _visible(call: Call, connection: sa.Connection, table: sa.Table, what: str, identifier: str) -> Row:
    row = common.find(connection, table, what, identifier)
    if row["project_id"] != call.context.project_id and not common.is_admin(call):
        raise NotFound(f"{what} {identifier} could not be found.")
    return row


# -- what it is to be ---------------------------------------------------------


def _size(asked: dict[str, Any], source: Source, given: str | None) -> int:
    size = asked.get("size")
    if size is None:
        if given in (None, "imageRef"):
            raise BadRequest("Invalid input received: Invalid volume size provided for create request: None.")
        return source.size_gib
    number = common.whole(size, "size", 1)
    if number < source.size_gib:
        what = {"source_volid": "source volume", "imageRef": "image", "snapshot_id": "snapshot"}.get(
            str(given), "backup"
        )
        raise BadRequest(
            f"Invalid input received: Volume size '{number}'GB cannot be smaller than the {what} size"
            f" {source.size_gib}GB. They must be >= original {what} size."
        )
    return number


def _type(call: Call, connection: sa.Connection, asked: dict[str, Any], source: Source) -> Row:
    seen = volume_types.visible(call.context.project_id)
    if asked.get("volume_type"):
        return volume_types.by_name_or_id(connection, str(asked["volume_type"]), seen)
    if source.type_id is not None:
        return volume_types.get(connection, source.type_id)
    return default_type(call, connection)


def default_type(call: Call, connection: sa.Connection) -> Row:
    """The project's default type, else the deployment's."""
    own = volume_types.defaults(connection, call.context.project_id)
    if own:
        return volume_types.get(connection, next(iter(own.values())))
    name = call.services.options.default_volume_type
    if name == volume_types.DEFAULT_NAME:
        return volume_types.ensure_default(connection)
    return volume_types.by_name_or_id(connection, name)


def _zone(call: Call, connection: sa.Connection, asked: dict[str, Any], source: Source) -> str:
    options = call.services.options
    zone = asked.get("availability_zone")
    if not zone:
        return str(source.zone or options.default_availability_zone)
    known = volume_services.zones(connection, options.service_down_time)
    if zone not in known and zone != options.default_availability_zone:
        raise BadRequest(f"Invalid input received: Availability zone '{zone}' is invalid.")
    return str(zone)


def _by_type(call: Call, connection: sa.Connection, type_: Row, asked: dict[str, Any]) -> dict[str, Any]:
    """Columns that follow from the type."""
    found: dict[str, Any] = {}
    if is_multiattach(type_):
        call.authorize(policy="volume:create_multiattach_volume")
        found["multiattach"] = True
    elif asked.get("multiattach") is not None and common.truth(asked["multiattach"]):
        raise BadRequest(
            "multiattach parameter has been removed. The default behavior is to use multiattach enabled"
            " volume types. Contact your administrator to create a multiattach enabled volume type."
        )
    encryption = volume_types.encryption(connection, type_["id"])
    if encryption is not None:
        luks.of_type(encryption)
        if found.get("multiattach"):
            raise BadRequest("Invalid volume_type: a multi-attach volume can't be encrypted.")
        found["encrypted"] = True
    return found


def encryption_of(connection: sa.Connection, type_id: str | None) -> luks.Luks | None:
    """How the volumes of a type are encrypted. :raises BadRequest: in a way that is not served here."""
    found = volume_types.encryption(connection, type_id) if type_id else None
    return None if found is None else luks.of_type(found)


def _refuse_other_encryption(connection: sa.Connection, type_: Row, source: Source) -> None:
    """:raises BadRequest: the data would have to be encrypted, or decrypted, on the way."""
    wanted = encryption_of(connection, type_["id"])
    if source.from_encrypted_image and wanted is None:
        raise BadRequest("Invalid input received: an encrypted image needs a volume type with encryption.")
    if source.encrypted is None:
        return
    same = bool(wanted) == source.encrypted
    if same and wanted is not None and source.type_id is not None:
        same = wanted == encryption_of(connection, source.type_id)
    if not same:
        raise BadRequest(
            f"Invalid input received: Invalid volume_type {type_['name']} provided: its encryption is not that of the"
            f" {source.kind}. Omit the type, or choose one that is encrypted alike."
        )


def is_multiattach(type_: Row) -> bool:
    return str(type_["extra_specs"].get("multiattach", "")).strip().lower() == "<is> true"


def _group(call: Call, connection: sa.Connection, asked: dict[str, Any], type_: Row) -> Row | None:
    identifier = (asked.get("group_id") if call.since("3.13") else None) or asked.get("consistencygroup_id")
    if not identifier:
        return None
    group = _visible(call, connection, groups, "Group", str(identifier))
    if group["status"] not in ("available", "in-use"):
        raise Conflict(f"Group {group['id']} is {group['status']}: volumes can't be added now.")
    if type_["id"] not in group["volume_type_ids"]:
        raise BadRequest(
            f"Invalid input received: Invalid volume_type {type_['name']} provided for group {group['id']}:"
            " a type that the group supports is expected."
        )
    return group
