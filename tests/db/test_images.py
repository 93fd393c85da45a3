"""Lists of images: every filter and order against a model in Python, on each kind of database."""

from __future__ import annotations

import datetime
import itertools
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import BadRequest, Conflict, NotFound, StaleGeneration
from db import image_uploads, images
from db.global_schema import global_metadata
from db.image_filters import SORT_KEYS, Asker, split_quoted
from db.sessions import Database, make_engine
from tests.db.statements import statements

NAMES = ["a", "b", "B", "a,b", 'q"q', "ü", "%", "_", "", None]
START = datetime.datetime(2026, 1, 1, 12, 0, 0, 250_000)
ADMIN = Asker("p1", is_admin=True)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(make_engine(database_url))
    global_metadata.create_all(made.engine)
    yield made
    made.dispose()


def fill(database: Database) -> list[dict[str, Any]]:
    """A few dozen images that differ in everything."""
    made = []
    visibilities = itertools.cycle(["private", "shared", "public", "community"])
    owners = itertools.cycle(["p1", "p2", "p3"])
    statuses = itertools.cycle(["queued", "active", "saving", "deactivated", "active"])
    with database.write() as connection:
        for number in range(40):
            values = {
                "id": str(uuid.UUID(int=(number * 7919 % 40) + 1)),
                "name": NAMES[number % len(NAMES)],
                "owner": next(owners),
                "visibility": next(visibilities),
                "status": next(statuses),
                "size": None if number % 4 == 0 else (number * 37 % 11) * 1000,
                "disk_format": ["raw", "qcow2", None][number % 3],
                "container_format": ["bare", "ova"][number % 2],
                "min_ram": number % 3,
                "min_disk": 0,
                "protected": number % 5 == 0,
                "os_hidden": number % 7 == 0,
                "created_at": START + datetime.timedelta(seconds=number // 3),
                "updated_at": START + datetime.timedelta(seconds=number % 6),
            }
            properties = {"arch": ["x86_64", "aarch64"][number % 2], "size_hint": str(number % 3)}
            tags = ["t", f"t{number % 4}"] if number % 2 else []
            made.append(images.create(connection, values, properties, tags))
        for number, image in enumerate(made):
            if image["visibility"] == "shared":
                images.add_member(connection, image["id"], "p3")
                status = ["pending", "accepted", "rejected"][number % 3]
                images.set_member_status(connection, image["id"], "p3", status)
                image["members"] = {"p3": status}
    return made


def sees(asker: Asker, image: dict[str, Any], member_status: str) -> bool:
    if asker.is_admin or image["visibility"] in ("public", "community") or image["owner"] == asker.project_id:
        return True
    status = image.get("members", {}).get(asker.project_id)
    return image["visibility"] == "shared" and status is not None and member_status in ("all", status)


def shows(asker: Asker, image: dict[str, Any], visibility: str | None) -> bool:
    if visibility == "all":
        return True
    if visibility is not None:
        return bool(image["visibility"] == visibility)
    return bool(image["visibility"] != "community" or image["owner"] == asker.project_id)


def seconds(number: int) -> datetime.datetime:
    return START.replace(microsecond=0) + datetime.timedelta(seconds=number)


Predicate = Callable[[dict[str, Any]], bool]
FILTERS: dict[tuple[str, str], Predicate] = {
    ("name", "a"): lambda image: image["name"] == "a",
    ("name", "B"): lambda image: image["name"] == "B",
    ("name", "in:a,ü"): lambda image: image["name"] in ("a", "ü"),
    ("name", 'in:"a,b",%'): lambda image: image["name"] in ("a,b", "%"),
    ("name", 'in:"q\\"q",_'): lambda image: image["name"] in ('q"q', "_"),
    ("name", "None"): lambda image: False,
    ("id", f"in:{uuid.UUID(int=3)},{uuid.UUID(int=9)}"): lambda image: uuid.UUID(image["id"]).int in (3, 9),
    ("status", "active"): lambda image: image["status"] == "active",
    ("status", "in:saving,queued"): lambda image: image["status"] in ("saving", "queued"),
    ("owner", "p2"): lambda image: image["owner"] == "p2",
    ("disk_format", "in:raw,iso"): lambda image: image["disk_format"] == "raw",
    ("container_format", "ova"): lambda image: image["container_format"] == "ova",
    ("size", "5000"): lambda image: image["size"] == 5000,
    ("size_min", "4000"): lambda image: image["size"] is not None and image["size"] >= 4000,
    ("size_max", "4000"): lambda image: image["size"] is not None and image["size"] <= 4000,
    ("min_ram", "2"): lambda image: image["min_ram"] == 2,
    ("min_ram_max", "1"): lambda image: image["min_ram"] <= 1,
    ("protected", "true"): lambda image: image["protected"],
    ("os_hidden", "False"): lambda image: not image["os_hidden"],
    ("arch", "x86_64"): lambda image: image["properties"]["arch"] == "x86_64",
    ("arch", "X86_64"): lambda image: False,
    ("size_hint", "1"): lambda image: image["properties"]["size_hint"] == "1",
    ("absent", "x"): lambda image: False,
    ("created_at", "2026-01-01T12:00:03Z"): lambda i: seconds(3) <= i["created_at"] < seconds(4),
    ("created_at", "gt:2026-01-01T12:00:03Z"): lambda i: i["created_at"] >= seconds(4),
    ("created_at", "gte:2026-01-01T14:00:03+02:00"): lambda i: i["created_at"] >= seconds(3),
    ("created_at", "lt:2026-01-01T12:00:03"): lambda i: i["created_at"] < seconds(3),
    ("created_at", "lte:2026-01-01T12:00:03Z"): lambda i: i["created_at"] < seconds(4),
    ("updated_at", "neq:2026-01-01T12:00:03Z"): lambda i: not seconds(3) <= i["updated_at"] < seconds(4),
}


def ordered(found: list[dict[str, Any]], sort: list[tuple[str, str]]) -> list[dict[str, Any]]:
    def text(value: Any) -> Any:
        return value.encode() if isinstance(value, str) else value

    for key, direction in reversed(sort):
        found = sorted(
            found,
            key=lambda image: (image[key] is not None, text(image[key]) if image[key] is not None else 0),
            reverse=direction == "desc",
        )
    return found


@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def check(database: Database, made: list[dict[str, Any]], data: st.DataObject) -> None:
    asker = data.draw(
        st.sampled_from([ADMIN, Asker("p1"), Asker("p2"), Asker("p3"), Asker(None), Asker("p9", True)])
    )
    visibility = data.draw(st.sampled_from([None, "all", "public", "private", "shared", "community"]))
    member_status = data.draw(st.sampled_from(["accepted", "pending", "rejected", "all"]))
    chosen = data.draw(st.lists(st.sampled_from(list(FILTERS)), max_size=2, unique_by=lambda found: found[0]))
    tags = data.draw(st.lists(st.sampled_from(["t", "t1", "t3", "T"]), max_size=2))
    keys = data.draw(st.lists(st.sampled_from(SORT_KEYS), max_size=3, unique=True))
    sort = [(key, data.draw(st.sampled_from(["asc", "desc"]))) for key in keys]
    if "id" not in keys:
        sort.append(("id", data.draw(st.sampled_from(["asc", "desc"]))))
    limit = data.draw(st.sampled_from([1, 3, 7, 100]))

    expected = [
        image
        for image in made
        if sees(asker, image, member_status)
        and shows(asker, image, visibility)
        and all(FILTERS[found](image) for found in chosen)
        and all(tag in image["tags"] for tag in tags)
    ]
    got: list[str] = []
    marker = None
    with database.read() as connection:
        while True:
            page = images.list_(
                connection,
                asker,
                filters=dict(chosen),
                tags=tags,
                visibility=visibility,
                member_status=member_status,
                sort=sort,
                marker=marker,
                limit=limit,
            )
            got += [image["id"] for image in page]
            if len(page) < limit:
                break
            marker = page[-1]["id"]
    assert sorted(got) == sorted(image["id"] for image in expected)
    if database.engine.dialect.name != "postgresql":
        # PostgreSQL orders texts by its locale; which rows there are is checked all the same
        assert got == [image["id"] for image in ordered(expected, sort)]


def test_filters_visibility_order_and_paging(database: Database) -> None:
    made = fill(database)
    check(database, made)


def test_statements_do_not_depend_on_the_number_of_images(database: Database) -> None:
    fill(database)
    counts = []
    for limit in (1, 5, 40):
        with statements(database.engine) as seen, database.read() as connection:
            page = images.list_(
                connection,
                Asker("p1"),
                filters={},
                sort=[("id", "asc")],
                marker=str(uuid.UUID(int=1)),
                limit=limit,
            )
        assert len(page) >= 1
        counts.append(len(seen))
    assert counts == [6, 6, 6]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", "big"),
        ("size_min", "big"),
        ("size_max", str(1 << 70)),
        ("name", "like:a"),
        ("name", 'in:"a'),
        ("name", 'in:a"b'),
        ("name", 'in:"a"b'),
        ("created_at", "yesterday"),
        ("created_at", "gt:yesterday"),
        ("created_at", "near:2026-01-01T12:00:00Z"),
        ("protected", "maybe"),
    ],
)
def test_values_that_can_not_be(tmp_path: Any, name: str, value: str) -> None:
    database = Database(make_engine(f"sqlite:///{tmp_path}/x"))
    global_metadata.create_all(database.engine)
    with database.read() as connection, pytest.raises(BadRequest):
        images.list_(connection, ADMIN, filters={name: value}, sort=[("id", "asc")], marker=None, limit=1)
    database.dispose()


