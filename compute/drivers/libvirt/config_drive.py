"""The config drive: an ISO 9660 image labelled config-2 with the metadata that cloud-init reads.

Layout (OpenStack's metadata format): openstack/VERSION/{meta_data,vendor_data,
network_data}.json and user_data, for the dated versions and ``latest``; ec2/latest. The documents
are the metadata service's (``lifecycle.guest_metadata``), with the password and files that only a drive has.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pycdlib

from compute.drivers.base import GuestSpec
from lifecycle import guest_metadata
from lifecycle.guest_metadata import LATEST, VERSIONS, GuestFacts, to_json
from lifecycle.network_data import network_data


def facts_of(guest: GuestSpec) -> GuestFacts:
    """What the documents need to know of a guest."""
    return GuestFacts(
        server_id=guest.server_id,
        name=guest.name,
        hostname=guest.hostname,
        project_id=guest.project_id,
        availability_zone=guest.availability_zone,
        metadata=guest.metadata,
        key_name=guest.key_name,
        public_key=guest.public_key,
        user_data=guest.user_data,
        flavor_name=guest.flavor_name,
        image_id=guest.image.id if guest.image else None,
        image_properties=guest.image.properties if guest.image else {},
        ephemeral_gib=guest.ephemeral_gib,
        swap_mib=guest.swap_mib,
        nics=guest.nics,
        volumes=guest.volumes,
        admin_password=guest.admin_password,
        files=guest.personality,
    )


def contents(guest: GuestSpec) -> dict[str, bytes]:
    """{path on the drive: content}."""
    facts = facts_of(guest)
    user_data = guest_metadata.decoded_user_data(facts)
    meta_data = guest_metadata.meta_data(facts)
    made = {
        "network_data.json": to_json(network_data(facts.nics)),
        "vendor_data.json": to_json({}),
        "vendor_data2.json": to_json({}),
        "user_data": user_data or b"",
    }
    files: dict[str, bytes] = {}
    for version in (*VERSIONS, LATEST):
        for name in guest_metadata.documents(version, user_data=user_data is not None, password=False):
            if name == "meta_data.json":
                # the same seed in all versions: a guest that reads two of them sees one machine
                data = guest_metadata.meta_data(facts, version)
                files[f"openstack/{version}/{name}"] = to_json({key: meta_data[key] for key in data})
            else:
                files[f"openstack/{version}/{name}"] = made[name]
    for number, item in enumerate(guest.personality):
        files[f"openstack/content/{number:04}"] = base64.b64decode(item["contents"])
    tree = guest_metadata.ec2_tree(facts)
    files["ec2/latest/meta-data.json"] = to_json(guest_metadata.ec2_json(tree["meta-data"]))
    if user_data is not None:
        files["ec2/latest/user-data"] = user_data
    return files


def write(target: Path, guest: GuestSpec) -> None:
    """Write the drive to ``target`` unless it is there."""
    if target.exists():
        return
    part = target.with_suffix(".part")
    part.touch(mode=0o600)
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident="config-2")
    folders: set[str] = set()
    for number, (path, content) in enumerate(sorted(contents(guest).items())):
        parts = path.split("/")
        for depth in range(1, len(parts)):
            _folder(iso, parts[:depth], folders)
        plain = _plain(parts[:-1]) + f"/F{number:05}.;1"
        iso.add_fp(
            io.BytesIO(content), len(content), iso_path=plain, rr_name=parts[-1], joliet_path=f"/{path}"
        )
    iso.write(str(part))
    iso.close()
    part.replace(target)


def _plain(parts: list[str]) -> str:
    """The ISO 9660 name of a folder: capitals, digits and underscores."""
    return "".join("/" + part.upper().replace("-", "_") for part in parts)


def _folder(iso: Any, parts: list[str], known: set[str]) -> None:
    path = "/".join(parts)
    if path not in known:
        known.add(path)
        iso.add_directory(iso_path=_plain(parts), rr_name=parts[-1], joliet_path=f"/{path}")
