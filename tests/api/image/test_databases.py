"""The life of an image on each kind of database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import webtest

from api.image.app import make_app
from api.image.services import ImageServices
from core import config
from tests.api.identity import authenticate
from tests.api.image.conftest import OTHER, Api, make_services, stored_files
from tests.db.statements import of


@pytest.fixture
def services(tmp_path: Path, database_url: str) -> Iterator[ImageServices]:
    made = make_services(tmp_path, database_url)
    yield made
    made.close()


def test_the_life_of_an_image(services: ImageServices) -> None:
    config.override(services.conf, "image.image_count_total", 3)
    config.override(services.conf, "image.image_size_total", 5)
    api = Api(webtest.TestApp(make_app(services.conf, services, authenticate)))
    image = api.image(name="ünïcödé 🐧", tags=["🐧"], data=b"x" * 1000, a="1", A="2", long="y" * 70_000)
    assert (image["a"], image["A"], len(image["long"])) == ("1", "2", 70_000)
    assert api.names("?tag=%F0%9F%90%A7&A=2") == ["ünïcödé 🐧"]
    api.post(f"/images/{image['id']}/members", {"member": "p2"})
    api.json("PUT", f"/images/{image['id']}/members/p2", {"status": "accepted"}, as_=OTHER)
    assert api.names(as_=OTHER) == ["ünïcödé 🐧"]
    changes = [{"op": "remove", "path": "/long"}, {"op": "add", "path": "/tags", "value": []}]
    changed = api.patch(image["id"], changes).json
    assert changed["tags"] == [] and "long" not in changed
    for _more in range(2):
        api.image()
    api.post("/images", {}, status=413)
    api.delete(f"/images/{image['id']}", status=204)
    assert stored_files(services) == []
    api.image()


def test_reading_needs_as_many_statements_for_many_images_as_for_one(services: ImageServices) -> None:
    api = Api(webtest.TestApp(make_app(services.conf, services, authenticate)))
    counts = []
    for _round in range(2):
        image = api.image(tags=["t"], a="b", data=b"x")
        with of(services.databases) as seen:
            api.get("/images?limit=100")
        counts.append(len([text for text in seen if "cells" not in text]))
        api.image(), api.image(data=b"x")
    assert counts == [5, 5]
    with of(services.databases) as seen:
        api.get(f"/images/{image['id']}")
    assert len([text for text in seen if "cells" not in text]) == 5
