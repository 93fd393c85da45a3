"""ComputeFilter: the host's agent is enabled and alive."""

from __future__ import annotations

from scheduler.columns import BoolArray
from scheduler.filters.base import Filter, Watch
from scheduler.host_view import Hosts
from scheduler.request import PlacementRequest


class ComputeFilter(Filter):
    """Passes hosts that are enabled, not forced down, and were seen within ``service_down_time``."""

    watches = Watch.NOTHING
    personal = False

    def mask(self, hosts: Hosts, request: PlacementRequest) -> BoolArray:
        alive = hosts.now - hosts.last_seen <= self.conf.service_down_time
        return hosts.enabled & ~hosts.forced_down & alive

    def reason(self, request: PlacementRequest) -> str:
        return "disabled or down"
