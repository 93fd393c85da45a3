"""Servers with volumes, from the Compute API to the hosts and the Volume API, all real but for the hypervisor."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import webtest
from keystoneauth1 import loading

from api.common.server import ApiRole
from api.compute.app import make_app
from api.compute.services import GROUP, ComputeServices
from compute.drivers.simulated import SimulatedDriver, empty_qcow2
from core import config
from core.errors import DriverError
from tests.api.compute.conftest import Api
from tests.api.identity import authenticate
from tests.crash.invariants import settle
from tests.lab.processes import free_port
from tests.stack.cloud import Cloud, wait_for
from tests.stack.volumes import OWNER, VolumePlane
from volume.drivers.simulated import SimulatedDriver as BackendDriver

ADMIN = "admin@p0"


class Stack:
    """A cloud with volumes and its Compute API."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state_dir = folder / "hosts"
        self.cloud = Cloud(folder, ["h1", "h2"], **{"simulated.state_dir": str(self.state_dir)})
        images = self.cloud.with_images()
        self.plane: VolumePlane = self.cloud.with_volumes()
        self.cloud.start()
        self.services = ComputeServices(self.cloud.conf)
        app = make_app(self.cloud.conf, self.services, authenticate)
        self.api = Api(webtest.TestApp(app))
        # the Volume API asks it over HTTP who uses a volume
        port = free_port()
        config.override(self.cloud.conf, f"{GROUP}.port", port)
        self.role = ApiRole("compute", self.cloud.conf, GROUP, lambda _conf: app)
        self.role.start()
        loading.register_adapter_conf_options(self.cloud.conf, "compute")
        self.cloud.conf.set_override("endpoint_override", f"http://127.0.0.1:{port}/v2.1", group="compute")
        flavor = {"name": "tiny", "id": "1", "ram": 64, "vcpus": 1, "disk": 1}
        self.api.post("/flavors", {"flavor": flavor}, as_=ADMIN)
        self.images = f"{images.url}/v2/images"
        self.make_image = images.make
        self.image_id = self.new_image()

    def new_image(self) -> str:
        """An image of its own, with data."""
        image_id = self.make_image("none")
        self.put_image(image_id, empty_qcow2())
        return image_id

    def put_image(self, image_id: str, data: bytes) -> None:
        headers = {"X-Auth-Token": OWNER, "Content-Type": "application/octet-stream"}
        answer = requests.put(f"{self.images}/{image_id}/file", data=data, headers=headers, timeout=30)
        answer.raise_for_status()

    def image(self, image_id: str) -> dict[str, Any]:
        answer = requests.get(f"{self.images}/{image_id}", headers={"X-Auth-Token": OWNER}, timeout=30)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def stop(self) -> None:
        self.role.stop()
        self.services.close()
        self.cloud.stop()

    def server(self) -> str:
        """An active server on a host."""
        server_id = self.cloud.create(devices=[])
        self.cloud.wait_state(server_id, "active")
        return server_id

    @contextlib.contextmanager
    def broken_backend(self) -> Iterator[None]:
        """No volume can be made now."""

        def fail(*_args: Any) -> None:
            raise DriverError("the backend is full")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(BackendDriver, "create", fail)
            yield

    def guest(self, server_id: str) -> dict[str, Any]:
        """As its host has it."""
        (path,) = self.state_dir.glob(f"*/guests/{server_id}.json")
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def path(self, server_id: str, volume_id: str | None = None) -> str:
        return f"/servers/{server_id}/os-volume_attachments" + (f"/{volume_id}" if volume_id else "")

    def attach(
        self, server_id: str, volume_id: str, *, version: str = "2.96", status: int = 200, **asked: Any
    ) -> Any:
        body = {"volumeAttachment": {"volumeId": volume_id, **asked}}
        return self.api.post(self.path(server_id), body, as_=OWNER, version=version, status=status).json

    def listed(self, server_id: str, version: str = "2.96") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api.get(self.path(server_id), as_=OWNER, version=version).json[
            "volumeAttachments"
        ]
        return found

    def detach(self, server_id: str, volume_id: str, status: int = 202) -> None:
        self.api.delete(self.path(server_id, volume_id), as_=OWNER, status=status)

    def nothing_left(self) -> None:
        """No volume is on its way, no attachment without a device, no device without an attachment."""
        settle(self.cloud)
        devices = set()
        for path in self.state_dir.glob("*/guests/*.json"):
            devices |= {
                (path.stem, volume_id) for volume_id in json.loads(path.read_text())["spec"]["volumes"]
            }
        attachments = {(each["instance"], each["volume_id"]) for each in self.plane.attachments()}
        assert attachments == devices
        assert {each["status"] for each in self.plane.attachments()} <= {"attached"}
        statuses = {row["status"] for row in self.plane.volumes().values()}
        assert statuses <= {"available", "in-use"}
        connected = {path.stem for path in self.state_dir.glob("*/connections/*.json")}
        assert connected == {volume_id for _, volume_id in devices}
        records = {path.stem for path in (self.folder / "state" / "attachments").glob("*/*/*.json")}
        assert records == connected


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("stack"))
    yield stack
    stack.stop()


