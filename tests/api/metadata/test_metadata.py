"""The metadata service over real tables: who is answered, and what with."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import webtest

from api.compute.app import make_app as make_compute_app
from api.compute.services import ComputeServices
from api.metadata.app import make_app
from api.metadata.services import MetadataServices, read_vendor_data
from core import config
from core.errors import BadRequest
from core.metadata import signature
from tests.api.compute.conftest import Api, make_services
from tests.api.compute.server_tools import boot, make_flavor, place
from tests.api.identity import authenticate

SECRET = "between proxy and service"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKBrI2cOiJ7cEdEyJjVHPZ5rNTEOgnkPdyCS4rmWUVEd me"
NIC = {
    "port_id": "f2a1c0de-0000-0000-0000-000000000000",
    "network_id": "n1",
    "label": "net",
    "mac_address": "fa:16:3e:00:00:01",
    "device": "tapf2a1c0de-00",
    "mtu": 1450,
    "vif_type": "bridge",
    "tag": None,
    "addresses": [{"address": "10.0.0.5", "version": 4, "type": "fixed", "subnet_id": "s4"}],
    "subnets": [
        {"id": "s4", "cidr": "10.0.0.0/24", "ip_version": 4, "gateway_ip": "10.0.0.1", "enable_dhcp": True}
    ],
}


@pytest.fixture
def compute(tmp_path: Path) -> Iterator[ComputeServices]:
    made = make_services(tmp_path)
    yield made
    made.close()


@pytest.fixture
def api(compute: ComputeServices) -> Api:
    made = Api(webtest.TestApp(make_compute_app(compute.conf, compute, authenticate)))
    make_flavor(made)
    return made


@pytest.fixture
def services(compute: ComputeServices) -> Iterator[MetadataServices]:
    made = MetadataServices(compute.conf)
    config.override(compute.conf, "metadata.shared_secret", SECRET)
    yield made
    made.close()


class Guest:
    """Asks as the proxy on its host does."""

    def __init__(self, services: MetadataServices, server_id: str, project_id: str = "p1") -> None:
        self.app = webtest.TestApp(make_app(services.conf, services))
        self.id = server_id
        self.headers = {
            "X-Instance-ID": server_id,
            "X-Tenant-ID": project_id,
            "X-Instance-ID-Signature": signature(SECRET, server_id),
            "X-Forwarded-For": "10.0.0.5",
        }

    def get(self, path: str, status: int = 200) -> webtest.TestResponse:
        return self.app.get(path, headers=self.headers, status=status)

    def json(self, path: str) -> Any:
        answer = self.get(path)
        assert answer.content_type == "application/json"
        return answer.json

    def lines(self, path: str) -> list[str]:
        return str(self.get(path).text).split("\n")

    def refused(self, status: int, path: str = "/openstack/latest/meta_data.json", **headers: str) -> str:
        changed = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return str(self.app.get(path, headers=changed, status=status).text)


@pytest.fixture
def guest(api: Api, compute: ComputeServices, services: MetadataServices) -> Guest:
    api.post("/os-keypairs", {"keypair": {"name": "k", "public_key": KEY}})
    user_data = base64.b64encode(b"#!/bin/sh\necho hi\n").decode()
    server_id = boot(api, name="web", key_name="k", user_data=user_data, metadata={"role": "db"})
    place(compute, server_id, network_info=[NIC], ephemeral_gib=1)
    return Guest(services, server_id)


def test_who_is_not_vouched_for_learns_nothing(guest: Guest) -> None:
    assert "Invalid proxy request signature" in guest.refused(403, X_Instance_ID_Signature="0" * 64)
    guest.refused(403, X_Instance_ID_Signature="")
    guest.refused(403, X_Instance_ID_Signature="\xe4")
    # another server's signature
    guest.refused(403, X_Instance_ID_Signature=signature(SECRET, "70a599e0-31e7-49b7-b260-868f441e862b"))
    assert "X-Instance-ID header is missing" in guest.refused(400, X_Instance_ID="")
    assert "X-Tenant-ID header is missing" in guest.refused(400, X_Tenant_ID="")
    assert "Multiple X-Instance-ID" in guest.refused(400, X_Instance_ID=f"{guest.id},{guest.id}")
    # the right server of the wrong project
    guest.refused(404, X_Tenant_ID="p2")
    for strange in ("70a599e0-31e7-49b7-b260-868f441e862b", "no uuid"):
        guest.refused(404, X_Instance_ID=strange, X_Instance_ID_Signature=signature(SECRET, strange))


def test_an_empty_secret_answers_nobody(guest: Guest, services: MetadataServices) -> None:
    config.override(services.conf, "metadata.shared_secret", "")
    guest.refused(403, X_Instance_ID_Signature=signature("", guest.id))


def test_openstack_documents(guest: Guest) -> None:
    versions = guest.lines("/openstack")
    assert versions[0] == "2012-08-10" and versions[-1] == "latest"
    for version in versions:
        names = guest.lines(f"/openstack/{version}/")
        for name in names:
            guest.get(f"/openstack/{version}/{name}")
    data = guest.json("/openstack/latest/meta_data.json")
    assert data["uuid"] == guest.id
    assert (data["name"], data["hostname"], data["launch_index"]) == ("web", "web", 0)
    assert data["availability_zone"] == "nova"
    assert data["project_id"] == "p1"
    assert data["meta"] == {"role": "db"}
    assert data["public_keys"] == {"k": KEY}
    assert len(base64.b64decode(data["random_seed"])) == 512
    assert "admin_pass" not in data
    assert guest.get("/openstack/latest/user_data").body == b"#!/bin/sh\necho hi\n"
    assert guest.json("/openstack/latest/vendor_data.json") == {}
    network = guest.json("/openstack/2018-08-27/network_data.json")
    assert network["links"][0]["ethernet_mac_address"] == "fa:16:3e:00:00:01"
    for path in ("/openstack/2000-01-01", "/openstack/latest/nothing", "/openstack/latest/user_data/x",
                 "/openstack/2012-08-10/network_data.json", "/openstack/../etc"):  # fmt: skip
        guest.get(path, status=404)


def test_ec2_tree_can_be_walked_whole(guest: Guest) -> None:
    """As cloud-init does: a name with a slash is a folder, public keys are NUMBER=NAME."""

    def walk(path: str) -> None:
        for name in guest.lines(path):
            if name.endswith("/"):
                walk(path + name)
            elif "=" in name:
                walk(f"{path}{name.partition('=')[0]}/")
            elif name:
                found[f"{path}{name}"] = guest.get(f"{path}{name}").text

    versions = guest.lines("/")
    assert versions == guest.lines("/ec2")
    for version in versions:
        found: dict[str, str] = {}
        walk(f"/{version}/")
        base = f"/{version}/meta-data/"
        assert found[base + "local-ipv4"] == "10.0.0.5"
        assert found[base + "hostname"] == "web"
        assert found[f"/{version}/user-data"] == "#!/bin/sh\necho hi\n"
        assert found[base + "public-keys/0/openssh-key"] == KEY
    assert found[base + "placement/availability-zone"] == "nova"
    assert found[base + "instance-type"] == "m1.tiny"
    assert found[base + "block-device-mapping/ephemeral0"] == "/dev/vdb"
    assert found[base + "security-groups"] == "default"
    assert guest.get("/latest/meta-data/hostname").content_type == "text/plain"
    for path in ("/2000-01-01", "/latest/nothing", "/latest/meta-data/hostname/x",
                 "/latest/meta-data/public-keys/0/_name"):  # fmt: skip
        guest.get(path, status=404)


def test_a_password_is_left_once_and_cleared_by_the_owner(guest: Guest, api: Api) -> None:
    path = "/openstack/2013-04-04/password"

    def leave(body: bytes, status: int) -> None:
        guest.app.post(path, body, headers=guest.headers, status=status)

    assert guest.get(path).body == b""
    for wrong in (b"", b"x" * 1021, b"\xff\xfe", b"a\0b"):
        leave(wrong, 400)
    leave(b"ZW5jcnlwdGVk\n", 200)
    assert guest.get(path).body == b"ZW5jcnlwdGVk\n"
    assert api.get(f"/servers/{guest.id}/os-server-password").json == {"password": "ZW5jcnlwdGVk\n"}
    leave(b"another", 409)
    api.delete(f"/servers/{guest.id}/os-server-password", status=204)
    leave(b"another", 200)
    # what the owner chose meanwhile is kept
    assert guest.json("/openstack/latest/meta_data.json")["meta"] == {"role": "db"}
    guest.app.put(path, b"x", headers=guest.headers, status=405)
    guest.app.post("/openstack/latest/meta_data.json", b"x", headers=guest.headers, status=405)
    guest.app.post("/openstack/2012-08-10/password", b"x", headers=guest.headers, status=405)


def test_a_server_without_extras(api: Api, compute: ComputeServices, services: MetadataServices) -> None:
    bare = Guest(services, boot(api, name="bare"))
    # not placed yet: its row is the global database's
    data = bare.json("/openstack/latest/meta_data.json")
    assert "public_keys" not in data and "meta" not in data
    assert data["availability_zone"] == "nova"
    bare.get("/openstack/latest/user_data", status=404)
    bare.get("/latest/user-data", status=404)
    assert "public-keys/" not in bare.lines("/latest/meta-data/")
    assert bare.lines("/latest") == ["meta-data/"]
    place(compute, bare.id)
    assert bare.json("/openstack/latest/meta_data.json")["name"] == "bare"
    api.delete(f"/servers/{bare.id}", status=204)


def test_a_deleted_server_is_gone(api: Api, services: MetadataServices) -> None:
    unplaced = Guest(services, boot(api, name="short"))
    unplaced.get("/openstack")
    api.delete(f"/servers/{unplaced.id}", status=204)
    unplaced.get("/openstack", status=404)


def test_vendor_data_is_the_operators(guest: Guest, services: MetadataServices, tmp_path: Path) -> None:
    file = tmp_path / "vendor.json"
    file.write_text(json.dumps({"cloud": "ours"}))
    services.vendor_data = read_vendor_data(str(file))
    assert guest.json("/openstack/latest/vendor_data.json") == {"cloud": "ours"}
    assert guest.json("/openstack/latest/vendor_data2.json") == {"static": {"cloud": "ours"}}
    for wrong in ("[1]", "{"):
        file.write_text(wrong)
        with pytest.raises(BadRequest, match=r"vendor\.json"):
            read_vendor_data(str(file))
    with pytest.raises(BadRequest, match="can't be read"):
        read_vendor_data(str(tmp_path / "none"))
