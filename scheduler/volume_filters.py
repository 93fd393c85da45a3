"""Filters of pools for new volumes, and the record of what each of them removed.

The record has the shape that ``scheduler.explain`` tells servers' decisions from, with pools in place of hosts.
Pools are few (a handful for each backend), so a filter is a test of one pool; what needs the databases is looked up
before (``Wanted``), outside of the transaction that claims.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from core.volume_capabilities import fits
from scheduler import explain

SAME_HOST, DIFFERENT_HOST, LOCAL_TO_INSTANCE = "same_host", "different_host", "local_to_instance"
"""Scheduler hints, named as in upstream's API."""

Row = Mapping[str, Any]
Check = tuple[str, str, Callable[[int], bool]]
"""(filter, why a pool is removed, whether pool number N passes)"""


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """What a volume asks of its pool. None: it does not ask for that."""

    size_gib: int
    availability_zone: str | None
    specs: Sequence[Mapping[str, str]] = ()
    """Extra specs of its type; of all its types for a group."""
    pool: str | None = None
    excluded: Sequence[str] = ()
    same: frozenset[str] | None = None
    """Pools of the volumes in the hint ``same_host``."""
    different: frozenset[str] | None = None
    """Pools of the volumes in the hint ``different_host``."""
    local_to: str | None = None
    """The host of the server in the hint ``local_to_instance``; empty: it has none."""


def hinted(hints: Mapping[str, Any], name: str) -> list[str] | None:
    """The ids in a scheduler hint, which may be one or a list; None: it is not there."""
    value = hints.get(name)
    if value is None or value == []:
        return None
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]


def judge(
    rows: Sequence[Row], wanted: Wanted, usable: Callable[[Row], bool], room: Sequence[float]
) -> tuple[list[bool], dict[str, Any]]:
    """(which pools are left, the record so far). ``room``: GiB that each may still promise."""
    left = [True] * len(rows)
    steps: list[explain.FilterStep] = []
    for name, reason, passes in _checks(rows, wanted, usable, room):
        step = explain.FilterStep(name)
        for index, row in enumerate(rows):
            if left[index] and not passes(index):
                left[index] = False
                step.removed += 1
                if len(step.hosts) < explain.MAX_HOSTS_PER_FILTER:
                    step.hosts.append(row["name"])
        step.reasons[reason] = step.removed
        if step.removed:
            steps.append(step)
    return left, {
        "version": explain.VERSION,
        "resource": "volume",
        "driver": "filter",
        "hosts": len(rows),
        "candidates": sum(left),
        "filters": [step.to_json() for step in steps],
        "weighers": [],
        "chosen": None,
        "alternates": [],
    }


def _checks(
    rows: Sequence[Row], wanted: Wanted, usable: Callable[[Row], bool], room: Sequence[float]
) -> Iterator[Check]:
    def in_zone(index: int) -> bool:
        service = rows[index]["service"]
        return service is not None and service["availability_zone"] == wanted.availability_zone

    def fitting(index: int) -> bool:
        return all(fits(rows[index]["capabilities"], each) for each in wanted.specs)

    def name(index: int) -> str:
        return str(rows[index]["name"])

    yield "DriverFilter", "disabled, frozen or down", lambda index: usable(rows[index])
    yield "AvailabilityZoneFilter", "in other availability zones", in_zone
    if wanted.pool is not None:
        yield "PoolFilter", "other than the one that has its source", lambda i: name(i) == wanted.pool
    if wanted.excluded:
        # where a volume that moves comes from
        yield "IgnoreAttemptedHostsFilter", "excluded", lambda i: name(i) not in wanted.excluded
    same, different, local_to = wanted.same, wanted.different, wanted.local_to
    if same is not None:
        yield "SameBackendFilter", "without the volumes in same_host", lambda i: name(i) in same
    if different is not None:
        yield "DifferentBackendFilter", "with volumes in different_host", lambda i: name(i) not in different
    if local_to is not None:
        yield (
            "InstanceLocalityFilter",
            "on other hosts than the server in local_to_instance",
            lambda i: bool(local_to) and name(i).partition("@")[0] == local_to,
        )
    yield "CapabilitiesFilter", "without the capabilities that its type wants", fitting
    yield "CapacityFilter", f"without room for {wanted.size_gib} GiB", lambda i: room[i] >= wanted.size_gib
