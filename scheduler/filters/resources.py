"""What always holds, whatever is enabled: destination, capacity and traits.

Upstream asks placement for this before its filters run; here it is three more masks.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from scheduler.columns import BoolArray
from scheduler.filters.base import Filter, Watch
from scheduler.host_view import Hosts
from scheduler.request import DISK_GB, MEMORY_MB, VCPU, PlacementRequest


def amount_text(name: str, amount: int) -> str:
    """'8192 MB of memory', '4 VCPUs', '1 CUSTOM_GPU'."""
    if name == MEMORY_MB:
        return f"{amount} MB of memory"
    if name == DISK_GB:
        return f"{amount} GB of disk"
    if name == VCPU:
        return f"{amount} VCPU{'s' if amount != 1 else ''}"
    return f"{amount} {name}"


class DestinationFilter(Filter):
    """Hosts that the request names, without those it rules out or that failed before."""

    watches = Watch.NOTHING
    personal = False

    def applies(self, request: PlacementRequest) -> bool:
        return bool(request.host or request.node or request.cell or request.ignore_hosts or request.excluded)

    def mask(self, hosts: Hosts, request: PlacementRequest) -> BoolArray:
        passed = np.ones(len(hosts), dtype=bool)
        for _, rejected in self.reasons(hosts, request):
            passed &= ~rejected
        return passed

    def reasons(self, rejected: Hosts, request: PlacementRequest) -> Iterator[tuple[str, BoolArray]]:
        if request.host:
            yield "other than the requested host", ~rejected.names.equals(request.host)
        if request.node:
            yield "other than the requested node", ~rejected.nodes.equals(request.node)
        if request.cell:
            yield "outside the server's cell", ~rejected.cells.equals(request.cell)
        if request.ignore_hosts:
            yield "ruled out by the request", rejected.names.among(request.ignore_hosts)
        if request.excluded:
            yield "already tried in vain", rejected.names.among(request.excluded)


class SizeFilter(Filter):
    """What a host could give one server when empty: the limit with overcommit, max_unit, min_unit and
    step_size of placement's inventories. Waiting does not help where this says no."""

    watches = Watch.NOTHING
    personal = False

    def applies(self, request: PlacementRequest) -> bool:
        return any(request.resources.values())

    def mask(self, hosts: Hosts, request: PlacementRequest) -> BoolArray:
        passed = np.ones(len(hosts), dtype=bool)
        for name, amount in request.resources.items():
            columns = hosts.resource(name) if amount else None
            if columns is not None:
                passed &= (columns.limit >= amount) & (columns.max_unit >= amount)
                passed &= columns.min_unit <= amount
                if columns.stepped:
                    passed &= amount % columns.step_size == 0
            elif amount:
                passed[:] = False
        return passed

    def reasons(self, rejected: Hosts, request: PlacementRequest) -> Iterator[tuple[str, BoolArray]]:
        for name, amount in request.resources.items():
            if not amount:
                continue
            columns = rejected.resource(name)
            if columns is None:
                yield f"without any {name}", np.ones(len(rejected), dtype=bool)
                return
            text = amount_text(name, amount)
            small = np.minimum(columns.limit, columns.max_unit) < amount
            if name not in (VCPU, MEMORY_MB, DISK_GB):
                yield f"without any {name}", columns.total == 0
            yield f"too small for {text}", small
            unfit = (columns.min_unit > amount) | (amount % columns.step_size != 0)
            yield f"unable to give a server just {text}", unfit

    def reason(self, request: PlacementRequest) -> str:
        return "too small"


class ResourcesFilter(Filter):
    """Capacity, after placement's rule for every resource class asked for:
    used + asked <= (total - reserved) * ratio."""

    watches = Watch.HOST
    personal = False

    def applies(self, request: PlacementRequest) -> bool:
        return any(request.resources.values())

    def mask(self, hosts: Hosts, request: PlacementRequest) -> BoolArray:
        passed: BoolArray | None = None
        for name, amount in request.resources.items():
            if not amount:
                continue
            columns = hosts.resource(name)
            if columns is None:
                return np.zeros(len(hosts), dtype=bool)
            fits = columns.used + amount <= columns.limit
            passed = fits if passed is None else passed & fits
        return np.ones(len(hosts), dtype=bool) if passed is None else passed

    def reasons(self, rejected: Hosts, request: PlacementRequest) -> Iterator[tuple[str, BoolArray]]:
        for name, amount in request.resources.items():
            columns = rejected.resource(name) if amount else None
            if columns is not None:
                full = columns.used + amount > columns.limit
                yield f"without {amount_text(name, amount)} free", full

    def reason(self, request: PlacementRequest) -> str:
        return "without enough room"


class TraitsFilter(Filter):
    """Hosts with all required traits and none of the forbidden ones."""

    watches = Watch.NOTHING
    personal = False

    def applies(self, request: PlacementRequest) -> bool:
        return bool(request.required_traits or request.forbidden_traits)

    def mask(self, hosts: Hosts, request: PlacementRequest) -> BoolArray:
        required, forbidden = request.required_traits, request.forbidden_traits
        return hosts.traits.test(lambda traits: required <= traits and not forbidden & traits)

    def reasons(self, rejected: Hosts, request: PlacementRequest) -> Iterator[tuple[str, BoolArray]]:
        def having(name: str) -> BoolArray:
            return rejected.traits.test(lambda traits: name in traits)

        for trait in sorted(request.required_traits):
            yield f"without trait {trait}", ~having(trait)
        for trait in sorted(request.forbidden_traits):
            yield f"with forbidden trait {trait}", having(trait)

    def reason(self, request: PlacementRequest) -> str:
        return "without the right traits"
