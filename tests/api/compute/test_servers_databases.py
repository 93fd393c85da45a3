"""What databases do differently, tried on each: patterns, NULLs in order, locks, races."""

from __future__ import annotations

import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
import webtest

from api.compute.app import make_app
from api.compute.services import ComputeServices
from core import config
from tests.api.compute.conftest import ADMIN, MEMBER, Api, make_services
from tests.api.compute.server_tools import body, boot, booted, make_flavor, place
from tests.api.identity import authenticate
from tests.lab.fixtures import shared_server


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("mariadb", marks=pytest.mark.mariadb),
        pytest.param("postgresql", marks=pytest.mark.postgresql),
    ]
)
def services(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ComputeServices]:
    if request.param == "sqlite":
        made = make_services(tmp_path)
        yield made
        made.close()
        return
    server = shared_server(request.param)
    names = [f"s{tmp_path.name.replace('-', '_')[-40:]}_{kind}".lower() for kind in ("global", "cell")]
    for name in names:
        server.drop_database(name)
    made = make_services(tmp_path, (server.create_database(names[0]), server.create_database(names[1])))
    yield made
    made.close()
    for name in names:
        server.drop_database(name)


@pytest.fixture(autouse=True)
def flavor(api: Api) -> None:
    make_flavor(api)


def names(api: Api, query: str = "", version: str | None = None) -> list[str]:
    return [each["name"] for each in api.get(f"/servers?{query}", version=version, as_=ADMIN).json["servers"]]


def test_lists(api: Api, services: ComputeServices) -> None:
    ids = {
        name: boot(api, name=name, version="2.52", tags=tags, metadata={"k_": name})
        for name, tags in (("Web%1", ["x", "y"]), ("db_2", ["y"]), ("new/3", []))
    }
    place(services, ids["Web%1"], "h1")
    place(services, ids["db_2"], "h2", vm_state="stopped")
    for query, found in (
        ("", ["new/3", "db_2", "Web%1"]),
        ("name=%25", ["Web%1"]),
        ("name=_", ["db_2"]),
        ("name=/", ["new/3"]),
        ("name=^[A-Z]", ["Web%1"]),
        ("name=.*[23]$", ["new/3", "db_2"]),
        ("sort_key=host&sort_dir=asc", ["new/3", "Web%1", "db_2"]),
        ("sort_key=host&sort_dir=desc", ["db_2", "Web%1", "new/3"]),
        ("status=shutoff", ["db_2"]),
        ('metadata={"k_": "db_2"}', ["db_2"]),
        ("ip=10", []),
        ("created_at=2001-01-01T00:00:00", []),
        ("config_drive=True", []),
    ):
        assert names(api, query) == found, query
    for query, found in (
        ("tags=x,y", ["Web%1"]),
        ("tags-any=x,y", ["db_2", "Web%1"]),
        ("not-tags=x,y", ["new/3", "db_2"]),
        ("not-tags-any=x,y", ["new/3"]),
    ):
        assert names(api, query, version="2.26") == found, query
    # each database has regular expressions of its own: what it can't read is the asker's mistake
    for text in ("(?P<a>w)", "(?<=b)_", "[[:alpha:]]", "\\Qx", "(?i)WEB", "a{1,99999}"):
        query = urllib.parse.urlencode({"name": text})
        assert api.get(f"/servers?{query}", as_=ADMIN, status="*").status_int in (200, 400), text
    for query in ("sort_key=host&sort_dir=asc", "sort_key=host&sort_dir=desc", "sort_key=task_state"):
        whole, found, marker = names(api, query), [], ""
        while page := api.get(f"/servers?limit=1&{query}{marker}", as_=ADMIN).json["servers"]:
            found.append(page[0]["name"])
            marker = f"&marker={page[0]['id']}"
        assert found == whole, query


def test_life_of_a_server(api: Api, services: ComputeServices) -> None:
    server_id = booted(api, services)
    api.put(f"/servers/{server_id}", {"server": {"name": "ünïcode ✓"}})
    api.put(f"/servers/{server_id}/tags/z", version="2.26", body=None, status=201)
    api.post(f"/servers/{server_id}/metadata", {"metadata": {"a": "ß"}})
    api.post(f"/servers/{server_id}/action", {"lock": None}, status=202)
    api.post(f"/servers/{server_id}/action", {"unlock": None}, status=202)
    api.post(f"/servers/{server_id}/action", {"os-stop": None}, status=202)
    api.post(f"/servers/{server_id}/action", {"os-start": None}, status=409)
    shown = api.get(f"/servers/{server_id}", version="2.96", as_=ADMIN).json["server"]
    assert (shown["name"], shown["metadata"], shown["tags"]) == ("ünïcode ✓", {"a": "ß"}, ["z"])
    actions = api.get(f"/servers/{server_id}/os-instance-actions?limit=2", version="2.58").json
    assert [each["action"] for each in actions["instanceActions"]] == ["stop", "unlock"]
    api.delete(f"/servers/{server_id}", status=204)
    api.delete(f"/servers/{boot(api)}", status=204)
    assert [each["status"] for each in api.get("/servers/detail").json["servers"]] == ["ACTIVE"]


def test_quota_and_deletes_at_once(api: Api, services: ComputeServices) -> None:
    config.override(services.conf, "quota.instances", 3)
    application = make_app(services.conf, services, authenticate)
    statuses: list[int] = []
    headers = {"X-Auth-Token": MEMBER}

    def together(*jobs: threading.Thread) -> list[int]:
        statuses.clear()
        for job in jobs:
            job.start()
        for job in jobs:
            job.join()
        return sorted(statuses)

    def create() -> None:
        answer = webtest.TestApp(application).post_json(
            "/v2.1/servers", body(), headers=headers, expect_errors=True
        )
        statuses.append(answer.status_int)

    def delete(server_id: str) -> None:
        answer = webtest.TestApp(application).delete(
            f"/v2.1/servers/{server_id}", headers=headers, expect_errors=True
        )
        statuses.append(answer.status_int)

    assert together(*[threading.Thread(target=create) for _ in range(8)]) == [202] * 3 + [403] * 5
    server_id = api.get("/servers").json["servers"][0]["id"]
    deletes = together(*[threading.Thread(target=delete, args=(server_id,)) for _ in range(4)])
    assert set(deletes) <= {204, 404} and 204 in deletes
    assert len(api.get("/servers").json["servers"]) == 2
