"""The key manager over one SQLite file and a key file, without a network.

``api`` speaks as a persona; ``keys`` is haneul's own client, through the same application.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import webtest

from api.key_manager.app import make_app
from api.key_manager.services import GROUP, OPTS, KeyManagerServices
from core import config, key_file
from core import keys as core_keys
from core.keys import KeyManager
from db.global_schema import global_metadata
from tests.api.client import MEMBER as MEMBER
from tests.api.client import Client, configured, make_tables
from tests.api.identity import authenticate

SERVICE = "cloud@services"
"""haneul's service user: what ``haneul up`` gives it"""


class Api(Client):
    """Bodies as JSON."""

    prefix = "/v1"

    def store(self, content: bytes = b"0123456789abcdef", **more: Any) -> str:
        """A secret's id."""
        options = {key: more.pop(key) for key in ("as_", "status") if key in more}
        body = {
            "payload": base64.b64encode(content).decode(),
            "payload_content_type": "application/octet-stream",
            "payload_content_encoding": "base64",
            **more,
        }
        answer = self.call("POST", "/secrets", body, **options)
        return str(answer.json.get("secret_ref", "")).rpartition("/")[2]

    def payload(self, identifier: str, **options: Any) -> webtest.TestResponse:
        headers = {"Accept": options.pop("accept", "application/octet-stream")}
        return self.call("GET", f"/secrets/{identifier}/payload", headers=headers, **options)


class Wsgi:
    """What ``core.clients.service_adapter`` gives, leading to an application in this process."""

    def __init__(self, application: Any, token: str = SERVICE) -> None:
        self._app = webtest.TestApp(application)
        self._token = token

    def get_endpoint(self) -> str:
        return "http://localhost:80"

    def request(self, url: str, method: str, **options: Any) -> Answer:
        assert options.pop("timeout") > 0
        assert options.pop("log") is False, "a body would stand in the debug log"
        headers = {**options.get("headers", {})}
        if options.pop("authenticated", True):
            headers["X-Auth-Token"] = self._token
        if "json" in options:
            sent = self._app.post_json(url, options["json"], headers=headers, status="*")
        else:
            call = getattr(self._app, method.lower())
            sent = call(url, options.get("params", ""), headers=headers, status="*")
        return Answer(sent)


class Answer:
    """As requests would give it."""

    def __init__(self, sent: webtest.TestResponse) -> None:
        self.status_code, self.content = sent.status_int, sent.body
        self._sent = sent

    def json(self) -> Any:
        return self._sent.json


def make_services(url: str, file: Path) -> KeyManagerServices:
    """The tables in the database at ``url``, and a key file."""
    make_tables(url, global_metadata)
    conf = configured(url)
    conf.register_opts(OPTS, group=GROUP)
    config.override(conf, f"{GROUP}.key_file", str(file))
    key_file.create(file)
    return KeyManagerServices(conf)


def client_of(services: KeyManagerServices, monkeypatch: pytest.MonkeyPatch) -> KeyManager:
    """Every ``KeyManager`` of this process speaks with ``services``."""
    wsgi = Wsgi(make_app(services.conf, services, authenticate))
    monkeypatch.setattr(core_keys, "service_adapter", lambda _conf, _service: wsgi)
    return KeyManager(services.conf)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[KeyManagerServices]:
    made = make_services(f"sqlite:///{tmp_path}/global.sqlite", tmp_path / "secrets.keys")
    yield made
    made.close()


@pytest.fixture
def api(services: KeyManagerServices) -> Api:
    return Api(webtest.TestApp(make_app(services.conf, services, authenticate)))


@pytest.fixture
def keys(services: KeyManagerServices, monkeypatch: pytest.MonkeyPatch) -> KeyManager:
    return client_of(services, monkeypatch)