@pytest.fixture
def stack(shared: Stack) -> Iterator[Stack]:
    yield shared
    shared.nothing_left()


def test_a_volume_is_attached_shown_and_detached(stack: Stack) -> None:
    server_id, volume_id = stack.server(), stack.plane.make()
    shown = stack.attach(server_id, volume_id, tag="data")["volumeAttachment"]
    assert shown == {
        "id": volume_id,
        "volumeId": volume_id,
        "serverId": server_id,
        "device": "/dev/vdb",
        "tag": "data",
        "delete_on_termination": False,
    }
    stack.plane.wait(volume_id, "in-use")
    settle(stack.cloud)
    (attachment,) = stack.plane.attachments()
    assert (attachment["instance"], attachment["status"]) == (server_id, "attached")
    (seen,) = stack.plane.show(volume_id)["attachments"]
    assert (seen["server_id"], seen["device"]) == (server_id, "/dev/vdb")
    (listed,) = stack.listed(server_id)
    assert listed["attachment_id"] == attachment["id"] and "id" not in listed and listed["bdm_uuid"]
    assert set(stack.listed(server_id, "2.1")[0]) == {"id", "volumeId", "serverId", "device"}
    assert stack.guest(server_id)["spec"]["volumes"] == {volume_id: 1}
    server = stack.api.get(f"/servers/{server_id}", as_=OWNER, version="2.3").json["server"]
    assert server["os-extended-volumes:volumes_attached"] == [
        {"id": volume_id, "delete_on_termination": False}
    ]

    stack.detach(server_id, volume_id)
    stack.plane.wait(volume_id, "available")
    settle(stack.cloud)
    assert stack.listed(server_id) == []
    stack.api.get(stack.path(server_id, volume_id), as_=OWNER, status=404)
    stack.detach(server_id, volume_id, status=404)
    actions = stack.api.get(f"/servers/{server_id}/os-instance-actions", as_=OWNER).json["instanceActions"]
    assert [each["action"] for each in actions[:2]] == ["detach_volume", "attach_volume"]


def test_a_volume_has_one_writer(stack: Stack) -> None:
    one, two, volume_id = stack.server(), stack.server(), stack.plane.make()
    stack.attach(one, volume_id)
    settle(stack.cloud)
    assert "reserve" in stack.attach(two, volume_id, status=400)["badRequest"]["message"]
    assert stack.attach(one, volume_id, status=400)["badRequest"]["message"].endswith("already attached")
    assert stack.listed(two) == []
    stack.cloud.delete(one)


