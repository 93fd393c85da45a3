"""Version documents and the OpenAPI document."""

from __future__ import annotations

import pytest

from api.compute.app import make_api
from api.compute.services import ComputeServices
from tests.api.common import generic
from tests.api.compute.conftest import Api


def test_root_lists_both_versions_without_a_token(api: Api) -> None:
    versions = api.app.get("/", status=200).json["versions"]
    assert [(each["id"], each["status"], each["version"]) for each in versions] == [
        ("v2.0", "SUPPORTED", ""),
        ("v2.1", "CURRENT", "2.96"),
    ]
    assert versions[1]["min_version"] == "2.1"


@pytest.mark.parametrize("path", ["/v2.1", "/v2.1/"])
def test_the_version_itself_is_no_redirect(api: Api, path: str) -> None:
    entry = api.app.get(path, status=200).json["version"]
    assert entry["version"] == "2.96" and entry["media-types"][0]["base"] == "application/json"
    assert entry["links"][0]["href"].endswith("/v2.1/")


def test_every_link_of_the_list_leads_to_its_version(api: Api) -> None:
    for listed in api.app.get("/").json["versions"]:
        shown = api.app.get(listed["links"][0]["href"], status=200).json["version"]
        assert (shown["id"], shown["status"]) == (listed["id"], listed["status"])
    assert api.app.get("/v2/flavors", headers={"X-Auth-Token": "reader@p1"}).json == {"flavors": []}


def test_versions_by_id(api: Api) -> None:
    assert api.get("/versions/v2.1").json["version"]["id"] == "v2.1"
    api.get("/versions/v9", status=404)


def test_every_policy_is_registered_and_every_body_has_a_schema(services: ComputeServices) -> None:
    generic.check_declarations(make_api(services))


def test_openapi_document_is_valid(api: Api) -> None:
    generic.check_openapi(api.app, "/v2.1/flavors/{flavor_id}")
