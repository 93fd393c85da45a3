"""Guest specifications for driver tests."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

from compute.drivers.base import GuestImage, GuestSpec


def make_image(content: bytes = b"", **changes: Any) -> GuestImage:
    values: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "name": "tiny",
        "disk_format": "qcow2",
        "size_bytes": len(content),
        "os_hash_algo": "sha512",
        "os_hash_value": hashlib.sha512(content).hexdigest(),
    }
    return GuestImage(**(values | changes))


def make_guest(**changes: Any) -> GuestSpec:
    values: dict[str, Any] = {
        "server_id": str(uuid.uuid4()),
        "name": "web one",
        "hostname": "web-one",
        "project_id": uuid.uuid4().hex,
        "user_id": uuid.uuid4().hex,
        "memory_mib": 128,
        "vcpus": 1,
        "root_gib": 1,
        "ephemeral_gib": 0,
        "swap_mib": 0,
        "flavor_name": "tiny",
        "extra_specs": {},
        "image": None,
        "config_drive": False,
        "metadata": {},
        "user_data": None,
        "key_name": None,
        "public_key": None,
        "admin_password": None,
        "availability_zone": "nova",
        "created_at": "2025-01-01T00:00:00Z",
    }
    return GuestSpec(**(values | changes))
