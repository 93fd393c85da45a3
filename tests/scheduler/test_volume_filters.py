"""Filters of pools for volumes, and what is told of them."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler import explain
from scheduler.volume_filters import Wanted, judge


def pool(name: str, zone: str = "nova", **said: Any) -> dict[str, Any]:
    return {"name": name, "service": {"availability_zone": zone}, "capabilities": said}


POOLS = [pool("h1@a#p", tier="gold"), pool("h1@b#p", tier="silver"), pool("h2@a#p"), pool("h3@a#p", "other")]


@pytest.mark.parametrize(
    ("wanted", "left"),
    [
        ({}, ["h1@a#p", "h1@b#p", "h2@a#p"]),
        ({"pool": "h2@a#p"}, ["h2@a#p"]),
        ({"excluded": ["h1@a#p"]}, ["h1@b#p", "h2@a#p"]),
        ({"same": frozenset(["h1@b#p"])}, ["h1@b#p"]),
        ({"same": frozenset()}, []),
        ({"different": frozenset(["h1@b#p"])}, ["h1@a#p", "h2@a#p"]),
        ({"different": frozenset()}, ["h1@a#p", "h1@b#p", "h2@a#p"]),
        ({"local_to": "h1"}, ["h1@a#p", "h1@b#p"]),
        ({"local_to": ""}, []),
        ({"specs": [{"tier": "<or> gold <or> silver"}]}, ["h1@a#p", "h1@b#p"]),
        ({"specs": [{"capabilities:tier": "gold"}, {"tier": "silver"}]}, []),
        ({"size_gib": 20}, ["h2@a#p"]),
    ],
)
def test_filters(wanted: dict[str, Any], left: list[str]) -> None:
    asked = Wanted(**{"size_gib": 1, "availability_zone": "nova", **wanted})
    passed, record = judge(POOLS, asked, lambda row: True, [10, 10, 30, 30])
    assert [row["name"] for row, good in zip(POOLS, passed, strict=True) if good] == left
    assert record["candidates"] == len(left)
    assert sum(step["removed"] for step in record["filters"]) == len(POOLS) - len(left)


def test_the_summary_counts_by_reason_and_names_no_pool() -> None:
    asked = Wanted(size_gib=20, availability_zone="nova")
    _, record = judge(POOLS, asked, lambda row: row["name"] != "h2@a#p", [10, 10, 30, 30])
    assert explain.summary(record) == (
        "No valid backend was found: 4 pools; 1 disabled, frozen or down (DriverFilter), "
        "1 in other availability zones (AvailabilityZoneFilter), 2 without room for 20 GiB (CapacityFilter)"
    )
    assert "@" not in str(explain.owner_view(record))
    assert explain.admin_view(record)["filters"][0]["host_names"] == ["h2@a#p"]