@given(st.lists(st.text(st.characters(exclude_characters='\\"'), min_size=1), min_size=1))
def test_quoted_values_come_back(values: list[str]) -> None:
    assert split_quoted(",".join(f'"{value}"' for value in values)) == values


def test_a_marker_must_be_visible(database: Database) -> None:
    with database.write() as connection:
        image = images.create(connection, {"id": "x", "owner": "p1", "visibility": "private"}, {}, [])
    with database.read() as connection, pytest.raises(BadRequest):
        images.list_(connection, Asker("p2"), filters={}, sort=[("id", "asc")], marker=image["id"], limit=1)


def test_changes_are_optimistic(database: Database) -> None:
    with database.write() as connection:
        image = images.create(
            connection, {"id": "x", "owner": "p1", "visibility": "private"}, {"a": "1" * 5000}, ["t"]
        )
    with database.write() as connection:
        images.update(connection, image, {"name": "first"}, {"b": "2"})
    with pytest.raises(StaleGeneration), database.write() as connection:
        images.update(connection, image, {"name": "second"})
    with pytest.raises(StaleGeneration), database.write() as connection:
        images.delete(connection, image)
    with database.write() as connection:
        now = images.get(connection, "x", ADMIN)
        assert (now["name"], now["properties"], now["tags"]) == ("first", {"b": "2"}, ["t"])
        images.delete(connection, now)
        with pytest.raises(NotFound):
            images.get(connection, "x", ADMIN)


