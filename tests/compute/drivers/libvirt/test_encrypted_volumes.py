"""An encrypted volume in a real guest: it reads what it wrote, the host's file shows nothing of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from compute.drivers.libvirt.driver import LibvirtDriver
from tests.compute.drivers.libvirt.test_driver import boot, driver, image  # noqa: F401 - fixture
from tests.compute.drivers.libvirt.test_volumes import described, files, forget, name_of, shell  # noqa: F401
from tests.compute.drivers.specs import make_guest
from tests.lab.guests import libvirtd, tiny  # noqa: F401 - fixtures
from tests.stack.cloud import wait_for
from tests.volume.drivers.encrypted_contract import LUKS, Guest, encrypted, on_disk
from volume.drivers.file import FileDriver
from volume.encryption import Encrypter

pytestmark = [pytest.mark.libvirt, pytest.mark.xdist_group("libvirt"), pytest.mark.timeout(300)]
MIB = 1 << 20


def test_a_guest_reads_what_the_host_can_not(
    driver: LibvirtDriver,  # noqa: F811
    tiny: Path,  # noqa: F811
    files: FileDriver,  # noqa: F811
) -> None:
    passphrase = os.urandom(32).hex()
    kept = encrypted()
    Encrypter(files._conf, files, LUKS, passphrase).create(kept)
    volume = described(files, kept, encryption={"format": "luks", "secret": passphrase})
    guest = make_guest(image=image(tiny), memory_mib=128)
    boot(driver, guest)
    with shell(driver, guest) as console:
        driver.connect_volume(volume)
        driver.attach_volume(guest, volume)
        disk = name_of(console, volume)
        assert console.run(f"cat /sys/block/{disk}/size") == str((1 << 30) // 512), (
            "as large as was asked for"
        )
        console.run(
            f"yes QQQQQQQQQQQQQQQ | dd of=/dev/{disk} bs=1M count=1 iflag=fullblock 2>/dev/null; sync"
        )
        shown = console.run(f"dd if=/dev/{disk} bs=512 count=1 iflag=direct 2>/dev/null | head -n 1")
        assert shown == "Q" * 15
        driver.extend_volume(guest.server_id, volume, 2)
        wait_for(lambda: console.run(f"cat /sys/block/{disk}/size") == str((2 << 30) // 512), "the new size")
        driver.detach_volume(guest.server_id, volume["volume_id"])
    driver.disconnect_volume(volume)
    assert not on_disk(files, kept, b"QQQQQQQ")
    said = Guest(files, passphrase).io(kept, f"read -v {MIB - 512} 512")
    assert "QQQQQQQQQQQQQQQ" in said
    folder = Path(files._conf.state_path)
    told = [
        path
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and path.stat().st_size < MIB
    ]
    assert not [path for path in told if passphrase.encode() in path.read_bytes()]
    forget(driver, guest)
    files.delete(kept)
