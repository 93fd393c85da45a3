"""A worker that dies before any of its changes: the repeat comes to the same end; ``test_lvm.py`` runs this.

A process of its own does the work and is gone, without cleaning up, before its n-th change: a command that
changes something, a folder, link or file in the kernel's configfs or in the state folder. n goes up until
the work comes to its end.
"""

from __future__ import annotations

import itertools
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import kernel_guest
from tests.volume.drivers.contract import MIB, read, snapshot_of, write
from tests.volume.drivers.lvm.inside import _IQN, _NQN, driver, groups, made, small  # noqa: F401 - fixtures
from volume.drivers.lvm.driver import LvmDriver

pytestmark = [
    pytest.mark.skipif(not kernel_guest.inside(), reason="run in a kernel guest by test_lvm.py"),
    pytest.mark.parametrize("driver", ["thick", "thin"], indirect=True),
]
_LOOKING = ("lvs", "vgs", "modprobe")
_DIED = 9


def _changes(event: str, arguments: tuple[Any, ...]) -> bool:
    """Is this audit event of Python's a change that outlives the process?"""
    if event == "subprocess.Popen":
        return Path(os.fsdecode(arguments[1][0])).name not in _LOOKING
    if event == "open":
        path, _mode, flags = arguments
        return isinstance(path, str) and bool(flags & (os.O_WRONLY | os.O_RDWR))
    return event in ("fcntl.ioctl", "os.mkdir", "os.rmdir", "os.symlink", "os.rename", "os.remove")


def dies(before: int, work: Callable[[], Any]) -> bool:
    """Does the work in a process that is gone before its n-th change; False: it had fewer, and is done."""
    child = os.fork()
    if child == 0:
        changes = itertools.count()

        def watch(event: str, arguments: tuple[Any, ...]) -> None:
            if _changes(event, arguments) and next(changes) == before:
                os._exit(_DIED)

        try:
            sys.addaudithook(watch)
            work()
        except BaseException:  # noqa: BLE001 - of whatever kind, this process ends here
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, _DIED)
    return status == _DIED


def deaths(work: Callable[[], Any]) -> Iterator[int]:
    """Each place where the work can be cut short; the caller repeats it and looks. At least one."""
    for step in itertools.count():
        if not dies(step, work):
            assert step, "nothing was changed"
            return
        yield step


def ours(driver: LvmDriver) -> list[str]:  # noqa: F811
    """What is in the group but the pool and its parts."""
    return sorted(name for name in driver._group.volumes() if "volume-" in name or "snapshot-" in name)


def test_making_copying_and_deleting(driver: LvmDriver) -> None:  # noqa: F811
    source = small()
    for _ in deaths(lambda: driver.create(source)):
        driver.create(source)
        assert ours(driver) == [source.name]
        assert read(driver, source, 8 * MIB) == bytes(8 * MIB)
        driver.delete(source)
    write(driver, source, b"content", at=8 * MIB - 7)
    snapshot = snapshot_of(source)
    for _ in deaths(lambda: driver.create_snapshot(snapshot)):
        driver.create_snapshot(snapshot)
        assert ours(driver) == [f"_{snapshot.name}", source.name]
        driver.delete_snapshot(snapshot)
    write(driver, source, b"changed", at=8 * MIB - 7)
    copy = small(2)
    for work, content in (
        (lambda: driver.clone(copy, source), b"changed"),
        (lambda: driver.create_from_snapshot(copy, snapshot), b"content"),
    ):
        for _ in deaths(work):
            work()
            assert ours(driver) == sorted([f"_{snapshot.name}", source.name, copy.name])
            assert read(driver, copy, 7, at=8 * MIB - 7) == content
            assert read(driver, copy, 8 * MIB, at=8 * MIB) == bytes(8 * MIB)
            driver.delete(copy)
        driver.delete(copy)
    for _ in deaths(lambda: driver.revert(source, snapshot)):
        driver.revert(source, snapshot)
        assert read(driver, source, 7, at=8 * MIB - 7) == b"content"
        assert ours(driver) == [f"_{snapshot.name}", source.name]
        write(driver, source, b"changed", at=8 * MIB - 7)
    for _ in deaths(lambda: driver.delete_snapshot(snapshot)):
        driver.delete_snapshot(snapshot)
        assert ours(driver) == [source.name]
        driver.create_snapshot(snapshot)
    for _ in deaths(lambda: driver.delete(source)):
        driver.delete(source)
        assert ours(driver) == []
        driver.create(source)
    assert ours(driver) == []


def test_extending(driver: LvmDriver) -> None:  # noqa: F811
    for step in itertools.count():
        made = small()
        driver.create(made)
        write(driver, made, b"content", at=8 * MIB - 7)
        died = dies(step, lambda made=made: driver.extend(made, 2))
        driver.extend(made, 2)
        assert read(driver, made, 7, at=8 * MIB - 7) == b"content"
        assert read(driver, made, 8 * MIB, at=8 * MIB) == bytes(8 * MIB)
        assert not driver._group.volumes()[made.name].tags
        driver.delete(made)
        if not died:
            break
    assert step


def test_exporting_and_withdrawing(driver: LvmDriver, tmp_path: Path) -> None:  # noqa: F811
    """iSCSI of the thick one, NVMe/TCP of the thin one. What is left of an attempt lets no host in without asking."""
    kind = driver._group.name
    backend = made(tmp_path, kind, target_helper="lio" if kind == "thick" else "nvmet")
    backend._target.start([], backend._group.activate)
    volume, who = small(), {"host": "here", "initiator": _IQN, "nqn": _NQN}
    backend.create(volume)
    target = backend._target
    for _ in deaths(lambda: backend.initialize_connection(volume, who, "rw")):
        asks_for_nobody = [
            each.read_text().strip()
            for pattern in ("target/iscsi/iqn.*/tpgt_1/attrib/generate_node_acls", "nvmet/subsystems/*/attr_allow_any_host")
            for each in Path("/sys/kernel/config").glob(pattern)
        ]  # fmt: skip
        assert set(asks_for_nobody) <= {"0"}
        first = backend.initialize_connection(volume, who, "rw")
        assert target.exported(volume.name)
        assert backend.initialize_connection(volume, who, "rw") == first
        backend.terminate_connection(volume, who)
        assert not target.exported(volume.name)
    for _ in deaths(lambda: backend.terminate_connection(volume, who)):
        backend.terminate_connection(volume, who)
        assert not target.exported(volume.name)
        backend.initialize_connection(volume, who, "rw")
    assert not target.exported(volume.name)
    assert not list((tmp_path / "exports").rglob("*.json"))
    backend.delete(volume)
