"""Copies of images beside the API: filled by downloads and by wishes, bounded, never another's data."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from api.image.services import ImageServices
from core import config
from db import images
from db.image_filters import Asker
from tests.api.image.conftest import ADMIN, MEMBER, OTHER, Api, stored_files
from tests.api.image.conftest import api as api
from tests.api.image.conftest import services as services

DATA = b"some data " * 200_000


def copies(services: ImageServices) -> list[Path]:
    root = Path(services.conf.state_path) / "image-cache"
    return sorted(path for name in ("data", "incoming") for path in root.glob(f"{name}/*"))


def remote(services: ImageServices) -> None:
    """As if the file store were far away."""
    config.override(services.conf, "image_cache.store_kinds", ["file"])


def listed(api: Api) -> dict[str, dict[str, Any]]:
    return {found["image_id"]: found for found in api.get("/cache", as_=ADMIN).json["cached_images"]}


def waited(services: ImageServices) -> None:
    deadline = time.monotonic() + 30
    while services.cache.queued():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_download_leaves_a_copy_that_serves_the_next(api: Api, services: ImageServices) -> None:
    remote(services)
    image = api.image(data=DATA)
    path = f"/images/{image['id']}/file"
    api.request("GET", path, headers={"Range": "bytes=5-9"}, status=206)
    assert copies(services) == []
    assert api.get(path).body == DATA
    found = listed(api)[image["id"]]
    assert (found["size"], found["hits"], found["checksum"]) == (len(DATA), 0, image["checksum"])
    # the store has lost it: the copy serves, and parts of it, too
    (stored,) = stored_files(services)
    stored.unlink()
    assert api.get(path).body == DATA
    assert api.request("GET", path, headers={"Range": "bytes=5-9"}, status=206).body == DATA[5:10]
    assert listed(api)[image["id"]]["hits"] == 2
    # who may not see the image gets nothing of its copy, either
    api.get(path, as_=OTHER, status=404)
    api.delete(f"/images/{image['id']}", status=204)
    assert copies(services) == []


def test_stores_that_are_near_leave_no_copies(api: Api, services: ImageServices) -> None:
    image = api.image(data=DATA)
    assert api.get(f"/images/{image['id']}/file").body == DATA
    assert copies(services) == []


def test_what_is_queued_is_fetched(api: Api, services: ImageServices) -> None:
    image = api.image(data=DATA)
    path = f"/cache/{image['id']}"
    api.request("PUT", path, as_=MEMBER, status=403)
    api.request("PUT", f"/cache/{api.image()['id']}", as_=ADMIN, status=400)
    api.request("PUT", path, as_=ADMIN, status=202)
    waited(services)
    assert api.get("/cache", as_=ADMIN).json["queued_images"] == []
    assert list(listed(api)) == [image["id"]]
    api.delete(path, as_=MEMBER, status=403)
    api.delete(path, as_=ADMIN, status=204)
    assert listed(api) == {} and copies(services) == []
    # the image is there, its copy not: harmless
    api.delete(path, as_=ADMIN, status=204)
    api.delete("/cache/00000000-0000-0000-0000-000000000000", as_=ADMIN, status=404)


@pytest.mark.parametrize(("target", "left"), [("cache", (0, 1)), ("queue", (1, 0)), ("", (0, 0))])
def test_clearing(api: Api, services: ImageServices, target: str, left: tuple[int, int]) -> None:
    services.prefetcher.stop()
    remote(services)
    first, second = api.image(data=DATA), api.image(data=DATA)
    assert api.get(f"/images/{first['id']}/file").body == DATA
    api.request("PUT", f"/cache/{second['id']}", as_=ADMIN, status=202)
    header = {"x-image-cache-clear-target": target} if target else {}
    api.request("DELETE", "/cache", as_=ADMIN, headers={"x-image-cache-clear-target": "all"}, status=400)
    api.request("DELETE", "/cache", as_=ADMIN, headers=header, status=204)
    shown = api.get("/cache", as_=ADMIN).json
    assert (len(shown["cached_images"]), len(shown["queued_images"])) == left


def test_the_longest_unused_goes_first(api: Api, services: ImageServices) -> None:
    remote(services)
    config.override(services.conf, "image_cache.max_size_mib", 5)
    made = [api.image(data=DATA)["id"] for _ in range(3)]
    for image_id in (*made[:2], made[0], made[2]):
        assert api.get(f"/images/{image_id}/file").body == DATA
        time.sleep(0.02)  # the order of uses is that of the files' times
    assert sorted(listed(api)) == sorted([made[0], made[2]])
    config.override(services.conf, "image_cache.max_size_mib", 1)
    big = api.image(data=DATA)["id"]
    assert api.get(f"/images/{big}/file").body == DATA
    assert big not in listed(api)


def test_broken_and_wrong_data_is_not_kept(api: Api, services: ImageServices) -> None:
    remote(services)
    image = services_image(api, services)
    chunks = services.data.open(image)
    next(chunks)
    assert len(copies(services)) == 1
    chunks.close()  # type: ignore[attr-defined]
    assert copies(services) == []
    # the store gives other bytes than were uploaded: whoever asked gets them (and a checksum to compare)
    (stored,) = stored_files(services)
    stored.write_bytes(b"x" * len(DATA))
    assert b"".join(services.data.open(image)) != DATA
    assert copies(services) == []


def services_image(api: Api, services: ImageServices) -> dict[str, Any]:

    made = api.image(data=DATA)["id"]
    with services.databases.global_.read() as connection:
        return images.get(connection, made, Asker(None, is_admin=True))
