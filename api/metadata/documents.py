"""From a path to what lies there: OpenStack's documents and EC2's tree, of one server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.errors import NotFound
from db.servers import Row
from lifecycle import guest_metadata
from lifecycle.guest_metadata import EC2_VERSIONS, LATEST, VERSIONS, GuestFacts
from lifecycle.network_data import network_data

JSON = "application/json"
TEXT = "text/plain; charset=UTF-8"
Document = tuple[bytes, str]
"""(content, its type)"""


def facts_of(row: Row, default_zone: str) -> GuestFacts:
    """A row of ``servers`` as the documents need it."""
    image = row["image"] or {}
    return GuestFacts(
        server_id=row["id"],
        name=row["name"],
        hostname=row["hostname"],
        project_id=row["project_id"],
        availability_zone=row["availability_zone"] or default_zone,
        launch_index=row["launch_index"],
        metadata=row["metadata"],
        key_name=row["key_name"],
        public_key=row["public_key"],
        user_data=row["user_data"],
        flavor_name=row["flavor"]["name"],
        image_id=row["image_id"],
        image_properties=image.get("properties") or {},
        reservation_id=row["reservation_id"] or "",
        root_device_name=row["root_device_name"] or "/dev/vda",
        ephemeral_gib=row["ephemeral_gib"],
        swap_mib=row["flavor"].get("swap_mib", 0),
        security_groups=row["system_metadata"].get("security_groups") or (),
        nics=row["network_info"],
        volumes=row["block_devices"],
    )


def find(path: list[str], facts: GuestFacts, vendor_data: Mapping[str, Any]) -> Document:
    """What lies at a path; folders answer with their listing. A path without a format is EC2's.

    :raises NotFound: nothing does.
    """
    if path[:1] == ["openstack"]:
        return _openstack(path[1:], facts, vendor_data)
    return _ec2(path[1:] if path[:1] == ["ec2"] else path, facts)


def _missing() -> NotFound:
    return NotFound("There is nothing at this path.")


def _listing(names: list[str] | tuple[str, ...]) -> Document:
    return "\n".join(names).encode(), TEXT


def _openstack(path: list[str], facts: GuestFacts, vendor_data: Mapping[str, Any]) -> Document:
    if not path:
        return _listing((*VERSIONS, LATEST))
    version, *rest = path
    if version not in (*VERSIONS, LATEST):
        raise _missing()
    user_data = guest_metadata.decoded_user_data(facts)
    names = guest_metadata.documents(version, user_data=user_data is not None, password=True)
    if not rest:
        return _listing(names)
    if len(rest) > 1 or rest[0] not in names:
        raise _missing()
    if rest[0] == "user_data":
        return user_data or b"", TEXT
    made: dict[str, Any] = {
        "meta_data.json": lambda: guest_metadata.meta_data(facts, version),
        "vendor_data.json": lambda: dict(vendor_data),
        "vendor_data2.json": lambda: guest_metadata.vendor_data2(vendor_data),
        "network_data.json": lambda: network_data(facts.nics),
    }
    if rest[0] not in made:
        raise _missing()
    return guest_metadata.to_json(made[rest[0]]()), JSON


def _ec2(path: list[str], facts: GuestFacts) -> Document:
    if not path:
        return _listing((*EC2_VERSIONS, LATEST))
    version, *rest = path
    if version not in (*EC2_VERSIONS, LATEST):
        raise _missing()
    value: Any = guest_metadata.ec2_tree(facts, version)
    for name in rest:
        if not isinstance(value, Mapping) or name not in value or name.startswith("_"):
            raise _missing()
        value = value[name]
    return guest_metadata.ec2_text(value), TEXT
