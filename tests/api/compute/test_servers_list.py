"""Lists of servers over all databases: filters, sorting, paging, bounded statements, cells that are down."""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from api.compute.services import ComputeServices
from core import config
from db import cell_schema, global_schema
from db.types import now
from tests.api.compute.conftest import ADMIN, MEMBER, OTHER, Api
from tests.api.compute.fakes import IMAGE
from tests.api.compute.server_tools import boot, booted, make_flavor, place


@pytest.fixture(autouse=True)
def flavor(api: Api, services: ComputeServices) -> None:
    make_flavor(api)
    config.override(services.conf, "quota.instances", -1)
    config.override(services.conf, "quota.cores", -1)
    config.override(services.conf, "quota.ram", -1)


def names(api: Api, query: str = "", **options: Any) -> list[str]:
    return [each["name"] for each in api.get(f"/servers?{query}", **options).json["servers"]]


@pytest.fixture
def three(api: Api, services: ComputeServices) -> dict[str, str]:
    """web-1 active, db-1 stopped and locked, new-1 not placed; of another project: foreign."""
    ids = {
        "web-1": boot(api, name="web-1", metadata={"tier": 'a"b'}, version="2.52", tags=["x", "y"]),
        "db-1": boot(api, name="db-1", version="2.52", tags=["y"]),
        "new-1": boot(api, name="new-1"),
        "foreign": boot(api, name="foreign", as_=OTHER),
    }
    place(services, ids["web-1"], "h1")
    place(services, ids["db-1"], "h2", vm_state="stopped", power_state=4, locked_by="owner", key_name="k")
    return ids


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["new-1", "db-1", "web-1"]),
        ("name=web", ["web-1"]),
        ("name=-1", ["new-1", "db-1", "web-1"]),
        ("name=^.*b-1", ["db-1", "web-1"]),
        ("name=b%2A", ["db-1", "new-1", "web-1"]),
        ("name=%25", []),
        ("name=_", []),
        ("name=nobody", []),
        ("status=ACTIVE", ["web-1"]),
        ("status=active&status=shutoff", ["db-1", "web-1"]),
        ("status=build", ["new-1"]),
        ("status=non_existing", []),
        ("status=None&name=None&flavor=None&changes-since=None&deleted=False", ["new-1", "db-1", "web-1"]),
        (f"image={IMAGE}", ["new-1", "db-1", "web-1"]),
        ("image=70a599e0-31e7-49b7-b260-868f441e862c", []),
        ("flavor=1", ["new-1", "db-1", "web-1"]),
        ("flavor=2", []),
        ("limit=2", ["new-1", "db-1"]),
        ("limit=0", []),
        ("limit=99999", ["new-1", "db-1", "web-1"]),
        ("sort_key=display_name&sort_dir=asc", ["db-1", "new-1", "web-1"]),
        ("sort_key=host&sort_dir=asc", ["new-1", "web-1", "db-1"]),
        ("sort_key=host&sort_dir=desc", ["db-1", "web-1", "new-1"]),
        ("sort_key=vm_state&sort_dir=asc&sort_key=display_name&sort_dir=asc", ["web-1", "new-1", "db-1"]),
        ("changes-since=2999-01-01T00:00:00Z", []),
        ("changes-since=2001-01-01T00:00:00%2B00:00", ["new-1", "db-1", "web-1"]),
        # what is not for everyone is left out for those who may not use it
        ("host=h1", ["new-1", "db-1", "web-1"]),
        ("key_name=k", ["new-1", "db-1", "web-1"]),
        ("colour=red", ["new-1", "db-1", "web-1"]),
    ],
)
def test_filters_of_everyone(api: Api, three: dict[str, str], query: str, found: list[str]) -> None:
    assert sorted(names(api, query)) == sorted(found) if "%2A" in query else names(api, query) == found


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("host=h1", ["web-1"]),
        ("node=h2", ["db-1"]),
        ("vm_state=stopped", ["db-1"]),
        ("task_state=scheduling", ["new-1"]),
        ("power_state=4", ["db-1"]),
        ("power_state=shutdown", ["db-1"]),
        ("key_name=k", ["db-1"]),
        ("availability_zone=nova", ["db-1", "web-1"]),
        ("all_tenants=1", ["foreign", "new-1", "db-1", "web-1"]),
        ("all_tenants=", ["foreign", "new-1", "db-1", "web-1"]),
        ("all_tenants=1&project_id=p2", ["foreign"]),
        ("tenant_id=p2", ["foreign"]),
        ("project_id=p2", ["new-1", "db-1", "web-1"]),
        ("all_tenants=0", ["new-1", "db-1", "web-1"]),
        ("user_id=member-of-p1", ["new-1", "db-1", "web-1"]),
        ("deleted=True", []),
        ("launch_index=0", ["new-1", "db-1", "web-1"]),
        ("metadata=" + json.dumps({"tier": 'a"b'}), ["web-1"]),
        ("metadata=" + json.dumps({"tier": "a"}), []),
        ("config_drive=true", []),
    ],
)
def test_filters_of_administrators(api: Api, three: dict[str, str], query: str, found: list[str]) -> None:
    assert names(api, query, as_=ADMIN) == found


