"""The Network API never answers 5xx (see ``tests.api.fuzzing``)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import webtest

from api.network.app import make_app
from api.network.versions import document
from tests.api import fuzzing
from tests.api.identity import authenticate
from tests.api.network.conftest import Api, make_services

APP = fuzzing.App(document)
OWNER: dict[str, Any] = {"as_": "admin@p1"}
KNOWN: dict[str, str] = {"project_id": "p1", "tag": "t", "host": "h1"}
IDS: dict[str, str] = {}
"""by the path's first part: paths call them all {id}"""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder: Path = tmp_path_factory.mktemp("network-api")
    services = make_services(f"sqlite:///{folder}/global.sqlite")
    APP.target = make_app(services.conf, services, authenticate)
    fill(Api(webtest.TestApp(APP.target)))
    yield
    APP.target = None
    services.close()


def fill(api: Api) -> None:
    """One of each kind, so that more than 404 is seen."""
    network = IDS["networks"] = api.network(**OWNER)["id"]
    IDS["subnets"] = api.subnet(network, **OWNER)["id"]
    IDS["ports"] = KNOWN["port_id"] = api.port(network, **OWNER)["id"]
    outside, _ = api.external()
    gateway = {"external_gateway_info": {"network_id": outside["id"]}}
    for path, body in (
        ("routers", {"router": gateway}),
        ("floatingips", {"floatingip": {"floating_network_id": outside["id"]}}),
        ("security-groups", {"security_group": {"name": "s"}}),
        ("subnetpools", {"subnetpool": {"name": "p", "prefixes": ["10.9.0.0/16"]}}),
        ("address-scopes", {"address_scope": {"name": "a", "ip_version": 4}}),
        ("address-groups", {"address_group": {"name": "a", "addresses": ["10.1.1.1/32"]}}),
        ("qos/policies", {"policy": {"name": "q"}}),
    ):
        (name,) = body
        IDS[path] = api.post(f"/{path}", body, **OWNER)[name]["id"]
    KNOWN["policy_id"] = IDS["qos/policies"]
    rule = {"bandwidth_limit_rule": {"max_kbps": 1000}}
    path = f"/qos/policies/{KNOWN['policy_id']}/bandwidth_limit_rules"
    KNOWN["rule_id"] = api.post(path, rule, **OWNER)["bandwidth_limit_rule"]["id"]


@pytest.mark.parametrize("found", APP.operations(), ids=lambda found: found.label)
def test_no_server_error(app: None, found: Any) -> None:
    start = found.path.removeprefix("/v2.0/").partition("/{")[0]
    known = {**KNOWN, "id": IDS[start]} if start in IDS else KNOWN
    fuzzing.check(found, known, [{"X-Auth-Token": "admin@p1"}, {"X-Auth-Token": "member@p2"}])
