"""Availability zones: names that aggregates give to groups of hosts."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from api.common.operations import Call, Controller, operation
from api.compute import common, os_services
from db import aggregates as db_aggregates
from db import services as db_services

_POLICY = "os_compute_api:os-availability-zone:"


class AvailabilityZonesController(Controller):
    """List zones; with hosts for administrators."""

    def _by_zone(self, call: Call) -> tuple[dict[str, list[Any]], list[str]]:
        """({zone: services that are enabled}, zones with none)"""
        rows, _ = db_services.list_(self.services.databases)
        with self.services.databases.global_.read() as connection:
            zones = db_aggregates.zones(connection)
        enabled: dict[str, list[Any]] = defaultdict(list)
        every = set()
        for row in rows:
            zone = os_services.zone_of(call, zones, row)
            every.add(zone)
            if not row["disabled"]:
                enabled[zone].append(row)
        return enabled, sorted(every - set(enabled))

    @operation("GET", "/os-availability-zone", policy=_POLICY + "list")
    def index(self, call: Call) -> dict[str, Any]:
        """List zones in which servers may be."""
        enabled, idle = self._by_zone(call)
        internal = self.services.options.internal_service_availability_zone
        states = [(zone, True) for zone in sorted(enabled)] + [(zone, False) for zone in idle]
        return {
            "availabilityZoneInfo": [
                {"zoneName": zone, "zoneState": {"available": available}, "hosts": None}
                for zone, available in states
                if zone != internal
            ]
        }

    @operation("GET", "/os-availability-zone/detail", policy=_POLICY + "detail")
    def detail(self, call: Call) -> dict[str, Any]:
        """List zones with their hosts and services."""
        enabled, idle = self._by_zone(call)
        result: list[dict[str, Any]] = []
        for zone in sorted(enabled):
            hosts: dict[str, dict[str, Any]] = defaultdict(dict)
            for row in enabled[zone]:
                hosts[row["host"]][row["binary"]] = {
                    "active": True,
                    "available": os_services.is_up(call, row),
                    "updated_at": common.micro(db_services.seen(row)),
                }
            result.append({"zoneName": zone, "zoneState": {"available": True}, "hosts": dict(hosts)})
        result += [{"zoneName": zone, "zoneState": {"available": False}, "hosts": None} for zone in idle]
        return {"availabilityZoneInfo": result}
