"""How much a pool of volumes may still promise."""

from __future__ import annotations

import pytest

from scheduler.volume_pools import room


@pytest.mark.parametrize(
    ("thin", "ratio", "reserved", "free", "promised", "expected"),
    [
        # promised counts before the driver has seen it
        (False, 20.0, 0, 100.0, 40, 60.0),
        # what others have filled counts, too
        (False, 20.0, 0, 30.0, 40, 30.0),
        (False, 20.0, 10, 100.0, 0, 90.0),
        (False, 20.0, 10, 5.0, 0, -5.0),
        (True, 2.0, 0, 100.0, 150, 50.0),
        (True, 2.0, 0, 10.0, 0, 20.0),
        (True, 2.0, 10, 10.0, 0, 0.0),
        (True, 1.0, 0, 100.0, 100, 0.0),
        (True, 20.0, 0, None, 100, 1900.0),
    ],
)
def test_room(
    thin: bool, ratio: float, reserved: int, free: float | None, promised: int, expected: float
) -> None:
    said = {
        "thin_provisioning_support": thin,
        "max_over_subscription_ratio": ratio,
        "reserved_percentage": reserved,
    }
    row = {"capabilities": said, "total_gib": 100.0, "free_gib": free, "allocated": (1, promised)}
    assert room([row]).tolist() == [expected]


def test_a_pool_that_does_not_say_how_large_it_is() -> None:
    row = {"capabilities": {}, "total_gib": None, "free_gib": None, "allocated": (0, 0)}
    assert room([row])[0] > 1e9
