"""Every body of the Network API with an unknown field, and with each field wrong: 400, by name."""

from __future__ import annotations

import webtest

from api.network.app import make_api, make_app
from api.network.services import NetworkServices
from tests.api.common import bad_input
from tests.api.identity import authenticate
from tests.api.network.conftest import ADMIN

_PROFILE = "what a mechanism driver reads is the driver's own"
OPEN = {
    "POST /ports port.binding:profile": _PROFILE,
    "POST /ports ports[].binding:profile": _PROFILE,
    "PUT /ports/{id} port.binding:profile": _PROFILE,
    "POST /ports/{port_id}/bindings binding.profile": _PROFILE,
    "PUT /ports/{port_id}/bindings/{host} binding.profile": _PROFILE,
}


def test_bad_fields_are_refused_by_name(services: NetworkServices) -> None:
    app = webtest.TestApp(make_app(services.conf, services, authenticate))
    operations = make_api(services).operations
    bad_input.check(app, operations, "/v2.0", lambda _: {"X-Auth-Token": ADMIN}, OPEN)
