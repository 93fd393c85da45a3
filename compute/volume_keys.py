"""The passphrases of encrypted volumes, for the agent that gives a volume to a guest.

The Volume API says which key a volume has, the key manager what the key is; both are asked with
haneul's service user. QEMU decrypts: the passphrase goes to the hypervisor's daemon in memory and
is neither logged nor written down, so whoever connects a volume again asks again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oslo_config import cfg

from compute.volumes import Encryption
from core import luks
from core.errors import DriverError
from core.keys import KeyManager
from lifecycle.volume_client import VolumeApi


class VolumeKeys:
    """Safe to share between threads; connects with the first call."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._api = VolumeApi(conf)
        self._keys = KeyManager(conf)

    def encryption_of(self, volume: Mapping[str, Any]) -> Encryption | None:
        """What belongs under ``encryption`` of a guest's volume (``compute.volumes.Volume``); None: not encrypted.

        :raises DriverError: QEMU can't open this kind. :raises NotFound: volume or key are gone.
        :raises Unavailable: Volume API or key manager do not answer.
        """
        info = volume.get("connection_info") or {}
        if not (info.get("encrypted") or (info.get("data") or {}).get("encrypted")):
            return None
        return {"format": "luks", "secret": self.secret_for(str(volume["volume_id"]))}

    def secret_for(self, volume_id: str) -> str:
        """The passphrase of an encrypted volume; raises as ``encryption_of``."""
        facts = self._api.call("GET", f"/volumes/{volume_id}/encryption")
        if not luks.is_luks(facts.get("provider")):
            raise DriverError(f"volume {volume_id} is encrypted by {facts.get('provider')}, not LUKS")
        if not facts.get("encryption_key_id"):
            raise DriverError(f"volume {volume_id} is encrypted, but the Volume API knows no key of it")
        return self._keys.passphrase(str(facts["encryption_key_id"]))
