"""Every body of the Compute API, at every range of versions, with an unknown field, and with each
field wrong: 400, by name.  Unknown query keys: ignored before 2.75, refused since."""

from __future__ import annotations

import re

import pytest
import webtest

from api.common.microversions import Microversion
from api.compute.app import make_api, make_app
from api.compute.services import ComputeServices
from tests.api.common import bad_input
from tests.api.compute.conftest import ADMIN
from tests.api.identity import authenticate

_HINTS = "filters of one's own may know further hints"
OPEN = {
    "POST /os-volumes volume.metadata": "the volume service, to which it goes on, says what may stand there",
    **{
        f"POST {path} {prefix}:scheduler_hints{place}": _HINTS
        for path in ("/servers", "/os-volumes_boot")
        for prefix in ("os", "OS-SCH-HNT")
        for place in ("", ".query")
    },
}


@pytest.fixture
def app(services: ComputeServices) -> webtest.TestApp:
    return webtest.TestApp(make_app(services.conf, services, authenticate))


STRICT_BEFORE = {
    "/os-hypervisors": "2.53",
    "/os-hypervisors/detail": "2.53",
    "/os-hypervisors/{hypervisor_id}": "2.53",
    "/os-migrations": "2.59",
    "/servers/{server_id}/os-instance-actions": "2.58",
}
"""Queries whose schema changed then, and took no further keys from there on."""


def _headers(version: Microversion | None) -> dict[str, str]:
    return {"X-Auth-Token": ADMIN, "X-OpenStack-Nova-API-Version": str(version)}


def test_bad_fields_are_refused_by_name(app: webtest.TestApp, services: ComputeServices) -> None:
    bad_input.check(app, make_api(services).operations, "/v2.1", _headers, OPEN, first="2.1")


def test_unknown_query_keys_are_refused_since_2_75(app: webtest.TestApp, services: ComputeServices) -> None:
    unlike = {}
    for found in make_api(services).operations:
        if not found.query or found.method != "GET":
            continue
        for text in ("2.1", "2.52", "2.74", "2.75", "2.96"):
            version = Microversion.parse(text)
            if not found.serves(version):
                continue
            path = f"/v2.1{re.sub('{[^}]*}', 'x', found.path)}?{bad_input.UNKNOWN}=1"
            answer = app.request(path, method=found.method, headers=_headers(version), status="*")
            refused = answer.status_int == 400 and bad_input.UNKNOWN in answer.text
            if refused != (version >= Microversion.parse(STRICT_BEFORE.get(found.path, "2.75"))):
                unlike[f"{found.method} {found.path} {text}"] = answer.status
    assert unlike == {}