def test_the_volume_api_has_the_last_word(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody took the volume between our look and the reservation."""
    one, two, volume_id = stack.server(), stack.server(), stack.plane.make()
    free = stack.plane.show(volume_id)
    stack.attach(one, volume_id)
    settle(stack.cloud)
    monkeypatch.setattr(stack.services.volumes, "volume", lambda *_args, **_more: free)
    stack.attach(two, volume_id, status=400)
    settle(stack.cloud)
    assert stack.listed(two) == []
    stack.cloud.delete(one)


def test_shared_volumes_need_a_microversion(stack: Stack) -> None:
    one, two, volume_id = stack.server(), stack.server(), stack.plane.make_shared()
    stack.attach(one, volume_id, version="2.59", status=400)
    for server_id in (one, two):
        stack.attach(server_id, volume_id)
        stack.plane.wait(volume_id, "in-use")
    settle(stack.cloud)
    assert len(stack.plane.show(volume_id)["attachments"]) == 2
    stack.detach(one, volume_id)
    settle(stack.cloud)
    assert stack.plane.show(volume_id)["status"] == "in-use"
    stack.cloud.delete(two)


def test_a_deletion_lets_go_of_what_is_kept_and_deletes_what_is_not(stack: Stack) -> None:
    server_id, kept, doomed = stack.server(), stack.plane.make(), stack.plane.make()
    stack.attach(server_id, kept)
    stack.attach(server_id, doomed, delete_on_termination=True)
    settle(stack.cloud)
    stack.api.delete(f"/servers/{server_id}", as_=OWNER)
    stack.cloud.wait_state(server_id, "deleted")
    stack.plane.wait(kept, "available")
    wait_for(lambda: doomed not in stack.plane.volumes(), "the volume goes with its server")


def test_whether_it_goes_with_the_server_may_be_changed(stack: Stack) -> None:
    server_id, volume_id = stack.server(), stack.plane.make()
    stack.attach(server_id, volume_id, tag="t")
    settle(stack.cloud)
    path = stack.path(server_id, volume_id)

    def put(status: int, version: str = "2.85", as_: str = OWNER, **asked: Any) -> None:
        body = {"volumeAttachment": {"volumeId": volume_id, **asked}}
        stack.api.put(path, body, as_=as_, version=version, status=status)

    put(400, tag="other")
    put(400, device="/dev/vdx")
    put(403, version="2.84")
    put(202, delete_on_termination=True, tag="t", device="/dev/vdb", serverId=server_id, id=volume_id)
    assert stack.listed(server_id)[0]["delete_on_termination"] is True
    stack.cloud.delete(server_id)
    wait_for(lambda: volume_id not in stack.plane.volumes(), "the volume goes with its server")


def test_a_guest_that_keeps_its_volume(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in use again, the action says why, and a later try may succeed."""
    server_id, volume_id = stack.server(), stack.plane.make()
    stack.attach(server_id, volume_id)
    settle(stack.cloud)

    def refuse(*_args: Any) -> None:
        raise DriverError("the guest does not let go")

    with monkeypatch.context() as patch:
        patch.setattr(SimulatedDriver, "detach_volume", refuse)
        stack.detach(server_id, volume_id)
        settle(stack.cloud)
    assert stack.plane.show(volume_id)["status"] == "in-use"
    assert [each["volumeId"] for each in stack.listed(server_id)] == [volume_id]
    failed = stack.cloud.intents(server_id)[0]
    assert (failed["kind"], failed["state"]) == ("server.detach_volume", "failed")
    assert failed["error"]["message"] == "the guest does not let go"
    assert stack.cloud.server(server_id)["vm_state"] == "active"
    stack.detach(server_id, volume_id)
    stack.plane.wait(volume_id, "available")


def test_a_stopped_server_is_started_with_its_volumes(stack: Stack) -> None:
    server_id, volume_id = stack.server(), stack.plane.make()
    stack.attach(server_id, volume_id)
    settle(stack.cloud)
    for action in ({"os-stop": None}, {"os-start": None}, {"reboot": {"type": "HARD"}}):
        stack.api.post(f"/servers/{server_id}/action", action, as_=OWNER)
        settle(stack.cloud)
    assert stack.guest(server_id)["spec"]["volumes"] == {volume_id: 1}
    assert stack.cloud.server(server_id)["vm_state"] == "active"
    stack.cloud.delete(server_id)


def test_an_attachment_in_use_is_not_its_owners_to_delete(stack: Stack) -> None:
    """CVE-2023-2088: asked of the Compute API, which shows the device until the attachment is gone."""
    server_id, volume_id = stack.server(), stack.plane.make()
    stack.attach(server_id, volume_id)
    settle(stack.cloud)
    (attachment,) = stack.plane.attachments()
    path = f"/attachments/{attachment['id']}"
    with pytest.raises(AssertionError, match="409.*Compute API"):
        stack.plane.call("DELETE", path)
    stack.cloud.delete(server_id)
    stack.cloud.wait_state(server_id, "deleted")
    reserved = stack.plane.client.reserve(volume_id, server_id)  # nobody uses this one
    stack.plane.call("DELETE", f"/attachments/{reserved['id']}")


def test_swapping_goes_on_with_the_new_volume(stack: Stack) -> None:
    server_id, old, new = stack.server(), stack.plane.make(), stack.plane.make(2)
    stack.attach(server_id, old, tag="data")
    settle(stack.cloud)
    body = {"volumeAttachment": {"volumeId": new}}
    stack.api.put(stack.path(server_id, old), body, as_=OWNER, status=403)
    stack.api.put(stack.path(server_id, old), body, as_=ADMIN, status=202)
    settle(stack.cloud)
    assert stack.cloud.intents(server_id)[0]["state"] == "done"
    (listed,) = stack.listed(server_id)
    assert (listed["volumeId"], listed["tag"], listed["device"]) == (new, "data", "/dev/vdb")
    assert stack.guest(server_id)["spec"]["volumes"] == {new: 2}
    stack.plane.wait(old, "available")
    stack.cloud.delete(server_id)


def test_volumes_and_snapshots_as_the_compute_api_showed_them_once(stack: Stack) -> None:
    """Until 2.35; tokens, quotas and states are the Volume API's."""
    asked = {"display_name": "old", "display_description": "d", "size": "1", "metadata": {"k": "v"}}
    answer = stack.api.post("/os-volumes", {"volume": asked}, as_=OWNER)
    made = answer.json["volume"]
    volume_id = made["id"]
    assert answer.headers["Location"].endswith(f"/v2.1/os-volumes/{volume_id}")
    assert (made["displayName"], made["displayDescription"], made["size"]) == ("old", "d", 1)
    assert (made["metadata"], made["attachments"], made["snapshotId"]) == ({"k": "v"}, [{}], None)
    stack.plane.wait(volume_id, "available")
    server_id = stack.server()
    stack.attach(server_id, volume_id)
    stack.plane.wait(volume_id, "in-use")
    shown = stack.api.get(f"/os-volumes/{volume_id}", as_=OWNER).json["volume"]
    assert shown["attachments"] == [
        {"id": volume_id, "volumeId": volume_id, "serverId": server_id, "device": "/dev/vdb"}
    ]
    assert shown in stack.api.get("/os-volumes/detail", as_=OWNER).json["volumes"]
    assert shown in stack.api.get("/os-volumes", as_=OWNER).json["volumes"]
    assert stack.api.get("/os-volumes?limit=1&offset=10000", as_=OWNER).json["volumes"] == []

    body: dict[str, Any] = {"snapshot": {"volume_id": volume_id, "display_name": "s"}}
    stack.api.post("/os-snapshots", body, as_=OWNER, status=400)
    body["snapshot"]["force"] = "True"
    snapshot = stack.api.post("/os-snapshots", body, as_=OWNER).json["snapshot"]
    assert (snapshot["volumeId"], snapshot["displayName"], snapshot["size"]) == (volume_id, "s", 1)
    settle(stack.cloud)
    path = f"/os-snapshots/{snapshot['id']}"
    assert stack.api.get(path, as_=OWNER).json["snapshot"]["status"] == "available"
    listed = stack.api.get("/os-snapshots/detail", as_=OWNER).json["snapshots"]
    assert [each["id"] for each in listed] == [snapshot["id"]]
    assert set(listed[0]) == set(snapshot)

    stack.api.delete(f"/os-volumes/{volume_id}", as_=OWNER, status=400)
    stack.detach(server_id, volume_id)
    stack.plane.wait(volume_id, "available")
    for doomed in (path, f"/os-volumes/{volume_id}"):
        stack.api.delete(doomed, as_=OWNER, status=202)
        settle(stack.cloud)
        stack.api.get(doomed, as_=OWNER, status=404)
        stack.api.delete(doomed, as_=OWNER, status=404)


def test_what_the_compute_api_passes_on_no_more(stack: Stack) -> None:
    for path in ("/os-volumes", "/os-volumes/detail", "/os-snapshots", "/os-snapshots/detail"):
        stack.api.get(path, as_=OWNER, version="2.35")
        stack.api.get(path, as_=OWNER, version="2.36", status=404)
    for wrong in ({}, {"size": 0}, {"size": "x"}, {"size": 1, "name": "n"}):
        stack.api.post("/os-volumes", {"volume": wrong}, as_=OWNER, status=400)
    stack.api.post("/os-volumes", {"volume": {"size": 1}}, as_="reader@project-1", status=403)


def test_a_volume_grows_under_its_guest(stack: Stack) -> None:
    server_id, volume_id = stack.server(), stack.plane.make()
    stack.attach(server_id, volume_id)
    settle(stack.cloud)
    path = f"/volumes/{volume_id}/action"
    stack.plane.call("POST", path, {"os-extend": {"new_size": 3}}, as_="admin@project-1")
    wait_for(lambda: stack.guest(server_id)["spec"]["volumes"] == {volume_id: 3}, "the guest sees it")
    settle(stack.cloud)
    assert stack.cloud.server(server_id)["block_devices"][0]["size_gib"] == 3
    stack.cloud.delete(server_id)


# -- servers made with volumes -----------------------------------------------------


def boot(stack: Stack, status: int = 202, version: str = "2.96", **server: Any) -> Any:
    """POST /servers; the id, or the error's message."""
    body = {"server": {"name": "s", "flavorRef": "1", "networks": "none", **server}}
    answer = stack.api.post("/servers", body, as_=OWNER, version=version, status=status).json
    if status != 202:
        return next(iter(answer.values()))["message"]
    return answer["server"]["id"]


def mapped(source: str, uuid: str | None = None, **more: Any) -> dict[str, Any]:
    device = {"source_type": source, "destination_type": "volume", **more}
    return {**device, "uuid": uuid} if uuid else device


def bootable(stack: Stack) -> str:
    volume_id = stack.plane.make()
    stack.plane.call("POST", f"/volumes/{volume_id}/action", {"os-set_bootable": {"bootable": True}})
    return volume_id


def test_a_server_boots_from_a_volume_and_has_others(stack: Stack) -> None:
    root, data = bootable(stack), stack.plane.make()
    server_id = boot(
        stack,
        block_device_mapping_v2=[
            mapped("volume", root, boot_index=0),
            mapped("volume", data, boot_index=-1, tag="data"),
            mapped("blank", volume_size=2, delete_on_termination=True, boot_index=None),
        ],
    )
    stack.cloud.wait_state(server_id, "active")
    server = stack.api.get(f"/servers/{server_id}", as_=OWNER, version="2.96").json["server"]
    assert server["image"] == ""
    shown = server["os-extended-volumes:volumes_attached"]
    assert [each["id"] for each in shown[:2]] == [root, data]
    assert [each["delete_on_termination"] for each in shown] == [False, False, True]
    listed = stack.listed(server_id)
    assert [(each["device"], each["tag"]) for each in listed] == [
        ("/dev/vda", None),
        ("/dev/vdb", "data"),
        ("/dev/vdc", None),
    ]
    assert all(each["attachment_id"] for each in listed)
    made = shown[2]["id"]
    volume = stack.plane.show(made)
    assert (volume["size"], volume["name"]) == (2, f"{server_id}-blank-vol")
    assert volume["os-vol-tenant-attr:tenant_id"] == "project-1"
    assert stack.cloud.allocations()[server_id] == {"VCPU": 1, "MEMORY_MB": 64}
    stack.detach(server_id, root, status=400)
    stack.api.delete(f"/servers/{server_id}", as_=OWNER)
    stack.cloud.wait_state(server_id, "deleted")
    wait_for(lambda: made not in stack.plane.volumes(), "the volume goes with its server")
    assert {root, data} <= set(stack.plane.volumes())


def test_volumes_are_made_from_snapshots_and_copied_per_server(stack: Stack) -> None:
    source = bootable(stack)
    snapshot = {"snapshot": {"volume_id": source, "name": "s"}}
    snapshot_id = stack.plane.call("POST", "/snapshots", snapshot)["snapshot"]["id"]
    settle(stack.cloud)
    before = set(stack.plane.volumes())
    device = mapped("snapshot", snapshot_id, boot_index=0, delete_on_termination=True)
    boot(stack, min_count=2, max_count=2, block_device_mapping_v2=[device])
    settle(stack.cloud)
    made = {id_: row for id_, row in stack.plane.volumes().items() if id_ not in before}
    assert len(made) == 2
    owners = {row["attachments"][0]["server_id"] for row in made.values()}
    assert len(owners) == 2 and {row["status"] for row in made.values()} == {"in-use"}
    for server_id in owners:
        stack.cloud.delete(server_id)
    wait_for(lambda: not set(made) & set(stack.plane.volumes()), "volumes go with their servers")
    stack.plane.call("DELETE", f"/snapshots/{snapshot_id}")
    settle(stack.cloud)


def test_the_older_syntax(stack: Stack) -> None:
    root, data = bootable(stack), stack.plane.make()
    server_id = boot(
        stack,
        block_device_mapping=[
            {"device_name": "vda", "volume_id": root, "delete_on_termination": True},
            {"device_name": "/dev/vdd", "volume_id": data},
        ],
    )
    stack.cloud.wait_state(server_id, "active")
    assert [(each["volumeId"], each["device"]) for each in stack.listed(server_id)] == [
        (root, "/dev/vda"),
        (data, "/dev/vdd"),
    ]
    stack.cloud.delete(server_id)
    wait_for(lambda: root not in stack.plane.volumes(), "the volume goes with its server")


UNKNOWN = "11111111-2222-3333-4444-555555555555"


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        ([mapped("volume", UNKNOWN, boot_index=0)], f"failed to get volume {UNKNOWN}"),
        ([mapped("snapshot", UNKNOWN, boot_index=0)], f"failed to get snapshot {UNKNOWN}"),
        ([mapped("image", UNKNOWN, boot_index=0, volume_size=1)], UNKNOWN),
        ([mapped("image", UNKNOWN, boot_index=0)], "non-zero size"),
        ([mapped("blank", boot_index=0)], "non-zero size"),
        ([mapped("blank", boot_index=1, volume_size=1)], "Boot sequence"),
        ([mapped("blank", boot_index=0, volume_size=1, disk_bus="floppy")], "disk bus"),
        ([mapped("blank", boot_index=0, volume_size=1, volume_type="none")], "none"),
    ],
)
def test_what_can_not_be_mapped(stack: Stack, devices: list[dict[str, Any]], words: str) -> None:
    before = set(stack.plane.volumes())
    assert words in boot(stack, 400, block_device_mapping_v2=devices)
    settle(stack.cloud)
    assert set(stack.plane.volumes()) == before


