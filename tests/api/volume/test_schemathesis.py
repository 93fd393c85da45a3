"""The Volume API never answers 5xx (see ``tests.api.fuzzing``).

503 is what a backup gets without a backup service.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import webtest

from api.volume import attachments as attachments_api
from api.volume.app import make_app
from api.volume.versions import document
from tests.api import fuzzing
from tests.api.identity import authenticate
from tests.api.volume.conftest import ADMIN, Api, make_services

VERSIONS = ("3.0", "3.44", "latest")


APP = fuzzing.App(document)
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
    fill(api)
    yield
    APP.target = None
    patch.undo()
    services.close()


def fill(api: Api) -> None:
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


@pytest.mark.parametrize("found", APP.operations(), ids=lambda found: found.label)
def test_no_server_error(app: None, found: Any) -> None:
    headers = [
        {"X-Auth-Token": "admin@p1", "OpenStack-API-Version": f"volume {version}"} for version in VERSIONS
    ]
    fuzzing.check(found, KNOWN, headers, allowed=[503])
