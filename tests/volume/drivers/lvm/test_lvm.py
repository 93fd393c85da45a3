"""The LVM driver: commands and reports here; volumes, snapshots and exports in a kernel guest (``inside.py``)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from core.errors import DriverError
from tests.lab import guests, kernel_guest
from volume.drivers.lvm import commands
from volume.drivers.lvm.commands import Group

_REPORT = """{"report": [{"lv": [
 {"lv_name":"volume-1", "lv_size":"1073741824", "pool_lv":"pool", "origin":"", "lv_device_open":"open",
  "lv_tags":"haneul_zero_from_1,other", "lv_attr":"Vwi-aotz--", "data_percent":"12.50",
  "metadata_percent":""},
 {"lv_name":"[lvol0_pmspare]", "lv_size":"4194304", "pool_lv":"", "origin":"", "lv_device_open":"",
  "lv_tags":"", "lv_attr":"ewi-------", "data_percent":"", "metadata_percent":""}]}]}"""


class Spoken:
    """Keeps the commands; answers with ``said``, or refuses with it."""

    def __init__(self, said: str = "", refuses: bool = False) -> None:
        self.commands: list[tuple[str, ...]] = []
        self.said, self.refuses = said, refuses

    def __call__(self, *arguments: str) -> str:
        self.commands.append(arguments)
        if self.refuses:
            raise DriverError("lvremove failed", cause=self.said)
        return self.said


def test_a_report_is_read() -> None:
    found = Group("vg", Spoken(_REPORT)).volumes()
    assert set(found) == {"volume-1", "lvol0_pmspare"}
    one = found["volume-1"]
    assert (one.size_bytes, one.pool, one.open, one.data_percent) == (1 << 30, "pool", True, 12.5)
    assert one.tags == {"haneul_zero_from_1", "other"}
    assert one.kind == "V"


def test_removing_what_is_gone_is_no_fault() -> None:
    Group("vg", Spoken('Failed to find logical volume "vg/volume-1"', refuses=True)).remove("volume-1")


def test_what_is_open_is_asked_for_again_and_then_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands.time, "sleep", lambda _seconds: None)
    spoken = Spoken("Logical volume vg/volume-1 in use.", refuses=True)
    with pytest.raises(DriverError):
        Group("vg", spoken).remove("volume-1")
    assert len(spoken.commands) > 1


def test_another_refusal_is_an_error_at_once() -> None:
    spoken = Spoken("Volume group vg is exported", refuses=True)
    with pytest.raises(DriverError):
        Group("vg", spoken).remove("volume-1")
    assert len(spoken.commands) == 1


def test_only_what_differs_is_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshots have to keep each piece that is written; what lies behind the source's end stays."""
    source, device = tmp_path / "source", tmp_path / "device"
    content = os.urandom(3 * commands.MIB + 4096)
    source.write_bytes(content)
    device.write_bytes(content[: commands.MIB] + b"other" + content[commands.MIB + 5 :] + b"tail" * 1024)
    written: list[int] = []
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda *all_: written.append(all_[2]) or pwrite(*all_))
    for _ in range(2):
        commands.equal(source, device)
    assert device.read_bytes() == content + b"tail" * 1024
    assert written == [commands.MIB]


ASKED_FOR = "HANEUL_KERNEL_TESTS"
_PROGRAMS = (
    ("lvs", "lvm2"),
    ("thin_check", "thin-provisioning-tools"),
    ("iscsid", "open-iscsi"),
    ("lsscsi", "lsscsi"),
    ("nvme", "nvme-cli"),
)


def in_a_guest(module: str, work: Path, timeout_s: float, memory: str = "1G") -> None:
    """All tests of a module beside this one, in a kernel guest with two empty disks; none may be skipped there."""
    if why := kernel_guest.missing(*_PROGRAMS):
        pytest.skip(why)
    said = kernel_guest.run(
        str(Path(__file__).with_name(module)),
        work=work,
        disks_gib=(16, 16),
        timeout_s=timeout_s,
        memory=memory,
    )
    assert " passed" in said
    assert " skipped" not in said, said


long = pytest.mark.skipif(
    not os.environ.get(ASKED_FOR), reason=f"many minutes of an emulated kernel: set {ASKED_FOR}=1"
)


@long
@pytest.mark.xdist_group("kernel-guest")
@pytest.mark.timeout(1800)
def test_volumes_and_exports_in_a_kernel_guest(tmp_path: Path) -> None:
    in_a_guest("inside.py", tmp_path, 1700)


@long
@pytest.mark.xdist_group("kernel-guest")
@pytest.mark.timeout(3700)
@pytest.mark.parametrize("module", ["inside_kills.py", "inside_encrypted.py"])
def test_kills_and_encryption_in_a_kernel_guest(module: str, tmp_path: Path) -> None:
    in_a_guest(module, tmp_path, 3600)


@long
@pytest.mark.xdist_group("kernel-guest")
@pytest.mark.timeout(3700)
def test_a_real_guest_on_exported_volumes(tmp_path: Path) -> None:
    if why := guests.missing():
        pytest.skip(why)
    guests.tiny_image()  # the kernel guest takes it from here
    in_a_guest("inside_guest.py", tmp_path, 3600, memory="3G")
