"""Secrets in libvirt: passphrases of encrypted volumes, keys of Ceph users.

They are ephemeral (never on a disk; gone when libvirtd is restarted, which is why ``connect_volume`` comes before
each start of a guest) and private (no client of libvirt can read them back).
"""

from __future__ import annotations

import base64
import configparser
import uuid
from pathlib import Path
from typing import Any

import libvirt
from lxml import etree

from core.errors import DriverError

_NAMESPACE = uuid.UUID("3d0c8a5e-6f0e-4f7c-9a3a-1b7b0d7e5c11")
_OURS = "haneul "
_KEYRINGS = (
    "/etc/ceph/$cluster.$name.keyring",
    "/etc/ceph/$cluster.keyring",
    "/etc/ceph/keyring",
    "/etc/ceph/keyring.bin",
)


def luks_id(volume_id: str) -> str:
    """The secret's id of a volume's passphrase."""
    return str(uuid.uuid5(_NAMESPACE, f"luks {volume_id}"))


def ceph_id(user: str, hosts: tuple[tuple[str, str], ...]) -> str:
    """The secret's id of a Ceph user's key, unless the operator named one."""
    return str(uuid.uuid5(_NAMESPACE, f"ceph {user} {sorted(hosts)}"))


def put_passphrase(connection: Any, volume_id: str, passphrase: str) -> None:
    """Have a volume's passphrase in libvirt."""
    _put(connection, luks_id(volume_id), "volume", "volume", volume_id, passphrase.encode())


def remove_passphrase(connection: Any, volume_id: str) -> None:
    """Content when there is none."""
    try:
        connection.secretLookupByUUIDString(luks_id(volume_id)).undefine()
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SECRET:
            raise


def put_ceph_key(connection: Any, identifier: str, user: str, conf_file: Path) -> None:
    """Have a Ceph user's key in libvirt: one that the operator put there is left alone.

    :raises DriverError: there is none, and no keyring of this host has it.
    """
    try:
        usage = connection.secretLookupByUUIDString(identifier).usageID()
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SECRET:
            raise
        usage = _OURS
    if usage.startswith(_OURS):
        key = ceph_key(conf_file, user)
        _put(connection, identifier, "ceph", "name", f"{identifier} client.{user}", key)


def _put(connection: Any, identifier: str, usage: str, tag: str, name: str, value: bytes) -> None:
    secret = etree.Element("secret", ephemeral="yes", private="yes")
    etree.SubElement(secret, "uuid").text = identifier
    etree.SubElement(etree.SubElement(secret, "usage", type=usage), tag).text = _OURS + name
    connection.secretDefineXML(etree.tostring(secret, encoding="unicode")).setValue(value)


def ceph_key(conf_file: Path, user: str) -> bytes:
    """The key of ``client.USER``, from the keyrings that Ceph's configuration names or its usual places.

    :raises DriverError: none has it.
    """
    name = f"client.{user}"
    configured = ""
    for section in (name, "client", "global"):
        configured = configured or _value(conf_file, section, "keyring")
    for place in configured.split(",") if configured else _KEYRINGS:
        path = place.strip().replace("$cluster", conf_file.stem).replace("$name", name)
        key = _value(Path(path), name, "key")
        if key:
            return base64.b64decode(key)
    raise DriverError(
        f"this host has no key of Ceph's user {name}: put its keyring into /etc/ceph, or a secret into libvirt"
        " and its id into the backend's rbd_secret_uuid"
    )


def _value(path: Path, section: str, option: str) -> str:
    parser = configparser.ConfigParser(
        strict=False, interpolation=None, allow_no_value=True, delimiters=("=",), comment_prefixes=("#", ";")
    )
    try:
        parser.read_string(path.read_text())
    except (OSError, configparser.Error):
        return ""  # the next place
    return parser.get(section, option, fallback="") or ""
