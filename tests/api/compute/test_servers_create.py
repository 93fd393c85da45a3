"""POST /servers: what is written, what is answered, what is refused."""

from __future__ import annotations

import base64
import threading
from typing import Any

import pytest
import webtest

from api.compute.app import make_app
from api.compute.services import ComputeServices
from compute.drivers.base import GuestSpec
from core import config
from tests.api.compute.conftest import ADMIN, MEMBER, OTHER, READER, Api
from tests.api.compute.fakes import IMAGE, FakeImages
from tests.api.compute.server_tools import body, boot, intents_of, make_flavor
from tests.api.identity import authenticate


@pytest.fixture(autouse=True)
def flavor(api: Api) -> None:
    make_flavor(api)


def test_create_answers_202_with_id_links_and_password(api: Api, services: ComputeServices) -> None:
    answer = api.post("/servers", body(), status=202)
    server = answer.json["server"]
    assert set(server) == {"id", "links", "OS-DCF:diskConfig", "security_groups", "adminPass"}
    assert answer.headers["Location"].endswith(f"/v2.1/servers/{server['id']}")
    assert server["security_groups"] == [{"name": "default"}]
    shown = api.get(f"/servers/{server['id']}").json["server"]
    assert (shown["status"], shown["OS-EXT-STS:task_state"]) == ("BUILD", "scheduling")
    assert services.doorbells.scheduler == 1


def test_the_intent_carries_everything_that_the_scheduler_and_the_host_need(
    api: Api, services: ComputeServices
) -> None:
    make_flavor(
        api, id="2", name="m", vcpus=2, ram=256, disk=3, swap=1500, **{"OS-FLV-EXT-DATA:ephemeral": 4}
    )
    server_id = boot(
        api,
        flavorRef="2",
        name="Web Server.1",
        metadata={"a": "b"},
        user_data=base64.b64encode(b"#!/bin/sh").decode(),
        config_drive=True,
        adminPass="s3cret",
        personality=[{"path": "/etc/x", "contents": "eA=="}],
    )
    (intent,) = intents_of(services, server_id, None)
    assert (intent["kind"], intent["state"], intent["target"]) == ("server.create", "waiting", None)
    arguments = intent["arguments"]
    assert arguments["resources"] == {"VCPU": 2, "MEMORY_MB": 256, "DISK_GB": 3 + 4 + 2}
    assert arguments["image_properties"] == {"hw_machine_type": "q35"}
    guest = GuestSpec.from_dict(arguments["guest"])
    assert guest.image is not None and guest.image.id == IMAGE
    assert guest.hostname == "web-server-1" and guest.admin_password == "s3cret"
    assert (guest.ephemeral_gib, guest.swap_mib, guest.metadata) == (4, 1500, {"a": "b"})
    assert guest.personality == ({"path": "/etc/x", "contents": "eA=="},)


def test_several_at_once(api: Api) -> None:
    answer = api.post("/servers", body(min_count=2, max_count="3", return_reservation_id=True), status=202)
    reservation = answer.json["reservation_id"]
    listed = api.get(f"/servers?reservation_id={reservation}").json["servers"]
    assert sorted(each["name"] for each in listed) == ["one-1", "one-2", "one-3"]


def test_fewer_than_max_count_when_the_quota_admits_only_so_many(api: Api, services: ComputeServices) -> None:
    config.override(services.conf, "quota.instances", 4)
    boot(api)
    api.post("/servers", body(min_count=2, max_count=10), status=202)
    assert len(api.get("/servers").json["servers"]) == 4
    message = api.post("/servers", body(), status=403).json["forbidden"]["message"]
    assert "instances" in message and "4" in message


def test_quota_holds_with_many_at_once(api: Api, services: ComputeServices) -> None:
    config.override(services.conf, "quota.instances", 5)
    statuses: list[int] = []
    application = make_app(services.conf, services, authenticate)

    def create() -> None:
        mine = webtest.TestApp(application)
        answer = mine.post_json("/v2.1/servers", body(), headers={"X-Auth-Token": MEMBER}, expect_errors=True)
        statuses.append(answer.status_int)

    threads = [threading.Thread(target=create) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [202] * 5 + [403] * 7
    assert len(api.get("/servers").json["servers"]) == 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "x" * 256},
        {"name": None},
        {"flavorRef": "nope"},
        {"flavorRef": None},
        {"imageRef": "not-an-id"},
        {"imageRef": "70a599e0-31e7-49b7-b260-868f441e862c"},
        {"imageRef": None},
        {"imageRef": ""},
        {"colour": "red"},
        {"metadata": {"a": 1}},
        {"metadata": {"x" * 256: "1"}},
        {"metadata": {"a": "x" * 256}},
        {"accessIPv4": "1.2.3"},
        {"accessIPv6": "x"},
        {"accessIPv6": "fe80::1%eth0"},
        {"name": "x" * 254, "max_count": 2},
        {"block_device_mapping_v2": [{"source_type": "blank", "volume_size": "0"}]},
        {"min_count": 0},
        {"max_count": 0},
        {"max_count": "many"},
        {"min_count": 3, "max_count": 2},
        {"max_count": 5000},
        {"key_name": "none-such"},
        {"user_data": "x" * 65536},
        {"user_data": "not base64!!x"},
        {"personality": [{"path": "/x", "contents": "not base64!!x"}]},
        {"availability_zone": "elsewhere"},
        {"networks": [{"uuid": "0d5ec9a8-7e4b-4c11-9ee8-6d3c7d5a1cbe"}]},
        {"networks": [{"colour": "red"}]},
        {"OS-DCF:diskConfig": "PERHAPS"},
        {"description": "not before 2.19"},
        {"tags": ["not before 2.52"]},
        {"block_device_mapping_v2": [{"source_type": "volume", "uuid": IMAGE, "boot_index": 0}]},
        {"block_device_mapping_v2": [{"source_type": "image", "boot_index": 0, "destination_type": "local"}]},
        {"block_device_mapping_v2": [{"boot_index": 0}]},
        {
            "block_device_mapping_v2": [
                {"source_type": "blank", "destination_type": "local", "volume_size": 9}
            ]
        },
        {"security_groups": [{"colour": "red"}]},
    ],
)
def test_bad_requests_are_400_and_leave_nothing(
    api: Api, services: ComputeServices, wrong: dict[str, Any]
) -> None:
    answer = api.post("/servers", body(**wrong), status=400)
    assert answer.json["badRequest"]["message"]
    assert api.get("/servers").json["servers"] == []
    assert services.doorbells.scheduler == 0


