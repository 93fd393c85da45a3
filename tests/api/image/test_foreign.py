"""Another project's images and private definitions are not there (see ``tests.api.common.foreign``)."""

from __future__ import annotations

import re

import webtest

from api.common.operations import Operation
from api.image.app import make_api, make_app
from api.image.services import ImageServices
from tests.api.common import foreign
from tests.api.identity import authenticate
from tests.api.image import test_schemathesis as furnished
from tests.api.image.conftest import Api

BODIES = {"POST /images/{image_id}/import": {"method": {"name": "glance-direct"}}}
# refused to everyone where no store takes locations
UNLIKE = {"POST /images/{image_id}/locations": [400, 404]}


def _path(found: Operation) -> str | None:
    names = re.findall("{([^}]*)}", found.path)
    return found.path.format(**furnished.KNOWN) if names and set(names) <= set(furnished.KNOWN) else None


def test_what_is_foreign_is_not_there(services: ImageServices) -> None:
    app = webtest.TestApp(make_app(services.conf, services, authenticate))
    furnished.fill(Api(app))
    foreign.check(app, make_api(services), "/v2", _path, unlike=UNLIKE, bodies=BODIES)
