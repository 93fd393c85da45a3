"""Filters that bound how many servers, and how many busy ones, a host takes."""

from __future__ import annotations

import numpy as np

from scheduler.columns import BoolArray, IntArray
from scheduler.filters.base import Filter, Watch
from scheduler.host_view import Hosts
from scheduler.request import PlacementRequest


def aggregate_limit(hosts: Hosts, key: str, default: int) -> IntArray:
    """Per host the smallest number under a metadata key of its aggregates, else ``default``."""

    def limit(ids: frozenset[int]) -> int:
        numbers = [int(value) for value in hosts.metadata(ids, key) if value.strip().isdigit()]
        return min(numbers, default=default)

    return hosts.aggregates.map(limit, np.int64)


class NumInstancesFilter(Filter):
    """Passes hosts with fewer than ``max_instances_per_host`` servers."""

    watches = Watch.HOST
    personal = False

    def mask(self, hosts: Hosts, request: PlacementRequest) -> BoolArray:
        return hosts.num_instances < self.conf.filter_scheduler.max_instances_per_host

    def reason(self, request: PlacementRequest) -> str:
        return "full: as many servers as a host may have"


class AggregateNumInstancesFilter(NumInstancesFilter):
    """The same, with ``max_instances_per_host`` from the metadata of the host's aggregates."""

    def mask(self, hosts: Hosts, request: PlacementRequest) -> BoolArray:
        default = self.conf.filter_scheduler.max_instances_per_host
        return hosts.num_instances < aggregate_limit(hosts, "max_instances_per_host", default)


class IoOpsFilter(Filter):
    """Passes hosts with fewer than ``max_io_ops_per_host`` builds, resizes and the like going on."""

    watches = Watch.HOST
    personal = False

    def mask(self, hosts: Hosts, request: PlacementRequest) -> BoolArray:
        return hosts.num_io_ops < self.conf.filter_scheduler.max_io_ops_per_host

    def reason(self, request: PlacementRequest) -> str:
        return "busy: too many builds or moves in progress, try again later"


class AggregateIoOpsFilter(IoOpsFilter):
    """The same, with ``max_io_ops_per_host`` from the metadata of the host's aggregates."""

    def mask(self, hosts: Hosts, request: PlacementRequest) -> BoolArray:
        default = self.conf.filter_scheduler.max_io_ops_per_host
        return hosts.num_io_ops < aggregate_limit(hosts, "max_io_ops_per_host", default)
