"""What a POST /servers asks for, looked up and checked, before anything is written.

``resolve`` reads what the body names (flavor, key pair, image, zone, hosts, server
group) and refuses what can't be; ``api.compute.server_create`` writes rows from
the result.
"""

from __future__ import annotations

import base64
import dataclasses
import math
import uuid
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from api.common.operations import Call
from api.compute import common, server_devices, server_networks
from api.compute.image_client import Image, properties_of
from api.compute.server_volume_sources import Sources
from compute.drivers.base import GuestImage
from core.errors import BadRequest, Forbidden, NotFound, OverQuota
from db import flavors as db_flavors
from db import keypairs as db_keypairs
from db.global_schema import aggregate_hosts, aggregates, hosts, server_group_members, server_groups

_GIB = 1024**3


@dataclasses.dataclass(frozen=True)
class Group:
    """A server group as the scheduler's intent carries it."""

    id: str
    policy: str
    rules: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Zone:
    """Where the asker wants the server: a zone, a host, or both."""

    name: str | None = None
    host: str | None = None
    forced: bool = False


@dataclasses.dataclass(frozen=True)
class ServerRequest:
    """Everything that all servers of one POST have in common."""

    body: Mapping[str, Any]
    flavor: dict[str, Any]
    image: GuestImage | None
    """what is booted, or (``volume_backed``) whose properties count"""
    devices: server_devices.Devices
    sources: Sources
    keypair: Mapping[str, Any] | None
    zone: Zone
    group: Group | None
    hints: dict[str, Any]
    min_count: int
    max_count: int
    config_drive: bool
    networks: server_networks.Networks

    @property
    def ephemeral_gib(self) -> int:
        asked = self.devices.ephemeral_gib
        return int(self.flavor["ephemeral_gib"] if asked is None else asked)

    @property
    def swap_mib(self) -> int:
        asked = self.devices.swap_mib
        return int(self.flavor["swap_mib"] if asked is None else asked)

    @property
    def volume_backed(self) -> bool:
        return self.devices.root is not None

    def resources(self) -> dict[str, int]:
        """What one server takes from a host, by resource class."""
        root_gib = 0 if self.volume_backed else self.flavor["root_gib"]
        amounts = {
            "VCPU": self.flavor["vcpus"],
            "MEMORY_MB": self.flavor["memory_mib"],
            "DISK_GB": root_gib + self.ephemeral_gib + math.ceil(self.swap_mib / 1024),
        }
        return {name: amount for name, amount in amounts.items() if amount}


def resolve(call: Call) -> ServerRequest:
    """:raises BadRequest, Forbidden, OverQuota, Unavailable: says what is wrong with the request."""
    server = call.body["server"]
    hints = dict(call.body.get("os:scheduler_hints") or call.body.get("OS-SCH-HNT:scheduler_hints") or {})
    minimum, maximum = _counts(server)
    with call.services.databases.global_.read() as connection:
        flavor = _flavor(call, connection, server["flavorRef"])
        keypair = _keypair(call, connection, server.get("key_name"))
        zone = _zone(call, connection, server)
        group = _group(call, connection, hints.get("group"), maximum)
        _check_personality(call, connection, server)
        _check_metadata(call, connection, server.get("metadata") or {})
    devices = server_devices.read(server, flavor, _properties(call, server))
    sources = Sources(call, devices, maximum)
    volume_backed = devices.root is not None
    if devices.image_id is None:
        image = sources.root_image()
    else:
        image = _image(call, devices.image_id, flavor, on_host=not volume_backed)
    zero_disk = flavor["root_gib"] == 0 and not volume_backed
    if zero_disk and not call.allowed("os_compute_api:servers:create:zero_disk_flavor"):
        raise Forbidden("Only volume-backed servers are allowed for flavors with zero disk.")
    networks = server_networks.resolve(call, server, minimum, maximum)
    return ServerRequest(
        body=server,
        flavor=flavor,
        image=image,
        devices=devices,
        sources=sources,
        keypair=keypair,
        zone=zone,
        group=group,
        hints=hints,
        min_count=minimum,
        max_count=maximum,
        config_drive=_config_drive(call, server, image),
        networks=networks,
    )


