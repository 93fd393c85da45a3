"""Every body of the key manager with an unknown field, and with each field wrong: 400, by name."""

from __future__ import annotations

import webtest

from api.key_manager.app import make_api, make_app
from api.key_manager.services import KeyManagerServices
from tests.api.client import MEMBER
from tests.api.common import bad_input
from tests.api.identity import authenticate


def test_bad_fields_are_refused_by_name(services: KeyManagerServices) -> None:
    app = webtest.TestApp(make_app(services.conf, services, authenticate))
    bad_input.check(app, make_api(services).operations, "/v1", lambda _: {"X-Auth-Token": MEMBER}, {})
