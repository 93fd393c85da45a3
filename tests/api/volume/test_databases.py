"""The same calls on MariaDB and PostgreSQL; requests at the same time; what lists cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import webtest

from api.volume.app import make_app
from api.volume.services import VolumeServices
from db import volume_quotas
from tests.api.identity import authenticate
from tests.api.network.test_databases import together
from tests.api.volume import test_attachments, test_quotas, test_resources, test_volumes
from tests.api.volume.conftest import ADMIN, Api, make_services
from tests.db import statements

SERVER = "55555555-5555-5555-5555-55555555555{}"


@pytest.fixture
def services(database_url: str) -> Iterator[VolumeServices]:
    made = make_services(database_url)
    yield made
    made.close()


def test_lists(api: Api) -> None:
    test_volumes.test_lists(api)


def test_ways_through(api: Api) -> None:
    test_resources.test_groups(api)
    test_resources.test_backups(api)
    test_resources.test_qos_specs(api)


def test_quotas_per_type(api: Api) -> None:
    test_quotas.test_per_type_and_per_volume(api)


def test_multi_attach(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = test_attachments.Compute(404)
    monkeypatch.setattr(test_attachments.attachments_api, "service_adapter", lambda *_: answer)
    test_attachments.test_multi_attach(api, None)


def clients(services: VolumeServices) -> Callable[[], Api]:
    application = make_app(services.conf, services, authenticate)
    return lambda: Api(webtest.TestApp(application), services)


def test_quotas_hold_at_the_same_time(services: VolumeServices) -> None:
    client = clients(services)
    client().put("/os-quota-sets/p1", {"quota_set": {"volumes": 5, "gigabytes": 6}}, as_=ADMIN)

    def create(_index: int) -> int:
        body = {"volume": {"size": 1}}
        return int(client().request("post", "/volumes", body, status="*").status_int)

    answers = together(12, create)
    assert sorted(answers) == [202] * 5 + [413] * 7
    with services.databases.global_.read() as connection:
        used = volume_quotas.usage(connection, "p1")
    assert used["volumes"] == 5 and used["gigabytes"] == 5


def test_one_of_many_reserves_a_volume(services: VolumeServices) -> None:
    client = clients(services)
    volume = client().volume()["id"]

    def reserve(index: int) -> int:
        body = {"attachment": {"volume_uuid": volume, "instance_uuid": SERVER.format(index)}}
        return int(client().request("post", "/attachments", body, version="3.27", status="*").status_int)

    assert sorted(together(6, reserve)) == [200] + [400] * 5


def test_one_of_many_deletes_a_volume(services: VolumeServices) -> None:
    client = clients(services)
    volume = client().volume()["id"]

    def delete(_index: int) -> int:
        return int(client().request("delete", f"/volumes/{volume}", status="*").status_int)

    answers = together(6, delete)
    assert answers.count(202) == 1 and set(answers) <= {202, 400, 409}
    assert [each["kind"] for each in client().intents(volume)] == ["volume.create", "volume.delete"]


@pytest.mark.parametrize(
    "path", ["/volumes/detail", "/snapshots/detail", "/types", "/volumes", "/attachments"]
)
def test_a_list_needs_as_many_statements_for_many_rows(api: Api, services: VolumeServices, path: str) -> None:
    def grow() -> None:
        volume = api.volume(metadata={"a": "b"})["id"]
        api.post("/snapshots", {"snapshot": {"volume_id": volume}})
        api.post("/attachments", {"attachment": {"volume_uuid": volume}}, version="3.27")

    def cost() -> int:
        with statements.statements(services.databases.global_.engine) as seen:
            api.get(path, version="3.27")
        return len(seen)

    api.put("/os-quota-sets/p1", {"quota_set": {"volumes": -1}}, as_=ADMIN)
    grow()
    cost()  # the first looks up what is remembered from then on
    few = cost()
    for _ in range(5):
        grow()
    assert cost() == few <= 5
