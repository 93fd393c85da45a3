"""The server groups' filters and those of the hints same_host and different_host."""

from __future__ import annotations

import numpy as np

from scheduler.columns import BoolArray
from scheduler.filters.base import Filter, Watch
from scheduler.host_view import Hosts
from scheduler.request import PlacementRequest


class ServerGroupAffinityFilter(Filter):
    """Affinity: once the group has a member on a host, only hosts with members pass."""

    # The first member, wherever it goes, closes all other hosts.
    watches = Watch.ALL
    personal = False

    def watch(self, request: PlacementRequest) -> Watch:
        return Watch.ALL if self.applies(request) else Watch.NOTHING

    def applies(self, request: PlacementRequest) -> bool:
        return request.group is not None and request.group.policy == "affinity"

    def mask(self, hosts: Hosts, request: PlacementRequest) -> BoolArray:
        if request.group is None or not (hosts.table.groups.of(request.group.id) or request.group.hosts):
            return np.ones(len(hosts), dtype=bool)
        return hosts.group_counts(request.group.id) > 0

    def reason(self, request: PlacementRequest) -> str:
        return "without the other members of the affinity group"


class ServerGroupAntiAffinityFilter(Filter):
    """Anti-affinity: hosts with fewer members than ``max_server_per_host`` (1 by default) pass."""

    watches = Watch.HOST
    personal = False

    def watch(self, request: PlacementRequest) -> Watch:
        return Watch.HOST if self.applies(request) else Watch.NOTHING

    def applies(self, request: PlacementRequest) -> bool:
        return request.group is not None and request.group.policy == "anti-affinity"

    def mask(self, hosts: Hosts, request: PlacementRequest) -> BoolArray:
        if request.group is None:
            return np.ones(len(hosts), dtype=bool)
        return hosts.group_counts(request.group.id) < request.group.max_per_host

    def reason(self, request: PlacementRequest) -> str:
        most = request.group.max_per_host if request.group is not None else 1
        members = "a member" if most == 1 else f"{most} members"
        return f"with {members} of the anti-affinity group already"


class SameHostFilter(Filter):
    """Passes the hosts of the servers named in the ``same_host`` hint."""

    watches = Watch.NOTHING
    personal = False

    def applies(self, request: PlacementRequest) -> bool:
        return request.same_hosts is not None

    def mask(self, hosts: Hosts, request: PlacementRequest) -> BoolArray:
        return hosts.names.among(request.same_hosts or ())

    def reason(self, request: PlacementRequest) -> str:
        return "without the servers named in the hint same_host"


class DifferentHostFilter(Filter):
    """Passes hosts that have none of the servers named in the ``different_host`` hint."""

    watches = Watch.NOTHING
    personal = False

    def applies(self, request: PlacementRequest) -> bool:
        return bool(request.different_hosts)

    def mask(self, hosts: Hosts, request: PlacementRequest) -> BoolArray:
        return ~hosts.names.among(request.different_hosts or ())

    def reason(self, request: PlacementRequest) -> str:
        return "with a server named in the hint different_host"
