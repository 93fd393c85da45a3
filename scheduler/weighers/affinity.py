"""Weighers for server groups with the soft policies."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from scheduler.columns import FloatArray
from scheduler.filters.base import Watch
from scheduler.host_view import Hosts
from scheduler.request import PlacementRequest
from scheduler.weighers.base import Weigher


class _GroupWeigher(Weigher):
    """Members of the request's group per host, when its policy is the class's."""

    policy: ClassVar[str]
    watches = Watch.HOST
    personal = False

    def applies(self, request: PlacementRequest) -> bool:
        return request.group is not None and request.group.policy == self.policy

    def weights(self, hosts: Hosts, request: PlacementRequest) -> FloatArray:
        if request.group is None or request.group.policy != self.policy:
            return np.zeros(len(hosts))
        return hosts.group_counts(request.group.id).astype(np.float64)


class ServerGroupSoftAffinityWeigher(_GroupWeigher):
    """soft-affinity: the more members on a host, the better."""

    option = "soft_affinity_weight_multiplier"
    policy = "soft-affinity"


class ServerGroupSoftAntiAffinityWeigher(_GroupWeigher):
    """soft-anti-affinity: the fewer members on a host, the better."""

    option = "soft_anti_affinity_weight_multiplier"
    policy = "soft-anti-affinity"

    def weights(self, hosts: Hosts, request: PlacementRequest) -> FloatArray:
        return -super().weights(hosts, request)
