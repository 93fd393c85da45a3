"""The host's side of volumes, without a guest: records, checks, keys, what is told to storage."""

from __future__ import annotations

import base64
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest
from oslo_concurrency import processutils

from compute.drivers.libvirt import options, secret_values
from compute.drivers.libvirt.host_volumes import HostVolumes
from core import config
from core.errors import DriverError
from core.qemu_img import qemu_img


class NoSecrets:
    """libvirt's connection of a host without secrets."""

    def secretLookupByUUIDString(self, _identifier: str) -> Any:
        import libvirt

        error = libvirt.libvirtError("none")
        error.err = (libvirt.VIR_ERR_NO_SECRET, 0, "none", 0, "", None, None, 0, 0)
        raise error


@pytest.fixture
def host(tmp_path: Path) -> HostVolumes:
    conf = config.load(overrides={"state_path": str(tmp_path)})
    conf.register_opts(options.OPTS, group=options.GROUP)
    return HostVolumes(conf, "h1", tmp_path / "connections", NoSecrets, tmp_path / "locks")


def local(path: Path, fmt: str = "raw", **values: Any) -> dict[str, Any]:
    info = {"driver_volume_type": "local", "device_path": str(path), "format": fmt}
    made = {"volume_id": str(uuid.uuid4()), "attachment_id": str(uuid.uuid4()), "connection_info": info}
    return {**made, **values}


def test_connected_for_each_attachment(host: HostVolumes, tmp_path: Path) -> None:
    file = tmp_path / "volume"
    file.write_bytes(bytes(512))
    one = local(file)
    two = {**one, "attachment_id": str(uuid.uuid4())}
    host.disconnect(one)  # nothing is there: content
    for _ in range(2):
        host.connect(one)
    with pytest.raises(DriverError, match="not connected"):
        host.source(two)
    host.connect(two)
    assert host.claims() == {str(file): one["volume_id"]}
    for _ in range(2):
        host.disconnect(one)
    assert host.source(two).name == str(file)
    host.disconnect(two)
    assert host.claims() == {}
    assert list((tmp_path / "connections").iterdir()) == []


def test_what_can_not_be_reached_is_refused_by_name(host: HostVolumes, tmp_path: Path) -> None:
    gone = local(tmp_path / "gone")
    with pytest.raises(DriverError, match="has no file"):
        host.connect(gone)
    assert host.claims() == {}
    host.disconnect(gone)
    with pytest.raises(DriverError, match="'floppynet'"):
        host.connect({**gone, "connection_info": {"driver_volume_type": "floppynet"}})


def test_encrypted_bytes_are_nobodys_disk(host: HostVolumes, tmp_path: Path) -> None:
    """A guest would write over the header."""
    file = tmp_path / "volume"
    file.write_bytes(bytes(512))
    volume = local(file)
    host.connect(volume)
    volume["connection_info"]["encrypted"] = True
    for method in (host.connect, host.source):
        with pytest.raises(DriverError, match="no passphrase"):
            method(volume)


class Brick:
    """os-brick's connector, played: the host has devices, which are called otherwise at each login."""

    def __init__(self) -> None:
        self.logins: list[dict[str, Any]] = []
        self.logouts: list[tuple[dict[str, Any], Any]] = []
        self.fails = False

    def connect_volume(self, properties: dict[str, Any]) -> dict[str, Any]:
        if self.fails:
            raise processutils.ProcessExecutionError(
                cmd="iscsiadm --password hunter2", stderr="no route\n", exit_code=8
            )
        self.logins.append(properties)
        return {"type": "block", "path": f"/dev/sd{len(self.logins)}".encode(), "scsi_wwn": "1"}

    def disconnect_volume(self, properties: dict[str, Any], device: Any, force: bool) -> None:
        self.logouts.append((properties, device))

    def extend_volume(self, _properties: dict[str, Any]) -> int:
        return 3 << 30