@pytest.mark.parametrize(
    ("version", "query", "found"),
    [
        ("2.26", "tags=x", ["web-1"]),
        ("2.26", "tags=x,y", ["web-1"]),
        ("2.26", "tags-any=x,y", ["db-1", "web-1"]),
        ("2.26", "not-tags=x,y", ["new-1", "db-1"]),
        ("2.26", "not-tags-any=y", ["new-1"]),
        ("2.25", "tags=x", ["new-1", "db-1", "web-1"]),
        ("2.73", "locked=true", ["db-1"]),
        ("2.73", "locked=false", ["new-1", "web-1"]),
        ("2.73", "sort_key=locked&sort_dir=desc&limit=1", ["db-1"]),
        ("2.66", "changes-before=2001-01-01T00:00:00Z", []),
        ("2.83", "key_name=k", ["db-1"]),
        ("2.83", "vm_state=stopped", ["db-1"]),
    ],
)
def test_filters_by_microversion(
    api: Api, three: dict[str, str], version: str, query: str, found: list[str]
) -> None:
    assert names(api, query, version=version) == found


@pytest.mark.parametrize(
    "query",
    [
        "limit=-1",
        "limit=x",
        "marker=none",
        "sort_key=colour",
        "sort_dir=sideways",
        "changes-since=yesterday",
        "changes-since=2011/01/01",
        "name=(",
        "changes-since=0001-01-01T00:00:00%2B23:59",
    ],
)
def test_bad_queries_are_400(api: Api, three: dict[str, str], query: str) -> None:
    for path in ("/servers", "/servers/detail"):
        assert api.get(f"{path}?{query}", status=400).json["badRequest"]["message"]


def test_what_only_administrators_may(api: Api, three: dict[str, str]) -> None:
    api.get("/servers?all_tenants=1", status=403)
    api.get("/servers?status=deleted", status=403)
    api.get("/servers?all_tenants=perhaps", as_=ADMIN, status=400)
    api.get("/servers?colour=red", version="2.75", status=400)
    answer = api.get("/servers?locked=perhaps", version="2.73", status=400)
    assert "perhaps" in answer.json["badRequest"]["message"]


def test_deleted_servers_show_up_with_changes_since(api: Api, three: dict[str, str]) -> None:
    api.delete(f"/servers/{three['new-1']}", status=204)
    assert names(api) == ["db-1", "web-1"]
    (deleted,) = [
        each
        for each in api.get("/servers/detail?changes-since=2001-01-01T00:00:00Z").json["servers"]
        if each["id"] == three["new-1"]
    ]
    assert deleted["status"] == "DELETED"
    assert names(api, "status=deleted", as_=ADMIN) == ["new-1"]
    assert names(api, "deleted=true", as_=ADMIN) == ["new-1"]


# -- many -----------------------------------------------------------------------


