"""/images until 2.35 through the API, against a stand-in for the image API."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from api.compute.services import ComputeServices
from tests.api.compute.conftest import MEMBER, Api
from tests.api.compute.fakes import IMAGE, FakeImages, ImageApi

OTHER = "70a599e0-31e7-49b7-b260-868f441e862c"


@pytest.fixture
def images(services: ComputeServices) -> Iterator[ImageApi]:
    """One image in a stand-in for the image API, which is asked with the caller's token only."""
    assert isinstance(services.images, FakeImages)
    fake = services.images.api
    fake.images[IMAGE] = {
        "id": IMAGE,
        "name": "tiny",
        "status": "active",
        "size": 7,
        "min_ram": 64,
        "min_disk": 1,
        "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-01T00:00:00Z",
        "visibility": "public",
        "tags": [],
        "kernel_id": "k",
        "auto_disk_config": "True",
    }
    yield fake
    assert {options["headers"]["X-Auth-Token"] for _, _, options in fake.requests} <= {MEMBER}


def test_shapes(api: Api, images: ImageApi) -> None:
    image = api.get(f"/images/{IMAGE}").json["image"]
    assert set(image) == {
        *("id", "name", "links", "minRam", "minDisk", "metadata", "created", "updated", "status", "progress"),
        *("OS-EXT-IMG-SIZE:size", "OS-DCF:diskConfig"),
    }
    assert image["metadata"] == {"kernel_id": "k", "auto_disk_config": "True"}
    assert (image["status"], image["progress"], image["OS-DCF:diskConfig"]) == ("ACTIVE", 100, "AUTO")
    assert image["links"][2]["href"] == f"http://127.0.0.1:9292/images/{IMAGE}"
    assert set(api.get("/images").json["images"][0]) == {"id", "name", "links"}
    assert api.get("/images/detail").json["images"] == [image]
    images.images[IMAGE]["instance_uuid"] = OTHER
    assert api.get(f"/images/{IMAGE}").json["image"]["server"]["id"] == OTHER


def test_filters_are_translated(api: Api, images: ImageApi) -> None:
    query = f"name=tiny&status=ACTIVE&minRam=64&server=http://x/servers/{OTHER}&type=snapshot&limit=1"
    page = api.get(f"/images?{query}&changes-since=2026-01-01T00:00:00Z").json
    assert "images_links" in page
    assert images.requests[-1][2]["params"] == {
        "name": "tiny",
        "status": "active",
        "min_ram": "64",
        "instance_uuid": OTHER,
        "image_type": "snapshot",
        "limit": "1",
        "updated_at": "gte:2026-01-01T00:00:00Z",
    }


def test_until_2_35(api: Api, images: ImageApi) -> None:
    api.get("/images", version="2.36", status=404)
    api.get(f"/images/{IMAGE}", version="2.36", status=404)
    shown = api.get(f"/images/{IMAGE}/metadata", version="2.38").json["metadata"]
    assert shown == {"kernel_id": "k", "auto_disk_config": "True"}
    api.get(f"/images/{IMAGE}/metadata", version="2.39", status=404)


def test_errors(api: Api, images: ImageApi) -> None:
    api.get(f"/images/{OTHER}", status=404)
    api.get("/images/none", status=404)
    images.images[IMAGE]["protected"] = True
    api.delete(f"/images/{IMAGE}", status=403)
    assert IMAGE in images.images
    del images.images[IMAGE]["protected"]
    api.delete(f"/images/{IMAGE}", status=204)
    assert IMAGE not in images.images
    answer = api.delete(f"/images/{IMAGE}", status=404).json["itemNotFound"]
    assert IMAGE in answer["message"]


def test_metadata(api: Api, images: ImageApi) -> None:
    path = f"/images/{IMAGE}/metadata"
    assert api.get(path).json == {"metadata": {"kernel_id": "k", "auto_disk_config": "True"}}
    merged = api.post(path, {"metadata": {"kernel_id": "x", "a": "b"}}, status=200).json["metadata"]
    assert merged == {"kernel_id": "x", "auto_disk_config": "True", "a": "b"}
    assert images.images[IMAGE]["kernel_id"] == "x"
    assert api.put(path, {"metadata": {"c": "d"}}).json == {"metadata": {"c": "d"}}
    assert api.get(path).json == {"metadata": {"c": "d"}}
    assert api.put(f"{path}/c", {"meta": {"c": "e"}}).json == {"meta": {"c": "e"}}
    api.put(f"{path}/c", {"meta": {"d": "e"}}, status=400)
    assert api.get(f"{path}/c").json == {"meta": {"c": "e"}}
    api.get(f"{path}/z", status=404)
    api.delete(f"{path}/c", status=204)
    api.delete(f"{path}/c", status=404)
    api.post(path, {"metadata": {"?": "x"}}, status=400)
    api.get(f"/images/{OTHER}/metadata", status=404)
