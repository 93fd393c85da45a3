"""The simulated driver: what it remembers, what it forgets, and failing on demand."""

from __future__ import annotations

import queue
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg

from compute.drivers.base import GuestImage, PowerState
from compute.drivers.simulated import GROUP, OPTS, SimulatedDriver, leftovers
from core.errors import BadRequest, Conflict, DriverError, NotFound, Rebuildable
from tests.compute.drivers.specs import make_guest, make_image


def driver(host: str = "host1", **options: Any) -> SimulatedDriver:
    conf = cfg.ConfigOpts()
    conf([], default_config_files=[], default_config_dirs=[])
    conf.register_opts(OPTS, group=GROUP)
    for name, value in options.items():
        conf.set_override(name, value, group=GROUP)
    made = SimulatedDriver(conf, host)
    made.start()
    return made


def no_content(image: GuestImage) -> Iterator[bytes]:
    raise AssertionError("nothing should be fetched")


def boot(hypervisor: SimulatedDriver) -> str:
    image = make_image()
    guest = make_guest(image=image)
    hypervisor.cache_image(image, no_content)
    hypervisor.create_disks(guest)
    hypervisor.define(guest)
    hypervisor.power_on(guest.server_id)
    return guest.server_id


def test_life_of_a_guest() -> None:
    hypervisor = driver()
    events: queue.Queue[tuple[str, PowerState]] = queue.Queue()
    hypervisor.listen(lambda server_id, state: events.put((server_id, state)))
    server_id = boot(hypervisor)
    assert events.get(timeout=5) == (server_id, PowerState.RUNNING)
    assert hypervisor.power_state(server_id) == PowerState.RUNNING
    assert "GUEST-READY" in hypervisor.console_output(server_id, 1000)
    assert hypervisor.console_output(server_id, 5) == "0.00\n"
    assert hypervisor.diagnostics(server_id)["state"] == "running"
    hypervisor.power_off(server_id, 0)
    hypervisor.power_off(server_id, 0)
    assert events.get(timeout=5) == (server_id, PowerState.SHUTDOWN)
    assert [info.power_state for info in hypervisor.guests()] == [PowerState.SHUTDOWN]
    for _twice in range(2):
        hypervisor.undefine(server_id)
        hypervisor.remove_disks(server_id)
    assert events.get(timeout=5) == (server_id, PowerState.NOSTATE)
    assert hypervisor.guests() == []
    assert hypervisor.power_state(server_id) == PowerState.NOSTATE
    with pytest.raises(NotFound):
        hypervisor.power_on(server_id)
    hypervisor.close()


def test_disks_need_their_image() -> None:
    with pytest.raises(DriverError, match="not in the host's cache"):
        driver().create_disks(make_guest(image=make_image()))


def test_guests_survive_in_the_state_folder(tmp_path: Path) -> None:
    first = driver(state_dir=str(tmp_path))
    server_id = boot(first)  # and no close(): as if killed
    second = driver(state_dir=str(tmp_path))
    assert second.power_state(server_id) == PowerState.RUNNING
    assert driver("host2", state_dir=str(tmp_path)).guests() == []
    assert leftovers(tmp_path, {server_id}) == []
    assert leftovers(tmp_path, set()) == [f"host1 disks {server_id}", f"host1 guests {server_id}"]
    second.undefine(server_id)
    second.remove_disks(server_id)
    assert leftovers(tmp_path, set()) == []


def test_failure_rules() -> None:
    hypervisor = driver(failures=["define#2", "power_on:1!host"])
    guest = make_guest()
    hypervisor.define(guest)
    with pytest.raises(DriverError, match="Simulated failure of define"):
        hypervisor.define(guest)
    hypervisor.define(guest)
    with pytest.raises(Rebuildable):
        hypervisor.power_on(guest.server_id)
    assert hypervisor.power_state(guest.server_id) == PowerState.SHUTDOWN


@pytest.mark.parametrize("rule", ["explode:0.5", "define", "define#0", "define:2", "_before:1"])
def test_wrong_rules_are_refused(rule: str) -> None:
    with pytest.raises(DriverError, match="failures"):
        driver(failures=[rule])