def test_an_upload_is_fenced(database: Database) -> None:
    with database.write() as connection:
        image = images.create(connection, {"id": "x", "owner": "p1", "visibility": "private"}, {}, [])
        image_uploads.begin(connection, image, "u1", "file", "x.u1", 60)
    with pytest.raises(Conflict), database.write() as connection:
        image_uploads.begin(connection, image, "u2", "file", "x.u2", 60)
    with database.write() as connection:
        assert image_uploads.abandoned(connection) == []
        assert image_uploads.renew(connection, "x", "u1", -1)
        assert [found["id"] for found in image_uploads.abandoned(connection)] == ["u1"]
        image_uploads.fail(connection, "x", "u1")
        assert not image_uploads.renew(connection, "x", "u1", 60)
        assert images.get(connection, "x", ADMIN)["status"] == "queued"
        image_uploads.begin(connection, image, "u2", "file", "x.u2", 60)
        # the first, which was given up, wakes and thinks that it has ended
        assert not image_uploads.finish(connection, "x", "u1", {"size": 1})
        assert image_uploads.finish(connection, "x", "u2", {"size": 2})
        image_uploads.fail(connection, "x", "u1")
        image_uploads.fail(connection, "x", "u2")
        now = images.get(connection, "x", ADMIN)
        assert (now["status"], now["size"]) == ("active", 2)
        assert [found["name"] for found in now["locations"]] == ["x.u2"]
        assert [found["id"] for found in image_uploads.to_remove(connection)] == ["u1"]
        assert images.usage(connection, "p1") == {"images": 1, "uploading": 0, "bytes": 2, "staged": 0}
