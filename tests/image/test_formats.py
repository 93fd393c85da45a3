"""Every disk format, with real files where qemu-img can make them: what is right is taken, all else refused with the reason."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from image.inspect import ContentMismatch, Inspection, Verdict
from tests.image import samples

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is missing")
SIZE = 4 << 20
FORMATS = ("ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop", "gpt")
MADE = {
    "qcow2": ("qcow2", ""),
    "qcow2-old": ("qcow2", "compat=0.10"),
    "vmdk-sparse": ("vmdk", "subformat=monolithicSparse"),
    "vmdk-stream": ("vmdk", "subformat=streamOptimized"),
    "vhd-dynamic": ("vpc", "subformat=dynamic"),
    "vhdx": ("vhdx", "subformat=dynamic"),
    "vdi": ("vdi", ""),
}
"""qemu-img's names and options; what is before "-" is our format."""
LIKE_RAW = {"raw", "ami", "ari", "aki", "ploop"}


def verdict(data: bytes, disk_format: str) -> Verdict:
    found = Inspection()
    for begin in range(0, len(data), 1 << 20):
        found.feed(data[begin : begin + (1 << 20)])
    return found.verdict(disk_format)


def real(folder: Path, name: str) -> bytes:
    kind, options = MADE[name]
    source, target = folder / "disk.raw", folder / "disk"
    source.write_bytes(b"\xa5" * (1 << 20) + bytes(SIZE - (1 << 20)))
    command = ["qemu-img", "convert", "-f", "raw", "-O", kind]
    command += ["-o", options] if options else []
    subprocess.run([*command, str(source), str(target)], check=True)
    return target.read_bytes()


@pytest.mark.parametrize("name", list(MADE))
def test_a_layout_is_only_what_it_is(name: str, tmp_path: Path) -> None:
    data, kind = real(tmp_path, name), name.partition("-")[0]
    # VHD rounds disks up to whole cylinders
    assert SIZE <= verdict(data, kind).virtual_size <= SIZE + (1 << 20)
    for claimed in FORMATS:
        if claimed != kind:
            with pytest.raises(ContentMismatch, match=kind):
                verdict(data, claimed)


@pytest.mark.parametrize(
    ("data", "taken"),
    [
        (b"\xa5" * 65536, LIKE_RAW),
        (samples.iso(64), {"raw", "iso"}),
        # kernels and RAM disks carry a boot signature that is no partition table
        (samples.partitioned(), {*LIKE_RAW, "gpt"}),
        (samples.luks(), LIKE_RAW),
    ],
    ids=["bytes", "iso", "partitions", "luks"],
)
def test_the_content_of_disks(data: bytes, taken: set[str]) -> None:
    for claimed in FORMATS:
        if claimed in taken:
            assert verdict(data, claimed).virtual_size == len(data)
            continue
        with pytest.raises(ContentMismatch, match=f"disk_format {claimed} does not match"):
            verdict(data, claimed)