def _counts(server: Mapping[str, Any]) -> tuple[int, int]:
    most = 1000
    minimum = common.whole(server.get("min_count", 1), "min_count", 1)
    maximum = common.whole(server.get("max_count", minimum), "max_count", 1)
    if minimum > maximum:
        raise BadRequest("min_count must be <= max_count")
    if maximum > most:
        raise BadRequest(f"Invalid input for field/attribute max_count. Value: {maximum}. At most {most}.")
    if maximum > 1:
        for field in ("name", "hostname"):
            if len(f"{server.get(field, '')}-{maximum}") > 255:
                raise BadRequest(
                    f"Invalid input for field/attribute {field}. With the number of each server behind it"
                    " it would be longer than 255 characters."
                )
    return minimum, maximum


def _flavor(call: Call, connection: sa.Connection, reference: Any) -> dict[str, Any]:
    # old clients give the flavor's URL
    flavor_id = str(reference).rstrip("/").rsplit("/", 1)[-1]
    try:
        row = db_flavors.get(
            connection, flavor_id, call.context.project_id, any_project=common.is_admin(call)
        )
    except NotFound as error:
        raise BadRequest(f"Flavor {flavor_id} could not be found.") from error
    if row["disabled"]:
        raise BadRequest(f"Flavor {flavor_id} could not be found.")
    return {key: row[key] for key in _FLAVOR_KEYS}


_FLAVOR_KEYS = [
    "flavor_id",
    "name",
    "description",
    "vcpus",
    "memory_mib",
    "root_gib",
    "ephemeral_gib",
    "swap_mib",
] + ["rxtx_factor", "is_public", "extra_specs"]


def _keypair(call: Call, connection: sa.Connection, name: str | None) -> Mapping[str, Any] | None:
    if name is None:
        return None
    try:
        return dict(db_keypairs.get(connection, str(call.context.user_id), name))
    except NotFound as error:
        raise BadRequest("Invalid key_name provided.") from error


def _zone(call: Call, connection: sa.Connection, server: Mapping[str, Any]) -> Zone:
    text = server.get("availability_zone")
    host, forced = None, False
    if text and ":" in text:
        parts = text.split(":")
        if len(parts) > 3:
            raise BadRequest(f"Unable to parse availability_zone {text!r}: zone:host:node is expected.")
        call.authorize(policy="os_compute_api:servers:create:forced_host")
        text, host = parts[0] or None, parts[1] or (parts[2] if len(parts) == 3 else "") or None
        forced = host is not None
    asked = server.get("host") or server.get("hypervisor_hostname")
    if asked:
        call.authorize(policy="compute:servers:create:requested_destination")
        if forced:
            raise BadRequest(
                "availability_zone names a host already: host and hypervisor_hostname can't be given."
            )
        if {server.get("host"), server.get("hypervisor_hostname")} - {None, asked}:
            raise BadRequest(f"Compute host {server['hypervisor_hostname']} could not be found on {asked}.")
        host = asked
    if host is not None:
        known = connection.execute(sa.select(hosts.c.name).where(hosts.c.name == host)).first()
        if known is None:
            raise BadRequest(f"Compute host {host} could not be found.")
    if text is not None and text not in _zones(call, connection):
        raise BadRequest("The requested availability zone is not available")
    return Zone(text, host, forced)


def _zones(call: Call, connection: sa.Connection) -> set[str]:
    statement = sa.select(aggregates.c.metadata).where(
        sa.exists().where(aggregate_hosts.c.aggregate_id == aggregates.c.id)
    )
    named = {row[0].get("availability_zone") for row in connection.execute(statement)}
    return {name for name in named if name} | {call.services.options.default_availability_zone}


def _group(call: Call, connection: sa.Connection, group_id: str | None, count: int) -> Group | None:
    if group_id is None:
        return None
    statement = sa.select(server_groups).where(server_groups.c.id == group_id)
    if not common.is_admin(call):
        statement = statement.where(server_groups.c.project_id == call.context.project_id)
    row = connection.execute(statement).mappings().first()
    if row is None:
        raise BadRequest(f"Instance group {group_id} could not be found.")
    limits = call.services.quotas.limits(connection, row["project_id"], call.context.user_id)
    most = limits["server_group_members"]
    members = connection.execute(
        sa.select(sa.func.count()).where(server_group_members.c.group_id == group_id)
    ).scalar_one()
    if 0 <= most < members + count:
        raise OverQuota("Quota exceeded, too many servers in group")
    return Group(row["id"], row["policy"], dict(row["rules"] or {}))


