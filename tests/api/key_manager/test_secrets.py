"""Secrets by the API: upstream's shapes; each project's own; nothing in clear on disk, in logs, in errors."""

from __future__ import annotations

import base64
import datetime
import logging
from pathlib import Path

import pytest
import webtest

from api.common.operations import NO_POLICY
from api.key_manager.app import make_api, make_app
from api.key_manager.policies import RULES
from api.key_manager.services import KeyManagerServices
from core import config, key_file
from core.errors import Conflict, NotFound, Unavailable
from core.key_file import KeyFile
from core.keys import KeyManager
from db import secrets
from tests.api.identity import authenticate
from tests.api.key_manager.conftest import MEMBER, SERVICE, Api, make_services

SECRET = b"\x00\xff top secret bytes"


def test_a_secret_lives_and_goes(api: Api) -> None:
    made = api.store(SECRET, name="mine", secret_type="symmetric", algorithm="aes", bit_length=256)
    shown = api.call("GET", f"/secrets/{made}").json
    assert shown["secret_ref"] == f"http://localhost/v1/secrets/{made}"
    assert {key: shown[key] for key in ("name", "status", "secret_type", "algorithm", "bit_length")} == {
        "name": "mine",
        "status": "ACTIVE",
        "secret_type": "symmetric",
        "algorithm": "aes",
        "bit_length": 256,
    }
    assert shown["content_types"] == {"default": "application/octet-stream"}
    assert shown["creator_id"] == "member-of-p1"
    read = api.payload(made)
    assert (read.body, read.content_type) == (SECRET, "application/octet-stream")
    assert read.headers["Cache-Control"] == "no-store"
    api.call("DELETE", f"/secrets/{made}", status=204)
    for path in ("", "/payload"):
        assert api.call("GET", f"/secrets/{made}{path}", status=404).json["title"] == "Not Found"
    api.call("DELETE", f"/secrets/{made}", status=404)


def test_a_text_is_read_as_text_only(api: Api) -> None:
    body = {"payload": "pass phrase ä", "payload_content_type": "text/plain", "secret_type": "passphrase"}
    made = api.call("POST", "/secrets", body).json["secret_ref"].rpartition("/")[2]
    assert api.payload(made, accept="text/plain").body == "pass phrase ä".encode()
    api.payload(made, accept="application/octet-stream", status=406)


def test_lists_have_pages_and_filters(api: Api) -> None:
    made = [api.store(name=f"n{number}", bit_length=128 * (1 + number % 2)) for number in range(5)]
    first = api.call("GET", "/secrets?limit=2").json
    assert first["total"] == 5 and first["next"].endswith("?limit=2&offset=2") and "previous" not in first
    assert [each["name"] for each in first["secrets"]] == ["n0", "n1"]
    last = api.call("GET", "/secrets?limit=2&offset=4").json
    assert [each["name"] for each in last["secrets"]] == ["n4"] and "next" not in last
    (named,) = api.call("GET", "/secrets?name=n3").json["secrets"]
    assert named["secret_ref"].endswith(made[3])
    assert api.call("GET", "/secrets?bits=256").json["total"] == 2
    api.call("GET", "/secrets?limit=-1", status=400)


@pytest.mark.parametrize("persona", ["member@p2", "admin@p2", "service@p2"])
def test_no_other_project_reaches_it_not_even_as_administrator(api: Api, persona: str) -> None:
    made = api.store(SECRET)
    for method, path in (("GET", ""), ("GET", "/payload"), ("DELETE", "")):
        answer = api.call(method, f"/secrets/{made}{path}", as_=persona, status=404)
        assert SECRET not in answer.body
    assert api.call("GET", "/secrets", as_=persona).json == {"secrets": [], "total": 0}
    assert api.payload(made).body == SECRET


def test_readers_do_nothing_and_who_is_not_known_neither(api: Api) -> None:
    made = api.store()
    for method, path in (
        ("GET", "/secrets"),
        ("GET", f"/secrets/{made}/payload"),
        ("DELETE", f"/secrets/{made}"),
    ):
        api.call(method, path, as_="reader@p1", status=403)
        api.call(method, path, as_="", status=401)
    api.store(as_="reader@p1", status=403)


def test_a_secret_ends_at_its_time(api: Api, services: KeyManagerServices) -> None:
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    made = api.store(expiration=soon.isoformat())
    assert api.call("GET", f"/secrets/{made}").json["expiration"]
    past = secrets.secrets.update().values(expiration=datetime.datetime(2020, 1, 1))
    with services.databases.global_.write() as connection:
        connection.execute(past)
    api.payload(made, status=404)
    assert api.call("GET", "/secrets").json["total"] == 0
    api.store(expiration="2020-01-01T00:00:00", status=400)


