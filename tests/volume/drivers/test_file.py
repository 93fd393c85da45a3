"""The file driver: the contract, and what is its own: layers, references, refusals."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from core import config, qemu_img
from core.errors import BadRequest, Conflict, DriverError
from tests.volume.drivers.contract import MIB, Contract, read, snapshot_of, volume, write
from tests.volume.drivers.encrypted_contract import EncryptedContract
from volume.drivers.base import Snapshot, Volume
from volume.drivers.file import MAX_DEPTH, FileDriver

pytestmark = pytest.mark.skipif(
    shutil.which("qemu-img") is None, reason="qemu-img is not installed (qemu-utils)"
)


@pytest.fixture
def driver(tmp_path: Path) -> FileDriver:
    conf = config.load()
    made = FileDriver(conf, "files")
    config.override(conf, "files.path", str(tmp_path / "volumes"))
    config.override(conf, "host", "here")
    made = FileDriver(conf, "files")
    made.start()
    return made


class TestContract(Contract):
    """The file driver keeps the contract."""


class TestEncrypted(EncryptedContract):
    """And that of encrypted volumes."""


def test_the_pool_keeps_and_promises_what_is_configured(driver: FileDriver) -> None:
    config.override(driver._conf, "files.reserved_percentage", 7)
    config.override(driver._conf, "files.max_over_subscription_ratio", 1.5)
    (pool,) = driver.pools()
    assert (pool.reserved_percentage, pool.max_over_subscription_ratio) == (7, 1.5)


def test_two_workers_on_one_folder(driver: FileDriver, tmp_path: Path) -> None:
    """One makes volumes of a snapshot that the other deletes: each is whole, or is not made."""
    (tmp_path / "mount").symlink_to(driver._root)  # the same share by another name
    config.override(driver._conf, "files.path", str(tmp_path / "mount"))
    other = FileDriver(driver._conf, "files")
    other.start()
    origin = volume()
    driver.create(origin)
    made: list[Volume] = []

    def make(snapshot: Snapshot) -> None:
        while True:
            new = volume()
            try:
                other.create_from_snapshot(new, snapshot)
            except DriverError:
                return
            made.append(new)

    for number in range(5):
        write(driver, origin, b"content %d" % number)
        snapshot = snapshot_of(origin)
        driver.create_snapshot(snapshot)
        write(driver, origin, b"later")
        thread = threading.Thread(target=make, args=(snapshot,))
        thread.start()
        while len(made) <= number:
            assert thread.is_alive()
        driver.delete_snapshot(snapshot)
        thread.join()
    for each in made:
        assert read(driver, each, 8) == b"content "
    for each in (origin, *made):
        driver.delete(each)
    assert files_in(driver) == []


def files_in(driver: FileDriver) -> list[str]:
    """But for the folder's lock, which comes with the first thing that takes it."""
    found = (str(path.relative_to(driver._root)) for path in driver._root.rglob("*") if path.is_file())
    return sorted(name for name in found if name != ".lock")


def test_nothing_stays_when_all_is_deleted(driver: FileDriver) -> None:
    made, copy, later = volume(), volume(), volume()
    driver.create(made)
    snapshots = [snapshot_of(made) for _ in range(3)]
    for number, snapshot in enumerate(snapshots):
        write(driver, made, b"%d" % number)
        driver.create_snapshot(snapshot)
    driver.clone(copy, made)
    driver.create_from_snapshot(later, snapshots[1])
    for snapshot in snapshots:
        driver.delete_snapshot(snapshot)
    for each in (made, copy):
        driver.delete(each)
    assert read(driver, later, 1) == b"1"
    driver.delete(later)
    assert files_in(driver) == []


def test_a_snapshot_of_an_unchanged_volume_costs_no_layer(driver: FileDriver) -> None:
    made = volume()
    driver.create(made)
    write(driver, made, b"x")
    first, second = snapshot_of(made), snapshot_of(made)
    driver.create_snapshot(first)
    assert driver.create_snapshot(first) == driver.create_snapshot(second)


def test_a_long_chain_is_flattened(driver: FileDriver) -> None:
    made = volume()
    driver.create(made)
    taken = []
    for number in range(MAX_DEPTH + 2):
        subprocess.run(
            ["qemu-io", "-f", "qcow2", "-c", f"write -q -P {number + 1} 0 64k", str(driver._file(made))],
            check=True, capture_output=True,
        )  # fmt: skip
        taken.append(snapshot_of(made))
        driver.create_snapshot(taken[-1])
        assert driver._depth(driver._file(made)) <= MAX_DEPTH + 1
    assert read(driver, taken[0], 1) == b"\x01"
    assert read(driver, made, 1) == bytes([MAX_DEPTH + 2])


