"""What a guest is told about itself: the documents of the metadata service and of the config drive.

Two formats: OpenStack's (dated versions, JSON) and EC2's (a tree of small texts). Which key came
with which version is upstream's; a guest that asks for an old version is not shown newer keys.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from lifecycle.network_data import device_metadata

FOLSOM = "2012-08-10"
GRIZZLY = "2013-04-04"
HAVANA = "2013-10-17"
LIBERTY = "2015-10-15"
NEWTON_ONE = "2016-06-30"
NEWTON_TWO = "2016-10-06"
OCATA = "2017-02-22"
ROCKY = "2018-08-27"
VICTORIA = "2020-10-14"
LATEST = "latest"
VERSIONS = (FOLSOM, GRIZZLY, HAVANA, LIBERTY, NEWTON_ONE, NEWTON_TWO, OCATA, ROCKY, VICTORIA)
EC2_VERSIONS = (
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-10-10",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
)
_SEED_BYTES = 512


@dataclasses.dataclass(frozen=True)
class GuestFacts:
    """What both the metadata service and a config drive know of a server."""

    server_id: str
    name: str
    hostname: str
    project_id: str
    availability_zone: str
    launch_index: int = 0
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    key_name: str | None = None
    public_key: str | None = None
    user_data: str | None = None
    """base64, as the API took it"""
    flavor_name: str = ""
    image_id: str | None = None
    image_properties: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    reservation_id: str = ""
    root_device_name: str = "/dev/vda"
    ephemeral_gib: int = 0
    swap_mib: int = 0
    security_groups: Sequence[str] = ()
    nics: Sequence[Mapping[str, Any]] = ()
    """as in ``servers.network_info``"""
    volumes: Sequence[Mapping[str, Any]] = ()
    admin_password: str | None = None
    """on a config drive only: the service never has it"""
    files: Sequence[Mapping[str, str]] = ()
    """{"path", "contents" (base64)}; on a config drive only"""


def reached(required: str, version: str, versions: Sequence[str] = VERSIONS) -> bool:
    """Is ``version`` (or "latest") ``required`` or a later one?"""
    return version == LATEST or versions.index(version) >= versions.index(required)


def decoded_user_data(facts: GuestFacts) -> bytes | None:
    """User data as the guest sees it. What is no base64 (an old row's) is given as it is."""
    if not facts.user_data:
        return None
    try:
        return base64.b64decode(facts.user_data)
    except (binascii.Error, ValueError):
        return facts.user_data.encode()


# -- OpenStack


def meta_data(facts: GuestFacts, version: str = LATEST) -> dict[str, Any]:
    """What meta_data.json holds."""
    data: dict[str, Any] = {
        "uuid": facts.server_id,
        "name": facts.name,
        "hostname": facts.hostname,
        "launch_index": facts.launch_index,
        "availability_zone": facts.availability_zone,
    }
    if facts.metadata:
        data["meta"] = dict(facts.metadata)
    if facts.public_key and facts.key_name:
        data["public_keys"] = {facts.key_name: facts.public_key}
        kind = "x509" if "BEGIN CERTIFICATE" in facts.public_key else "ssh"
        data["keys"] = [{"name": facts.key_name, "type": kind, "data": facts.public_key}]
    if facts.admin_password:
        data["admin_pass"] = facts.admin_password
    if facts.files:
        data["files"] = [
            {"content_path": f"/content/{number:04}", "path": item["path"]}
            for number, item in enumerate(facts.files)
        ]
    if reached(GRIZZLY, version):
        data["random_seed"] = base64.b64encode(os.urandom(_SEED_BYTES)).decode()
    if reached(LIBERTY, version):
        data["project_id"] = facts.project_id
    if reached(NEWTON_ONE, version):
        data["devices"] = devices(facts)
    if reached(VICTORIA, version):
        data["dedicated_cpus"] = []
    return data


def devices(facts: GuestFacts) -> list[dict[str, Any]]:
    """The devices that were tagged, so that the guest can tell which is which."""
    found = device_metadata(facts.nics)
    found += [
        {
            "type": "disk",
            "bus": "none",
            "address": "none",
            "serial": volume["volume_id"],
            "path": volume.get("device_name") or "",
            "tags": [volume["tag"]],
        }
        for volume in facts.volumes
        if volume.get("tag") and volume.get("volume_id")
    ]
    return found


def documents(version: str, *, user_data: bool, password: bool) -> list[str]:
    """What there is at a version: meta_data.json and its neighbours. ``password``: only a service takes one."""
    names = ["meta_data.json"]
    if user_data:
        names.append("user_data")
    if password and reached(GRIZZLY, version):
        names.append("password")
    if reached(HAVANA, version):
        names.append("vendor_data.json")
    if reached(LIBERTY, version):
        names.append("network_data.json")
    if reached(NEWTON_TWO, version):
        names.append("vendor_data2.json")
    return names


def vendor_data2(vendor_data: Mapping[str, Any]) -> dict[str, Any]:
    """vendor_data2.json: by provider; there is one, the operator's file."""
    return {"static": dict(vendor_data)} if vendor_data else {}


def to_json(data: Any) -> bytes:
    return json.dumps(data).encode()


# -- EC2


def ec2_id(kind: str, identifier: str) -> str:
    """A UUID as an identifier of EC2's long form: 17 hexadecimal digits."""
    return f"{kind}-{identifier.replace('-', '')[:17]}"


def _addresses(facts: GuestFacts, kind: str) -> list[str]:
    return [
        each["address"]
        for nic in facts.nics
        for each in nic.get("addresses", ())
        if each.get("type", "fixed") == kind and each.get("version") == 4
    ]


def _block_devices(facts: GuestFacts) -> dict[str, str]:
    """Devices by the names that EC2 has for them; letters follow each other as the disks do."""
    root = facts.root_device_name or "/dev/vda"
    found = {"root": root, "ami": root.rpartition("/")[2]}
    stem, letter = found["ami"][:-1], ord(found["ami"][-1])
    if facts.ephemeral_gib:
        letter += 1
        found["ephemeral0"] = f"/dev/{stem}{chr(letter)}"
    if facts.swap_mib:
        letter += 1
        found["swap"] = f"/dev/{stem}{chr(letter)}"
    named = (volume.get("device_name") for volume in facts.volumes)
    for number, name in enumerate(name for name in named if name and name != root):
        found[f"ebs{number}"] = name
    return found


def ec2_tree(facts: GuestFacts, version: str = LATEST) -> dict[str, Any]:
    """What lies below a version: {"meta-data": {...}, "user-data": bytes}.

    A value is text, a list of texts, or a mapping: a folder.
    """

    def since(required: str) -> bool:
        return reached(required, version, EC2_VERSIONS)

    fixed, floating = _addresses(facts, "fixed"), _addresses(facts, "floating")
    data: dict[str, Any] = {
        "ami-id": ec2_id("ami", facts.image_id) if facts.image_id else "",
        "ami-launch-index": facts.launch_index,
        "ami-manifest-path": "",
        "instance-id": ec2_id("i", facts.server_id),
        "hostname": facts.hostname,
        "local-ipv4": fixed[0] if fixed else "",
        "reservation-id": facts.reservation_id or "",
        "security-groups": list(facts.security_groups),
    }
    if facts.public_key and facts.key_name:
        # listed as 0=name, and found at 0
        data["public-keys"] = {"0": {"_name": f"0={facts.key_name}", "openssh-key": facts.public_key}}
    if since("2007-01-19"):
        data["local-hostname"] = facts.hostname
        data["public-hostname"] = facts.hostname
        data["public-ipv4"] = floating[0] if floating else ""
    if since("2007-03-01"):
        data["product-codes"] = []
    if since("2007-08-29"):
        data["instance-type"] = facts.flavor_name
    if since("2007-10-10"):
        data["ancestor-ami-ids"] = []
    if since("2007-12-15"):
        data["block-device-mapping"] = _block_devices(facts)
        for key, name, kind in (("kernel_id", "kernel-id", "aki"), ("ramdisk_id", "ramdisk-id", "ari")):
            if facts.image_properties.get(key):
                data[name] = ec2_id(kind, str(facts.image_properties[key]))
    if since("2008-02-01"):
        data["placement"] = {"availability-zone": facts.availability_zone}
    if since("2008-09-01"):
        data["instance-action"] = "none"
    tree: dict[str, Any] = {"meta-data": data}
    if (user_data := decoded_user_data(facts)) is not None:
        tree["user-data"] = user_data
    return tree


def ec2_text(value: Any) -> bytes:
    """A value of the tree as it is served: a folder as its listing, a list as lines."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, Mapping):
        lines = []
        for key, inner in sorted(value.items()):
            if key == "_name":
                continue
            if isinstance(inner, Mapping):
                lines.append(str(inner.get("_name") or f"{key}/"))
            else:
                lines.append(str(key))
        return "\n".join(lines).encode()
    if isinstance(value, (list, tuple)):
        return "\n".join(str(each) for each in value).encode()
    return str(value).encode()


def ec2_json(value: Any) -> Any:
    """The tree as the config drive's meta-data.json holds it: without the names for listings."""
    if isinstance(value, Mapping):
        return {key: ec2_json(inner) for key, inner in value.items() if key != "_name"}
    return value
