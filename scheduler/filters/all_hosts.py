"""AllHostsFilter: every host passes."""

from __future__ import annotations

import numpy as np

from scheduler.columns import BoolArray
from scheduler.filters.base import Filter, Watch
from scheduler.host_view import Hosts
from scheduler.request import PlacementRequest


class AllHostsFilter(Filter):
    """Passes all hosts; for clouds that want no other filter."""

    watches = Watch.NOTHING
    personal = False

    def applies(self, request: PlacementRequest) -> bool:
        return False

    def mask(self, hosts: Hosts, request: PlacementRequest) -> BoolArray:
        return np.ones(len(hosts), dtype=bool)
