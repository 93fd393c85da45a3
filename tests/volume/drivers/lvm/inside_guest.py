"""A real guest on logical volumes, over iSCSI and NVMe/TCP; ``test_lvm.py`` runs this in a kernel guest.

The guest boots from a volume that an image was written to, is given a second one while it runs, writes, and
reads back: by the same drivers, LVM's and libvirt's, that the worker and the compute agent use.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from compute.drivers.libvirt.driver import LibvirtDriver
from core import config
from tests.compute.drivers.specs import make_guest
from tests.lab import guests, kernel_guest
from tests.lab.consoles import Shell
from tests.lab.guests import libvirtd  # noqa: F401 - a fixture
from tests.volume.drivers.contract import MIB, volume
from tests.volume.drivers.lvm.inside import groups, initiator, made  # noqa: F401 - fixtures
from volume.drivers.base import Volume
from volume.drivers.lvm.driver import LvmDriver

pytestmark = pytest.mark.skipif(not kernel_guest.inside(), reason="run in a kernel guest by test_lvm.py")
BOOT_S = 1200


@pytest.fixture
def compute(libvirtd: Path) -> Iterator[LibvirtDriver]:  # noqa: F811
    conf = config.load(overrides={"state_path": str(libvirtd), "host": "here"})
    driver = LibvirtDriver(conf, "here")
    # the emulated processor has SVM: a guest in the guest is not emulated twice
    config.override(conf, "libvirt.virt_type", "kvm" if Path("/dev/kvm").exists() else "qemu")
    driver.start()
    yield driver
    driver.close()


def attachment(backend: LvmDriver, compute: LibvirtDriver, backed: Volume, **more: Any) -> dict[str, Any]:
    """As the Volume API shows it to the compute agent."""
    answer = backend.initialize_connection(backed, compute.connector(), "rw")
    info = {"driver_volume_type": answer["driver_volume_type"], **answer["data"]}
    shown = {"volume_id": backed.id, "attachment_id": str(uuid.uuid4()), "connection_info": info}
    return {**shown, "size_gib": backed.size_gib, "device_name": None, **more}


def until(condition: Callable[[], bool], describe: Callable[[], Any]) -> None:
    """Wait for it. (What other tests wait with imports a whole cloud, which takes a minute here.)"""
    deadline = time.monotonic() + BOOT_S
    while not condition():
        assert time.monotonic() < deadline, describe()
        time.sleep(0.2)


@pytest.mark.timeout(3000)
def test_a_guest_boots_from_iscsi_and_writes_to_nvme(
    compute: LibvirtDriver,
    initiator: None,  # noqa: F811
    tmp_path: Path,
) -> None:
    booting = made(tmp_path, "thick", target_helper="lio")
    writing = made(tmp_path, "thin", target_helper="nvmet")
    for each in (booting, writing):
        each.start()
    root, data = volume(), volume()
    tiny = guests.tiny_image()
    booting.write_image(root, tiny, "qcow2", lambda _done: None)
    writing.create(data)
    disk = attachment(booting, compute, root, boot_index=0)
    more = attachment(writing, compute, data)
    guest = make_guest(image=guests.described(tiny), memory_mib=128, volumes=(disk,))
    compute.connect_volume(disk)
    compute.create_disks(guest)
    compute.define(guest)
    compute.power_on(guest.server_id)
    until(
        lambda: "GUEST-READY" in compute.console_output(guest.server_id, 1 << 20),
        lambda: compute.console_output(guest.server_id, 2000),
    )
    compute.connect_volume(more)
    compute.attach_volume(guest, more)
    serial = data.id[:20]
    with Shell(compute._connection.uri, guest.server_id) as console:
        until(lambda: serial in console.disks(), console.disks)
        name = console.disks()[serial]
        console.run(f"dd if=/dev/urandom of=/dev/{name} bs=1M count=4 oflag=direct 2>/dev/null", BOOT_S)
        read = f"dd if=/dev/{name} bs=1M count=4 iflag=direct 2>/dev/null | sha256sum"
        digest = console.run(read, BOOT_S).split()[0]
        # what the guest keeps on the disk that it was booted from
        console.run("echo kept > /data/kept && sync", BOOT_S)
        writing.extend(dataclasses.replace(data, in_use=True), 2)
        compute.extend_volume(guest.server_id, more, 2)
        size = f"cat /sys/block/{name}/size"
        until(lambda: console.run(size) == str((2 << 30) // 512), lambda: console.run(size))
        assert console.run(read, BOOT_S).split()[0] == digest
        compute.detach_volume(guest.server_id, more["volume_id"])
    compute.disconnect_volume(more)
    writing.terminate_connection(data, compute.connector())
    with writing.open(Volume(id=data.id, size_gib=2)) as file:
        assert hashlib.sha256(file.read(4 * MIB)).hexdigest() == digest
    compute.undefine(guest.server_id)
    compute.disconnect_volume(disk)
    compute.remove_disks(guest.server_id)
    booting.terminate_connection(root, compute.connector())
    with booting.open(root) as file:
        assert any(b"kept\n" in file.read(MIB) for _ in range(40))
    booting.delete(root)
    writing.delete(Volume(id=data.id, size_gib=2))
    assert not [name for each in (booting, writing) for name in each._group.volumes() if "volume-" in name]
