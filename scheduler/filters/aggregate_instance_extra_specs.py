"""AggregateInstanceExtraSpecsFilter: the host's aggregates have the metadata that the flavor wants.

Extra specs count when their key has the scope ``aggregate_instance_extra_specs:`` or no scope.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from scheduler.columns import BoolArray
from scheduler.filters.base import Filter, Watch
from scheduler.filters.specs import listed, match, specs_in_scope
from scheduler.host_view import Hosts
from scheduler.request import PlacementRequest

SCOPE = "aggregate_instance_extra_specs"


class AggregateInstanceExtraSpecsFilter(Filter):
    """Passes hosts where each extra spec in scope matches a value in one of the host's aggregates."""

    watches = Watch.NOTHING
    personal = False

    def applies(self, request: PlacementRequest) -> bool:
        return any(True for _ in specs_in_scope(request.extra_specs, SCOPE))

    def mask(self, hosts: Hosts, request: PlacementRequest) -> BoolArray:
        passed = np.ones(len(hosts), dtype=bool)
        for path, wanted, _ in specs_in_scope(request.extra_specs, SCOPE):
            passed &= self._one(hosts, ":".join(path), wanted)
        return passed

    @staticmethod
    def _one(hosts: Hosts, key: str, wanted: str) -> BoolArray:
        def matching(ids: frozenset[int]) -> bool:
            return any(match(value, wanted) for value in listed(hosts.metadata(ids, key)))

        return hosts.aggregates.test(matching)

    def reasons(self, rejected: Hosts, request: PlacementRequest) -> Iterator[tuple[str, BoolArray]]:
        for path, wanted, _ in specs_in_scope(request.extra_specs, SCOPE):
            key = ":".join(path)
            yield f"outside aggregates with {key} {wanted}", ~self._one(rejected, key, wanted)

    def reason(self, request: PlacementRequest) -> str:
        return "outside the aggregates that the flavor wants"
