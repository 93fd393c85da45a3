"""Images on the host: fetched once, verified, inspected; config drives that can be read back."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pycdlib
import pytest

from compute.drivers.base import GuestImage
from compute.drivers.libvirt import config_drive
from compute.drivers.libvirt.disks import Disks
from compute.drivers.libvirt.images import ImageCache
from core.errors import BadRequest, DriverError
from core.qemu_img import check_content, info
from tests.compute.drivers.libvirt.test_domain_xml import make_conf
from tests.compute.drivers.specs import make_guest, make_image
from tests.lab import guests

needs_qemu_img = pytest.mark.skipif(
    bool(guests.shutil.which("qemu-img") is None), reason="qemu-img is not installed (qemu-utils)"
)


def qcow2(path: Path, *options: str, size: str = "8M") -> bytes:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, str(path), size], check=True)
    return path.read_bytes()


def test_a_damaged_download_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    image = make_image(b"right", disk_format="raw")
    cache = ImageCache(make_conf(), tmp_path)
    with pytest.raises(DriverError, match="damaged"):
        cache.ensure(image, lambda _image: iter([b"wrong"]))
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


def test_concurrent_boots_fetch_once(tmp_path: Path) -> None:
    content, calls = bytes(1 << 20), []
    image = make_image(content, disk_format="raw")

    def fetch(_image: GuestImage) -> Iterator[bytes]:
        calls.append(1)
        time.sleep(0.1)
        yield content

    caches = [ImageCache(make_conf(), tmp_path) for _ in range(6)]
    threads = [threading.Thread(target=cache.ensure, args=(image, fetch)) for cache in caches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    path, fmt = caches[0].base(image)
    assert (path.read_bytes(), fmt) == (content, "raw")


@needs_qemu_img
def test_content_must_be_what_the_format_says(tmp_path: Path) -> None:
    file = tmp_path / "image"
    qcow2(file)
    assert check_content(file, "qcow2") == "qcow2"
    with pytest.raises(BadRequest, match="content is qcow2, but its disk_format says raw"):
        check_content(file, "raw")
    with pytest.raises(BadRequest, match="ami"):
        check_content(file, "ami")


@needs_qemu_img
def test_an_image_with_a_backing_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "image"
    (tmp_path / "secret").write_bytes(bytes(1 << 20))
    qcow2(file, "-b", str(tmp_path / "secret"), "-F", "raw")
    with pytest.raises(BadRequest, match="not safe"):
        check_content(file, "qcow2")


@needs_qemu_img
def test_root_disks_are_overlays_of_the_flavors_size(tmp_path: Path) -> None:
    conf = make_conf()
    cache = ImageCache(conf, tmp_path / "_base")
    content = qcow2(tmp_path / "image", size="512M")
    image = make_image(content)
    cache.ensure(image, lambda _image: iter([content]))
    disks = Disks(conf, tmp_path, cache)
    guest = make_guest(image=image, root_gib=2, swap_mib=16, ephemeral_gib=1, config_drive=True)
    disks.create(guest)
    before = [disk.path.stat().st_mtime_ns for disk in disks.of(guest)]
    disks.create(guest)
    found = disks.of(guest)
    assert [disk.path.stat().st_mtime_ns for disk in found] == before
    assert [disk.role for disk in found] == ["root", "ephemeral", "swap", "config"]
    facts = info(conf, found[0].path, "qcow2")
    assert facts["virtual-size"] == 2 << 30
    assert facts["full-backing-filename"] == str(cache.base(image)[0])
    assert facts["backing-filename-format"] == "qcow2"
    assert disks.bases_in_use() == {str(cache.base(image)[0])}
    assert cache.expire(disks.bases_in_use()) == []
    disks.remove(guest.server_id)
    disks.remove(guest.server_id)
    assert not disks.folder(guest.server_id).exists()


@needs_qemu_img
def test_local_disks_are_made_as_they_were_asked_for(tmp_path: Path) -> None:
    conf = make_conf()
    disks = Disks(conf, tmp_path, ImageCache(conf, tmp_path / "_base"))
    wanted: tuple[dict[str, Any], ...] = (
        {"kind": "ephemeral", "size_mib": 16, "guest_format": "ext2"},
        {"kind": "ephemeral", "size_mib": 16},
        {"kind": "swap", "size_mib": 4, "disk_bus": "scsi"},
        {"kind": "blank", "size_mib": 3},
    )
    volume = {"volume_id": "v", "boot_index": 0}
    guest = make_guest(local_disks=wanted, volumes=(volume,), ephemeral_gib=7)
    disks.create(guest)
    found = disks.of(guest)
    names = ["ephemeral.raw", "ephemeral1.raw", "swap.raw", "blank.raw"]
    assert [disk.path.name for disk in found] == names, "and no root disk, since it boots from a volume"
    assert [disk.path.stat().st_size >> 20 for disk in found] == [16, 16, 4, 3]
    assert found[2].wishes["disk_bus"] == "scsi"
    magic = [disk.path.read_bytes()[1024 + 56 : 1024 + 58] == b"\x53\xef" for disk in found]
    assert magic == [True, True, False, False]
    assert found[2].path.read_bytes()[4086:4096] == b"SWAPSPACE2"
    assert not any(found[3].path.read_bytes())
    found[1].path.unlink()
    with pytest.raises(DriverError, match="no ephemeral disk"):
        disks.of(guest)
    odd = make_guest(local_disks=({"kind": "ephemeral", "size_mib": 1, "guest_format": "zfs; rm"},))
    with pytest.raises(BadRequest, match="can't be formatted as 'zfs; rm'"):
        disks.create(odd)


@needs_qemu_img
def test_an_image_that_is_larger_than_the_flavors_disk_is_refused(tmp_path: Path) -> None:
    conf = make_conf()
    cache = ImageCache(conf, tmp_path / "_base")
    content = qcow2(tmp_path / "image", size="3G")
    image = make_image(content)
    cache.ensure(image, lambda _image: iter([content]))
    with pytest.raises(BadRequest, match="needs a disk of 3 GiB, the flavor's root disk has 2"):
        Disks(conf, tmp_path, cache).create(make_guest(image=image, root_gib=2))


def test_the_config_drive_can_be_read_back(tmp_path: Path) -> None:
    script = b"#!/bin/sh\necho hi\n"
    guest = make_guest(
        hostname="web",
        metadata={"role": "db"},
        key_name="k",
        public_key="ssh-ed25519 AAAA me",
        user_data=base64.b64encode(script).decode(),
        personality=({"path": "/etc/motd", "contents": base64.b64encode(b"hello").decode()},),
    )
    target = tmp_path / "config.iso"
    config_drive.write(target, guest)
    assert target.stat().st_mode & 0o077 == 0
    iso = pycdlib.PyCdlib()
    iso.open(str(target))
    assert iso.pvd.volume_identifier.decode().strip() == "config-2"

    def read(path: str) -> bytes:
        file = io.BytesIO()
        iso.get_file_from_iso_fp(file, rr_path=path)
        return file.getvalue()

    meta = json.loads(read("/openstack/latest/meta_data.json"))
    assert meta["uuid"] == guest.server_id
    assert meta["meta"] == {"role": "db"}
    assert meta["public_keys"] == {"k": "ssh-ed25519 AAAA me"}
    assert meta["files"] == [{"content_path": "/content/0000", "path": "/etc/motd"}]
    assert read("/openstack/latest/user_data") == script
    assert read("/openstack/content/0000") == b"hello"
    assert json.loads(read("/ec2/latest/meta-data.json"))["local-hostname"] == "web"
    iso.close()
