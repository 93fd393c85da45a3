"""Upload and download: states, ranges, refusals; what fails leaves nothing."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import pytest

from api.image.services import ImageServices
from core import config
from core.errors import DriverError
from db import image_uploads
from db.images import Image
from image.drivers.file import FileStore
from tests.api.image.conftest import ADMIN, MEMBER, OTHER, READER, Api, stored_files
from tests.image import samples

BINARY = {"Content-Type": "application/octet-stream"}


def test_upload_and_download(api: Api) -> None:
    image = api.image()
    path = f"/images/{image['id']}"
    empty = api.get(f"{path}/file", status=204)
    assert empty.body == b""
    data = b"0123456789" * 1000
    assert api.upload(image["id"], data, status=204).body == b""
    shown = api.get(path).json
    assert shown["status"] == "active"
    assert shown["size"] == shown["virtual_size"] == len(data)
    assert shown["checksum"] == hashlib.md5(data).hexdigest()
    assert shown["os_hash_algo"] == "sha512"
    assert shown["os_hash_value"] == hashlib.sha512(data).hexdigest()
    assert shown["stores"] == "file"
    answer = api.get(f"{path}/file", status=200)
    assert answer.body == data
    assert answer.headers["Content-MD5"] == shown["checksum"]
    assert answer.headers["Content-Length"] == str(len(data))
    assert answer.headers["Content-Type"] == "application/octet-stream"
    api.upload(image["id"], data, status=409)
    assert api.get(f"{path}/file?prefer=file").body == data
    api.get(f"{path}/file?prefer=nowhere", status=400)


@pytest.mark.parametrize(
    ("header", "begin", "end"),
    [
        ("bytes=0-4", 0, 5),
        ("bytes=5-", 5, 10),
        ("bytes=3-3", 3, 4),
        ("bytes=-2", 8, 10),
        ("bytes=-20", 0, 10),
        ("bytes=7-100", 7, 10),
    ],
)
def test_ranges(api: Api, header: str, begin: int, end: int) -> None:
    image = api.image(data=b"0123456789")
    answer = api.get(f"/images/{image['id']}/file", headers={"Range": header}, status=206)
    assert answer.body == b"0123456789"[begin:end]
    assert answer.headers["Content-Range"] == f"bytes {begin}-{end - 1}/10"
    assert answer.headers["Content-Length"] == str(end - begin)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Range": "bytes=10-"}, 416),
        ({"Range": "bytes=5-2"}, 416),
        ({"Range": "lines=1-2"}, 416),
        ({"Range": "bytes=0-1,4-5"}, 400),
        ({"Content-Range": "bytes 2-4/10"}, 206),
        ({"Content-Range": "bytes 2-40/100"}, 416),
        ({"Content-Range": "nonsense"}, 416),
    ],
)
def test_ranges_that_can_not_be(api: Api, headers: dict[str, str], status: int) -> None:
    image = api.image(data=b"0123456789")
    answer = api.get(f"/images/{image['id']}/file", headers=headers, status=status)
    assert (answer.body == b"234") == (status == 206)


def test_what_upload_refuses(api: Api, services: ImageServices) -> None:
    image = api.image()
    path = f"/images/{image['id']}/file"
    api.request("PUT", path, b"x", headers={"Content-Type": "application/json"}, status=415)
    api.request("PUT", path, b"x", headers={"Content-Type": ""}, status=415)
    api.request(
        "PUT", path, b"a=b", headers={"Content-Type": "application/x-www-form-urlencoded"}, status=415
    )
    api.upload(image["id"], b"x", headers={"x-image-meta-store": "nowhere"}, status=400)
    api.upload(image["id"], b"x", headers={"x-openstack-image-size": "many"}, status=400)
    api.upload(image["id"], b"x", headers={"x-openstack-image-size": "5"}, status=400)
    bare = api.post("/images", {}).json["id"]
    api.upload(bare, b"x", status=400)
    api.upload("00000000-0000-0000-0000-000000000000", b"x", status=404)
    for image_id in (image["id"], bare):
        assert api.get(f"/images/{image_id}").json["status"] == "queued"
    assert stored_files(services) == []


def test_an_empty_raw_image_is_one(api: Api) -> None:
    image = api.image(data=b"")
    assert image["status"] == "active" and image["size"] == 0
    assert api.get(f"/images/{image['id']}/file", status=200).body == b""
    api.get(f"/images/{image['id']}/file", headers={"Range": "bytes=0-"}, status=416)


def test_content_must_be_what_the_image_says(api: Api, services: ImageServices) -> None:
    image = api.image(disk_format="qcow2", name="q")
    for data, reason in (
        (b"no image", "does not match"),
        (b"", "does not match"),
        (samples.qcow2(backing_file="/etc/shadow"), "backing file"),
    ):
        answer = api.upload(image["id"], data, status=415)
        assert reason in answer.text
        shown = api.get(f"/images/{image['id']}").json
        assert (shown["status"], shown["size"], shown["checksum"]) == ("queued", None, None)
        assert stored_files(services) == []
    api.upload(image["id"], samples.qcow2(5 << 20), status=204)
    shown = api.get(f"/images/{image['id']}").json
    assert (shown["virtual_size"], shown["size"]) == (5 << 20, 65536)


def test_the_format_check_can_be_turned_off_but_not_the_safety(api: Api, services: ImageServices) -> None:
    config.override(services.conf, "image.require_image_format_match", False)
    api.image(disk_format="qcow2", data=b"no image")
    image = api.image(disk_format="qcow2")
    api.upload(image["id"], samples.qcow2(backing_file="/etc/shadow"), status=415)
    assert api.get(f"/images/{image['id']}").json["status"] == "queued"


@pytest.mark.parametrize(
    ("option", "value"),
    [("image_size_cap", 1000), ("image_size_total", 1)],
)
def test_bounds(api: Api, services: ImageServices, option: str, value: int) -> None:
    config.override(services.conf, f"image.{option}", value)
    image = api.image()
    for headers in ({}, {"Transfer-Encoding": "chunked"}):
        answer = api.upload(image["id"], b"x" * ((1 << 20) + 1), headers=headers, status=413)
        assert "too large" in answer.text
    assert api.get(f"/images/{image['id']}").json["status"] == "queued"
    assert stored_files(services) == []
    api.upload(image["id"], b"x" * 900, status=204)


def test_storage_quota_counts_all_images_of_the_project(api: Api, services: ImageServices) -> None:
    config.override(services.conf, "image.image_size_total", 1)
    first = api.image(data=b"x" * 600_000)
    second = api.image()
    api.upload(second["id"], b"x" * 600_000, status=413)
    api.image(as_=OTHER, data=b"x" * 600_000)
    api.delete(f"/images/{first['id']}")
    api.upload(second["id"], b"x" * 600_000, status=204)
    assert api.get("/info/usage").json["usage"]["image_size_total"] == {"usage": 0, "limit": 1}


def test_uploads_at_a_time(api: Api, services: ImageServices) -> None:
    config.override(services.conf, "image.image_count_uploading", 0)
    image = api.image()
    api.upload(image["id"], b"x", status=413)
    assert api.get(f"/images/{image['id']}").json["status"] == "queued"


def test_deleting_removes_the_data(api: Api, services: ImageServices) -> None:
    image = api.image(data=b"data")
    assert len(stored_files(services)) == 1
    api.delete(f"/images/{image['id']}", status=204)
    assert stored_files(services) == []


def test_a_store_that_fails_does_not_keep_an_image_from_being_deleted(
    api: Api, services: ImageServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = api.image(data=b"data")

    def refuse(self: FileStore, name: str) -> None:
        raise DriverError("the disk is gone")

    with monkeypatch.context() as broken:
        broken.setattr(FileStore, "delete", refuse)
        api.delete(f"/images/{image['id']}", status=204)
        api.get(f"/images/{image['id']}", status=404)
        assert len(stored_files(services)) == 1
        with pytest.raises(DriverError):
            services.data.sweep()
    assert services.data.sweep() == 1
    assert stored_files(services) == []
    assert services.data.sweep() == 0


class During(io.BytesIO):
    """A body that does something after its first bytes."""

    def __init__(self, size: int, event: Any) -> None:
        super().__init__(b"x" * size)
        self._event = event

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() and self._event:
            event, self._event = self._event, None
            event()
        return super().read(size)


def row(services: ImageServices, image_id: str) -> Image:
    from db import images
    from db.image_filters import Asker

    with services.databases.global_.read() as connection:
        return images.get(connection, image_id, Asker(None, is_admin=True))


def test_meanwhile_others_see_it_saving(api: Api, services: ImageServices) -> None:
    image = api.image()

    def meanwhile() -> None:
        assert api.get(f"/images/{image['id']}").json["status"] == "saving"
        api.upload(image["id"], b"mine", status=409)
        api.get(f"/images/{image['id']}/file", status=204)

    services.data.upload(row(services, image["id"]), During(3 << 20, meanwhile), None)
    assert api.get(f"/images/{image['id']}").json["size"] == 3 << 20


def test_deleted_meanwhile(api: Api, services: ImageServices) -> None:
    image = api.image()
    from image.data import Gone

    with pytest.raises(Gone) as caught:
        services.data.upload(
            row(services, image["id"]),
            During(3 << 20, lambda: api.delete(f"/images/{image['id']}", status=204)),
            None,
        )
    assert caught.value.http_status == 410
    assert stored_files(services) == []


def test_what_a_killed_process_left_is_ended_by_the_janitor(api: Api, services: ImageServices) -> None:
    image = api.image()
    found = row(services, image["id"])
    name = f"{image['id']}.lost"
    with services.databases.global_.write() as connection:
        image_uploads.begin(connection, found, "lost", "file", name, 60)
    store = services.data.stores.get("file")
    store.put([b"all of it"], name)
    (stored_files(services)[0].parents[1] / ".incoming" / name).write_bytes(b"half of it")
    assert services.data.sweep() == 0  # the sender may be alive
    with services.databases.global_.write() as connection:
        image_uploads.renew(connection, image["id"], "lost", -1)
    assert services.data.sweep() == 2
    assert api.get(f"/images/{image['id']}").json["status"] == "queued"
    assert stored_files(services) == []
    api.upload(image["id"], b"again", status=204)


def test_stores(api: Api) -> None:
    assert api.get("/info/stores", as_=READER).json == {"stores": [{"id": "file", "default": "true"}]}
    api.get("/info/stores/detail", as_=MEMBER, status=403)
    (store,) = api.get("/info/stores/detail", as_=ADMIN).json["stores"]
    assert set(store) == {"id", "default", "type", "weight", "properties"}
    assert set(store["properties"]) == {"data_dir", "chunk_size", "thin_provisioning"}
    methods = api.get("/info/import").json["import-methods"]["value"]
    assert methods == ["glance-direct", "web-download", "copy-image"]
    image = api.image(data=b"x")
    api.delete(f"/stores/nowhere/{image['id']}", as_=ADMIN, status=409)
    api.delete(f"/stores/file/{image['id']}", as_=ADMIN, status=403)
    api.delete(f"/stores/file/{image['id']}", as_=MEMBER, status=403)


def test_locations_are_for_services(api: Api, services: ImageServices) -> None:
    image = api.image(data=b"x")
    path = f"/images/{image['id']}/locations"
    api.get(path, status=403)
    (location,) = api.get(path, as_=ADMIN).json
    assert location["url"].startswith("file:///") and location["metadata"] == {"store": "file"}
    assert "direct_url" not in api.get(f"/images/{image['id']}").json
    config.override(services.conf, "image_api.show_image_direct_url", True)
    assert api.get(f"/images/{image['id']}").json["direct_url"] == location["url"]
