"""createImage through the API: the image that is made, the intent that fills it, and who may."""

from __future__ import annotations

from typing import Any

import pytest

from api.compute.services import ComputeServices
from core import config
from db import cell_schema
from tests.api.compute.conftest import ADMIN, OTHER, READER, Api
from tests.api.compute.fakes import IMAGE, FakeImages, ImageApi
from tests.api.compute.server_tools import boot, intents_of, make_flavor, place


@pytest.fixture
def images(services: ComputeServices) -> ImageApi:
    assert isinstance(services.images, FakeImages)
    return services.images.api


@pytest.fixture
def server_id(api: Api, services: ComputeServices) -> str:
    make_flavor(api)
    made = boot(api)
    place(services, made)
    return made


def create(api: Api, server_id: str, status: int = 202, **options: Any) -> Any:
    asked = {"name": "copy", **options.pop("asked", {})}
    return api.post(f"/servers/{server_id}/action", {"createImage": asked}, status=status, **options)


def snapshots(images: ImageApi) -> list[dict[str, Any]]:
    return [found for found in images.images.values() if found.get("image_type") == "snapshot"]


def test_the_image_says_where_it_comes_from(
    api: Api, services: ComputeServices, images: ImageApi, server_id: str
) -> None:
    answer = create(api, server_id, asked={"metadata": {"purpose": "backup", "hw_machine_type": "pc"}})
    (image,) = snapshots(images)
    assert answer.headers["Location"] == f"http://127.0.0.1:9292/images/{image['id']}"
    assert answer.body == b""
    expected = {
        "name": "copy",
        "status": "queued",
        "visibility": "private",
        "disk_format": "qcow2",
        "container_format": "bare",
        "base_image_ref": IMAGE,
        "instance_uuid": server_id,
        "min_disk": 1,
        "purpose": "backup",
        "hw_machine_type": "pc",
    }
    assert {key: image[key] for key in expected} == expected
    intent = intents_of(services, server_id)[-1]
    assert (intent["kind"], intent["arguments"]) == ("server.create_image", {"image_id": image["id"]})
    server = api.get(f"/servers/{server_id}").json["server"]
    assert (server["status"], server["OS-EXT-STS:task_state"]) == ("ACTIVE", "image_snapshot_pending")


def test_from_2_45_the_body_names_the_image(api: Api, images: ImageApi, server_id: str) -> None:
    answer = create(api, server_id, version="2.45")
    assert answer.json == {"image_id": snapshots(images)[0]["id"]}
    assert "Location" not in answer.headers
    action = api.get(f"/servers/{server_id}/os-instance-actions").json["instanceActions"][0]
    assert action["action"] == "createImage"


def test_one_at_a_time_and_no_image_is_left_of_a_refusal(api: Api, images: ImageApi, server_id: str) -> None:
    create(api, server_id)
    answer = create(api, server_id, status=409)
    assert "task_state image_snapshot_pending" in answer.json["conflictingRequest"]["message"]
    assert len(snapshots(images)) == 1


def test_who_may(api: Api, images: ImageApi, server_id: str) -> None:
    create(api, server_id, status=404, as_=OTHER)
    create(api, server_id, status=403, as_=READER)
    api.post(f"/servers/{server_id}/action", {"lock": None}, as_=ADMIN)
    create(api, server_id, status=409)
    assert snapshots(images) == []


@pytest.mark.parametrize(
    "asked", [{"name": ""}, {"name": None}, {"rotation": 1}, {"metadata": {"a": 1}}, {"metadata": []}]
)
def test_bad_bodies(api: Api, images: ImageApi, server_id: str, asked: dict[str, Any]) -> None:
    message = create(api, server_id, status=400, asked=asked).json["badRequest"]["message"]
    assert next(iter(asked)) in message
    assert snapshots(images) == []


def test_the_quota_of_metadata(api: Api, services: ComputeServices, images: ImageApi, server_id: str) -> None:
    config.override(services.conf, "quota.metadata_items", 1)
    create(api, server_id, status=403, asked={"metadata": {"a": "1", "b": "2"}})
    assert snapshots(images) == []


def test_states(api: Api, services: ComputeServices, images: ImageApi, server_id: str) -> None:
    with services.databases.cells()[0].write() as connection:
        connection.execute(cell_schema.servers.update().values(vm_state="error"))
    message = create(api, server_id, status=409).json["conflictingRequest"]["message"]
    assert message == f"Cannot 'createImage' instance {server_id} while it is in vm_state error"
    assert snapshots(images) == []


def test_deleted_before_it_began_the_host_removes_the_image(
    api: Api, services: ComputeServices, images: ImageApi, server_id: str
) -> None:
    create(api, server_id)
    api.delete(f"/servers/{server_id}", status=204)
    found = {intent["kind"]: intent for intent in intents_of(services, server_id)}
    assert found["server.create_image"]["state"] == "cancelled"
    forget = found["server.forget_image"]
    assert (forget["state"], forget["target"]) == ("waiting", "h1")
    assert forget["arguments"] == {"image_id": snapshots(images)[0]["id"]}