@pytest.mark.parametrize(
    "change",
    [
        {"payload": 123456789},
        {"payload": "not base64: top secret"},
        {"payload": ""},
        {"payload_content_encoding": None},
        {"payload_content_type": "text/html"},
        {"payload": ["top secret"]},
        {"secret_type": "top secret"},
        {"payload": base64.b64encode(bytes(20_001)).decode()},
    ],
)
def test_what_is_refused_is_not_repeated(
    api: Api, change: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    body = {
        "payload": "MDEyMw==",
        "payload_content_type": "application/octet-stream",
        "payload_content_encoding": "base64",
        **change,
    }
    answer = api.call("POST", "/secrets", body, status=413 if len(str(change)) > 999 else 400)
    if "payload" in change and change["payload"]:
        assert str(change["payload"]) not in answer.text + caplog.text
        assert "top secret" not in answer.text + caplog.text


def test_neither_database_nor_log_holds_it(
    api: Api, services: KeyManagerServices, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    made = api.store(SECRET, name="visible name")
    api.payload(made)
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("global.sqlite*"))
    assert b"visible name" in stored
    for form in (SECRET, base64.b64encode(SECRET), SECRET.hex().encode()):
        assert form not in stored and form.decode("latin-1") not in caplog.text


def test_with_another_key_file_nothing_opens(api: Api, services: KeyManagerServices, tmp_path: Path) -> None:
    made = api.store(SECRET)
    key_file.create(tmp_path / "wrong")
    services.keys = KeyFile(tmp_path / "wrong")
    answer = api.payload(made, status=409)
    assert "key file" in answer.json["description"] and str(tmp_path) not in answer.text


def test_rows_of_secrets_can_not_be_exchanged(api: Api, services: KeyManagerServices) -> None:
    """Who writes to the database gets a secret neither by giving it to another project nor to another row."""
    mine, theirs = api.store(SECRET), api.store(b"theirs", as_="member@p2")
    table = secrets.secrets
    with services.databases.global_.write() as connection:
        sealed = connection.execute(table.select().where(table.c.id == mine)).mappings().one()["sealed"]
        connection.execute(table.update().where(table.c.id == theirs).values(sealed=sealed))
        connection.execute(table.update().where(table.c.id == mine).values(project_id="p2"))
    for identifier in (mine, theirs):
        api.payload(identifier, as_="member@p2", status=409)


def test_the_key_changes_and_nothing_is_lost(api: Api, services: KeyManagerServices, tmp_path: Path) -> None:
    file, database = tmp_path / "secrets.keys", services.databases.global_
    before = {api.store(bytes([number]) * 32): bytes([number]) * 32 for number in range(1, 4)}
    key_file.add(file)
    late = api.store(b"late")
    with pytest.raises(Conflict, match="reseal"):
        secrets.refuse_old(database, KeyFile(file))
    assert secrets.reseal(database, KeyFile(file)) == 3
    assert secrets.reseal(database, KeyFile(file)) == 0
    secrets.refuse_old(database, KeyFile(file))
    assert key_file.keep_first(file) == 1
    for identifier, content in {**before, late: b"late"}.items():
        assert api.payload(identifier).body == content


def test_it_does_not_start_without_its_key_file(tmp_path: Path, services: KeyManagerServices) -> None:
    config.override(services.conf, "key_manager_api.key_file", str(tmp_path / "none"))
    with pytest.raises(Unavailable, match="can't be read"):
        KeyManagerServices(services.conf)


def test_every_operation_names_a_policy_that_exists(services: KeyManagerServices) -> None:
    operations = make_api(services).operations
    assert {each.name for each in operations if each.policy == NO_POLICY} == {
        "VersionsController.index",
        "VersionsController.describe",
    }
    assert {each.policy for each in operations} - {NO_POLICY} == {rule.name for rule in RULES}


def test_versions_are_open(api: Api) -> None:
    (version,) = api.app.get("/", status=300).json["versions"]
    assert version["id"] == "v1" and version["links"][0]["href"] == "http://localhost/v1/"
    assert "/v1/secrets" in api.app.get("/openapi.json").json["paths"]


# -- haneul's own client ---------------------------------------------------------------


def test_a_key_is_made_once_per_name(keys: KeyManager, api: Api) -> None:
    made = keys.create("volume-1")
    assert keys.create("volume-1") == made and keys.find("volume-1") == made
    assert keys.name(made) == "volume-1"
    passphrase = keys.passphrase(made)
    assert len(passphrase) == 64 and bytes.fromhex(passphrase)
    assert keys.passphrase(keys.create("volume-2")) != passphrase
    api.payload(made, as_=MEMBER, status=404)
    assert api.payload(made, as_=SERVICE).body.hex() == passphrase


def test_a_copy_outlives_what_it_is_of(keys: KeyManager) -> None:
    made = keys.create("volume-1")
    copy = keys.copy(made, "backup-1")
    assert copy != made and keys.copy(made, "backup-1") == copy
    assert keys.passphrase(copy) == keys.passphrase(made)
    keys.delete("volume-1")
    keys.delete("volume-1")
    assert keys.find("volume-1") is None
    with pytest.raises(NotFound):
        keys.passphrase(made)
    with pytest.raises(NotFound):
        keys.copy(made, "volume-3")
    assert keys.passphrase(copy)


def test_all_of_a_name_go(keys: KeyManager, api: Api) -> None:
    for _ in range(3):
        api.store(name="volume-1", as_=SERVICE)
    other = api.store(name="volume-10", as_=SERVICE)
    keys.delete("volume-1")
    assert keys.find("volume-1") is None and keys.find("volume-10") == other


def test_on_every_database(database_url: str, tmp_path: Path) -> None:
    made = make_services(database_url, tmp_path / "secrets.keys")
    try:
        api = Api(webtest.TestApp(make_app(made.conf, made, authenticate)))
        identifier = api.store(SECRET, name="n")
        assert api.payload(identifier).body == SECRET
        assert api.call("GET", "/secrets?name=n").json["total"] == 1
        key_file.add(tmp_path / "secrets.keys")
        assert secrets.reseal(made.databases.global_, made.keys) == 1
        assert api.payload(identifier).body == SECRET
        api.call("DELETE", f"/secrets/{identifier}", status=204)
    finally:
        made.close()
