"""Versions, schemas, OpenAPI; and requests made up from it: whatever they hold, no 5xx."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import hypothesis
import jsonschema
import pytest
import schemathesis
from hypothesis import strategies
from schemathesis import GenerationMode, openapi

from api.image import patches
from api.image.app import make_api
from api.image.services import ImageServices
from api.image.versions import document
from tests.api.identity import authenticate
from tests.api.image.conftest import Api, make_services

FREE = {"/", "/v2/", "/versions", "/openapi.json", "/v2/openapi.json"}
"""Without a token, for everyone."""
WITHOUT_POLICY = {"/info/import", "/info/stores", "/info/usage"}
"""With a token, for everyone: as upstream."""


def test_versions(api: Api) -> None:
    for path, status in (("/", 300), ("/versions", 200), ("/v2", 300), ("/v2/", 300)):
        answer = api.app.get(path, status=status)
        versions = answer.json["versions"]
        assert versions[0]["status"] == "CURRENT"
        assert {tuple(sorted(found)) for found in versions} == {("id", "links", "status")}
        assert {found["links"][0]["href"] for found in versions} == {"http://localhost/v2/"}
    image = api.image()
    headers = {"X-Auth-Token": "member@p1"}
    assert api.app.get(f"/v2.7/images/{image['id']}", headers=headers).json["id"] == image["id"]


@pytest.mark.parametrize("name", ["image", "images", "member", "members", "task", "tasks"])
def test_schemas(api: Api, name: str) -> None:
    schema = api.get(f"/schemas/{name}").json
    assert schema["name"] == name
    jsonschema.Draft202012Validator.check_schema(schema)


METADEFS = ("namespace", "object", "property", "resource_type", "tag")


@pytest.mark.parametrize("name", [*METADEFS, "namespaces", "objects", "properties", "resource_types", "tags"])
def test_schemas_of_metadata_definitions(api: Api, name: str) -> None:
    schema = api.get(f"/schemas/metadefs/{name}").json
    assert schema["name"] == name.replace("resource_type", "resource_type_association")
    jsonschema.Draft202012Validator.check_schema({**schema, "required": []})
    # every reference leads somewhere
    for reference in set(re.findall(r'"#/definitions/(\w+)"', json.dumps(schema))):
        assert reference in schema["definitions"]
    api.get("/schemas/metadefs/nothing", status=404)


def test_what_is_shown_fits_the_schemas(api: Api) -> None:
    image = api.image(name="n", tags=["a"], data=b"x", os_distro="debian")
    jsonschema.validate(image, api.get("/schemas/image").json)
    jsonschema.validate(api.get("/images").json, api.get("/schemas/images").json)
    api.post(f"/images/{image['id']}/members", {"member": "p2"})
    members = api.get(f"/images/{image['id']}/members").json
    jsonschema.validate(members, api.get("/schemas/members").json)


def test_every_call_has_a_policy_and_every_body_a_schema(services: ImageServices) -> None:
    known = services.policy.known()
    for found in make_api(services).operations:
        if found.policy == "-":
            assert found.path.startswith(("//", "/schemas/")) or found.path in FREE | WITHOUT_POLICY | {
                "/",
                "/openapi.json",
            }
        else:
            assert found.policy in known, found.policy
        if found.method in ("POST", "PUT", "PATCH") and not found.path.endswith(
            ("/file", "/stage", "activate", "{tag_value}", "/tags/{tag_name}", "/cache/{image_id}")
        ):
            assert found.body, found.name


def test_without_a_token_nothing_but_the_documents(api: Api, services: ImageServices) -> None:
    for found in make_api(services).operations:
        path = found.path[1:] if found.path.startswith("//") else f"/v2{found.path}"
        path = path.replace("{image_id}", "00000000-0000-0000-0000-000000000000")
        status = api.app.request(path, method=found.method, status="*").status_int
        assert (status == 401) == (path not in FREE), path


class _App:
    """The application under test; made once for all calls."""

    target: Any = None

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        return self.target(environ, start_response)


APP = _App()
schemathesis.serializer.alias(patches.MEDIA_TYPES[0], "application/json")
OPERATIONS = [each.ok() for each in openapi.from_dict(document()).get_all_operations()]
SETTINGS = hypothesis.settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[hypothesis.Phase.generate],
    suppress_health_check=list(hypothesis.HealthCheck),
)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An application with things in it, and their names."""
    import webtest

    from api.image.app import make_app

    folder = tmp_path_factory.mktemp("made-up")
    services = make_services(folder, f"sqlite:///{folder}/global.sqlite")
    APP.target = make_app(services.conf, services, authenticate)
    api = Api(webtest.TestApp(APP.target))
    image = api.image(data=b"0123456789", tags=["t"])
    api.post(f"/images/{image['id']}/members", {"member": "p2"})
    defined = {"namespace": "n", "tags": [{"name": "t"}], "objects": [{"name": "o"}]}
    cpus = {"cpus": {"title": "CPUs", "type": "integer"}}
    types = [{"name": "OS::Nova::Flavor"}]
    body = {**defined, "properties": cpus, "resource_type_associations": types}
    api.post("/metadefs/namespaces", body, as_="admin@p1", status=201)
    metadefs = {"namespace": "n", "tag_name": "t", "object_name": "o", "property_name": "cpus"}
    yield metadefs | {"image_id": image["id"], "member_id": "p2", "tag_value": "t", "store_id": "file"}
    services.close()


@pytest.mark.parametrize("found", OPERATIONS, ids=lambda found: found.label)
def test_no_server_error(known: dict[str, str], found: Any) -> None:
    names = {parameter.name for parameter in found.path_parameters}
    chosen = {name: value for name, value in known.items() if name in names}
    cases = strategies.one_of(
        found.as_strategy(),
        found.as_strategy(path_parameters=chosen) if chosen else found.as_strategy(),
        found.as_strategy(GenerationMode.NEGATIVE),
    )

    @SETTINGS
    @hypothesis.given(case=cases)
    def send(case: Any) -> None:
        case.headers = {**(case.headers or {}), "X-Auth-Token": "admin@p1"}
        answer = case.call(base_url="http://localhost", app=APP)
        assert answer.status_code < 500, f"{case.as_curl_command()}\n{answer.text}"

    send()
