"""The LVM driver on a kernel with device-mapper, LIO and nvmet; ``test_lvm.py`` runs this in a guest.

Two empty disks: /dev/vda holds the group of thick volumes, /dev/vdb the one of thin ones.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from os_brick import privileged
from os_brick.initiator import connector as brick
from oslo_config import cfg

from core import config
from core.errors import BadRequest, Conflict, DriverError
from tests.lab import kernel_guest
from tests.volume.drivers.contract import MIB, Contract, read, snapshot_of, volume, write
from volume.drivers.base import Volume
from volume.drivers.lvm import commands
from volume.drivers.lvm.driver import LvmDriver

pytestmark = pytest.mark.skipif(not kernel_guest.inside(), reason="run in a kernel guest by test_lvm.py")
_GROUPS = {"thick": "/dev/vda", "thin": "/dev/vdb"}
_MODULES = ("dm-thin-pool", "dm-snapshot", "target_core_mod", "iscsi_target_mod", "target_core_iblock",
            "iscsi_tcp", "nvmet", "nvmet-tcp", "nvme-tcp")  # fmt: skip
_started: set[str] = set()
_IQN = "iqn.2026-11.org.example:here"
_NQN = "nqn.2014-08.org.nvmexpress:uuid:6a1e1d1c-0000-4000-8000-00000000beef"


_LVM_CONF = Path("/run/lvm-conf/lvm.conf")
"""in place of the host's; without udev LVM makes its devices' names itself, at a fifth of the time"""
_NO_UDEV = """devices { obtain_device_list_from_udev = 0 }
activation { udev_sync = 0 udev_rules = 0 }
"""


@dataclasses.dataclass(frozen=True)
class Small(Volume):
    """For what is copied often: a "GiB" of it is 8 MiB."""

    def bytes_of(self, size_gib: int) -> int:
        return size_gib * 8 * MIB + self.header_bytes


def small(size_gib: int = 1, **more: Any) -> Small:
    return Small(id=str(uuid.uuid4()), size_gib=size_gib, **more)


def sh(*arguments: str) -> str:
    return subprocess.run(
        arguments, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ).stdout


@pytest.fixture(scope="session", autouse=True)
def groups() -> None:
    os.environ |= {"LVM_SUPPRESS_FD_WARNINGS": "1", "LVM_SYSTEM_DIR": str(_LVM_CONF.parent)}
    _LVM_CONF.parent.mkdir()
    _LVM_CONF.write_text(_NO_UDEV)
    for module in _MODULES:
        sh("modprobe", module)
    for kind, disk in _GROUPS.items():
        # bytes of somebody else's, where the first volumes will come to lie
        with Path(disk).open("r+b") as file:
            for at in range(0, 4 << 30, 64 * MIB):
                file.seek(at)
                file.write(b"old!" * (MIB // 4))
        sh("pvcreate", "-ffy", disk)
        sh("vgcreate", kind, disk)


def made(tmp_path: Path, kind: str, **more: Any) -> LvmDriver:
    conf = config.load()
    config.override(conf, "state_path", str(tmp_path))
    LvmDriver(conf, kind)
    for name, value in {"volume_group": kind, "lvm_type": kind, **more}.items():
        config.override(conf, f"{kind}.{name}", str(value))
    return LvmDriver(conf, kind)


@pytest.fixture
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LvmDriver]:
    driver = made(tmp_path, request.param)
    if request.param not in _started:  # each command takes an emulated processor its time
        driver.start()
        _started.add(request.param)
    yield driver
    left = [name for name in driver._group.volumes() if name.startswith(("volume-", "new-", "_snapshot"))]
    for name in left:
        driver._target.remove(name)
        driver._group.remove(name)
    driver.close()
    assert not left, "a test left something behind"


both = pytest.mark.parametrize("driver", ["thick", "thin"], indirect=True)


@both
class TestContract(Contract):
    """Thick and thin volumes keep the contract."""

    connector = {"host": "here", "initiator": _IQN, "nqn": _NQN, "ip": "127.0.0.1"}  # noqa: RUF012


@both
def test_the_end_of_an_encrypted_volume_is_copied_too(driver: LvmDriver) -> None:
    """A header makes devices larger than whole GiB: nothing of the content is cut off or zeroed."""
    header = 3 * MIB - 4096  # not a whole number of extents
    made, copy, later = (small(header_bytes=header) for _ in range(3))
    end = made.size_bytes - 4096
    driver.create(made)
    write(driver, made, b"the end", at=end)
    snapshot = snapshot_of(made)
    driver.create_snapshot(snapshot)
    write(driver, made, b"changed", at=end)
    driver.clone(copy, made)
    driver.create_from_snapshot(later, snapshot)
    driver.revert(made, snapshot)
    assert [read(driver, each, 7, at=end) for each in (made, copy, later)] == [
        b"the end",
        b"changed",
        b"the end",
    ]
    driver.delete_snapshot(snapshot)
    driver.extend(made, 2)
    grown = dataclasses.replace(made, size_gib=2)
    assert read(driver, grown, 7, at=end) == b"the end"
    with driver.open(grown) as file:
        length = file.seek(0, 2)
        assert length >= grown.size_bytes
        file.seek(end + 4096)
        assert file.read(MIB) == bytes(MIB)
        file.seek(length - MIB)
        assert file.read(MIB) == bytes(MIB)
    for each in (grown, copy, later):
        driver.delete(each)


@pytest.mark.parametrize("driver", ["thick"], indirect=True)
def test_a_thick_volume_never_shows_old_bytes(driver: LvmDriver) -> None:
    """Neither a new one, nor what an extension adds, nor behind the end of an image or a snapshot."""
    first = volume()
    driver.create(first)
    for at in range(0, 1 << 30, 64 * MIB):
        assert read(driver, first, MIB, at=at) == bytes(MIB)
        write(driver, first, b"secret" * 1000, at=at)
    driver.delete(first)
    again = volume()
    driver.create(again)
    assert all(read(driver, again, MIB, at=at) == bytes(MIB) for at in range(0, 1 << 30, 64 * MIB))
    for at in range(0, 1 << 30, 64 * MIB):
        write(driver, again, b"secret" * 1000, at=at)
    small = volume()
    driver.create(small)
    driver.delete(again)
    driver.extend(small, 2)
    grown = Volume(id=small.id, size_gib=2)
    assert all(read(driver, grown, MIB, at=at) == bytes(MIB) for at in range(0, 2 << 30, 64 * MIB))
    driver.delete(grown)


@pytest.mark.parametrize("driver", ["thick"], indirect=True)
def test_an_extension_that_was_cut_short_is_made_good(
    driver: LvmDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = volume()
    driver.create(small)

    def dies(*_: Any) -> None:
        raise RuntimeError("the power is gone")

    with monkeypatch.context() as patch:
        patch.setattr(commands, "zero", dies)
        with pytest.raises(RuntimeError):
            driver.extend(small, 2)
    grown = Volume(id=small.id, size_gib=2)
    write(driver, grown, b"old bytes", at=(2 << 30) - MIB)
    driver.extend(small, 2)
    assert read(driver, grown, MIB, at=(2 << 30) - MIB) == bytes(MIB)
    assert not driver._group.volumes()[small.name].tags
    driver.delete(grown)


@both
def test_a_copy_that_was_cut_short_is_no_volume(driver: LvmDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    source, copy = small(), small()
    driver.create(source)
    write(driver, source, b"content")

    def dies(*_: Any) -> None:
        raise SystemExit("killed")

    with monkeypatch.context() as patch:
        # as a kill between filling and naming leaves it: no cleaning up either
        patch.setattr(driver._group, "rename", dies)
        patch.setattr(driver._group, "remove", lambda name: None)
        with pytest.raises(SystemExit):
            driver.clone(copy, source)
    assert not driver.exists(copy)
    assert driver.manageable_volumes() == []
    driver.clone(copy, source)
    assert read(driver, copy, 7) == b"content"
    driver.delete(copy)
    driver.delete(source)
    for name in list(driver._group.volumes()):
        if name.startswith("copied-"):
            driver._group.remove(name)


@both
def test_a_volume_with_snapshots_stays(driver: LvmDriver) -> None:
    source = small()
    driver.create(source)
    snapshot = snapshot_of(source)
    driver.create_snapshot(snapshot)
    with pytest.raises(Conflict, match="snapshots"):
        driver.delete(source)
    driver.delete_snapshot(snapshot)
    driver.delete(source)


@both
def test_the_pool_says_what_was_taken_and_what_may_be_promised(driver: LvmDriver, tmp_path: Path) -> None:
    kind = driver._group.name
    backend = made(tmp_path, kind, max_over_subscription_ratio=3, reserved_percentage=10)
    (before,) = backend.pools()
    ours = volume(2)
    backend.create(ours)
    write(backend, ours, os.urandom(128 * MIB))
    (after,) = backend.pools()
    assert (after.max_over_subscription_ratio, after.reserved_percentage) == (3, 10)
    assert after.total_gib == before.total_gib
    taken = before.free_gib - after.free_gib
    assert 0.1 <= taken < 0.5 if kind == "thin" else taken == pytest.approx(2)
    backend.delete(ours)


@both
def test_what_is_let_go_can_be_taken_over(driver: LvmDriver) -> None:
    source, again = volume(), volume()
    driver.create(source)
    write(driver, source, b"managed")
    driver.unmanage(source)
    assert not driver.exists(source)
    (found,) = driver.manageable_volumes()
    assert (found["size"], found["safe_to_manage"]) == (1, True)
    location, size = driver.manage(again, found["reference"])
    assert (size, location) == (1, driver.manage(again, found["reference"])[0])
    assert read(driver, again, 7) == b"managed"
    with pytest.raises(BadRequest, match="source-name"):
        driver.manage(volume(), {"source-name": "nothing"})
    driver.delete(again)


def test_a_pool_that_does_not_zero_is_refused(tmp_path: Path) -> None:
    sh("lvcreate", "--yes", "--type", "thin-pool", "--zero", "n", "-L", "64M", "-n", "leaky", "thick")
    try:
        with pytest.raises(DriverError, match="does not zero"):
            made(tmp_path, "thin", volume_group="thick", thin_pool="leaky").start()
    finally:
        sh("lvremove", "--force", "--yes", "thick/leaky")


# -- exports -----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def initiator() -> Iterator[None]:
    """open-iscsi and os-brick as a hypervisor host has them."""
    privileged.default.set_client_mode(False)  # this process is root: no helper is needed
    cfg.CONF([], project="inside")
    from oslo_concurrency import lockutils

    lockutils.set_defaults("/tmp/locks")
    Path("/etc/iscsi").mkdir(exist_ok=True)
    Path("/etc/iscsi/initiatorname.iscsi").write_text(f"InitiatorName={_IQN}\n")
    Path("/etc/nvme").mkdir(exist_ok=True)
    Path("/etc/nvme/hostnqn").write_text(_NQN + "\n")
    Path("/run/lock/iscsi").mkdir(parents=True, exist_ok=True)
    daemon = subprocess.Popen(["iscsid", "-f"])
    udev = subprocess.Popen(["/usr/lib/systemd/systemd-udevd"])
    while not Path("/run/udev/control").exists():
        time.sleep(0.1)
    yield
    for process in (daemon, udev):
        process.terminate()
        process.wait()


def attach(kind: str, info: Mapping[str, Any]) -> tuple[Any, Path]:
    host = brick.InitiatorConnector.factory(kind, "", use_multipath=False, device_scan_attempts=5)
    found = host.connect_volume(dict(info["data"]))
    path = found["path"]
    return host, Path(path.decode() if isinstance(path, bytes) else path)


def digest_of(path: Path, length: int) -> str:
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return hashlib.sha256(file.read(length)).hexdigest()


@pytest.mark.parametrize(
    ("driver_kind", "helper", "protocol"),
    [("thin", "lio", "ISCSI"), ("thick", "lio", "ISCSI"), ("thin", "nvmet", "NVMEOF")],
)
def test_a_host_reads_and_writes_over_the_network(
    driver_kind: str, helper: str, protocol: str, tmp_path: Path, initiator: None
) -> None:
    """Login with the secret, same content, what the host writes lies in the volume; grows; let go."""
    driver = made(tmp_path, driver_kind, target_helper=helper)
    driver.start()
    ours = volume()
    driver.create(ours)
    content = os.urandom(4 * MIB)
    write(driver, ours, content)
    who = {"host": "here", "initiator": _IQN, "nqn": _NQN}
    info = driver.initialize_connection(ours, who, "rw")
    host, path = attach(protocol, info)
    assert digest_of(path, len(content)) == hashlib.sha256(content).hexdigest()
    with path.open("r+b", buffering=0) as file:
        file.seek(8 * MIB)
        file.write(b"from afar" + bytes(4096 - 9))
        os.fsync(file.fileno())
    driver.extend(Volume(id=ours.id, size_gib=1, in_use=True), 2)
    assert host.extend_volume(dict(info["data"])) == 2 << 30
    # the kernel forgets its targets with the machine; a worker that starts makes them anew
    driver._target.start([ours.name], driver._group.activate)
    assert digest_of(path, len(content)) == hashlib.sha256(content).hexdigest()
    host.disconnect_volume(dict(info["data"]), None)
    assert read(driver, ours, 9, at=8 * MIB) == b"from afar"
    driver.terminate_connection(ours, who)
    assert not driver._target.exported(ours.name)
    driver.delete(Volume(id=ours.id, size_gib=2))
    assert not list((tmp_path / "exports").rglob("*.json"))


@pytest.mark.parametrize("helper", ["lio", "nvmet"])
def test_a_restart_of_the_machine_brings_targets_back(helper: str, tmp_path: Path) -> None:
    driver = made(tmp_path, "thin", target_helper=helper)
    driver.start()
    ours, gone = volume(), volume()
    driver.create(ours)
    driver.create(gone)
    who = {"host": "here", "initiator": _IQN, "nqn": _NQN}
    info = driver.initialize_connection(ours, who, "rw")
    driver.initialize_connection(gone, who, "rw")
    for each in (ours, gone):
        driver._target.withdraw(each.name)  # what the kernel forgets
    driver._group.remove(gone.name)
    sh("lvchange", "-an", f"thin/{ours.name}")  # not every machine activates all volumes at its start
    later = made(tmp_path, "thin", target_helper=helper)
    later.start()
    assert later._target.exported(ours.name)
    assert not later._target.exported(gone.name)
    assert later.initialize_connection(ours, who, "rw") == info
    later.delete(ours)
    assert not later._target.exported(ours.name)


def test_another_host_and_a_wrong_secret_are_refused(tmp_path: Path, initiator: None) -> None:
    driver = made(tmp_path, "thin")
    driver.start()
    ours = volume()
    driver.create(ours)
    with pytest.raises(BadRequest, match="initiator"):
        driver.initialize_connection(ours, {"host": "nameless"}, "rw")
    info = driver.initialize_connection(ours, {"host": "there", "initiator": _IQN + "2"}, "rw")
    with pytest.raises(Exception, match=r"(?i)volume|iscsi|device"):
        attach("ISCSI", info)  # this host is not "there"
    mine = driver.initialize_connection(ours, {"host": "here", "initiator": _IQN}, "rw")
    assert mine["data"]["auth_password"] != info["data"]["auth_password"]
    mine["data"]["auth_password"] = "x" * 16
    with pytest.raises(Exception, match=r"(?i)volume|iscsi|device"):
        attach("ISCSI", mine)
    # what is exported to read only can't be written, whatever the host does
    driver.terminate_connection(ours, {"initiator": _IQN + "2"})
    fixed = driver.initialize_connection(ours, {"host": "here", "initiator": _IQN}, "ro")
    host, path = attach("ISCSI", fixed)
    with pytest.raises(OSError), path.open("r+b", buffering=0) as file:
        file.write(bytes(4096))
        os.fsync(file.fileno())
    host.disconnect_volume(dict(fixed["data"]), None)
    driver.delete(ours)


def test_another_host_is_refused_by_nvme(tmp_path: Path, initiator: None) -> None:
    driver = made(tmp_path, "thin", target_helper="nvmet")
    driver.start()
    ours = volume()
    driver.create(ours)
    with pytest.raises(BadRequest, match="read only"):
        driver.initialize_connection(ours, {"nqn": _NQN}, "ro")
    info = driver.initialize_connection(ours, {"nqn": _NQN + "-of-another"}, "rw")
    with pytest.raises(Exception, match=r"(?i)volume|nvme|device"):
        attach("NVMEOF", info)
    driver.delete(ours)
