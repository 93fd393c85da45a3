"""AvailabilityZoneFilter: the host is in the zone that was asked for.

It runs whether enabled or not: upstream enforces zones before its filters (through placement), so
that deployments which copy their ``enabled_filters`` must not lose them here.
"""

from __future__ import annotations

from scheduler.columns import BoolArray
from scheduler.filters.base import Filter, Watch
from scheduler.host_view import Hosts
from scheduler.request import PlacementRequest


class AvailabilityZoneFilter(Filter):
    """Passes hosts of the requested zone; all when none was requested."""

    watches = Watch.NOTHING
    personal = False

    def applies(self, request: PlacementRequest) -> bool:
        return bool(request.availability_zone)

    def mask(self, hosts: Hosts, request: PlacementRequest) -> BoolArray:
        return hosts.zones.equals(request.availability_zone or "")

    def reason(self, request: PlacementRequest) -> str:
        return f"outside availability zone {request.availability_zone}"