def test_images_that_do_not_fit(api: Api, services: ComputeServices) -> None:
    images = services.images
    assert isinstance(images, FakeImages)
    for values, words in (
        ({"status": "queued"}, "not active"),
        ({"min_ram": 1024}, "memory is too small"),
        ({"min_disk": 2}, "minimum size"),
        ({"size": 2 * 1024**3}, "too small"),
        ({"visibility": "private", "owner": "p9"}, "could not be found"),
    ):
        image_id = images.add(**values)
        answer = api.post("/servers", body(imageRef=image_id), status=400)
        assert words in answer.json["badRequest"]["message"]


def test_the_clis_way_to_name_the_image(api: Api) -> None:
    device = {"uuid": IMAGE, "boot_index": 0, "source_type": "image", "destination_type": "local"}
    mapping = [{**device, "delete_on_termination": True}]
    server_id = boot(api, version="2.96", imageRef=None, block_device_mapping_v2=mapping)
    assert api.get(f"/servers/{server_id}").json["server"]["image"]["id"] == IMAGE
    boot(api, version="2.96", block_device_mapping_v2=mapping)


def test_networks_are_required_from_2_37(api: Api) -> None:
    api.post("/servers", body(), version="2.36", status=202)
    api.post("/servers", body(), version="2.37", status=400)
    api.post("/servers", body(networks="auto"), version="2.37", status=202)
    api.post("/servers", body(networks="some"), version="2.37", status=400)


def test_personality_until_2_56(api: Api, services: ComputeServices) -> None:
    files = [{"path": "/x", "contents": "eA=="}]
    api.post("/servers", body(personality=files, networks="none"), version="2.56", status=202)
    api.post("/servers", body(personality=files, networks="none"), version="2.57", status=400)
    config.override(services.conf, "quota.injected_files", 0)
    api.post("/servers", body(personality=files), status=403)
    assert len(api.get("/servers").json["servers"]) == 1


def test_hosts_are_for_administrators(api: Api) -> None:
    api.post("/servers", body(availability_zone="nova:h1"), status=403)
    api.post("/servers", body(availability_zone="nova:h1"), as_=ADMIN, status=400)
    asked = body(host="h1", networks="none")
    api.post("/servers", asked, version="2.74", status=403)
    api.post("/servers", asked, version="2.73", as_=ADMIN, status=400)
    assert api.get("/servers").json["servers"] == []


def test_readers_do_not_create(api: Api) -> None:
    api.post("/servers", body(), as_=READER, status=403)
    assert api.get("/servers").json["servers"] == []


def test_key_pair_of_the_user_and_no_other(api: Api, services: ComputeServices) -> None:
    pair = api.post("/os-keypairs", {"keypair": {"name": "k"}}, status=200).json["keypair"]
    server_id = boot(api, key_name="k")
    (intent,) = intents_of(services, server_id, None)
    assert intent["arguments"]["guest"]["public_key"] == pair["public_key"]
    api.post("/servers", body(key_name="k"), as_=OTHER, status=400)
    assert api.get(f"/servers/{server_id}").json["server"]["key_name"] == "k"


def test_hostname_from_2_90_and_description_from_2_19(api: Api) -> None:
    server_id = boot(api, version="2.90", hostname="web", description="about")
    shown = api.get(f"/servers/{server_id}", version="2.90").json["server"]
    assert (shown["OS-EXT-SRV-ATTR:hostname"], shown["description"]) == ("web", "about")
    api.post("/servers", body(hostname="web.a.org", networks="none"), version="2.93", status=400)
    boot(api, version="2.94", hostname="web.a.org")


def test_tags_from_2_52(api: Api) -> None:
    server_id = boot(api, version="2.52", tags=["b", "a", "a"])
    assert api.get(f"/servers/{server_id}", version="2.52").json["server"]["tags"] == ["a", "b"]
    api.post("/servers", body(tags=["a/b"], networks="none"), version="2.52", status=400)
