"""ComputeCapabilitiesFilter: the host's capabilities satisfy the flavor's extra specs.

Extra specs count when their key has the scope ``capabilities:`` or no scope at all.  A key may go
down into a capability that is a mapping: ``capabilities:cpu_info:vendor``.  Operators are those of
oslo.utils' specs matcher (``s==``, ``>=``, ``<in>``, ``<all-in>``, ``<or>`` ...).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from scheduler.columns import BoolArray
from scheduler.filters.base import Filter, Watch
from scheduler.filters.specs import match, specs_in_scope
from scheduler.host_view import Hosts, HostView
from scheduler.request import PlacementRequest

SCOPE = "capabilities"
# Figures of a host that upstream's host state offers to this filter as attributes.
ATTRIBUTES = frozenset(
    {
        *("vcpus_total", "vcpus_used", "total_usable_ram_mb", "free_ram_mb", "total_usable_disk_gb"),
        *("free_disk_mb", "num_instances", "num_io_ops", "failed_builds", "host", "node"),
    }
)


def matches(capability: Any, path: list[str], wanted: str) -> bool:
    """Whether what ``path`` leads to inside ``capability`` satisfies ``wanted``."""
    for step in path:
        if isinstance(capability, str):
            try:
                capability = json.loads(capability)  # cpu_info may come as JSON text
            except ValueError:
                return False
        if not isinstance(capability, Mapping) or step not in capability:
            return False
        capability = capability[step]
    return capability is not None and match(str(capability), wanted)


class ComputeCapabilitiesFilter(Filter):
    """Passes hosts whose capabilities match all extra specs in scope."""

    personal = False

    def applies(self, request: PlacementRequest) -> bool:
        return any(True for _ in specs_in_scope(request.extra_specs, SCOPE))

    def watch(self, request: PlacementRequest) -> Watch:
        specs = specs_in_scope(request.extra_specs, SCOPE)
        return Watch.HOST if any(path[0] in ATTRIBUTES for path, _, _ in specs) else Watch.NOTHING

    def mask(self, hosts: Hosts, request: PlacementRequest) -> BoolArray:
        passed = np.ones(len(hosts), dtype=bool)
        for path, wanted, _ in specs_in_scope(request.extra_specs, SCOPE):
            passed &= self._one(hosts, path, wanted)
        return passed

    @staticmethod
    def _one(hosts: Hosts, path: list[str], wanted: str) -> BoolArray:
        if path[0] not in ATTRIBUTES:
            return hosts.capabilities.test(lambda value: matches(value, path, wanted))
        answers: dict[Any, bool] = {}

        def answer(host: HostView) -> bool:
            value = getattr(host, path[0])
            if value not in answers:
                answers[value] = matches({path[0]: value}, path, wanted)
            return answers[value]

        return np.fromiter((answer(host) for host in hosts), dtype=bool, count=len(hosts))

    def reasons(self, rejected: Hosts, request: PlacementRequest) -> Iterator[tuple[str, BoolArray]]:
        for path, wanted, key in specs_in_scope(request.extra_specs, SCOPE):
            yield f"without the capability {key} {wanted}", ~self._one(rejected, path, wanted)

    def reason(self, request: PlacementRequest) -> str:
        return "without the capabilities that the flavor wants"
