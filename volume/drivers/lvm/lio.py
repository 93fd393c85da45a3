"""iSCSI targets by the kernel's LIO, through rtslib: a target a volume, CHAP, an access list of initiators.

A host's CHAP secret is derived from a key file of this machine's: it is the same whenever it is asked
for, another for each host and volume, and in no database but in the attachment's connection information.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import importlib
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.errors import DriverError
from core.files import write_private
from volume.drivers.lvm.targets import Target

_CONFIGFS = Path("/sys/kernel/config/target")
_DATABASE = Path("/etc/target")
"""target_core_mod looks for this folder when it is loaded, and without it keeps reservations nowhere"""


class Lio(Target):
    """See the module."""

    protocol = "iSCSI"
    default_port = 3260
    who = "initiator"
    folds_case = True  # as rtslib and RFC 3720 have it
    names = re.compile(r"(?i)(iqn\.\d{4}-\d\d\.|eui\.|naa\.)[a-z0-9.:-]{1,200}")

    def _library(self) -> Any:
        try:
            return importlib.import_module("rtslib_fb")
        except ImportError as error:
            raise DriverError(
                "rtslib-fb is missing on this host: pip install haneul[lvm]", cause=error
            ) from error

    def check(self) -> None:
        library = self._library()
        try:
            _DATABASE.mkdir(parents=True, exist_ok=True)
            library.RTSRoot()  # loads the kernel's module
            (_CONFIGFS / "iscsi").mkdir(exist_ok=True)  # and this the one for iSCSI
        except (library.RTSLibError, OSError) as error:
            raise DriverError(f"the kernel offers no iSCSI targets (LIO): {error}", cause=error) from error

    def _iqn(self, name: str) -> str:
        return f"iqn.{self._options.target_prefix}:{name}"

    def _key(self) -> bytes:
        file = self._state / "chap.key"
        if not file.exists():
            write_private(file, secrets.token_hex(32), replace=False)
        return bytes.fromhex(file.read_text())

    def _secret(self, name: str, host: str) -> str:
        digest = hmac.new(self._key(), f"{name}\0{host}".encode(), hashlib.sha256).digest()
        return base64.b32encode(digest)[:16].decode()  # iSCSI initiators take 12 to 16 characters

    def exported(self, name: str) -> bool:
        return (_CONFIGFS / "iscsi" / self._iqn(name)).exists() or self._stored(name) is not None

    def _stored(self, name: str) -> Any:
        if not any((_CONFIGFS / "core").glob(f"iblock_*/{name}")):
            return None
        found = (each for each in self._library().RTSRoot().storage_objects if each.name == name)
        return next(found, None)

    def export(self, name: str, device: Path, hosts: Mapping[str, str]) -> None:
        library = self._library()
        try:
            stored = self._stored(name) or library.BlockStorageObject(
                name, dev=str(device), wwn=name.removeprefix("volume-")
            )
            target = library.Target(library.FabricModule("iscsi"), self._iqn(name))
            group = library.TPG(target, 1)
            group.set_attribute("authentication", "1")
            group.set_attribute("generate_node_acls", "0")
            lun = next(iter(group.luns), None) or library.LUN(group, 0, storage_object=stored)
            library.NetworkPortal(group, self.address, self.port)
            for access in list(group.node_acls):
                if access.node_wwn not in hosts:
                    access.delete()
            for host, mode in hosts.items():
                self._admit(library, group, lun, host, mode, self._secret(name, host))
            group.enable = True
        except library.RTSLibError as error:
            raise DriverError(f"{name} could not be exported by iSCSI: {error}", cause=error) from error

    @staticmethod
    def _admit(library: Any, group: Any, lun: Any, host: str, mode: str, secret: str) -> None:
        access = library.NodeACL(group, host)
        access.chap_userid, access.chap_password = "haneul", secret
        read_only = mode == "ro"
        mapped = next(iter(access.mapped_luns), None)
        if mapped is not None and bool(mapped.write_protect) != read_only:
            mapped.delete()
            mapped = None
        if mapped is None:
            library.MappedLUN(access, 0, lun, write_protect=read_only)

    def withdraw(self, name: str) -> None:
        library = self._library()
        try:
            if (_CONFIGFS / "iscsi" / self._iqn(name)).exists():
                library.Target(library.FabricModule("iscsi"), self._iqn(name), mode="lookup").delete()
            stored = self._stored(name)
            if stored is not None:
                stored.delete()
        except library.RTSLibError as error:
            raise DriverError(
                f"the iSCSI target of {name} could not be removed: {error}", cause=error
            ) from error

    def information(self, volume_id: str, name: str, host: str, mode: str) -> dict[str, Any]:
        return {
            "driver_volume_type": "iscsi",
            "data": {
                "target_discovered": False,
                "target_iqn": self._iqn(name),
                "target_portal": f"{self.portal_host}:{self.port}",
                "target_lun": 0,
                "volume_id": volume_id,
                "auth_method": "CHAP",
                "auth_username": "haneul",
                "auth_password": self._secret(name, host),
                "access_mode": mode,
                "discard": True,
            },
        }
