"""Real guests: define, boot, look, reboot, stop, remove; and strangers left alone."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from compute.drivers.base import GuestImage, PowerState
from compute.drivers.libvirt import probe
from compute.drivers.libvirt.driver import LibvirtDriver
from core import config
from core.errors import Conflict, NotFound
from core.qemu_img import info
from tests.compute.drivers.specs import make_guest, make_image
from tests.lab import guests
from tests.lab.guests import libvirtd, tiny  # noqa: F401 - fixtures
from tests.stack.cloud import wait_for

pytestmark = [pytest.mark.libvirt, pytest.mark.xdist_group("libvirt")]
BOOT_S = 150


@pytest.fixture(scope="module")
def driver(libvirtd: Path, tiny: Path) -> Iterator[LibvirtDriver]:  # noqa: F811
    conf = config.load(overrides={"state_path": str(libvirtd)})
    driver = LibvirtDriver(conf, "h1")
    # emulation: what the tests are about does not depend on how fast the guest runs
    config.override(conf, "libvirt.virt_type", "qemu")
    driver.start()
    driver.cache_image(guests.described(tiny), lambda _image: iter([tiny.read_bytes()]))
    yield driver
    for guest in driver.guests():
        if guest.server_id:
            driver.undefine(guest.server_id)
    driver.close()


def image(tiny: Path, **properties: str) -> GuestImage:  # noqa: F811
    described = guests.described(tiny)
    described.properties.update(properties)
    return described


def says(driver: LibvirtDriver, server_id: str, text: str) -> None:
    wait_for(
        lambda: text in driver.console_output(server_id, 1 << 20),
        f"{text} on the console",
        BOOT_S,
        lambda: driver.console_output(server_id, 2000),
    )


def boot(driver: LibvirtDriver, guest) -> None:  # type: ignore[no-untyped-def]
    driver.create_disks(guest)
    driver.define(guest)
    driver.power_on(guest.server_id)
    says(driver, guest.server_id, "GUEST-READY")


@pytest.mark.timeout(600)
def test_the_life_of_a_guest(driver: LibvirtDriver, tiny: Path) -> None:  # noqa: F811
    script = base64.b64encode(b"#!/bin/sh\necho script-ran-$((40+2)) > /dev/console\n").decode()
    guest = make_guest(image=image(tiny), config_drive=True, user_data=script, swap_mib=16, memory_mib=192)
    seen: list[tuple[str, PowerState]] = []
    driver.listen(lambda server_id, state: seen.append((server_id, state)))
    boot(driver, guest)
    console = driver.console_output(guest.server_id, 1 << 20)
    assert f"GUEST-META source=config-drive uuid={guest.server_id}" in console
    assert "script-ran-42" in console
    assert "vda vdb vdc" in console
    assert len(driver.console_output(guest.server_id, 100)) <= 100
    assert driver.power_state(guest.server_id) == PowerState.RUNNING
    assert [found.server_id for found in driver.guests()] == [guest.server_id]
    facts = driver.diagnostics(guest.server_id)
    assert (facts["state"], facts["num_cpus"], facts["num_disks"]) == ("running", 1, 3)
    assert facts["config_drive"] is True
    assert driver.vnc(guest.server_id)["port"] >= 5900

    driver.power_on(guest.server_id)  # again: harmless
    driver.reboot(guest.server_id, hard=False, timeout_s=60)
    says(driver, guest.server_id, "GUEST-BOOTS 2")
    assert "GUEST-POWERBUTTON" in driver.console_output(guest.server_id, 1 << 20)
    driver.power_off(guest.server_id, 0)
    assert driver.power_state(guest.server_id) == PowerState.SHUTDOWN
    with pytest.raises(Conflict):
        driver.diagnostics(guest.server_id)
    wait_for(lambda: (guest.server_id, PowerState.SHUTDOWN) in seen, "the event of the stop")

    for _ in range(2):
        driver.undefine(guest.server_id)
        driver.remove_disks(guest.server_id)
    assert driver.guests() == []
    assert driver.power_state(guest.server_id) == PowerState.NOSTATE
    with pytest.raises(NotFound):
        driver.power_on(guest.server_id)


@pytest.mark.timeout(600)
def test_a_uefi_guest_boots_and_leaves_no_nvram(driver: LibvirtDriver, tiny: Path, libvirtd: Path) -> None:  # noqa: F811
    guest = make_guest(image=image(tiny, hw_firmware_type="uefi", hw_machine_type="q35"), memory_mib=256)
    boot(driver, guest)
    driver.undefine(guest.server_id)
    driver.remove_disks(guest.server_id)
    assert not list(libvirtd.glob("**/*VARS*"))


def test_strangers_are_reported_and_left_alone(driver: LibvirtDriver, libvirtd: Path) -> None:  # noqa: F811
    connection = libvirt.open(driver._connection.uri)
    stranger = connection.defineXML(
        "<domain type='qemu'><name>stranger</name><memory unit='MiB'>32</memory>"
        "<os><type arch='x86_64'>hvm</type></os></domain>"
    )
    try:
        assert [(found.name, found.server_id) for found in driver.guests()] == [("stranger", None)]
    finally:
        stranger.undefine()
        connection.close()


def test_the_host_is_described(driver: LibvirtDriver) -> None:
    inventory = driver.inventory()
    assert inventory.hypervisor_type == "QEMU"
    assert inventory.vcpus >= 1
    assert inventory.memory_mib > 256
    assert ("x86_64", "qemu", "hvm") in inventory.supported_instances
    assert inventory.warnings == ("emulation: [libvirt]virt_type says so",)


@pytest.mark.skipif(not Path("/dev/kvm").exists(), reason="this machine has no /dev/kvm")
def test_the_probe_tells_whether_kvm_boots_a_kernel(tiny: Path, tmp_path: Path) -> None:  # noqa: F811
    verdict = probe.decide("auto", tmp_path, str(tiny.with_name("vmlinuz")))
    assert verdict.virt_type in ("kvm", "qemu")
    assert (verdict.virt_type == "kvm") == (verdict.reason == "")
    kept = (tmp_path / "cache" / "kvm-probe.json").stat().st_mtime_ns
    assert probe.decide("auto", tmp_path, str(tiny.with_name("vmlinuz"))) == verdict
    assert (tmp_path / "cache" / "kvm-probe.json").stat().st_mtime_ns == kept


def test_without_a_kernel_the_probe_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "find_kernel", lambda *_: None)
    verdict = probe.decide("auto", tmp_path, None)
    assert verdict.virt_type == "qemu"
    assert "emulation" in verdict.reason


def copied(driver: LibvirtDriver, server_id: str, name: str) -> GuestImage:
    """A snapshot, as the image that it is uploaded as."""
    driver.take_snapshot(server_id, name, lambda: None)
    driver.take_snapshot(server_id, name, lambda: None)  # again: harmless
    content = b"".join(driver.read_snapshot(server_id, name))
    return make_image(content, size_bytes=len(content))


@pytest.mark.timeout(900)
def test_images_of_a_running_and_of_a_stopped_guest_boot(driver: LibvirtDriver, tiny: Path) -> None:  # noqa: F811
    guest = make_guest(image=image(tiny), memory_mib=192)
    boot(driver, guest)
    running = copied(driver, guest.server_id, "live")
    assert driver.power_state(guest.server_id) == PowerState.RUNNING
    driver.power_off(guest.server_id, 60)
    stopped = copied(driver, guest.server_id, "cold")
    for name, described in (("live", running), ("cold", stopped)):
        path = driver._disks.snapshot(guest.server_id, name)
        facts = info(driver._conf, path, "qcow2")
        assert "backing-filename" not in facts
        assert facts["virtual-size"] == 1 << 30
        content = path.read_bytes()
        driver.cache_image(described, lambda _image, content=content: iter([content]))  # type: ignore[misc]
        second = make_guest(image=described, memory_mib=192)
        driver.create_disks(second)
        driver.define(second)
        driver.power_on(second.server_id)
        says(driver, second.server_id, "GUEST-BOOTS 2")
        driver.undefine(second.server_id)
        driver.remove_disks(second.server_id)
        driver.remove_snapshot(guest.server_id, name)
        driver.remove_snapshot(guest.server_id, name)  # again: harmless
        assert not path.exists()
    driver.undefine(guest.server_id)
    driver.remove_disks(guest.server_id)


@pytest.mark.timeout(600)
def test_a_copy_that_is_given_up_leaves_the_guest_as_it_was(driver: LibvirtDriver, tiny: Path) -> None:  # noqa: F811
    class GiveUp(Exception):
        """Somebody deletes the server."""

    def check() -> None:
        raise GiveUp

    guest = make_guest(image=image(tiny), memory_mib=192)
    boot(driver, guest)
    domain = driver._find(guest.server_id)
    try:
        driver.take_snapshot(guest.server_id, "given-up", check)
    except GiveUp:
        assert not driver._disks.snapshot(guest.server_id, "given-up").exists()
    assert "<mirror" not in domain.XMLDesc(0)
    driver.remove_snapshot(guest.server_id, "given-up")
    assert not list(driver._disks.folder(guest.server_id).glob("snapshot-*"))
    # a process that died in the middle leaves its job behind: the next one ends it
    part = driver._disks.snapshot(guest.server_id, "again").with_suffix(".part")
    xml = f"<disk type='file'><source file='{part}'/><driver type='qcow2'/></disk>"
    domain.blockCopy("vda", xml, flags=libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB)
    driver.take_snapshot(guest.server_id, "again", lambda: None)
    assert driver._disks.snapshot(guest.server_id, "again").exists()
    assert "<mirror" not in domain.XMLDesc(0)
    driver.undefine(guest.server_id)
    driver.remove_disks(guest.server_id)
