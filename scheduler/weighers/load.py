"""Weighers that look at how busy or how unlucky a host is."""

from __future__ import annotations

import numpy as np

from scheduler.columns import FloatArray
from scheduler.filters.base import Watch
from scheduler.host_view import Hosts
from scheduler.request import PlacementRequest
from scheduler.weighers.base import Weigher


class NumInstancesWeigher(Weigher):
    """Servers on the host; a negative multiplier spreads by number."""

    option = "num_instances_weight_multiplier"
    watches = Watch.HOST
    personal = False

    def weights(self, hosts: Hosts, request: PlacementRequest) -> FloatArray:
        return hosts.num_instances.astype(np.float64)


class IoOpsWeigher(Weigher):
    """Builds, resizes and the like going on; the default multiplier is negative."""

    option = "io_ops_weight_multiplier"
    watches = Watch.HOST
    personal = False

    def weights(self, hosts: Hosts, request: PlacementRequest) -> FloatArray:
        return hosts.num_io_ops.astype(np.float64)


class BuildFailureWeigher(Weigher):
    """Builds that failed lately; the multiplier is given positive and applied negative."""

    option = "build_failure_weight_multiplier"
    watches = Watch.NOTHING
    personal = False

    def signed(self, multiplier: float) -> float:
        return -multiplier

    def weights(self, hosts: Hosts, request: PlacementRequest) -> FloatArray:
        return hosts.failed_builds.astype(np.float64)
