"""The config drive: an ISO 9660 image labelled config-2 with the metadata that cloud-init reads.

Layout (OpenStack's metadata format): openstack/VERSION/{meta_data,vendor_data,
network_data}.json and user_data, for some dated versions and ``latest``; ec2/latest.
"""

from __future__ import annotations

import base64
import io
import json
import os
from pathlib import Path
from typing import Any

import pycdlib

from compute.drivers.base import GuestSpec
from lifecycle.network_data import device_metadata, network_data

VERSIONS = ("2012-08-10", "2015-10-15", "2018-08-27", "latest")


def meta_data(guest: GuestSpec) -> dict[str, Any]:
    """What meta_data.json holds."""
    data: dict[str, Any] = {
        "uuid": guest.server_id,
        "name": guest.name,
        "hostname": guest.hostname,
        "project_id": guest.project_id,
        "launch_index": 0,
        "availability_zone": guest.availability_zone,
        "devices": device_metadata(guest.nics),
        "dedicated_cpus": [],
        "random_seed": base64.b64encode(os.urandom(512)).decode(),
    }
    if guest.metadata:
        data["meta"] = dict(guest.metadata)
    if guest.public_key and guest.key_name:
        data["public_keys"] = {guest.key_name: guest.public_key}
        data["keys"] = [{"name": guest.key_name, "type": "ssh", "data": guest.public_key}]
    if guest.admin_password:
        data["admin_pass"] = guest.admin_password
    if guest.personality:
        data["files"] = [
            {"content_path": f"/content/{number:04}", "path": item["path"]}
            for number, item in enumerate(guest.personality)
        ]
    return data


def contents(guest: GuestSpec) -> dict[str, bytes]:
    """{path on the drive: content}."""
    meta = json.dumps(meta_data(guest)).encode()
    network = json.dumps(network_data(guest.nics)).encode()
    user_data = base64.b64decode(guest.user_data) if guest.user_data else None
    files = {}
    for version in VERSIONS:
        folder = f"openstack/{version}"
        files[f"{folder}/meta_data.json"] = meta
        files[f"{folder}/vendor_data.json"] = b"{}"
        files[f"{folder}/network_data.json"] = network
        if user_data is not None:
            files[f"{folder}/user_data"] = user_data
    for number, item in enumerate(guest.personality):
        files[f"openstack/content/{number:04}"] = base64.b64decode(item["contents"])
    ec2 = {
        "instance-id": guest.server_id,
        "local-hostname": guest.hostname,
        "hostname": guest.hostname,
        "ami-launch-index": 0,
        "placement": {"availability-zone": guest.availability_zone},
        "public-keys": {"0": {"openssh-key": guest.public_key}} if guest.public_key else {},
    }
    files["ec2/latest/meta-data.json"] = json.dumps(ec2).encode()
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