def _check_personality(call: Call, connection: sa.Connection, server: Mapping[str, Any]) -> None:
    files = server.get("personality") or []
    if not files:
        return
    limits = call.services.quotas.limits(connection, call.context.project_id, call.context.user_id)
    if 0 <= limits["injected_files"] < len(files):
        raise OverQuota("Quota exceeded, too many personality files")
    for each in files:
        if not each.get("path") or each.get("contents") is None:
            raise BadRequest("Bad personality format: path and contents are expected.")
        if 0 <= limits["injected_file_path_bytes"] < len(each["path"].encode()):
            raise OverQuota("Personality file path exceeds maximum length")
        if 0 <= limits["injected_file_content_bytes"] < len(base64.b64decode(each["contents"])):
            raise OverQuota("Personality file content exceeds maximum size")


def _check_metadata(call: Call, connection: sa.Connection, metadata: Mapping[str, str]) -> None:
    if metadata:
        check_metadata_quota(call, connection, len(metadata))


def check_metadata_quota(call: Call, connection: sa.Connection, count: int) -> None:
    """:raises OverQuota: a server may not have so many metadata items."""
    limits = call.services.quotas.limits(connection, call.context.project_id, call.context.user_id)
    most = limits["metadata_items"]
    if 0 <= most < count:
        raise OverQuota(f"Maximum number of metadata items exceeds {most}")


def _properties(call: Call, server: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of the image in imageRef: it may say that the server has volumes."""
    image_id = server_devices.image_asked(server)
    return {} if image_id is None else properties_of(_seen_image(call, image_id))


def _seen_image(call: Call, image_id: str) -> Image:
    try:
        uuid.UUID(image_id)
        return call.services.images.recent(call.context, image_id)
    except (ValueError, NotFound) as error:
        raise BadRequest(f"Image {image_id} could not be found.") from error


def _image(call: Call, image_id: str, flavor: Mapping[str, Any], *, on_host: bool) -> GuestImage:
    image = _seen_image(call, image_id)
    if image.get("status") != "active":
        raise BadRequest(f"Image {image_id} is not active.")
    if int(image.get("min_ram") or 0) > flavor["memory_mib"]:
        raise BadRequest("Flavor's memory is too small for requested image.")
    if flavor["root_gib"] and on_host:
        _check_disk(image, flavor["root_gib"])
    return guest_image(image)


def _check_disk(image: Image, root_gib: int) -> None:
    needed = max(int(image.get("size") or 0), int(image.get("virtual_size") or 0))
    if needed > root_gib * _GIB:
        raise BadRequest(
            "Flavor's disk is too small for requested image. Flavor disk is"
            f" {root_gib * _GIB} bytes, image is {needed} bytes."
        )
    if int(image.get("min_disk") or 0) > root_gib:
        raise BadRequest(
            "Flavor's disk is smaller than the minimum size specified in image metadata. Flavor disk is"
            f" {root_gib * _GIB} bytes, minimum size is {int(image['min_disk']) * _GIB} bytes."
        )


def guest_image(image: Image) -> GuestImage:
    """What the host needs to know of an image."""
    return GuestImage(
        id=image["id"],
        name=image.get("name") or "",
        disk_format=image.get("disk_format") or "raw",
        size_bytes=int(image.get("size") or 0),
        checksum=image.get("checksum"),
        os_hash_algo=image.get("os_hash_algo"),
        os_hash_value=image.get("os_hash_value"),
        min_disk_gib=int(image.get("min_disk") or 0),
        min_ram_mib=int(image.get("min_ram") or 0),
        properties=properties_of(image),
    )


def _config_drive(call: Call, server: Mapping[str, Any], image: GuestImage | None) -> bool:
    if call.services.options.force_config_drive:
        return True
    if image is not None and image.properties.get("img_config_drive") == "mandatory":
        return True
    return common.truth(server.get("config_drive", False))
