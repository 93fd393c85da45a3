"""Filters that keep hosts or aggregates for some projects, images or flavors."""

from __future__ import annotations

import numpy as np

from scheduler.columns import BoolArray
from scheduler.filters.base import Filter, Watch
from scheduler.filters.specs import listed
from scheduler.host_view import Hosts
from scheduler.request import PlacementRequest


class IsolatedHostsFilter(Filter):
    """``isolated_images`` go to ``isolated_hosts`` only, which (unless
    ``restrict_isolated_hosts_to_isolated_images`` is off) take nothing else."""

    watches = Watch.NOTHING
    personal = False

    def applies(self, request: PlacementRequest) -> bool:
        options = self.conf.filter_scheduler
        if not options.isolated_images:
            return options.restrict_isolated_hosts_to_isolated_images and bool(options.isolated_hosts)
        return True

    def mask(self, hosts: Hosts, request: PlacementRequest) -> BoolArray:
        options = self.conf.filter_scheduler
        isolated = hosts.names.among(options.isolated_hosts)
        if request.image_id is not None and request.image_id in options.isolated_images:
            return isolated
        if options.restrict_isolated_hosts_to_isolated_images:
            return ~isolated
        return np.ones(len(hosts), dtype=bool)

    def reason(self, request: PlacementRequest) -> str:
        isolated = request.image_id in self.conf.filter_scheduler.isolated_images
        return "not open to this image" if isolated else "kept for other images"


class AggregateMultiTenancyIsolation(Filter):
    """Hosts in aggregates with ``filter_tenant_id`` metadata (also ``filter_tenant_id<suffix>``)
    take only the projects named there."""

    watches = Watch.NOTHING
    personal = True

    def mask(self, hosts: Hosts, request: PlacementRequest) -> BoolArray:
        def open_to_project(ids: frozenset[int]) -> bool:
            owners: set[str] = set()
            for item in (hosts.table.aggregates.get(aggregate) for aggregate in ids):
                for key, value in item.metadata.items() if item is not None else ():
                    if key.startswith("filter_tenant_id"):
                        owners |= listed({value})
            return not owners or request.project_id in owners

        return hosts.aggregates.test(open_to_project)

    def reason(self, request: PlacementRequest) -> str:
        return "kept for other projects"


class AggregateImagePropertiesIsolation(Filter):
    """Where a host's aggregates have metadata under the name of an image property, they must agree.

    Only properties that the image has are compared; with a namespace only metadata keys that begin
    with it.
    """

    watches = Watch.NOTHING
    personal = False

    def applies(self, request: PlacementRequest) -> bool:
        return bool(request.image_properties)

    def mask(self, hosts: Hosts, request: PlacementRequest) -> BoolArray:
        options = self.conf.filter_scheduler
        prefix = options.aggregate_image_properties_isolation_namespace or ""
        if prefix:
            prefix += options.aggregate_image_properties_isolation_separator or ""
        asked = {
            key: str(value)
            for key, value in request.image_properties.items()
            if value is not None and key.startswith(prefix)
        }

        def agrees(ids: frozenset[int]) -> bool:
            for key, value in asked.items():
                options_there = listed(hosts.metadata(ids, key))
                if options_there and value not in options_there:
                    return False
            return True

        return hosts.aggregates.test(agrees)

    def reason(self, request: PlacementRequest) -> str:
        return "kept for images with other properties"


class AggregateTypeAffinityFilter(Filter):
    """Hosts in aggregates with ``instance_type`` metadata take only flavors of these names."""

    watches = Watch.NOTHING
    personal = False

    def mask(self, hosts: Hosts, request: PlacementRequest) -> BoolArray:
        def open_to_flavor(ids: frozenset[int]) -> bool:
            names = listed(hosts.metadata(ids, "instance_type"))
            return not names or request.flavor_name in names

        return hosts.aggregates.test(open_to_flavor)

    def reason(self, request: PlacementRequest) -> str:
        return "kept for other flavors"
