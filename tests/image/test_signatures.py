"""Signed images: with real keys and certificates at a key manager, by upload and by import."""

from __future__ import annotations

import base64
import datetime
from pathlib import Path
from typing import Any

import pytest
import webtest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa

from api.image.services import ImageServices
from api.key_manager.app import make_app
from image.signatures import SignatureMismatch, Verifier
from tests.api.identity import authenticate
from tests.api.image.conftest import MEMBER, OTHER, Api, stored_files
from tests.api.image.conftest import api as api
from tests.api.image.conftest import services as services
from tests.api.key_manager import conftest as key_manager
from tests.image.test_imports import Glance
from tests.image.test_imports import glance as glance

DATA = b"what was signed " * 100_000
HASHES = {
    "SHA-224": hashes.SHA224(),
    "SHA-256": hashes.SHA256(),
    "SHA-384": hashes.SHA384(),
    "SHA-512": hashes.SHA512(),
}


def certificate(key: Any, days: int = 1) -> bytes:
    """Signed by itself; ``days`` below zero: it is over."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "images")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=9))
        .not_valid_after(now + datetime.timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.DER)


@pytest.fixture(scope="module")
def rsa_key() -> Any:
    return rsa.generate_private_key(65537, 2048)


def signed(key: Any, method: str, data: bytes = DATA) -> dict[str, str]:
    """The properties without the certificate's."""
    algorithm = HASHES[method]
    if isinstance(key, rsa.RSAPrivateKey):
        kind = "RSA-PSS"
        pss = padding.PSS(padding.MGF1(algorithm), padding.PSS.MAX_LENGTH)
        found = key.sign(data, pss, algorithm)
    elif isinstance(key, dsa.DSAPrivateKey):
        kind, found = "DSA", key.sign(data, algorithm)
    else:
        kind = f"ECC_{key.curve.name.upper()}"
        found = key.sign(data, ec.ECDSA(algorithm))
    return {
        "img_signature": base64.b64encode(found).decode(),
        "img_signature_hash_method": method,
        "img_signature_key_type": kind,
    }


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("rsa", "SHA-224"),
        ("rsa", "SHA-512"),
        ("dsa", "SHA-256"),
        ("secp384r1", "SHA-384"),
        ("secp521r1", "SHA-256"),
    ],
)
def test_keys_of_every_type(kind: str, method: str, rsa_key: Any) -> None:
    if kind == "rsa":
        key = rsa_key
    else:
        curves = {"secp384r1": ec.SECP384R1, "secp521r1": ec.SECP521R1}
        key = dsa.generate_private_key(2048) if kind == "dsa" else ec.generate_private_key(curves[kind]())
    properties = signed(key, method)
    for data, right in ((DATA, True), (DATA[:-1] + b"x", False)):
        verifier = Verifier(properties, certificate(key))
        verifier.feed(data[:1000])
        verifier.feed(data[1000:])
        if right:
            verifier.verify()
            continue
        with pytest.raises(SignatureMismatch):
            verifier.verify()


def test_what_can_not_be_verified(rsa_key: Any) -> None:
    good, found = signed(rsa_key, "SHA-256"), certificate(rsa_key)
    for change in (
        {"img_signature": "no base64!"},
        {"img_signature_hash_method": "MD5"},
        {"img_signature_key_type": "DSA"},
        {"img_signature_key_type": "ROT-13"},
    ):
        with pytest.raises(SignatureMismatch):
            Verifier({**good, **change}, found)
    with pytest.raises(SignatureMismatch, match="not valid now"):
        Verifier(good, certificate(rsa_key, days=-1))
    with pytest.raises(SignatureMismatch, match="does not name"):
        Verifier(good, b"0123456789abcdef0123456789abcdef")


class Keys:
    """A key manager that every service of this process speaks with."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        made = key_manager.make_services(f"sqlite:///{folder}/keys.sqlite", folder / "secrets.keys")
        key_manager.client_of(made, monkeypatch)
        self._api = key_manager.Api(webtest.TestApp(make_app(made.conf, made, authenticate)))

    def store(self, content: bytes, as_: str = MEMBER) -> str:
        return self._api.store(content, secret_type="certificate", as_=as_)


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keys:
    return Keys(tmp_path, monkeypatch)


def test_uploads(api: Api, services: ImageServices, keys: Keys, rsa_key: Any) -> None:
    named = {
        **signed(rsa_key, "SHA-256"),
        "img_signature_certificate_uuid": keys.store(certificate(rsa_key)),
    }
    assert api.image(data=DATA, **named)["status"] == "active"
    before = len(stored_files(services))
    made = api.image(**named)
    answer = api.upload(made["id"], DATA[:-1] + b"x", status=400)
    assert "Signature verification failed" in answer.text
    assert api.get(f"/images/{made['id']}").json["status"] == "queued"
    assert len(stored_files(services)) == before
    # it can still get what was signed
    api.upload(made["id"], DATA, status=204)
    # nothing is verified while a part is missing, as upstream
    named.pop("img_signature_hash_method")
    assert api.image(data=b"other", **named)["status"] == "active"


def test_nobody_uses_a_certificate_that_they_may_not_read(api: Api, keys: Keys, rsa_key: Any) -> None:
    theirs = keys.store(certificate(rsa_key), as_=OTHER)
    made = api.image(**signed(rsa_key, "SHA-256"), img_signature_certificate_uuid=theirs)
    assert "could not be read" in api.upload(made["id"], DATA, status=400).text
    made = api.image(**signed(rsa_key, "SHA-256"), img_signature_certificate_uuid="../secrets")
    api.upload(made["id"], DATA, status=400)


def test_imports(glance: Glance, keys: Keys, rsa_key: Any) -> None:
    uuid = keys.store(certificate(rsa_key))
    named = {**signed(rsa_key, "SHA-512"), "img_signature_certificate_uuid": uuid}
    good, bad, changed = (glance.staged(data, **named) for data in (DATA, b"x" + DATA, DATA))
    for image_id in (good, bad, changed):
        glance.import_(image_id, "glance-direct")
    glance.api.patch(changed, [{"op": "replace", "path": "/img_signature", "value": "AAAA"}])
    glance.work()
    assert glance.show(good)["status"] == "active"
    for image_id, words in ((bad, "not what was signed"), (changed, "was changed during the import")):
        assert glance.show(image_id)["status"] == "uploading"
        assert words in glance.task(image_id)["message"]
    hopeless = glance.staged(DATA, **{**named, "img_signature": "no base64!"})
    glance.import_(hopeless, "glance-direct", status=400)
    assert glance.show(hopeless)["status"] == "uploading"
