"""POST /servers: from a checked request to rows, an intent per server, and a ring.

One write transaction on the global database; nothing else is needed for the
servers to come into being: the scheduler finds the intents by itself when the
ring is lost.
"""

from __future__ import annotations

import dataclasses
import re
import secrets
import string
import unicodedata
import uuid
from typing import Any

from oslo_config import cfg

from api.common.app import project_of
from api.common.operations import Call
from api.compute import common, server_request
from api.compute.server_request import ServerRequest
from api.compute.server_volume_sources import Made
from compute.drivers.base import GuestSpec
from core import block_devices
from core.errors import OverQuota
from db import intents, servers
from db.servers import Row
from db.sessions import retrying
from db.types import now
from lifecycle.states import VmState

OPTS = [
    cfg.BoolOpt(
        "enable_instance_password",
        default=True,
        help="Show the administrator password of a new server in the answer that creates it.",
    ),
    cfg.BoolOpt("force_config_drive", default=False, help="Give every new server a config drive."),
    cfg.StrOpt(
        "default_schedule_zone", help="Zone of servers that are created without one; unset: any zone."
    ),
]
_ROOT_NAME = "/dev/vda"
_PASSWORD_LENGTH = 12
# without what looks alike
_PASSWORD_GROUPS = ("23456789", "ABCDEFGHJKLMNPQRSTUVWXYZ", "abcdefghijkmnopqrstuvwxyz")
_NOT_IN_HOSTNAMES = re.compile(r"[^a-z0-9-]+")


def make_password() -> str:
    """A random password with a digit, a capital and a small letter."""
    chosen = [secrets.choice(group) for group in _PASSWORD_GROUPS]
    every = "".join(_PASSWORD_GROUPS)
    chosen += [secrets.choice(every) for _ in range(_PASSWORD_LENGTH - len(chosen))]
    secrets.SystemRandom().shuffle(chosen)
    return "".join(chosen)


