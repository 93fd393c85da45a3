"""Weighers that look at what a host has left: memory, CPUs, disk."""

from __future__ import annotations

from scheduler.columns import FloatArray
from scheduler.filters.base import Watch
from scheduler.host_view import Hosts
from scheduler.request import DISK_GB, MEMORY_MB, VCPU, PlacementRequest
from scheduler.weighers.base import Weigher


class RAMWeigher(Weigher):
    """Physical memory (MB) that neither the host nor servers use; negative when overcommitted."""

    option = "ram_weight_multiplier"
    watches = Watch.HOST
    personal = False

    def weights(self, hosts: Hosts, request: PlacementRequest) -> FloatArray:
        return hosts.free(MEMORY_MB)


class CPUWeigher(Weigher):
    """Virtual CPUs that may still be promised: total * ratio - used."""

    option = "cpu_weight_multiplier"
    watches = Watch.HOST
    personal = False

    def weights(self, hosts: Hosts, request: PlacementRequest) -> FloatArray:
        return hosts.free(VCPU, overcommit=True)


class DiskWeigher(Weigher):
    """Physical disk (MB) that is free."""

    option = "disk_weight_multiplier"
    watches = Watch.HOST
    personal = False

    def weights(self, hosts: Hosts, request: PlacementRequest) -> FloatArray:
        return hosts.free(DISK_GB) * 1024
