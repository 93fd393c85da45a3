"""The Image API never answers 5xx (see ``tests.api.fuzzing``)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import webtest

from api.image.app import make_app
from api.image.versions import document
from tests.api import fuzzing
from tests.api.identity import authenticate
from tests.api.image.conftest import ADMIN, PATCH, Api, make_services

schemathesis.serializer.alias(PATCH, "application/json")
APP = fuzzing.App(document)
KNOWN: dict[str, str] = {"member_id": "p9", "tag_value": "t", "namespace": "n", "resource_type": "r"}
PROPERTY = {"title": "t", "type": "string"}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder: Path = tmp_path_factory.mktemp("image-api")
    services = make_services(folder, f"sqlite:///{folder}/global.sqlite")
    APP.target = make_app(services.conf, services, authenticate)
    fill(Api(webtest.TestApp(APP.target)))
    yield
    APP.target = None
    services.close()


def fill(api: Api) -> None:
    """A shared image with data, and definitions of each kind."""
    made = KNOWN["image_id"] = api.image(data=b"x", as_=ADMIN, tags=["t"])["id"]
    api.post(f"/images/{made}/members", {"member": "p9"}, as_=ADMIN)
    body = {
        "namespace": "n",
        "objects": [{"name": "o", "properties": {"p": PROPERTY}}],
        "properties": {"p": PROPERTY},
        "tags": [{"name": "t"}],
        "resource_type_associations": [{"name": "r"}],
    }
    api.post("/metadefs/namespaces", body, as_=ADMIN)
    KNOWN.update(object_name="o", property_name="p", tag_name="t")


@pytest.mark.parametrize("found", APP.operations(), ids=lambda found: found.label)
def test_no_server_error(app: None, found: Any) -> None:
    fuzzing.check(found, KNOWN, [{"X-Auth-Token": ADMIN}, {"X-Auth-Token": "member@p2"}])
