"""Another project's networks, routers and so on are not there (see ``tests.api.common.foreign``)."""

from __future__ import annotations

import webtest

from api.common.operations import Operation
from api.network.app import make_api, make_app
from api.network.services import NetworkServices
from tests.api.common import foreign
from tests.api.identity import authenticate
from tests.api.network import test_schemathesis as furnished
from tests.api.network.conftest import Api

UNLIKE = dict.fromkeys(
    (f"PUT /subnetpools/{{id}}/{verb}_prefixes" for verb in ("add", "remove")),
    [400],
)
"""No prefix at all is refused before the pool is looked for."""


def _path(found: Operation) -> str | None:
    start = found.path.removeprefix("/").partition("/{")[0]
    known = {**furnished.KNOWN, **({"id": furnished.IDS[start]} if start in furnished.IDS else {})}
    del known["project_id"], known["host"]
    if "{rule_id}" in found.path and "bandwidth_limit" not in found.path:
        return None
    for each in found.path.split("/"):
        if each.startswith("{") and each[1:-1] not in known:
            return None
    return found.path.format(**known) if "{" in found.path else None


def test_what_is_foreign_is_not_there(services: NetworkServices) -> None:
    app = webtest.TestApp(make_app(services.conf, services, authenticate))
    client = Api(app)
    furnished.fill(client)
    for path, identifier in furnished.IDS.items():
        if path not in ("address-scopes", "address-groups"):
            client.put(f"/{path}/{identifier}/tags", {"tags": ["t"]}, **furnished.OWNER)
    foreign.check(app, make_api(services), "/v2.0", _path, unlike=UNLIKE)
