"""The key manager never answers 5xx (see ``tests.api.fuzzing``)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import webtest

from api.key_manager.app import make_app
from api.key_manager.versions import document
from tests.api import fuzzing
from tests.api.identity import authenticate
from tests.api.key_manager.conftest import Api, make_services

APP = fuzzing.App(document)
KNOWN: dict[str, str] = {}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder: Path = tmp_path_factory.mktemp("key-manager-api")
    services = make_services(f"sqlite:///{folder}/global.sqlite", folder / "secrets.keys")
    APP.target = make_app(services.conf, services, authenticate)
    KNOWN["secret_id"] = Api(webtest.TestApp(APP.target)).store()
    yield
    APP.target = None
    services.close()


@pytest.mark.parametrize("found", APP.operations(), ids=lambda found: found.label)
def test_no_server_error(app: None, found: Any) -> None:
    fuzzing.check(found, KNOWN, [{"X-Auth-Token": "admin@p1"}, {"X-Auth-Token": "member@p2"}])
