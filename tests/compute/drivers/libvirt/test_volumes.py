"""Volumes of real guests: what a guest wrote is there, wherever the volume goes; with the volume drivers that make them."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from compute.drivers.base import GuestSpec
from compute.drivers.libvirt.driver import LibvirtDriver
from core import config
from core.errors import BadRequest, Conflict, DriverError
from core.qemu_img import qemu_img
from tests.compute.drivers.libvirt.test_driver import BOOT_S, boot, driver, image, says  # noqa: F401 - fixture
from tests.compute.drivers.specs import make_guest
from tests.lab import ceph
from tests.lab.consoles import Shell
from tests.lab.guests import libvirtd, tiny  # noqa: F401 - fixtures
from tests.stack.cloud import wait_for
from volume.drivers.base import Snapshot, VolumeDriver
from volume.drivers.base import Volume as Backed
from volume.drivers.file import FileDriver
from volume.drivers.rbd import RbdDriver

pytestmark = [pytest.mark.libvirt, pytest.mark.xdist_group("libvirt"), pytest.mark.timeout(600)]
MIB = 1 << 20


@pytest.fixture(scope="module")
def files(libvirtd: Path) -> FileDriver:  # noqa: F811
    conf = config.load(overrides={"state_path": str(libvirtd), "host": "h1"})
    made = FileDriver(conf, "files")
    made.start()
    return made


def backed(size_gib: int = 1) -> Backed:
    return Backed(id=str(uuid.uuid4()), size_gib=size_gib)


def described(backend: VolumeDriver, volume: Backed, **changes: Any) -> dict[str, Any]:
    """The volume as an attachment of the Volume API shows it."""
    answer = backend.initialize_connection(volume, {"host": "h1"}, "rw")
    info = {"driver_volume_type": answer["driver_volume_type"], **answer["data"], "access_mode": "rw"}
    made = {"volume_id": volume.id, "attachment_id": str(uuid.uuid4()), "connection_info": info}
    return {**made, "size_gib": volume.size_gib, "device_name": None, **changes}


def shell(driver: LibvirtDriver, guest: GuestSpec) -> Shell:  # noqa: F811
    return Shell(driver._connection.uri, guest.server_id)


def name_of(console: Shell, volume: dict[str, Any]) -> str:
    """vdb: how the guest calls the volume, once it sees it (serial numbers of virtio are 20 characters long)."""
    serial = volume["volume_id"][:20]
    wait_for(lambda: serial in console.disks(), f"disk {serial}", BOOT_S, console.disks)
    return console.disks()[serial]


def sha(console: Shell, device: str, mib: int) -> str:
    """Of the disk's first MiB, past the guest's cache."""
    return console.run(f"dd if=/dev/{device} iflag=direct bs=1M count={mib} 2>/dev/null | sha256sum").split()[
        0
    ]


def forget(driver: LibvirtDriver, guest: GuestSpec, *volumes: dict[str, Any]) -> None:  # noqa: F811
    driver.undefine(guest.server_id)
    for volume in volumes:
        driver.disconnect_volume(volume)
    driver.remove_disks(guest.server_id)


def writing(console: Shell, device: str) -> None:
    """The guest writes to the disk without a pause, past its first 16 MiB."""
    console.run(
        f"(i=0; while dd if=/dev/urandom of=/dev/{device} oflag=direct bs=256k seek=$((64+i%64)) count=8 conv=notrunc"
        " 2>/dev/null; do i=$((i+8)); echo $i > /run/written; done) > /dev/null 2>&1 &"
    )
    wait_for(lambda: console.run("cat /run/written 2>/dev/null || true") != "", "the first writes", BOOT_S)


def test_a_snapshot_of_a_file_volume_under_writes(
    driver: LibvirtDriver,  # noqa: F811
    tiny: Path,  # noqa: F811
    files: FileDriver,
) -> None:
    """It holds what was written before it, and the guest goes on with its own file, whoever dies meanwhile."""
    guest = make_guest(image=image(tiny), memory_mib=128)
    boot(driver, guest)
    volume = backed()
    files.create(volume)
    attached = described(files, volume)
    snapshot = Snapshot(id=str(uuid.uuid4()), volume=volume, size_gib=1)
    driver.connect_volume(attached)
    driver.attach_volume(guest, attached)
    with shell(driver, guest) as console:
        disk = name_of(console, attached)
        console.run(f"dd if=/dev/urandom of=/dev/{disk} bs=1M count=16 oflag=direct 2>/dev/null")
        content = sha(console, disk, 16)
        target = files.prepare_copy(snapshot)
        outside = Path(target).parents[2] / "elsewhere.part"
        outside.touch()
        for wrong in (str(outside), str(files._file(volume)), target + ".none"):
            with pytest.raises(BadRequest):
                driver.snapshot_volume(guest, attached, wrong, lambda: None)
        assert outside.stat().st_size == 0
        strict = dataclasses.replace(
            guest, image=dataclasses.replace(guest.image, properties={"os_require_quiesce": "yes"})
        )
        with pytest.raises(Conflict, match="no guest agent"):
            driver.snapshot_volume(strict, attached, target, lambda: None)
        writing(console, disk)
        with pytest.raises(GiveUpError):
            driver.snapshot_volume(guest, attached, target, give_up)
        assert "mirror" not in live_xml(driver, guest)
        driver.snapshot_volume(guest, attached, target, lambda: None)
        assert "mirror" not in live_xml(driver, guest)
        assert str(files._file(volume)) in live_xml(driver, guest)
        for _ in range(2):
            files.take_copy(snapshot)
        # the guest still writes to its own file alone
        console.run(f"dd if=/dev/zero of=/dev/{disk} bs=1M count=16 oflag=direct 2>/dev/null")
        zeros = sha(console, disk, 16)
    driver.power_off(guest.server_id, 0)
    # of a guest that is off the host copies, too
    again = Snapshot(id=str(uuid.uuid4()), volume=volume, size_gib=1)
    driver.snapshot_volume(guest, attached, files.prepare_copy(again), lambda: None)
    files.take_copy(again)
    forget(driver, guest, attached)
    restored = backed()
    files.create_from_snapshot(restored, snapshot)
    sums = []
    for each in (restored, again, volume):
        with files.open(each) as opened:
            sums.append(hashlib.sha256(opened.read(16 * MIB)).hexdigest())
    assert sums == [content, zeros, zeros]
    for each in (snapshot, again):
        files.delete_snapshot(each)
    for each in (volume, restored):
        files.delete(each)


def test_a_file_volume_of_a_running_guest(
    driver: LibvirtDriver,  # noqa: F811
    tiny: Path,  # noqa: F811
    files: FileDriver,
) -> None:
    """Attached, written to, grown, swapped and pulled out under writes, read by the next guest."""
    guest = make_guest(image=image(tiny), memory_mib=128)
    boot(driver, guest)
    first, second = backed(1), backed(2)
    for each in (first, second):
        files.create(each)
    old, new = described(files, first), described(files, second)
    with pytest.raises(DriverError, match="not connected"):
        driver.attach_volume(guest, old)
    with shell(driver, guest) as console:
        for _ in range(2):  # the second time changes nothing
            driver.connect_volume(old)
            driver.attach_volume(guest, old)
        disk = name_of(console, old)
        console.run(f"dd if=/dev/urandom of=/dev/{disk} bs=1M count=16 oflag=direct 2>/dev/null")
        content = sha(console, disk, 16)
        with pytest.raises(Conflict, match="no guest agent"):
            driver.quiesce(guest.server_id)

        writing(console, disk)
        driver.connect_volume(new)
        with pytest.raises(BadRequest, match="smaller"):
            driver.swap_volume(guest, {**old, "size_gib": 3}, new, lambda: None)
        with pytest.raises(GiveUpError):
            driver.swap_volume(guest, old, new, give_up)
        assert driver._host_volumes.source(old).name in live_xml(driver, guest)
        assert driver._host_volumes.source(new).name not in live_xml(driver, guest)
        # a process that died in the middle leaves its copy running: the way back ends it
        left = f"<disk type='file'><source file='{files._file(second)}'/><driver type='qcow2'/></disk>"
        reuse = libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT | libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB
        resized(files, second, "--shrink", "1G")
        driver._require(guest.server_id).blockCopy(disk, left, flags=reuse)
        with pytest.raises(DriverError, match="open"):
            driver.disconnect_volume(new)
        driver.swap_volume(guest, new, old, lambda: None)
        assert "mirror" not in live_xml(driver, guest)
        driver.disconnect_volume(new)
        resized(files, second, "2G")
        driver.connect_volume(new)
        for _ in range(2):
            driver.swap_volume(guest, old, new, lambda: None)
        driver.disconnect_volume(old)
        assert "mirror" not in live_xml(driver, guest)
        assert str(files._file(first)) not in live_xml(driver, guest)
        # larger than the old one: the guest sees that; and it grows again while it is attached
        wait_for(
            lambda: console.run(f"cat /sys/block/{disk}/size") == str((2 << 30) // 512),
            "the size of the new volume",
            BOOT_S,
        )
        driver.extend_volume(guest.server_id, new, 3)
        wait_for(
            lambda: console.run(f"cat /sys/block/{disk}/size") == str((3 << 30) // 512),
            "the new size",
            BOOT_S,
        )

        # pulled out while it writes
        with pytest.raises(DriverError, match="open"):
            driver.disconnect_volume(new)
        for _ in range(2):
            driver.detach_volume(guest.server_id, new["volume_id"])
    wait_for(
        lambda: driver.console_output(guest.server_id, 1 << 20).count("GUEST-DISKS") == 3,
        "the disk's end",
        BOOT_S,
    )
    seen = driver.console_output(guest.server_id, 1 << 20)
    assert re.findall(r"GUEST-DISKS (.*?) *\r?\n", seen) == ["vda", f"vda {disk}", "vda"]
    assert new["volume_id"] not in driver._require(guest.server_id).XMLDesc(2), "not defined any more, either"
    driver.disconnect_volume(new)
    with files.open(second) as file:
        assert hashlib.sha256(file.read(16 * MIB)).hexdigest() == content
    forget(driver, guest)
    assert driver._host_volumes.claims() == {}


def resized(files: FileDriver, volume: Backed, *how: str) -> None:
    qemu_img(files._conf, "resize", "-q", "-f", "qcow2", *how[:-1], str(files._file(volume)), how[-1])


class GiveUpError(Exception):
    """Somebody deletes the server."""


def give_up() -> None:
    raise GiveUpError


def live_xml(driver: LibvirtDriver, guest: GuestSpec) -> str:  # noqa: F811
    return str(driver._require(guest.server_id).XMLDesc(0))


def encrypted_file(path: Path, passphrase: str) -> None:
    subprocess.run(
        [
            *("qemu-img", "create", "-q", "-f", "luks", "--object", "secret,id=s,data=" + passphrase),
            *("-o", "key-secret=s,iter-time=10", str(path), "64M"),
        ],
        check=True,
        timeout=60,
    )


def test_a_guest_boots_from_a_volume_with_others_beside_it(
    driver: LibvirtDriver,  # noqa: F811
    tiny: Path,  # noqa: F811
    files: FileDriver,
    tmp_path: Path,
) -> None:
    """From a clone, which stands on layers; a read-only one, an encrypted one, a local one; its stop and start."""
    golden, root, data = backed(), backed(), backed()
    files.write_image(golden, tiny, "qcow2", lambda _done: None)
    files.create_from_snapshot(root, _snapshot(files, golden))
    files.create(data)
    with files.open(data, write=True) as file:
        file.write(b"written before")
    secret_file = tmp_path / "secret"
    encrypted_file(secret_file, "correct horse")
    info = {"driver_volume_type": "local", "device_path": str(secret_file), "format": "raw"}
    sealed = {
        **described(files, data, size_gib=0),
        "volume_id": str(uuid.uuid4()),
        "connection_info": info,
        "encryption": {"format": "luks", "secret": "correct horse"},
    }
    booted = described(files, root, boot_index=0, device_name="/dev/vda")
    fixed = described(files, data, mode="ro", device_name="/dev/vdb")
    guest = make_guest(
        image=image(tiny, hw_machine_type="q35"),
        memory_mib=192,
        volumes=(fixed, booted),
        local_disks=({"kind": "blank", "size_mib": 8},),
    )
    for volume in guest.volumes:
        driver.connect_volume(volume)
    boot(driver, guest)
    assert driver._disks.root(guest.server_id) is None
    says(driver, guest.server_id, "GUEST-BOOTS 1")
    driver.connect_volume(sealed)
    driver.attach_volume(guest, sealed)
    with shell(driver, guest) as console:
        assert name_of(console, booted) == "vda"
        disk = name_of(console, fixed)
        assert console.run(f"head -c 14 /dev/{disk}") == "written before"
        assert console.run(f"cat /sys/block/{disk}/ro") == "1"
        disk = name_of(console, sealed)
        console.run(f"echo plainly-readable | dd of=/dev/{disk} bs=512 conv=sync oflag=direct 2>/dev/null")
        assert console.run(f"cat /sys/block/{disk}/size") == str((64 << 20) // 512)
    assert b"plainly-readable" not in secret_file.read_bytes()
    # the guest lets go of nothing while it stands still: it is attached as before
    config.override(driver._conf, "libvirt.device_detach_attempts", 1)
    config.override(driver._conf, "libvirt.device_detach_timeout", 1)
    domain = driver._require(guest.server_id)
    domain.suspend()
    with pytest.raises(DriverError, match="does not let go"):
        driver.detach_volume(guest.server_id, fixed["volume_id"])
    assert fixed["volume_id"] in domain.XMLDesc(2)
    for name in ("attempts", "timeout"):
        driver._conf.clear_override(f"device_detach_{name}", group="libvirt")
    domain.resume()
    driver.detach_volume(guest.server_id, fixed["volume_id"])

    # a restart of the host: libvirt's secrets and the like are gone, and come back with the connection
    driver.power_off(guest.server_id, 60)
    for secret in driver._connection.get().listAllSecrets():
        secret.undefine()
    again = GuestSpec.from_dict({**guest.to_dict(), "volumes": [sealed, booted, fixed]})
    for volume in again.volumes:
        driver.connect_volume(volume)
    driver.define(again)
    driver.power_on(guest.server_id)
    says(driver, guest.server_id, "GUEST-BOOTS 2")
    wait_for(
        lambda: driver.console_output(guest.server_id, 1 << 20).count("GUEST-READY") == 2,
        "the second boot",
        BOOT_S,
    )
    with shell(driver, guest) as console:
        assert console.run(f"head -c 16 /dev/{name_of(console, sealed)}") == "plainly-readable"
    forget(driver, guest, sealed, booted, fixed)
    assert driver._host_volumes.claims() == {}
    assert driver._connection.get().listAllSecrets() == []


def _snapshot(files: FileDriver, source: Backed) -> Snapshot:
    made = Snapshot(id=str(uuid.uuid4()), volume=source, size_gib=source.size_gib)
    files.create_snapshot(made)
    return made


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_libvirt_and_qemu_take_every_bus(
    driver: LibvirtDriver,  # noqa: F811
    tiny: Path,  # noqa: F811
    files: FileDriver,
    machine: str,
) -> None:
    """On all buses at once, one far out on its controller; plugged in and out of a guest that is off."""
    buses: list[str | None] = ["virtio", "scsi", "sata", "usb", "scsi", None]
    if machine == "pc":
        buses.append("ide")
    volumes = []
    for bus in buses:
        empty = backed()
        files.create(empty)
        volumes.append(described(files, empty, disk_bus=bus))
    volumes[-1]["device_type"] = "cdrom"
    volumes[0]["connection_info"]["qos_specs"] = {"total_iops_sec": "100", "total_iops_sec_max": "1000"}
    volumes[1]["device_name"] = "/dev/sdj"
    more = volumes.pop(4)
    guest = make_guest(
        image=image(tiny, hw_machine_type=machine),
        config_drive=True,
        volumes=tuple(volumes),
        local_disks=({"kind": "swap", "size_mib": 4, "disk_bus": "sata"},),
    )
    for volume in (*volumes, more):
        driver.connect_volume(volume)
    driver.create_disks(guest)
    driver.define(guest)
    for _ in range(2):
        driver.attach_volume(guest, more)
    driver.power_on(guest.server_id)
    assert driver.diagnostics(guest.server_id)["num_disks"] == len(buses) + 3
    assert more["volume_id"] in live_xml(driver, guest)
    driver.power_off(guest.server_id, 0)
    for _ in range(2):
        driver.detach_volume(guest.server_id, more["volume_id"])
    assert more["volume_id"] not in live_xml(driver, guest)
    forget(driver, guest, *volumes, more)


@pytest.fixture
def rbd(tmp_path: Path) -> Iterator[RbdDriver]:
    why = ceph.missing()
    if why:
        pytest.skip(why)
    cluster = ceph.Cluster(tmp_path / "ceph")
    try:
        cluster.start()
        conf = config.load()
        RbdDriver(conf, "ceph")
        config.override(conf, "ceph.rbd_ceph_conf", str(cluster.configuration))
        made = RbdDriver(conf, "ceph")
        made.start()
        yield made
        made.close()
    finally:
        cluster.stop()


@pytest.mark.ceph
def test_ceph_images_are_booted_from_and_attached(
    driver: LibvirtDriver,  # noqa: F811
    tiny: Path,  # noqa: F811
    rbd: RbdDriver,
) -> None:
    config.override(driver._conf, "libvirt.rbd_ceph_conf", rbd._options.rbd_ceph_conf)
    root, data = backed(), backed()
    rbd.write_image(root, tiny, "qcow2", lambda _done: None)
    rbd.create(data)
    booted = described(rbd, root, boot_index=0)
    more = described(rbd, data, disk_bus="scsi")
    guest = make_guest(image=image(tiny), memory_mib=192, volumes=(booted,))
    driver.connect_volume(booted)
    try:
        boot(driver, guest)
        driver.connect_volume(more)
        driver.attach_volume(guest, more)
        with shell(driver, guest) as console:
            wait_for(lambda: "sda" in console.run("ls /sys/block").split(), "the SCSI disk", BOOT_S)
            console.run("dd if=/dev/urandom of=/dev/sda bs=1M count=4 oflag=direct 2>/dev/null")
            content = sha(console, "sda", 4)
            rbd.extend(data, 2)
            driver.extend_volume(guest.server_id, more, 2)
            wait_for(
                lambda: console.run("cat /sys/block/sda/size") == str((2 << 30) // 512),
                "the new size",
                BOOT_S,
            )
            driver.detach_volume(guest.server_id, more["volume_id"])
        with rbd.open(data) as file:
            assert hashlib.sha256(file.read(4 * MIB)).hexdigest() == content
    finally:
        forget(driver, guest, booted, more)
    rbd.delete(root)  # nobody has it open any more
    rbd.delete(data)
