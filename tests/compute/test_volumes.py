"""Block devices as plain data."""

from __future__ import annotations

import pytest

from compute import volumes
from tests.compute.drivers.specs import make_guest


def test_volumes_come_in_the_same_order_at_every_start() -> None:
    def volume(name: str | None, index: int | None = None) -> dict[str, object]:
        return {"volume_id": f"id-{name}", "device_name": name, "boot_index": index}

    mixed = [
        volume(None),
        volume("/dev/vdaa"),
        volume("/dev/vdc", -1),
        volume("/dev/vdb", 1),
        volume("/dev/vdz", 0),
    ]
    names = [each["device_name"] for each in volumes.in_order(mixed)]
    assert names == ["/dev/vdz", "/dev/vdb", "/dev/vdc", "/dev/vdaa", None]
    boot = volumes.boot_volume(mixed)
    assert boot is not None and boot["device_name"] == "/dev/vdz"


@pytest.mark.parametrize(
    ("number", "letters"), [(0, "a"), (25, "z"), (26, "aa"), (51, "az"), (52, "ba"), (701, "zz")]
)
def test_disks_are_counted_in_letters(number: int, letters: str) -> None:
    assert volumes.device_letters(number) == letters


def test_the_flavors_disks_hold_unless_others_are_named() -> None:
    flavors = make_guest(ephemeral_gib=1, swap_mib=64)
    assert flavors.disks_beside_root() == [
        {"kind": "ephemeral", "size_mib": 1024},
        {"kind": "swap", "size_mib": 64},
    ]
    blank = {"kind": "blank", "size_mib": 10}
    guest = make_guest(ephemeral_gib=1, swap_mib=64, local_disks=(blank,))
    assert guest.disks_beside_root() == [blank]
    assert type(guest).from_dict(guest.to_dict()) == guest
    assert type(guest).from_dict({**guest.to_dict(), "newer": 1, "local_disks": [blank]}) == guest


def test_a_guest_that_is_shown_shows_no_passphrase() -> None:
    encryption = {"format": "luks", "secret": "correct horse"}
    guest = make_guest(volumes=({"volume_id": "v", "encryption": encryption, "boot_index": 0},))
    assert "horse" not in repr(guest)
    assert not guest.boots_locally


def test_a_volume_is_read_only_when_anyone_says_so() -> None:
    assert not volumes.is_read_only({"volume_id": "v", "mode": "rw"})
    assert volumes.is_read_only({"volume_id": "v", "mode": "ro"})
    assert volumes.is_read_only({"volume_id": "v", "connection_info": {"access_mode": "ro"}})
    assert volumes.is_read_only({"volume_id": "v", "device_type": "cdrom"})
