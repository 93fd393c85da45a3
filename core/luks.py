"""LUKS as QEMU does it: which encryption specs of volume types it can serve, and how large its header is.

QEMU's LUKS is version 1; it writes and reads it itself (qemu-img on the volume's side, the
guest's QEMU on the hypervisor), so neither device-mapper nor cryptsetup is needed.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from core.errors import BadRequest

_PROVIDERS = ("luks", "luksencryptor")
_CIPHER = re.compile(r"aes-xts-plain(64)?")
_HEADER_BYTES = {128: 1_052_672, 256: 2_068_480}
"""{bits of AES: bytes in front of the data}: eight key slots of 4,000 stripes, aligned."""
MOST_HEADER_BYTES = max(_HEADER_BYTES.values())


def is_luks(provider: object) -> bool:
    """Also by the names of upstream's classes, which older volume types have."""
    return str(provider or "").rpartition(".")[2].lower() in _PROVIDERS


@dataclasses.dataclass(frozen=True)
class Luks:
    """How a volume is encrypted."""

    aes_bits: int
    ivgen: str

    @property
    def header_bytes(self) -> int:
        """What the header takes from the backend's device, in front of the guest's first byte."""
        return _HEADER_BYTES[self.aes_bits]

    @property
    def create_options(self) -> str:
        """For ``qemu-img create -f luks``. The passphrase has 256 random bits: there is nothing to be
        gained by making it slow to try, and every attachment would be as slow."""
        return f"cipher-alg=aes-{self.aes_bits},cipher-mode=xts,ivgen-alg={self.ivgen},hash-alg=sha256,iter-time=10"


def of_type(encryption: Mapping[str, Any]) -> Luks:
    """The encryption specs of a volume type: provider, control_location, cipher, key_size.

    As upstream, ``key_size`` counts the bits of one of XTS's two keys; 512, cryptsetup's way to say it,
    is taken for 256. :raises BadRequest: QEMU can't serve them.
    """
    provider = encryption.get("provider")
    if not is_luks(provider):
        raise BadRequest(
            f"Invalid volume_type: its encryption provider is {provider!r}, but only 'luks' is served here."
        )
    if encryption.get("control_location") not in (None, "front-end"):
        raise BadRequest("Invalid volume_type: volumes are encrypted by the hypervisor (front-end) only.")
    cipher = encryption.get("cipher") or "aes-xts-plain64"
    found = _CIPHER.fullmatch(str(cipher))
    size = encryption.get("key_size") or 256
    bits = 256 if size == 512 else int(size)
    if found is None or bits not in _HEADER_BYTES:
        raise BadRequest(
            f"Invalid volume_type: cipher {cipher!r} with {size} bits is not served here; aes-xts-plain64 with 256 is."
        )
    return Luks(bits, "plain64" if found[1] else "plain")