def test_a_volume_that_does_not_boot_or_is_not_free(stack: Stack) -> None:
    data, root = stack.plane.make(), bootable(stack)
    assert "is not bootable" in boot(
        stack, 400, block_device_mapping_v2=[mapped("volume", data, boot_index=0)]
    )
    two = [mapped("volume", root, boot_index=0)]
    assert "multiple instances" in boot(stack, 400, max_count=2, block_device_mapping_v2=two)
    server_id = boot(stack, block_device_mapping_v2=two)
    stack.cloud.wait_state(server_id, "active")
    assert "status must be available" in boot(stack, 400, block_device_mapping_v2=two)
    stack.cloud.delete(server_id)


def test_a_server_that_never_got_a_host_leaves_no_volumes(stack: Stack) -> None:
    """No host is large enough: it is in error, with its volume, until it is deleted."""
    flavor = {"name": "huge", "id": "2", "ram": 64, "vcpus": 1, "disk": 0}
    flavor["OS-FLV-EXT-DATA:ephemeral"] = 100_000
    stack.api.post("/flavors", {"flavor": flavor}, as_=ADMIN)
    device = mapped("image", stack.image_id, boot_index=0, volume_size=1, delete_on_termination=True)
    before = set(stack.plane.volumes())
    server_id = boot(stack, flavorRef="2", block_device_mapping_v2=[device])
    stack.cloud.wait_state(server_id, "error")
    settle(stack.cloud)
    (made,) = set(stack.plane.volumes()) - before
    stack.cloud.delete(server_id)
    wait_for(lambda: made not in stack.plane.volumes(), "the volume goes with its server")