def test_a_device_is_given_by_a_name_that_stays(host: HostVolumes, monkeypatch: pytest.MonkeyPatch) -> None:
    brick = Brick()
    monkeypatch.setattr(host, "_brick", lambda _protocol: brick)
    info = {
        "driver_volume_type": "iscsi",
        "target_iqn": "iqn.x",
        "auth_password": "hunter2",
        "encrypted": True,
    }
    volume = local(Path("/none"), connection_info=info, encryption={"format": "luks", "secret": "s"})
    monkeypatch.setattr(host, "_put_passphrase", lambda *_: None)  # no libvirt here
    brick.fails = True
    with pytest.raises(DriverError, match="no route") as caught:
        host.connect(volume)
    assert "hunter2" not in str(caught.value)
    brick.fails = False
    host.connect(volume)
    source = host.source(volume)
    assert source.kind == "block"
    assert str(Path(source.name).readlink()) == "/dev/sd1"
    host.connect(volume)  # the host was started anew
    assert host.source(volume) == source
    assert str(Path(source.name).readlink()) == "/dev/sd2"
    assert brick.logins[0] == {"target_iqn": "iqn.x", "auth_password": "hunter2"}
    assert host.claims() == {source.name: volume["volume_id"]}
    assert host.extend(volume) == 3 << 30
    record = Path(source.name).with_name("record.json")
    assert record.stat().st_mode & 0o077 == 0, "the password is nobody else's to read"
    for _ in range(2):
        host.disconnect(volume)
    assert brick.logouts == [(brick.logins[0], {"type": "block", "path": "/dev/sd2", "scsi_wwn": "1"})]
    assert not record.parent.exists()


def test_what_never_came_to_be_is_let_go_all_the_same(
    host: HostVolumes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash, or an error, between the login and the answer."""
    brick = Brick()
    brick.fails = True
    monkeypatch.setattr(host, "_brick", lambda _protocol: brick)
    volume = local(Path("/none"), connection_info={"driver_volume_type": "nvmeof", "vol_uuid": "u"})
    with pytest.raises(DriverError):
        host.connect(volume)
    host.disconnect(volume)
    assert brick.logouts == [({"vol_uuid": "u"}, None)]


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
def test_layers_must_be_the_backends_own_and_name_their_format(host: HostVolumes, tmp_path: Path) -> None:
    volumes, layers = tmp_path / "v" / "volumes", tmp_path / "v" / "layers"
    volumes.mkdir(parents=True)
    layers.mkdir()
    (tmp_path / "shadow").write_bytes(bytes(1 << 20))

    def make(name: str, below: Path, fmt: str) -> dict[str, Any]:
        qemu_img(
            host._conf, "create", "-q", "-f", "qcow2", "-b", str(below), "-F", fmt, str(volumes / name), "1M"
        )
        return local(volumes / name, "qcow2")

    qemu_img(host._conf, "create", "-q", "-f", "qcow2", str(layers / "good.qcow2"), "1M")
    host.connect(make("good", layers / "good.qcow2", "qcow2"))
    with pytest.raises(DriverError, match="none of the backend's"):
        host.connect(make("bad", tmp_path / "shadow", "raw"))
    (layers / "raw").write_bytes(bytes(1 << 20))
    with pytest.raises(DriverError, match="none of the backend's"):
        host.connect(make("raw", layers / "raw", "raw"))


def test_a_ceph_key_is_found_in_the_keyring_that_the_configuration_names(tmp_path: Path) -> None:
    key = base64.b64encode(b"the key").decode()
    (tmp_path / "prod.client.cinder.keyring").write_text(
        f'[client.cinder]\n\tkey = {key}\n\tcaps mon = "x"\n'
    )
    conf = tmp_path / "prod.conf"
    conf.write_text(f"[global]\nfsid = 1\nkeyring = {tmp_path}/none, {tmp_path}/$cluster.$name.keyring\n")
    assert secret_values.ceph_key(conf, "cinder") == b"the key"
    with pytest.raises(DriverError, match="client.nobody"):
        secret_values.ceph_key(conf, "nobody")


@pytest.mark.skipif(os.geteuid() != 0, reason="os-brick asks sudo otherwise")
def test_the_host_introduces_itself_to_storage(host: HostVolumes) -> None:
    found = host.connector()
    assert (found["host"], found["ip"], found["os_type"]) == ("h1", host._conf.my_ip, "linux")
    assert found["multipath"] is False
    assert found["do_local_attach"] is False
