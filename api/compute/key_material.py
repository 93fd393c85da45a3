"""Making and reading keys: ssh keys, and X.509 certificates for Windows guests."""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from core.errors import BadRequest

_BITS = 2048
_YEARS = 10
_UPN = x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")
"""A Windows user principal name, by which WinRM finds the account of a certificate."""
_KEY_TYPES = ("ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-")


def _colons(digest: str) -> str:
    return ":".join(digest[index : index + 2] for index in range(0, len(digest), 2))


def ssh_fingerprint(public_key: str) -> str:
    """The MD5 fingerprint, as ``ssh-keygen -E md5`` and upstream show it.

    :raises BadRequest: not a public key as in authorized_keys.
    """
    words = public_key.split(None, 2)
    try:
        if len(words) < 2 or not words[0].startswith(_KEY_TYPES):
            raise ValueError("no type and key")
        blob = base64.b64decode(words[1], validate=True)
        length = int.from_bytes(blob[:4], "big")
        if blob[4 : 4 + length] != words[0].encode():
            raise ValueError("the key is of another type than it says")
        serialization.load_ssh_public_key(" ".join(words[:2]).encode())
    except UnsupportedAlgorithm:
        pass  # well-formed, of a kind that only the guest has to know (hardware keys)
    except (ValueError, binascii.Error) as error:
        raise BadRequest("Keypair data is invalid: failed to generate fingerprint", cause=error) from error
    return _colons(hashlib.md5(blob, usedforsecurity=False).hexdigest())


def x509_fingerprint(certificate: str) -> str:
    """The SHA-1 fingerprint. :raises BadRequest: not a certificate in PEM."""
    try:
        loaded = x509.load_pem_x509_certificate(certificate.encode())
    except ValueError as error:
        raise BadRequest(
            "Keypair data is invalid: failed to generate X509 fingerprint.", cause=error
        ) from error
    return _colons(loaded.fingerprint(hashes.SHA1()).hex())  # noqa: S303 - an id, not a protection


def _private_pem(key: rsa.RSAPrivateKey, form: serialization.PrivateFormat) -> str:
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def generate_ssh() -> tuple[str, str]:
    """(private key in PEM, public key as in authorized_keys)"""
    key = rsa.generate_private_key(public_exponent=65537, key_size=_BITS)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    private = _private_pem(key, serialization.PrivateFormat.TraditionalOpenSSL)
    return private, f"{public.decode()} Generated-by-haneul"


def generate_x509(user_id: str) -> tuple[str, str]:
    """(private key in PEM, a self-signed client certificate for ``user_id`` in PEM)"""
    key = rsa.generate_private_key(public_exponent=65537, key_size=_BITS)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, user_id[:64])])
    start = datetime.datetime.now(datetime.UTC)
    principal = f"{user_id}@localhost".encode()
    # DER of a UTF8String: its tag, its length, its bytes
    size = len(principal)
    length = bytes([size]) if size < 128 else bytes([0x82, size >> 8, size & 0xFF])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=365 * _YEARS))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.OtherName(_UPN, b"\x0c" + length + principal)]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    return (
        _private_pem(key, serialization.PrivateFormat.PKCS8),
        certificate.public_bytes(serialization.Encoding.PEM).decode(),
    )
