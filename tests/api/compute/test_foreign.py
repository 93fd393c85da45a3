"""Another project's servers and server groups are not there (see ``tests.api.common.foreign``)."""

from __future__ import annotations

import re

import webtest

from api.common.microversions import Microversion
from api.common.operations import Operation
from api.compute.app import make_api, make_app
from api.compute.services import ComputeServices
from tests.api.common import foreign
from tests.api.compute import test_schemathesis as furnished
from tests.api.compute.conftest import Api
from tests.api.identity import authenticate

UNLIKE = dict.fromkeys((f"{method} /os-server-groups/{{group_id}}" for method in ("GET", "DELETE")), [403])
"""Upstream finds the group before it asks the policy."""


def _path(found: Operation) -> str | None:
    names = re.findall("{([^}]*)}", found.path)
    if not names or names[0] not in ("server_id", "group_id") or not set(names) <= set(furnished.KNOWN):
        return None
    if "security-group" in found.path:
        return None
    return found.path.format(**furnished.KNOWN)


def _headers(version: Microversion | None) -> dict[str, str]:
    return {"X-OpenStack-Nova-API-Version": str(version)}


def test_what_is_foreign_is_not_there(services: ComputeServices) -> None:
    furnished.fill(services)
    app = webtest.TestApp(make_app(services.conf, services, authenticate))
    one = f"/servers/{furnished.SERVER}/metadata/a"
    Api(app).put(one, {"meta": {"a": "b"}}, as_="admin@p1")
    foreign.check(app, make_api(services), "/v2.1", _path, _headers, "2.96", UNLIKE)