def fill(services: ComputeServices, template_id: str, count: int) -> None:
    """Copies of a server, every third one not placed, some with the same time."""
    with services.databases.cell(1).read() as connection:
        template = dict(connection.execute(sa.select(cell_schema.servers)).mappings().one())
    begin = now() - datetime.timedelta(hours=1)
    in_global, in_cell, mappings = [], [], []
    for number in range(count):
        server_id = str(uuid.uuid4())
        moment = begin + datetime.timedelta(seconds=number // 4)
        row = {**template, "id": server_id, "name": f"s{number:04}", "created_at": moment}
        placed = number % 3 != 0
        if placed:
            in_cell.append(row)
        else:
            in_global.append({**row, "host": None, "node": None, "vm_state": "building"})
        mappings.append(
            {"server_id": server_id, "cell_id": 1 if placed else None, "project_id": template["project_id"]}
            | {"user_id": "u", "vcpus": 1, "memory_mib": 1, "deleted": False, "created_at": moment}
        )
    with services.databases.global_.write() as connection:
        connection.execute(sa.insert(global_schema.servers), in_global)
        connection.execute(sa.insert(global_schema.server_mappings), mappings)
    with services.databases.cell(1).write() as connection:
        connection.execute(sa.insert(cell_schema.servers), in_cell)


@pytest.mark.parametrize("sort", ["", "sort_key=host&sort_dir=asc", "sort_key=vm_state&sort_dir=desc"])
def test_many_pages_show_every_server_once(api: Api, services: ComputeServices, sort: str) -> None:
    fill(services, booted(api, services), 120)
    whole = [each["id"] for each in api.get(f"/servers?{sort}").json["servers"]]
    assert len(whole) == len(set(whole)) == 121
    found, url, pages = [], f"/servers?limit=7&{sort}", 0
    while url:
        page = api.get(url).json
        found += [each["id"] for each in page["servers"]]
        links = page.get("servers_links")
        url = links[0]["href"].split("/v2.1", 1)[1] if links else ""
        pages += 1
    assert found == whole and pages == 18


def test_max_limit(api: Api, services: ComputeServices) -> None:
    fill(services, booted(api, services), 20)
    config.override(services.conf, "compute_api.max_limit", 10)
    page = api.get("/servers?limit=1000").json
    assert len(page["servers"]) == 10 and page["servers_links"][0]["rel"] == "next"


@pytest.fixture
def statements(services: ComputeServices) -> Iterator[list[str]]:
    """SQL statements as they are executed, in all databases."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if not statement.startswith(("BEGIN", "COMMIT", "ROLLBACK", "PRAGMA")):
            seen.append(statement)

    engines = [services.databases.global_.engine, services.databases.cell(1).engine]
    for engine in engines:
        sa.event.listen(engine, "before_cursor_execute", note)
    yield seen
    for engine in engines:
        sa.event.remove(engine, "before_cursor_execute", note)


def test_a_page_costs_the_same_few_statements_whatever_its_size(
    api: Api, services: ComputeServices, statements: list[str]
) -> None:
    server_id = booted(api, services)
    fill(services, server_id, 60)
    services.databases.cell_rows()

    def cost(path: str, as_: str = MEMBER) -> int:
        statements.clear()
        api.get(path, version="2.96", as_=as_)
        return len(statements)

    for as_, most in ((MEMBER, 4), (ADMIN, 5)):
        costs = {cost(f"/servers/detail?limit={limit}", as_) for limit in (10, 30, 60)}
        assert len(costs) == 1 and costs.pop() <= most
    assert cost("/servers?limit=60") == 2
    assert cost(f"/servers/{server_id}") <= 3
    assert cost("/servers/detail?limit=5&marker=" + server_id) <= 6


def test_a_cell_that_is_down_hides_only_its_own(
    api: Api, services: ComputeServices, three: dict[str, str]
) -> None:
    with services.databases.global_.write() as connection:
        connection.execute(
            global_schema.cells.insert().values(
                uuid=str(uuid.uuid4()),
                name="cell2",
                database_connection="mysql+pymysql://nobody:x@127.0.0.1:1/none",
            )
        )
        lost = str(uuid.uuid4())
        connection.execute(
            global_schema.server_mappings.insert().values(
                server_id=lost,
                cell_id=2,
                project_id="p1",
                user_id="u",
                vcpus=1,
                memory_mib=1,
                deleted=False,
                created_at=now(),
            )
        )
    services.databases.cell_rows(refresh=True)
    assert names(api) == ["new-1", "db-1", "web-1"]
    listed = api.get("/servers/detail", version="2.69").json["servers"]
    missing = {each["id"]: each for each in listed}[lost]
    assert set(missing) == {"id", "status", "tenant_id", "created", "links"}
    assert missing["status"] == "UNKNOWN" and len(listed) == 4
    assert len(api.get("/servers/detail?name=web", version="2.69").json["servers"]) == 1
    assert api.get(f"/servers/{lost}", version="2.69").json["server"]["status"] == "UNKNOWN"
    api.get(f"/servers/{lost}", version="2.68", status=503)
    api.get(f"/servers/{lost}", version="2.69", as_=OTHER, status=404)


def test_times_that_were_shown_find_what_they_belong_to(api: Api, services: ComputeServices) -> None:
    """Servers show whole seconds and are stored with their fractions."""
    server_id = boot(api, name="web-1")
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, 678_901)
    with services.databases.global_.write() as connection:
        connection.execute(sa.update(global_schema.servers).values(updated_at=moment))
    shown = api.get(f"/servers/{server_id}").json["server"]["updated"]
    assert shown == "2026-01-02T03:04:05Z"
    assert names(api, f"changes-since={shown}&changes-before={shown}", version="2.66") == ["web-1"]
    assert names(api, "changes-before=2026-01-02T03:04:04Z", version="2.66") == []
    assert names(api, "changes-since=2026-01-02T03:04:06Z", version="2.66") == []
