"""Content must be what it claims, and harmless."""

from __future__ import annotations

import io

import pytest

from image.inspect import ContentMismatch, Inspection, Verdict
from image.transfer import _full_chunk
from tests.image import samples


def inspect(data: bytes, disk_format: str, container_format: str = "bare", step: int = 1 << 20) -> Verdict:
    found = Inspection()

    class Dribble(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 0, step))

    body = Dribble(data)
    while chunk := _full_chunk(body):
        found.feed(chunk)
    return found.verdict(disk_format, container_format)


GOOD = [
    (samples.qcow2(7 << 20), "qcow2", "qcow2", 7 << 20),
    (samples.qcow2(7 << 20, version=2), "qcow2", "qcow2", 7 << 20),
    (samples.vmdk(3 << 20), "vmdk", "vmdk", 3 << 20),
    (samples.vmdk(3 << 20, kind="streamOptimized"), "vmdk", "vmdk", 3 << 20),
    (samples.vdi(5 << 20), "vdi", "vdi", 5 << 20),
    (samples.iso(64), "iso", "iso", 64 * 2048),
    (samples.iso(64, bootable=True), "iso", "iso", 64 * 2048),
    (samples.iso(64), "raw", "iso", 64 * 2048),
    (samples.partitioned(), "raw", "gpt", 65536),
    (samples.partitioned(), "gpt", "gpt", 65536),
    (samples.luks(), "raw", "luks", 65536),
    (b"anything at all", "raw", "raw", 15),
    (b"", "raw", "raw", 0),
    (b"anything at all", "ami", "raw", 15),
    (samples.partitioned(flag=0x13), "aki", "gpt", 65536),
]


@pytest.mark.parametrize("step", [1 << 20, 7])
@pytest.mark.parametrize(("data", "disk_format", "found", "virtual_size"), GOOD)
def test_what_matches_is_taken(
    data: bytes, disk_format: str, found: str, virtual_size: int, step: int
) -> None:
    assert inspect(data, disk_format, step=step) == Verdict(found, virtual_size)


BAD = [
    (samples.qcow2(backing_file="/etc/shadow"), "qcow2", "backing file"),
    (samples.qcow2(features=4), "qcow2", "data_file"),
    (samples.qcow2(features=1 << 40), "qcow2", "features"),
    (samples.qcow2(version=1), "qcow2", "version"),
    (samples.vmdk_descriptor(), "vmdk", "subformat"),
    (samples.vmdk(extent='RW 2048 FLAT "/etc/passwd" 0'), "vmdk", "extent"),
    (samples.vmdk(kind="monolithicFlat"), "vmdk", "subformat"),
    (samples.vmdk(extent=""), "vmdk", "extents"),
    (samples.partitioned(flag=0x13), "raw", "boot flag"),
    (samples.partitioned(kind=0), "raw", "no partitions"),
    (samples.luks(version=2), "raw", "LUKS version"),
    (b"no image at all", "qcow2", "qcow2 does not match"),
    (b"", "qcow2", "qcow2 does not match"),
    (b"x" * 70000, "iso", "iso does not match"),
    (samples.partitioned(), "iso", "iso does not match"),
    (samples.qcow2(), "raw", "raw does not match the content, which is qcow2"),
    (samples.vmdk(), "raw", "vmdk"),
    (samples.vmdk_descriptor(), "raw", "vmdk"),
    (samples.vdi(), "qcow2", "vdi"),
    (samples.qcow2(), "ami", "qcow2"),
    (samples.qcow2(backing_file="/etc/shadow")[:230], "raw", "begins as qcow2"),
]


@pytest.mark.parametrize("step", [1 << 20, 7])
@pytest.mark.parametrize(("data", "disk_format", "reason"), BAD)
def test_what_lies_or_is_dangerous_is_refused_with_the_reason(
    data: bytes, disk_format: str, reason: str, step: int
) -> None:
    with pytest.raises(ContentMismatch) as caught:
        inspect(data, disk_format, step=step)
    assert reason in caught.value.message
    assert caught.value.http_status == 415


def test_two_signatures_in_one_file_are_refused() -> None:
    data = bytearray(samples.iso(64))
    data[:4096] = samples.qcow2()[:4096]
    for claimed in ("iso", "qcow2", "raw"):
        with pytest.raises(ContentMismatch, match="several formats"):
            inspect(bytes(data), claimed)


def test_other_containers_hide_the_format_but_not_a_danger() -> None:
    assert inspect(b"a tar archive", "qcow2", "ova").format == "raw"
    with pytest.raises(ContentMismatch, match="backing file"):
        inspect(samples.qcow2(backing_file="/etc/shadow"), "raw", "ovf")


def test_a_partition_table_check_can_be_made_a_warning() -> None:
    found = Inspection()
    found.feed(samples.partitioned(kind=0))
    assert found.verdict("raw", nonfatal_checks=["mbr"]).format == "gpt"
