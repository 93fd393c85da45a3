"""Imports that unpack, convert and describe what they import; and data that would like to break out."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from core import config, qemu_img
from core.errors import DriverError
from tests.image.test_imports import Glance
from tests.image.test_imports import glance as glance

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is missing")
MIB = 1 << 20
DISK = os.urandom(MIB) + bytes(3 * MIB)


def configure(glance: Glance, *plugins: str, **options: Any) -> None:
    conf = glance.services.conf
    config.override(conf, "image_import_opts.image_import_plugins", list(plugins))
    for name, value in options.items():
        config.override(conf, name.replace("__", "."), value)


def qcow2(folder: Path, *options: str, data: bytes = DISK) -> bytes:
    source, target = folder / "disk.raw", folder / "disk.qcow2"
    source.write_bytes(data)
    command = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, str(source), str(target)]
    subprocess.run(command, check=True)
    return target.read_bytes()


def zipped(**members: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return made.getvalue()


def imported(glance: Glance, data: bytes, disk_format: str, container_format: str = "bare") -> dict[str, Any]:
    image_id = glance.staged(data, disk_format=disk_format, container_format=container_format)
    glance.import_(image_id, "glance-direct", all_stores=True)
    glance.work()
    return glance.show(image_id)


def left_over(glance: Glance) -> list[Path]:
    return list((Path(glance.services.conf.state_path) / "image-import").iterdir())


def test_a_disk_is_converted(glance: Glance, tmp_path: Path) -> None:
    configure(glance, "image_conversion")
    shown = imported(glance, qcow2(tmp_path), "qcow2")
    assert (shown["status"], shown["disk_format"], shown["stores"]) == ("active", "raw", "one,two")
    assert shown["size"] == shown["virtual_size"] == len(DISK)
    assert glance.api.get(f"/images/{shown['id']}/file").body == DISK
    assert left_over(glance) == []
    assert imported(glance, DISK, "raw")["disk_format"] == "raw"
    configure(glance, "image_conversion", image_conversion__output_format="qcow2")
    shown = imported(glance, DISK, "raw")
    assert (shown["status"], shown["disk_format"], shown["virtual_size"]) == ("active", "qcow2", len(DISK))


@pytest.mark.parametrize("pack", [gzip.compress, lambda data: zipped(disk=data)], ids=["gzip", "zip"])
def test_compressed_data_is_unpacked_and_converted(glance: Glance, tmp_path: Path, pack: Any) -> None:
    configure(glance, "image_conversion", "image_decompression")
    shown = imported(glance, pack(qcow2(tmp_path)), "qcow2", "compressed")
    assert (shown["status"], shown["disk_format"], shown["container_format"]) == ("active", "raw", "bare")
    assert glance.api.get(f"/images/{shown['id']}/file").body == DISK


@pytest.mark.parametrize(
    "data",
    [b"plain", gzip.compress(DISK)[:-100], zipped(a=b"1", b=b"2"), b"PK\x03\x04garbage", b"\x1f\x8bgarbage"],
    # named: of random bytes every process would make another name
    ids=["plain", "cut short", "two files", "no zip", "no gzip"],
)
def test_damaged_or_ambiguous_archives_are_refused(glance: Glance, data: bytes) -> None:
    configure(glance, "image_decompression")
    shown = imported(glance, data, "raw", "compressed")
    assert (shown["status"], shown["container_format"]) == ("uploading", "compressed")
    assert left_over(glance) == []


def test_a_bomb_stops_at_the_limit(glance: Glance) -> None:
    configure(glance, "image_decompression", image__image_size_cap=2 * MIB)
    shown = imported(glance, gzip.compress(bytes(64 * MIB)), "raw", "compressed")
    assert shown["status"] == "uploading" and "stores" not in shown
    assert "too large" in glance.task(shown["id"])["message"]
    assert left_over(glance) == []


def test_a_huge_virtual_disk_is_refused_before_it_is_written(glance: Glance, tmp_path: Path) -> None:
    huge = tmp_path / "huge.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(huge), "2T"], check=True)
    configure(glance, "image_conversion")
    shown = imported(glance, huge.read_bytes(), "qcow2")
    assert (shown["status"], shown["disk_format"]) == ("uploading", "qcow2")
    assert "too large" in glance.task(shown["id"])["message"]


def test_a_disk_that_names_another_file_is_never_opened(glance: Glance, tmp_path: Path) -> None:
    secret, evil = tmp_path / "secret", tmp_path / "evil.qcow2"
    secret.write_bytes(b"secret" * 1000 + bytes(512))
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(secret), "-F", "raw", str(evil), "4M"]
    subprocess.run(command, check=True)
    configure(glance, "image_conversion")
    shown = imported(glance, evil.read_bytes(), "qcow2")
    assert (shown["status"], shown["size"]) == ("uploading", evil.stat().st_size)
    assert glance.task(shown["id"])["status"] == "failure" and "stores" not in shown
    # and what lies about its format is not converted as what it really is
    shown = imported(glance, qcow2(tmp_path), "vmdk")
    assert (shown["status"], shown["disk_format"]) == ("uploading", "vmdk")


def test_a_failure_leaves_the_formats_as_they_were(
    glance: Glance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: Any) -> int:
        raise OSError("full")

    configure(glance, "image_conversion")
    with monkeypatch.context() as patch:
        patch.setattr(glance.role._data.stores.get("two"), "put", full)
        shown = imported(glance, qcow2(tmp_path), "qcow2")
    assert (shown["status"], shown["disk_format"]) == ("uploading", "qcow2")
    assert "stores" not in shown
    glance.import_(shown["id"], "glance-direct", stores=["two"])
    glance.work()
    shown = glance.show(shown["id"])
    assert (shown["status"], shown["disk_format"], shown["stores"]) == ("active", "raw", "two")


def test_properties_are_added_but_not_for_everyone(glance: Glance) -> None:
    configure(glance, "inject_image_metadata", inject_metadata_properties__inject={"source": "import"})
    assert imported(glance, DISK, "raw")["source"] == "import"
    config.override(glance.services.conf, "inject_metadata_properties.ignore_user_roles", ["member"])
    assert "source" not in imported(glance, DISK, "raw")


def test_no_conversion_writes_a_larger_file_than_is_allowed(glance: Glance, tmp_path: Path) -> None:
    big = tmp_path / "big.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(big), "2G"], check=True)
    glance.services.conf.register_opts(qemu_img.OPTS, group=qemu_img.GROUP)
    configure(glance, "image_conversion", qemu_img__file_size_gib=1)
    shown = imported(glance, big.read_bytes(), "qcow2")
    assert (shown["status"], shown["disk_format"]) == ("uploading", "qcow2")
    assert "qemu-img convert failed" in glance.task(shown["id"])["message"]
    assert left_over(glance) == []


@pytest.mark.parametrize(
    ("limit", "value", "work"),
    [
        # some minutes of work; and buffers of 256 MiB
        ("cpu_s", 1, ("-c", "100000000", "-d", "1", "-s", "512")),
        ("memory_mib", 64, ("-c", "16", "-d", "16", "-s", "16M")),
    ],
)
def test_qemu_img_ends_at_its_limits(
    glance: Glance, tmp_path: Path, limit: str, value: int, work: tuple[str, ...]
) -> None:
    disk, conf = tmp_path / "disk", glance.services.conf
    with disk.open("wb") as file:
        file.truncate(512 * MIB)
    small = ("bench", "-q", "-c", "1", "-f", "raw", str(disk))
    settings = {"cpu_s": 60, "memory_mib": 4096, limit: value}
    conf.register_opts(qemu_img.OPTS, group=qemu_img.GROUP)
    for name, number in settings.items():
        config.override(conf, f"qemu_img.{name}", number)
    qemu_img.qemu_img(conf, *small)
    with pytest.raises(DriverError, match="qemu-img bench failed"):
        qemu_img.qemu_img(conf, "bench", "-q", *work, "-f", "raw", str(disk))
    config.override(conf, f"qemu_img.{limit}", 4096)
    if limit == "memory_mib":
        qemu_img.qemu_img(conf, "bench", "-q", *work, "-f", "raw", str(disk))
