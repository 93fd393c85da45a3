"""The Compute API never answers 5xx (see ``tests.api.fuzzing``).

501 is an answer that some calls of upstream have, too (a host's maintenance mode).  503: no volume service runs beside
this test, and assisted snapshots ask it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.compute.app import make_app
from api.compute.services import ComputeServices
from api.compute.versions import document
from db import aggregates as db_aggregates
from db import flavors as db_flavors
from db import keypairs as db_keypairs
from db.global_schema import server_groups
from tests.api import fuzzing
from tests.api.compute import cloud
from tests.api.compute.conftest import make_services
from tests.api.compute.fakes import IMAGE
from tests.api.identity import authenticate

SERVER = "00000000-0000-0000-0000-000000000001"
GROUP = "00000000-0000-0000-0000-000000000002"
VERSIONS = ("2.1", "2.60", "latest")


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComputeServices]:
    folder: Path = tmp_path_factory.mktemp("api")
    made = make_services(folder)
    fill(made)
    yield made
    made.close()


def fill(made: ComputeServices) -> None:
    """One of each kind."""
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


APP = fuzzing.App(document)
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


@pytest.mark.parametrize("found", APP.operations(), ids=lambda found: found.label)
def test_no_server_error(app: None, found: Any) -> None:
    headers = [{"X-Auth-Token": "admin@p1", "X-OpenStack-Nova-API-Version": version} for version in VERSIONS]
    fuzzing.check(found, KNOWN, headers, allowed=[501, 503])
