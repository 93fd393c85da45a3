"""Requests made up from the Volume API's own OpenAPI document: whatever they hold, no 5xx.

The data are derandomised, so a failure repeats. 503 is what a backup gets without a backup service.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import orjson
import pytest
import webtest
from hypothesis import strategies
from schemathesis import GenerationMode, openapi

from api.volume import attachments as attachments_api
from api.volume.app import make_app
from api.volume.versions import document
from tests.api.identity import authenticate
from tests.api.volume.conftest import ADMIN, Api, make_services

VERSIONS = ("3.0", "3.44", "latest")
SETTINGS = hypothesis.settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[hypothesis.Phase.generate],
    suppress_health_check=list(hypothesis.HealthCheck),
)


class _App:
    """The application under test; before it exists, only its document (tests are named after that)."""

    target: Any = None

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        if self.target is not None:
            return self.target(environ, start_response)
        start_response("200 OK", [("Content-Type", "application/json")])
        return [orjson.dumps(document())]


APP = _App()
OPERATIONS = [each.ok() for each in openapi.from_wsgi("/openapi.json", APP).get_all_operations()]
KNOWN: dict[str, str] = {
    "project_id": "p1",
    "class_name": "default",
    "alias": "backups",
    "host": "h1@file",
    "key": "a",
    "cluster_name": "c",
}
"""Things that exist, so that more than 404 is seen; ids are added when they are made."""


class _Silent:
    """The compute service says that nobody uses anything."""

    status_code = 404

    def get(self, path: str, **options: Any) -> _Silent:
        return self


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder: Path = tmp_path_factory.mktemp("volume-api")
    services = make_services(f"sqlite:///{folder}/global.sqlite")
    patch = pytest.MonkeyPatch()
    patch.setattr(attachments_api, "service_adapter", lambda *_: _Silent())
    APP.target = make_app(services.conf, services, authenticate)
    api = Api(webtest.TestApp(APP.target), services)
    _fill(api)
    yield
    APP.target = None
    patch.undo()
    services.close()


def _fill(api: Api) -> None:
    as_: dict[str, Any] = {"as_": "admin@p1", "version": "3.60"}
    api.put("/os-quota-sets/p1", {"quota_set": {"volumes": -1, "gigabytes": -1}}, as_=ADMIN)
    volume = KNOWN["volume_id"] = api.volume(as_="admin@p1", metadata={"a": "b"})["id"]
    taken = api.post("/snapshots", {"snapshot": {"volume_id": volume}}, **as_)["snapshot"]["id"]
    KNOWN["snapshot_id"] = taken
    api.finish_snapshot(taken)
    type_ = api.post("/types", {"volume_type": {"name": "t", "extra_specs": {"a": "b"}}}, **as_)
    KNOWN["type_id"] = type_["volume_type"]["id"]
    KNOWN["qos_id"] = api.post("/qos-specs", {"qos_specs": {"name": "q"}}, **as_)["qos_specs"]["id"]
    group = api.post("/group_types", {"group_type": {"name": "g", "group_specs": {"a": "b"}}}, **as_)
    KNOWN["group_type_id"] = group["group_type"]["id"]
    offered = api.volume(as_="admin@p1")["id"]
    body = {"transfer": {"volume_id": offered}}
    KNOWN["transfer_id"] = api.post("/volume-transfers", body, **as_)["transfer"]["id"]
    attached = api.volume(as_="admin@p1")["id"]
    body = {"attachment": {"volume_uuid": attached}}
    KNOWN["attachment_id"] = api.post("/attachments", body, **as_)["attachment"]["id"]


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
            case.headers = {"X-Auth-Token": "admin@p1", "OpenStack-API-Version": f"volume {version}"}
            answer = case.call()
            assert answer.status_code < 500 or answer.status_code == 503, (
                f"{version} {case.as_curl_command()}\n{answer.text}"
            )

    send()