def hostname_of(name: str, server_id: str) -> str:
    """A host name made from a server's name: letters, digits and dashes, at most 63 characters."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    plain = _NOT_IN_HOSTNAMES.sub("", re.sub(r"[ _.]", "-", plain)).strip("-")[:63].strip("-")
    return plain or f"server-{server_id}"


@dataclasses.dataclass(frozen=True)
class Created:
    """What a POST made."""

    rows: list[Row]
    reservation_id: str
    password: str


def create(call: Call) -> Created:
    """Check, count, write, ring. :raises HaneulError: nothing was written."""
    request = server_request.resolve(call)
    reservation_id = "r-" + "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))
    password = request.body.get("adminPass") or make_password()
    if request.sources.makes_some:
        rows = _write_with_volumes(call, request, reservation_id, password)
    else:
        made = request.sources.make([str(uuid.uuid4()) for _ in range(request.max_count)])
        rows = _write(call, request, reservation_id, password, made)
    call.services.doorbells.ring_scheduler()
    return Created(rows, reservation_id, password)


def _write_with_volumes(call: Call, request: ServerRequest, reservation_id: str, password: str) -> list[Row]:
    """Volumes are asked for first, for as many servers as the quotas seem to admit; those left over go again."""
    sources = request.sources
    with call.services.databases.global_.read() as connection:
        count = _admitted(call, connection, request)
    made = sources.make([str(uuid.uuid4()) for _ in range(count)])
    try:
        rows = _write(call, request, reservation_id, password, made)
    except Exception:
        sources.discard(made)
        raise
    sources.discard(made[len(rows) :])
    return rows


@retrying
def _write(
    call: Call,
    request: ServerRequest,
    reservation_id: str,
    password: str,
    made: list[Made],
) -> list[Row]:
    """``made``: the volumes of each server."""
    tags = sorted(set(request.body.get("tags") or ()))
    with call.services.databases.global_.write() as connection:
        count = min(_admitted(call, connection, request), len(made))
        rows = [_row(call, request, reservation_id, index, count, made[index]) for index in range(count)]
        intent_rows = [_intent(call, request, row, password) for row in rows]
        servers.insert(connection, rows, intent_rows, tags)
    return rows


def _admitted(call: Call, connection: Any, request: ServerRequest) -> int:
    """How many servers the quotas admit, between min_count and max_count. :raises OverQuota:"""
    maximum = request.max_count
    if request.networks.most is not None:
        maximum = min(maximum, request.networks.most)

    def check(count: int) -> None:
        call.services.quotas.check(
            connection,
            project_of(call.context),
            str(call.context.user_id),
            {
                "instances": count,
                "cores": count * request.flavor["vcpus"],
                "ram": count * request.flavor["memory_mib"],
            },
        )

    try:
        check(maximum)
        return maximum
    except OverQuota:
        if request.min_count == maximum:
            raise
    check(request.min_count)
    low, high = request.min_count, maximum
    while high - low > 1:
        middle = (low + high) // 2
        try:
            check(middle)
            low = middle
        except OverQuota:
            high = middle
    return low


def _devices(request: ServerRequest, volumes: list[block_devices.Device]) -> list[block_devices.Device]:
    """The devices of one server, in the order of the request, each with a name."""
    local = [dict(each) for each in request.devices.listed if each["destination_type"] == "local"]
    listed = [*(dict(each) for each in volumes), *local]
    unlisted = 0 if local else bool(request.ephemeral_gib) + bool(request.swap_mib)
    block_devices.name_all(listed, _ROOT_NAME, unlisted)
    return listed


def _row(
    call: Call,
    request: ServerRequest,
    reservation_id: str,
    index: int,
    count: int,
    made: Made,
) -> Row:
    body, flavor = request.body, request.flavor
    server_id, moment = made.server_id, now()
    suffix = f"-{index + 1}" if count > 1 or request.max_count > 1 else ""
    name, hostname = body["name"] + suffix, body.get("hostname")
    zone = request.zone.name or call.services.options.default_schedule_zone
    groups = [each["name"] for each in body.get("security_groups") or [] if each.get("name")]
    return {
        "id": server_id,
        "project_id": project_of(call.context),
        "user_id": str(call.context.user_id),
        "name": name,
        "hostname": hostname + suffix if hostname else hostname_of(name, server_id),
        # until 2.19 a server's description was its name
        "description": body.get("description") if call.since("2.19") else name,
        "availability_zone": zone,
        "pinned_availability_zone": zone,
        "vm_state": VmState.BUILDING,
        "task_state": "scheduling",
        "power_state": 0,
        "progress": 0,
        "flavor_id": flavor["flavor_id"],
        "vcpus": flavor["vcpus"],
        "memory_mib": flavor["memory_mib"],
        "root_gib": flavor["root_gib"],
        "ephemeral_gib": request.ephemeral_gib,
        "flavor": {**flavor, "swap_mib": request.swap_mib},
        "image_id": None if request.volume_backed or request.image is None else request.image.id,
        "image": dataclasses.asdict(request.image) if request.image else None,
        "block_devices": _devices(request, made.devices),
        "networks": [dict(each) for each in request.networks.requests],
        "network_info": [],
        "metadata": dict(body.get("metadata") or {}),
        "system_metadata": {
            "security_groups": list(dict.fromkeys(groups)) or ["default"],
            "trusted_image_certificates": body.get("trusted_image_certificates"),
        },
        "key_name": request.keypair["name"] if request.keypair else None,
        "public_key": request.keypair["public_key"] if request.keypair else None,
        "user_data": body.get("user_data"),
        "config_drive": request.config_drive,
        "disk_config": body.get("OS-DCF:diskConfig") or "MANUAL",
        "access_ip_v4": body.get("accessIPv4"),
        "access_ip_v6": body.get("accessIPv6"),
        "reservation_id": reservation_id,
        "launch_index": index,
        "root_device_name": _root_name(request),
        "server_group_id": request.group.id if request.group else None,
        "generation": 0,
        "created_at": moment,
        "updated_at": moment,
        "deleted": 0,
    }


def _root_name(request: ServerRequest) -> str:
    root = request.devices.root
    return str((root or {}).get("device_name") or _ROOT_NAME)


def guest_of(call: Call, row: Row, *, password: str | None = None, files: Any = ()) -> GuestSpec:
    """What the host's driver is told about a server."""
    from compute.drivers.base import GuestImage

    zone = row["availability_zone"] or call.services.options.default_availability_zone
    return GuestSpec(
        server_id=row["id"],
        name=row["name"],
        hostname=row["hostname"],
        project_id=row["project_id"],
        user_id=row["user_id"],
        memory_mib=row["memory_mib"],
        vcpus=row["vcpus"],
        root_gib=row["root_gib"],
        ephemeral_gib=row["ephemeral_gib"],
        swap_mib=row["flavor"].get("swap_mib", 0),
        flavor_name=row["flavor"]["name"],
        extra_specs=row["flavor"].get("extra_specs") or {},
        image=GuestImage(**row["image"]) if row["image"] else None,
        config_drive=row["config_drive"],
        metadata=row["metadata"],
        user_data=row["user_data"],
        key_name=row["key_name"],
        public_key=row["public_key"],
        admin_password=password,
        availability_zone=zone,
        created_at=str(common.zulu(row["created_at"])),
        nics=tuple(row["network_info"]),
        volumes=tuple(block_devices.volumes(row["block_devices"] or [])),
        local_disks=tuple(block_devices.local_disks(row["block_devices"] or [])),
        personality=tuple({"path": each["path"], "contents": each["contents"]} for each in files),
    )


def _networks(request: ServerRequest) -> dict[str, Any]:
    """What the host needs to make the server's ports; nothing for a server without."""
    networks = request.networks
    if not networks.requests:
        return {}
    groups = networks.security_groups
    return {
        "networks": [dict(each) for each in networks.requests],
        "security_groups": None if groups is None else list(groups),
    }


def _intent(call: Call, request: ServerRequest, row: Row, password: str) -> intents.Row:
    guest = guest_of(call, row, password=password, files=request.body.get("personality") or ())
    return intents.row(
        "server.create",
        "server",
        row["id"],
        call.context,
        {
            "guest": guest.to_dict(),
            "resources": request.resources(),
            "image_properties": request.image.properties if request.image else {},
            "extra_specs": request.flavor["extra_specs"] or {},
            "availability_zone": row["availability_zone"],
            "requested_host": request.zone.host,
            "forced_host": request.zone.forced,
            "ignore_hosts": [],
            "group": request.group.to_dict() if request.group else None,
            "hints": request.hints,
            "excluded_hosts": [],
            "attempts": 0,
            **_networks(request),
        },
        project_id=row["project_id"],
    )
