"""Every body of the Image API with an unknown field, and with each field wrong: 400, by name."""

from __future__ import annotations

import webtest

from api.image.app import make_api, make_app
from api.image.services import ImageServices
from tests.api.common import bad_input
from tests.api.identity import authenticate
from tests.api.image.conftest import ADMIN

OPEN = {
    "POST /images": "what is no attribute is a property of the image",
    "POST /images locations…": "naming locations is forbidden (403), whatever they hold",
    "POST /tasks input.image_properties": "what is no attribute is a property of the image",
    "PATCH /images/{image_id} []": "RFC 6902: further members of an operation are ignored",
}


def test_bad_fields_are_refused_by_name(services: ImageServices) -> None:
    app = webtest.TestApp(make_app(services.conf, services, authenticate))
    bad_input.check(app, make_api(services).operations, "/v2", lambda _: {"X-Auth-Token": ADMIN}, OPEN)
