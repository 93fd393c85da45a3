"""os-hosts: services by host, until 2.42; os-services and os-hypervisors took over."""

from __future__ import annotations

from typing import Any

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.compute import os_services
from core.errors import BadRequest, HaneulError, NotFound
from db import aggregates as db_aggregates
from db import hypervisors as db_hypervisors
from db import services as db_services

_WORD = {"type": "string"}
UPDATE = {**v.obj({"status": _WORD, "maintenance_mode": _WORD}), "minProperties": 1}
QUERY = v.query({"zone": _WORD, "service": _WORD})
_ONE = "/os-hosts/{host}"
_POLICY = "os_compute_api:os-hosts:"
_UNTIL = "2.42"


class NotImplementedHere(HaneulError):
    """A call that exists, for an ability that no driver has."""

    code = "haneul.not_implemented"
    http_status = 501


class HostsController(Controller):
    """List, show, enable and disable."""

    @operation("GET", "/os-hosts", policy=_POLICY + "list", until=_UNTIL, query=QUERY)
    def index(self, call: Call) -> dict[str, Any]:
        """List hosts by service."""
        rows, _ = db_services.list_(self.services.databases)
        # clients take the first for a hypervisor
        rows.sort(key=lambda row: row["binary"] != db_services.COMPUTE)
        with self.services.databases.global_.read() as connection:
            zones = db_aggregates.zones(connection)
        # empty: not asked for
        wanted_zone, wanted_service = call.first("zone") or None, call.first("service") or None
        found = [
            {
                "host_name": row["host"],
                "service": row["binary"].removeprefix("nova-"),
                "zone": os_services.zone_of(call, zones, row),
            }
            for row in rows
        ]
        return {
            "hosts": [
                each
                for each in found
                if wanted_zone in (None, each["zone"]) and wanted_service in (None, each["service"])
            ]
        }

    def _hypervisor(self, host: str) -> Any:
        for row in db_hypervisors.list_(self.services.databases):
            if row["host"] == host:
                return row
        raise NotFound(f"Compute host {host} could not be found.")

    @operation("GET", _ONE, policy=_POLICY + "show", until=_UNTIL)
    def show(self, call: Call) -> dict[str, Any]:
        """Show what a host has and what is in use."""
        row = self._hypervisor(call.params["host"])
        inventory, used = row["inventory"], row["used"]

        def resource(project: str, cpu: int, memory: int, disk: int) -> dict[str, Any]:
            numbers = {"cpu": cpu, "memory_mb": memory, "disk_gb": disk}
            return {"resource": {"host": row["host"], "project": project, **numbers}}

        in_use = (used["vcpus"], used["memory_mib"], used["disk_gib"])
        total = (inventory["vcpus"], inventory["memory_mib"], inventory["disk_gib"])
        return {
            "host": [
                resource("(total)", *total),
                resource("(used_now)", *in_use),
                resource("(used_max)", *in_use),
            ]
        }

    @operation("PUT", _ONE, policy=_POLICY + "update", until=_UNTIL, body=UPDATE)
    def update(self, call: Call) -> dict[str, Any]:
        """Enable or disable a host."""
        host = call.params["host"]
        words = {key: str(value).strip().lower() for key, value in call.body.items()}
        for key, word in words.items():
            if word not in ("enable", "disable"):
                raise BadRequest(f"Invalid {key}: '{word}'. enable or disable is expected.")
        cell, row = db_services.by_host(self.services.databases, host, db_services.COMPUTE)
        if "maintenance_mode" in words:
            raise NotImplementedHere("The hypervisors here have no maintenance mode.")
        disabled = words["status"] == "disable"
        db_services.update(self.services.databases, cell, row, {"disabled": disabled})
        return {"host": host, "status": "disabled" if disabled else "enabled"}

    def _power(self, call: Call) -> None:
        self._hypervisor(call.params["host"])
        raise NotImplementedHere("The hypervisors here can't turn their host on or off.")

    @operation("GET", _ONE + "/reboot", policy=_POLICY + "reboot", until=_UNTIL)
    def reboot(self, call: Call) -> None:
        """Reboot a host: no driver can."""
        self._power(call)

    @operation("GET", _ONE + "/shutdown", policy=_POLICY + "shutdown", until=_UNTIL)
    def shutdown(self, call: Call) -> None:
        """Shut a host down: no driver can."""
        self._power(call)

    @operation("GET", _ONE + "/startup", policy=_POLICY + "start", until=_UNTIL)
    def startup(self, call: Call) -> None:
        """Start a host: no driver can."""
        self._power(call)