def test_a_volume_that_can_not_be_made_fails_the_server(stack: Stack) -> None:
    """It says so, gives its host back, and the deletion leaves nothing."""
    device = mapped("blank", boot_index=0, volume_size=1, delete_on_termination=True)
    with stack.broken_backend():
        server_id = boot(stack, block_device_mapping_v2=[device])
        stack.cloud.wait_state(server_id, "error")
    assert "status is error" in stack.cloud.server(server_id)["fault"]["message"]
    assert server_id not in stack.cloud.allocations()
    stack.cloud.delete(server_id)
    settle(stack.cloud)


def test_snapshots_that_the_servers_host_takes(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a backend that can't take them while a guest has the volume open."""
    server_id, volume_id = stack.server(), stack.plane.make()
    stack.attach(server_id, volume_id)
    stack.plane.wait(volume_id, "in-use")
    settle(stack.cloud)
    taken: list[str] = []
    monkeypatch.setattr(BackendDriver, "snapshots_by_hosts", lambda _self, _volume: True)
    monkeypatch.setattr(BackendDriver, "prepare_copy", lambda _self, snapshot: f"/new/{snapshot.id}.part")

    def take(self: BackendDriver, snapshot: Any) -> Any:
        taken.append(snapshot.id)
        return self.create_snapshot(snapshot)

    monkeypatch.setattr(BackendDriver, "take_copy", take)
    asked = {"snapshot": {"volume_id": volume_id, "name": "s", "force": True}}

    def snapshot(status: str) -> str:
        made = stack.plane.call("POST", "/snapshots", asked)["snapshot"]["id"]
        path = f"/snapshots/{made}"

        def now() -> str:
            return str(stack.plane.call("GET", path)["snapshot"]["status"])

        wait_for(lambda: now() == status, f"the snapshot is {status}", 60, now)
        return str(made)

    first = snapshot("available")
    assert taken == [first]
    # its host does its part once, however often it is asked
    info = {"snapshot_id": first, "type": "copy", "new_file": "/new/again.part"}
    body = {"snapshot": {"volume_id": volume_id, "create_info": info}}
    path = "/os-assisted-volume-snapshots"
    assert stack.api.post(path, body, as_=ADMIN, status=200).json["snapshot"]["volumeId"] == volume_id
    stack.api.post(path, body, as_=OWNER, status=403)
    info["type"] = "qcow2"
    stack.api.post(path, body, as_=ADMIN, status=400)
    kinds = [row["kind"] for row in stack.cloud.intents(server_id)]
    assert kinds.count("server.snapshot_volume") == 1

    def fail(*_args: Any) -> None:
        raise DriverError("the host's disk is full")

    monkeypatch.setattr(SimulatedDriver, "snapshot_volume", fail)
    second = snapshot("error")
    assert taken == [first]
    for each in (first, second):
        stack.plane.call("DELETE", f"/snapshots/{each}")
    stack.cloud.delete(server_id)
    settle(stack.cloud)


def test_a_volume_backed_server_is_copied_by_snapshots(stack: Stack) -> None:
    """Its image has no data; a server made from it has volumes of its own."""
    devices = [
        mapped("image", stack.new_image(), boot_index=0, volume_size=1, delete_on_termination=True),
        mapped("blank", volume_size=1, delete_on_termination=True, boot_index=-1, tag="data"),
    ]
    first = boot(stack, block_device_mapping_v2=devices)
    stack.cloud.wait_state(first, "active")
    action = {"createImage": {"name": "copy", "metadata": {"k": "v"}}}
    path = f"/servers/{first}/action"
    image_id = stack.api.post(path, action, as_=OWNER, version="2.45", status=202).json["image_id"]
    image = stack.image(image_id)
    assert (image["status"], image["size"], image["k"], image["bdm_v2"]) == ("active", 0, "v", "True")
    mapping = json.loads(image["block_device_mapping"])
    assert [(each["source_type"], each["boot_index"], each["tag"]) for each in mapping] == [
        ("snapshot", 0, None),
        ("snapshot", -1, "data"),
    ]
    settle(stack.cloud)
    actions = stack.api.get(f"/servers/{first}/os-instance-actions", as_=OWNER).json["instanceActions"]
    assert actions[0]["action"] == "createImage"
    second = boot(stack, imageRef=image_id)
    stack.cloud.wait_state(second, "active")
    listed = stack.listed(second)
    assert [(each["device"], each["tag"]) for each in listed] == [("/dev/vda", None), ("/dev/vdb", "data")]
    for each, snapshot in zip(listed, mapping, strict=True):
        assert stack.plane.show(each["volumeId"])["snapshot_id"] == snapshot["snapshot_id"]
    shown = stack.api.get(f"/servers/{second}", as_=OWNER).json["server"]
    assert shown["image"] == ""
    for server_id in (first, second):
        stack.cloud.delete(server_id)
    settle(stack.cloud)
    for each in mapping:
        stack.plane.call("DELETE", f"/snapshots/{each['snapshot_id']}")
    settle(stack.cloud)