def test_a_flattened_file_is_on_the_disk_before_its_layer_may_go(
    driver: FileDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = volume()
    driver.create(made)
    write(driver, made, b"kept")
    driver.create_snapshot(snapshot_of(made))
    flushed: list[int] = []
    fsync = os.fsync

    def flush(handle: int) -> None:
        flushed.append(os.fstat(handle).st_ino)
        fsync(handle)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", flush)
        driver.unmanage(made)
    (file,) = (driver._root / "manage").iterdir()
    assert file.stat().st_ino in flushed
    assert "backing-filename" not in qemu_img.info(driver._conf, file, "qcow2")


@pytest.mark.parametrize("tool", ["create", "convert"])
def test_a_tool_that_fails_halfway_leaves_the_volume_and_no_copy(
    driver: FileDriver, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    made = volume()
    driver.create(made)
    write(driver, made, b"kept")
    if tool == "convert":  # it stands on a layer, so letting it go means to flatten it
        driver.create_snapshot(snapshot_of(made))
    run = qemu_img.qemu_img

    def fail(conf: Any, *arguments: str, **more: Any) -> str:
        if arguments[0] == tool:
            part = next(each for each in arguments if each.endswith(".part"))
            Path(part).write_bytes(b"half")
            raise DriverError("no space left")
        return run(conf, *arguments, **more)

    with monkeypatch.context() as patched:
        patched.setattr(qemu_img, "qemu_img", fail)
        with pytest.raises(DriverError):
            driver.unmanage(made) if tool == "convert" else driver.create_snapshot(snapshot_of(made))
    assert not list(driver._root.rglob("*.part"))
    assert read(driver, made, 4) == b"kept"


@pytest.mark.parametrize("what", ["snapshot", "clone", "revert"])
def test_a_volume_in_use_stands_not_still(driver: FileDriver, what: str) -> None:
    made = volume()
    driver.create(made)
    snapshot = snapshot_of(made)
    driver.create_snapshot(snapshot)
    busy = Volume(id=made.id, size_gib=1, in_use=True)
    calls: dict[str, Any] = {
        "snapshot": lambda: driver.create_snapshot(snapshot_of(busy)),
        "clone": lambda: driver.clone(volume(), busy),
        "revert": lambda: driver.revert(busy, snapshot),
    }
    with pytest.raises(Conflict, match="attached"):
        calls[what]()


def test_another_host_is_refused_unless_the_folder_is_shared(driver: FileDriver) -> None:
    made = volume()
    driver.create(made)
    with pytest.raises(BadRequest, match="host elsewhere"):
        driver.initialize_connection(made, {"host": "elsewhere"}, "rw")
    config.override(driver._conf, "files.shared", True)
    assert driver.initialize_connection(made, {"host": "elsewhere"}, "ro")["data"]["access_mode"] == "ro"


def test_an_image_that_is_too_large_is_refused_and_leaves_nothing(driver: FileDriver, tmp_path: Path) -> None:
    image = tmp_path / "big.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "2G"], check=True)
    with pytest.raises(BadRequest, match="2 GiB is larger than the volume of 1 GiB"):
        driver.write_image(volume(), image, "qcow2", lambda _done: None)
    assert files_in(driver) == []


def test_a_copy_that_is_called_off_leaves_nothing(driver: FileDriver, tmp_path: Path) -> None:
    image = tmp_path / "image.raw"
    image.write_bytes(bytes(MIB))

    def stop(_done: int) -> None:
        raise InterruptedError

    made = volume()
    with pytest.raises(InterruptedError):
        driver.write_image(made, image, "raw", stop)
    assert not driver.exists(made)
    assert files_in(driver) == []


def test_a_crash_between_link_and_replacement_loses_nothing(
    driver: FileDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = volume()
    driver.create(made)
    write(driver, made, b"safe")

    def crash(*_arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("core.qemu_img.qemu_img", _fail_on_create(crash))
        with pytest.raises(KeyboardInterrupt):
            driver.create_snapshot(snapshot_of(made))
    again = snapshot_of(made)
    driver.create_snapshot(again)
    write(driver, made, b"lost")
    assert read(driver, again, 4) == b"safe"
    driver.delete_snapshot(again)
    driver.delete(made)
    assert files_in(driver) == []


def _fail_on_create(crash: Any) -> Any:
    from core.qemu_img import qemu_img

    def call(conf: Any, *arguments: str) -> str:
        if arguments[0] == "create":
            crash()
        return qemu_img(conf, *arguments)

    return call


def test_a_file_is_taken_over_and_let_go(driver: FileDriver) -> None:
    folder = driver._root / "manage"
    folder.mkdir()
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", str(folder / "old.qcow2"), "1500M"], check=True
    )
    assert [each["reference"] for each in driver.manageable_volumes()] == [{"source-name": "old.qcow2"}]
    made = volume(2)
    location, size = driver.manage(made, {"source-name": "old.qcow2"})
    assert size == 2
    assert driver.manage(made, {"source-name": "old.qcow2"}) == (location, 2)
    driver.unmanage(made)
    assert not driver.exists(made)
    with pytest.raises(BadRequest, match="no file '../etc"):
        driver.manage(volume(), {"source-name": "../etc/passwd"})


def test_a_worker_that_starts_leaves_what_another_writes(driver: FileDriver) -> None:
    young = driver._volumes / "volume-1.0a.part"
    old = driver._volumes / "volume-2.0b.part"
    for part in (young, old):
        part.write_bytes(b"half")
    os.utime(old, (1, 1))
    driver.start()
    assert young.exists()
    assert not old.exists()


def test_an_image_is_written_with_progress_and_can_be_given_up(
    driver: FileDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy asks again and again whether it shall go on; given up, it leaves nothing."""
    monkeypatch.setattr(qemu_img, "_WATCH_S", 0.01)
    image = tmp_path / "image.raw"
    with image.open("wb") as file:
        for _ in range(256):
            file.write(os.urandom(MIB))
    made = volume()

    class GivenUp(Exception):
        pass

    seen: list[int] = []

    def progress(written: int) -> None:
        seen.append(written)
        raise GivenUp

    with pytest.raises(GivenUp):
        driver.write_image(made, image, "raw", progress)
    assert seen[0] < 256 * MIB
    assert not driver.exists(made)
    assert not list(driver._volumes.iterdir())
