"""What content may be given to qemu-img, and under which name."""

from __future__ import annotations

from pathlib import Path

import pytest

from core import qemu_img
from core.errors import BadRequest
from tests.image import samples


def test_a_partitioned_disk_is_raw_to_qemu(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(samples.partitioned())
    assert qemu_img.check_content(disk, "gpt") == "raw"
    assert qemu_img.check_content(disk, "raw") == "raw"


@pytest.mark.parametrize("data", [b"no table" * 100, samples.qcow2(1 << 20)])
def test_what_has_no_partitions_is_no_gpt(tmp_path: Path, data: bytes) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(data)
    with pytest.raises(BadRequest, match="disk_format says gpt"):
        qemu_img.check_content(disk, "gpt")