def test_image_is_fetched_once_and_verified() -> None:
    hypervisor = driver(fetch_images=True)
    image = make_image(b"content")
    fetched = []
    started = threading.Barrier(8)

    def fetch(_image: GuestImage) -> Iterator[bytes]:
        fetched.append(1)
        yield b"content"

    def cache() -> None:
        started.wait()
        hypervisor.cache_image(image, fetch)

    threads = [threading.Thread(target=cache) for _n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fetched == [1]
    with pytest.raises(DriverError, match="hash"):
        hypervisor.cache_image(make_image(b"other"), fetch)


def test_inventory_follows_the_disks() -> None:
    hypervisor = driver(disk_gib=100, vcpus=2)
    assert hypervisor.inventory().disk_available_gib == 100
    guest = make_guest(root_gib=10, ephemeral_gib=5)
    hypervisor.create_disks(guest)
    assert hypervisor.inventory().disk_available_gib == 85
    hypervisor.remove_disks(guest.server_id)
    assert hypervisor.inventory().disk_available_gib == 100


def make_volume(size_gib: int = 1, **changes: Any) -> dict[str, Any]:
    volume_id = str(uuid.uuid4())
    info = {"driver_volume_type": "local", "device_path": f"/simulated/volume-{volume_id}", "format": "raw"}
    made = {"volume_id": volume_id, "attachment_id": str(uuid.uuid4()), "connection_info": info}
    return {**made, "size_gib": size_gib, "device_name": "/dev/vdb", **changes}


def test_volumes_are_connected_and_attached(tmp_path: Path) -> None:
    hypervisor = driver(state_dir=str(tmp_path))
    server_id, volume = boot(hypervisor), make_volume()
    guest = make_guest(server_id=server_id)
    assert hypervisor.connector()["host"] == "host1"
    with pytest.raises(DriverError, match="not connected"):
        hypervisor.attach_volume(guest, volume)
    for _twice in range(2):
        hypervisor.connect_volume(volume)
        hypervisor.attach_volume(guest, volume)
    hypervisor.extend_volume(server_id, volume, 3)
    again = driver(state_dir=str(tmp_path))
    assert again.volumes_of(server_id) == {volume["volume_id"]: 3}
    assert leftovers(tmp_path, {server_id}) == [f"host1 connections {volume['volume_id']}"]
    for _twice in range(2):
        again.detach_volume(server_id, volume["volume_id"])
        again.disconnect_volume(volume)
    assert again.volumes_of(server_id) == again.connected() == {}
    again.detach_volume("no-such-server", volume["volume_id"])
    with pytest.raises(NotFound):
        again.extend_volume(server_id, volume, 4)


def test_a_shared_volume_stays_connected_until_the_last_lets_go() -> None:
    hypervisor = driver()
    one = make_volume(multiattach=True)
    two = {**one, "attachment_id": str(uuid.uuid4())}
    hypervisor.connect_volume(one)
    hypervisor.connect_volume(two)
    hypervisor.disconnect_volume(one)
    assert hypervisor.connected() == {one["volume_id"]: [two["attachment_id"]]}
    hypervisor.disconnect_volume(two)
    assert hypervisor.connected() == {}


def test_a_volume_is_swapped() -> None:
    hypervisor = driver()
    server_id, old, new, small = boot(hypervisor), make_volume(2), make_volume(3), make_volume(1)
    guest = make_guest(server_id=server_id)
    for volume in (old, new, small):
        hypervisor.connect_volume(volume)
    hypervisor.attach_volume(guest, old)
    with pytest.raises(BadRequest, match="smaller"):
        hypervisor.swap_volume(guest, old, small, lambda: None)
    with pytest.raises(NotFound):
        hypervisor.swap_volume(guest, small, new, lambda: None)
    assert hypervisor.volumes_of(server_id) == {old["volume_id"]: 2}
    for _twice in range(2):
        hypervisor.swap_volume(guest, old, new, lambda: None)
        assert hypervisor.volumes_of(server_id) == {new["volume_id"]: 3}
    hypervisor.quiesce(server_id)
    hypervisor.unquiesce(server_id)
    hypervisor.power_off(server_id, 0)
    with pytest.raises(Conflict):
        hypervisor.swap_volume(guest, new, old, lambda: None)


def test_a_guest_that_boots_from_a_volume_has_no_root_disk() -> None:
    hypervisor = driver(disk_gib=100)
    volume = make_volume(20, boot_index=0)
    blank = {"kind": "blank", "size_mib": 3000}
    guest = make_guest(image=make_image(), root_gib=10, volumes=(volume,), local_disks=(blank,))
    hypervisor.create_disks(guest)  # no image is needed
    assert hypervisor.inventory().disk_available_gib == 97
    with pytest.raises(DriverError, match="not connected"):
        hypervisor.define(guest)
    hypervisor.connect_volume(volume)
    hypervisor.define(guest)
    assert hypervisor.volumes_of(guest.server_id) == {volume["volume_id"]: 20}
