"""NICs of real guests: taps that exist are opened, plugged in and pulled out while the guest runs."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compute.drivers.libvirt.driver import LibvirtDriver
from core.errors import DriverError
from tests.compute.drivers.libvirt.test_driver import boot, driver, image, says  # noqa: F401 - fixture
from tests.compute.drivers.specs import make_guest
from tests.lab.guests import libvirtd, tiny  # noqa: F401 - fixtures

pyroute2 = pytest.importorskip("pyroute2")
pytestmark = [
    pytest.mark.libvirt,
    pytest.mark.xdist_group("libvirt"),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network devices"),
]


@pytest.fixture
def tap() -> Iterator[dict[str, Any]]:
    """A NIC whose tap stands ready, as the network agent leaves it."""
    port_id = str(uuid.uuid4())
    nic = {
        "port_id": port_id,
        "device": f"tap{port_id[:11]}",
        "mac_address": "fa:16:3e:01:02:03",
        "mtu": 1450,
        "vif_type": "bridge",
        "vif_details": {},
    }
    with pyroute2.IPRoute() as ip:
        ip.link("add", ifname=nic["device"], kind="tuntap", mode="tap")
        (index,) = ip.link_lookup(ifname=nic["device"])
        ip.link("set", index=index, mtu=1450, state="up")
        yield nic
        ip.link("del", index=index)


def macs(driver: LibvirtDriver, server_id: str) -> list[str]:  # noqa: F811
    return [nic["mac_address"] for nic in driver.diagnostics(server_id)["nic_details"]]


def test_plugged_in_and_pulled_out_of_a_running_guest(
    driver: LibvirtDriver,  # noqa: F811
    tiny: Path,  # noqa: F811
    tap: dict[str, Any],
) -> None:
    guest = make_guest(image=image(tiny), memory_mib=128)
    boot(driver, guest)
    assert macs(driver, guest.server_id) == []
    for _ in range(2):  # the second time changes nothing
        driver.attach_nic(guest, tap)
        assert macs(driver, guest.server_id) == [tap["mac_address"]]
    driver.power_off(guest.server_id, 0)
    driver.power_on(guest.server_id)
    assert macs(driver, guest.server_id) == [tap["mac_address"]], "it is defined, too"
    says(driver, guest.server_id, "GUEST-READY")
    for _ in range(2):
        driver.detach_nic(guest.server_id, tap["mac_address"])
        assert macs(driver, guest.server_id) == []
    driver.undefine(guest.server_id)
    driver.detach_nic(guest.server_id, tap["mac_address"])


def test_a_start_waits_for_the_tap(driver: LibvirtDriver, tiny: Path, tap: dict[str, Any]) -> None:  # noqa: F811
    absent = {**tap, "device": "tap-absent", "mac_address": "fa:16:3e:01:02:04"}
    guest = make_guest(image=image(tiny), memory_mib=128, nics=(tap, absent))
    driver.create_disks(guest)
    driver.define(guest)
    with pytest.raises(DriverError, match="tap-absent"):
        driver.power_on(guest.server_id)
    driver.detach_nic(guest.server_id, absent["mac_address"])
    driver.power_on(guest.server_id)
    assert macs(driver, guest.server_id) == [tap["mac_address"]]
