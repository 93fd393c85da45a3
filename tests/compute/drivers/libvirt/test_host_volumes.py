"""The host's side of volumes, without a guest: records, checks, keys, what is told to storage."""

from __future__ import annotations

import base64
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest

from compute.drivers.libvirt import options, secret_values
from compute.drivers.libvirt.host_volumes import HostVolumes
from compute.drivers.libvirt.images import qemu_img
from core import config
from core.errors import DriverError


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
