"""Signatures of images: whoever uploads one can say with which key it was signed, and how.

Four properties, as upstream's: ``img_signature`` (base64), ``img_signature_hash_method``,
``img_signature_key_type``, ``img_signature_certificate_uuid`` (an X.509 certificate at the key
manager).  An image that has all four becomes active only if its data is what was signed; with one
of them missing nothing is verified, as upstream.  The certificate is fetched in the request, with the
token of whoever uploads: it must be one that they may read.  Whether the certificate's issuer is to
be trusted is for those to decide who use the image; here it must be valid today.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import datetime
import hashlib
from collections.abc import Mapping
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa, utils

from core.errors import BadRequest

SIGNATURE, HASH_METHOD = "img_signature", "img_signature_hash_method"
KEY_TYPE, CERTIFICATE = "img_signature_key_type", "img_signature_certificate_uuid"
NAMES = (SIGNATURE, HASH_METHOD, KEY_TYPE, CERTIFICATE)
_HASHES: dict[str, tuple[str, hashes.HashAlgorithm]] = {
    "SHA-224": ("sha224", hashes.SHA224()),
    "SHA-256": ("sha256", hashes.SHA256()),
    "SHA-384": ("sha384", hashes.SHA384()),
    "SHA-512": ("sha512", hashes.SHA512()),
}
_CURVES = ("secp384r1", "secp521r1", "sect409k1", "sect409r1", "sect571k1", "sect571r1")
KEY_TYPES = ("RSA-PSS", "DSA", *(f"ECC_{name.upper()}" for name in _CURVES))


class SignatureMismatch(BadRequest):
    """The image's data is not what was signed, or its signature can't be one."""

    code = "haneul.image.signature"


@dataclasses.dataclass
class Verifier:
    """Feed it the data, then ``verify``. ``certificate``: DER or PEM."""

    properties: Mapping[str, Any]
    certificate: bytes

    def __post_init__(self) -> None:
        """:raises SignatureMismatch: the properties or the certificate can't be used."""
        try:
            self._signature = base64.b64decode(str(self.properties[SIGNATURE]), validate=True)
        except (binascii.Error, ValueError) as error:
            raise SignatureMismatch(f"{SIGNATURE} is not base64.", cause=error) from error
        if self.properties[HASH_METHOD] not in _HASHES:
            raise SignatureMismatch(f"{HASH_METHOD} must be one of {', '.join(_HASHES)}.")
        if self.properties[KEY_TYPE] not in KEY_TYPES:
            raise SignatureMismatch(f"{KEY_TYPE} must be one of {', '.join(KEY_TYPES)}.")
        name, self._algorithm = _HASHES[self.properties[HASH_METHOD]]
        self._digest = hashlib.new(name)
        self._key = _public_key(self.certificate, str(self.properties[KEY_TYPE]))

    def feed(self, chunk: bytes) -> None:
        self._digest.update(chunk)

    def verify(self) -> None:
        """:raises SignatureMismatch: what was fed is not what was signed."""
        digest, key, hashed = self._digest.digest(), self._key, utils.Prehashed(self._algorithm)
        try:
            if isinstance(key, rsa.RSAPublicKey):
                # any length of salt: tools differ in their default
                pss = padding.PSS(padding.MGF1(self._algorithm), padding.PSS.AUTO)
                key.verify(self._signature, digest, pss, hashed)
            elif isinstance(key, dsa.DSAPublicKey):
                key.verify(self._signature, digest, hashed)
            else:
                key.verify(self._signature, digest, ec.ECDSA(hashed))
        except (InvalidSignature, UnsupportedAlgorithm, ValueError) as error:
            raise SignatureMismatch(
                "Signature verification failed: the data is not what was signed.", cause=error
            ) from error


def is_signed(properties: Mapping[str, Any]) -> bool:
    return all(properties.get(name) for name in NAMES)


def _public_key(
    content: bytes, key_type: str
) -> rsa.RSAPublicKey | dsa.DSAPublicKey | ec.EllipticCurvePublicKey:
    try:
        pem = content.lstrip().startswith(b"-----BEGIN")
        found = x509.load_pem_x509_certificate(content) if pem else x509.load_der_x509_certificate(content)
        key = found.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SignatureMismatch(f"{CERTIFICATE} does not name an X.509 certificate.", cause=error) from error
    now = datetime.datetime.now(datetime.UTC)
    if not _utc(found, "not_valid_before") <= now <= _utc(found, "not_valid_after"):
        raise SignatureMismatch("The certificate of the image's signature is not valid now.")
    if isinstance(key, rsa.RSAPublicKey) and key_type == "RSA-PSS":
        return key
    if isinstance(key, dsa.DSAPublicKey) and key_type == "DSA":
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and key_type == f"ECC_{key.curve.name.upper()}":
        return key
    raise SignatureMismatch(f"The certificate's key is not of the type {key_type}.")


def _utc(certificate: x509.Certificate, name: str) -> datetime.datetime:
    """Older releases of the library give times without a zone only."""
    if (moment := getattr(certificate, f"{name}_utc", None)) is not None:
        return moment
    naive: datetime.datetime = getattr(certificate, name)
    return naive.replace(tzinfo=datetime.UTC)
