"""Requests made up from the Compute API's own OpenAPI document: whatever they hold, no 5xx.

The data are derandomised, so a failure repeats. 501 is an answer that some calls
of upstream have, too (a host's maintenance mode).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import orjson
import pytest
from hypothesis import strategies
from schemathesis import GenerationMode, openapi

from api.compute.app import make_app
from api.compute.services import ComputeServices
from api.compute.versions import document
from db import aggregates as db_aggregates
from db import flavors as db_flavors
from db import keypairs as db_keypairs
from db.global_schema import server_groups
from tests.api.compute import cloud
from tests.api.compute.conftest import make_services
from tests.api.compute.fakes import IMAGE
from tests.api.identity import authenticate

EXAMPLES = 6
SERVER = "00000000-0000-0000-0000-000000000001"
GROUP = "00000000-0000-0000-0000-000000000002"
VERSIONS = ("2.1", "2.60", "latest")
SETTINGS = hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[hypothesis.Phase.generate],
    suppress_health_check=list(hypothesis.HealthCheck),
)


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComputeServices]:
    folder: Path = tmp_path_factory.mktemp("api")
    made = make_services(folder)
    cloud.add_host(made, "h1")
    cloud.add_server(made, "h1", id=SERVER)
    with made.databases.global_.write() as connection:
        db_flavors.create(
            connection,
            {"flavor_id": "1", "name": "small", "vcpus": 1, "memory_mib": 64, "root_gib": 1},
        )
        db_aggregates.create(connection, "a", None)
        db_keypairs.create(connection, {"user_id": "u", "name": "kp", "fingerprint": "", "public_key": ""})
        owner = {"project_id": "p1", "user_id": "u"}
        connection.execute(
            server_groups.insert().values(id=GROUP, name="g", policy="affinity", rules={}, **owner)
        )
    yield made
    made.close()


class _App:
    """The application under test; before it exists, only its document (tests are named after that)."""

    target: Any = None

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        if self.target is not None:
            return self.target(environ, start_response)
        start_response("200 OK", [("Content-Type", "application/json")])
        return [orjson.dumps(document())]


APP = _App()
OPERATIONS = [
    found
    for found in (each.ok() for each in openapi.from_wsgi("/openapi.json", APP).get_all_operations())
    if "410" not in found.definition.raw["responses"]
]
KNOWN = {
    "flavor_id": "1",
    "aggregate_id": "1",
    "host": "h1",
    "hypervisor_id": "1",
    "service_id": "1",
    "project_id": "p1",
    "class_name": "default",
    "image_id": IMAGE,
    "version_id": "v2.1",
    "name": "kp",
    "group_id": GROUP,
    "server_id": SERVER,
    "key": "a",
    "alias": "os-keypairs",
}
"""Things that exist, so that more than 404 is seen."""


@pytest.fixture(scope="module")
def app(services: ComputeServices) -> Iterator[None]:
    APP.target = make_app(services.conf, services, authenticate)
    yield
    APP.target = None


def _cases(found: Any) -> strategies.SearchStrategy[Any]:
    """What the schema allows, at made-up paths and at those of things that exist; and what it forbids."""
    names = {parameter.name for parameter in found.path_parameters}
    known = {name: value for name, value in KNOWN.items() if name in names}
    return strategies.one_of(
        found.as_strategy(),
        found.as_strategy(path_parameters=known) if known else found.as_strategy(),
        found.as_strategy(GenerationMode.NEGATIVE),
    )


@pytest.mark.parametrize("found", OPERATIONS, ids=lambda found: found.label)
def test_no_server_error(app: None, found: Any) -> None:
    @SETTINGS
    @hypothesis.given(case=_cases(found))
    def send(case: Any) -> None:
        for version in VERSIONS:
            case.headers = {"X-Auth-Token": "admin@p1", "X-OpenStack-Nova-API-Version": version}
            answer = case.call()
            assert answer.status_code < 500 or answer.status_code == 501, (
                f"{version} {case.as_curl_command()}\n{answer.text}"
            )

    send()
