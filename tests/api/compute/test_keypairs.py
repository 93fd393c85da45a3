"""Key pairs through the API."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from api.compute import key_material
from api.compute.services import ComputeServices
from core import config
from tests.api.compute.conftest import ADMIN, OTHER, Api
from tests.db import statements

ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJz430+jnCoFEzgTko5K1GOY+zxSYAhUq/0SKtOPrXqK me@here"


def make(api: Api, name: str = "kp", version: str = "2.2", **more: Any) -> dict[str, Any]:
    body = {"keypair": {"name": name, "public_key": ED25519, **more}}
    return api.post("/os-keypairs", body, version=version, status=201).json["keypair"]


def test_import_by_microversion(api: Api) -> None:
    body = {"keypair": {"name": "old", "public_key": ED25519}}
    made = api.post("/os-keypairs", body, status=200).json["keypair"]
    assert set(made) == {"name", "public_key", "fingerprint", "user_id"}
    made = make(api)
    assert made["type"] == "ssh" and "private_key" not in made
    # what ssh-keygen -E md5 -l prints for the key above
    assert made["fingerprint"] == "ab:81:88:30:7b:63:8a:92:5a:c5:b1:06:6d:ef:fb:9c"
    shown = api.get("/os-keypairs/kp", version="2.2").json["keypair"]
    assert set(shown) == {
        *("name", "public_key", "fingerprint", "type", "id", "user_id"),
        *("created_at", "updated_at", "deleted", "deleted_at"),
    }
    assert "type" not in api.get("/os-keypairs").json["keypairs"][0]["keypair"]
    assert api.get("/os-keypairs", version="2.2").json["keypairs"][0]["keypair"]["type"] == "ssh"


def test_generation_until_2_91(api: Api) -> None:
    made = api.post("/os-keypairs", {"keypair": {"name": "g"}}, version="2.91", status=201).json["keypair"]
    private = serialization.load_pem_private_key(made["private_key"].encode(), None)
    assert made["public_key"].startswith("ssh-rsa ")
    public = private.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    assert made["public_key"].split()[1] == public.decode().split()[1]
    assert made["fingerprint"] == key_material.ssh_fingerprint(made["public_key"])
    api.post("/os-keypairs", {"keypair": {"name": "h"}}, version="2.92", status=400)
    made = api.post("/os-keypairs", {"keypair": {"name": "w", "type": "x509"}}, version="2.2").json["keypair"]
    assert "PRIVATE KEY" in made["private_key"]
    certificate = x509.load_pem_x509_certificate(made["public_key"].encode())
    assert certificate.subject.rfc4514_string() == "CN=member-of-p1"
    # what was made can be imported again
    again = {"keypair": {"name": "w2", "type": "x509", "public_key": made["public_key"]}}
    assert (
        api.post("/os-keypairs", again, version="2.2").json["keypair"]["fingerprint"] == made["fingerprint"]
    )


@pytest.mark.parametrize(
    ("version", "wrong"),
    [
        ("2.1", {"name": ""}),
        ("2.1", {"name": "a.b"}),
        ("2.92", {"name": "a/b"}),
        ("2.2", {"type": "pgp"}),
        ("2.1", {"type": "ssh"}),
        ("2.2", {"user_id": "x"}),
        ("2.2", {"public_key": "ssh-rsa nonsense"}),
        ("2.2", {"public_key": ""}),
        ("2.2", {"public_key": "ssh-rsa " + ED25519.split()[1]}),
        ("2.2", {"type": "x509"}),
        ("2.2", {"public_key": None}),
    ],
)
def test_bad_fields_are_400(api: Api, version: str, wrong: dict[str, Any]) -> None:
    body = {"keypair": {"name": "kp", "public_key": ED25519, **wrong}}
    answer = api.post("/os-keypairs", body, version=version, status=400).json["badRequest"]
    assert answer["message"]
    assert api.get("/os-keypairs").json["keypairs"] == []


def test_names_from_2_92_may_have_dots(api: Api) -> None:
    assert make(api, "me@here.example", version="2.92")["name"] == "me@here.example"


def test_duplicates_and_delete(api: Api) -> None:
    make(api)
    body = {"keypair": {"name": "kp", "public_key": ED25519}}
    answer = api.post("/os-keypairs", body, status=409)
    assert answer.json["conflictingRequest"]["message"] == "Key pair 'kp' already exists."
    api.delete("/os-keypairs/kp", as_=OTHER, status=404)
    api.delete("/os-keypairs/kp", version="2.2", status=204)
    api.delete("/os-keypairs/kp", version="2.2", status=404)
    make(api)
    api.delete("/os-keypairs/kp", status=202)
    api.get("/os-keypairs/kp", status=404)


def test_other_users_from_2_10_for_administrators(api: Api) -> None:
    make(api)
    path = "/os-keypairs/kp?user_id=member-of-p1"
    api.get(path, as_=ADMIN, version="2.9", status=404)
    assert api.get(path, as_=ADMIN, version="2.10").json["keypair"]["user_id"] == "member-of-p1"
    api.get(path, as_=OTHER, version="2.10", status=403)
    body = {"keypair": {"name": "for", "public_key": ED25519, "user_id": "u9"}}
    api.post("/os-keypairs", body, as_=OTHER, version="2.10", status=403)
    assert api.post("/os-keypairs", body, as_=ADMIN, version="2.10").json["keypair"]["user_id"] == "u9"
    api.delete("/os-keypairs/for?user_id=u9", as_=ADMIN, version="2.10", status=204)


def test_paging_from_2_35_in_a_bounded_number_of_statements(api: Api, services: ComputeServices) -> None:
    for number in range(5):
        make(api, f"k{number}")
    with statements.of(services.databases) as few:
        page = api.get("/os-keypairs?limit=2&marker=k1", version="2.35").json
    assert [each["keypair"]["name"] for each in page["keypairs"]] == ["k2", "k3"]
    assert "marker=k3" in page["keypairs_links"][0]["href"]
    with statements.of(services.databases) as many:
        assert len(api.get("/os-keypairs?marker=k0", version="2.35").json["keypairs"]) == 4
    assert len(few) == len(many) == 2
    assert len(api.get("/os-keypairs?limit=2", version="2.34").json["keypairs"]) == 5
    api.get("/os-keypairs?marker=none", version="2.35", status=400)
    api.get("/os-keypairs?colour=red", version="2.75", status=400)


def test_quota(api: Api, services: ComputeServices) -> None:
    config.override(services.conf, "quota.key_pairs", 1)
    make(api)
    answer = api.post("/os-keypairs", {"keypair": {"name": "two", "public_key": ED25519}}, status=403)
    assert answer.json["forbidden"]["message"] == "Quota exceeded, too many key pairs."
