"""Version documents, extensions, and what holds for all calls."""

from __future__ import annotations

import pytest

from api.network.app import make_api
from api.network.resource import ResourceController
from api.network.services import NetworkServices
from core.policy import BASE_RULES
from tests.api.common import generic
from tests.api.network.conftest import ADMIN, Api


def test_documents_without_a_token(api: Api) -> None:
    (version,) = api.app.get("/", status=200).json["versions"]
    assert version["id"] == "v2.0" and version["status"] == "CURRENT"
    assert version["links"][0]["href"].endswith("/v2.0/")
    for path in ("/v2.0", "/v2.0/"):
        resources = api.app.get(path, status=200).json["resources"]
        assert {"networks", "subnets", "ports"} <= {each["collection"] for each in resources}


def test_tokens_are_needed(api: Api) -> None:
    answer = api.app.get("/v2.0/networks", status=401)
    assert answer.json["NeutronError"]["type"] == "HTTPUnauthorized"
    api.app.get("/v2.0/networks", headers={"X-Auth-Token": "nonsense"}, status=401)


def test_extensions_are_those_that_are_served(api: Api) -> None:
    aliases = {each["alias"] for each in api.get("/extensions")["extensions"]}
    assert {"router", "security-group", "quotas", "standard-attr-tag"} <= aliases
    # what is not served is not promised
    assert not aliases & {"trunk", "segment", "metering", "dvr", "l3-ha", "bgp"}
    assert api.get("/extensions/router")["extension"]["alias"] == "router"
    api.refused("get", "/extensions/trunk", None, 404, "HTTPNotFound")


def test_every_call_is_declared(services: NetworkServices) -> None:
    api = make_api(services)
    generic.check_declarations(api)
    generic.check_registered_rules_are_used(
        api, "context_is_advsvc", "network_device", *(found.name for found in BASE_RULES)
    )


def test_rules_of_attributes_are_registered_and_used(services: NetworkServices) -> None:
    known = services.policy.known()
    asked = set()
    from api.network.controllers import CONTROLLERS

    for controller in CONTROLLERS:
        if not issubclass(controller, ResourceController):
            continue
        made = controller(services)
        for key, attr in made.attributes.items():
            for verb, wanted in (
                ("create", attr.create_rule and attr.post),
                ("update", attr.update_rule and attr.put),
                ("get", attr.get_rule),
            ):
                if wanted and getattr(attr, f"{verb}_rule"):
                    asked.add(made.rule(verb, key))
    assert asked - known == set()
    finer = {
        name for name in known if name.count(":") >= 2 and "provider" not in name and "binding" not in name
    }
    fields = {name for name in known if ":" in name} - finer
    assert {name for name in fields - asked if "router:external" not in name} == set()


def test_openapi(api: Api) -> None:
    generic.check_openapi(
        api.app, "/v2.0/networks/{id}", "/v2.0/routers/{id}/add_router_interface", "/v2.0/ports"
    )


@pytest.mark.parametrize("path", ["/networks", "/ports", "/routers", "/floatingips", "/security-groups"])
def test_a_list_is_empty_at_first(api: Api, path: str) -> None:
    (rows,) = api.get(path, as_="member@fresh").values()
    assert rows == [] or path == "/security-groups"


def test_zones_and_providers(api: Api) -> None:
    assert api.get("/availability_zones")["availability_zones"] == []  # no agent: no zone
    assert api.get("/service-providers")["service_providers"][0]["service_type"] == "L3_ROUTER_NAT"
    assert api.get("/agents", as_=ADMIN)["agents"] == []
