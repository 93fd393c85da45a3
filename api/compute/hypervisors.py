"""Hypervisors: what the hosts are and what their servers use of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.common.paging import next_link
from api.compute import common, os_services
from core.errors import BadRequest, NotFound
from db import hypervisors as db_hypervisors

_SERVERS = {"with_servers": {"type": "string"}}
_PATTERN = {"hypervisor_hostname_pattern": {"type": "string", "minLength": 1}}
LIST = (
    ("2.1", v.query({})),
    ("2.33", v.query(v.PAGING)),
    ("2.53", v.query({**v.PAGING, **_SERVERS, **_PATTERN}, additional=False)),
)
SHOW = (("2.1", v.query({})), ("2.53", v.query(_SERVERS, additional=False)))
_PATH = "/os-hypervisors"
_POLICY = "os_compute_api:os-hypervisors:"
_SUMS = (
    *("vcpus", "vcpus_used", "memory_mb", "memory_mb_used", "local_gb", "local_gb_used"),
    *("free_ram_mb", "free_disk_gb", "disk_available_least", "current_workload", "running_vms"),
)


def _numbers(row: Mapping[str, Any]) -> dict[str, int]:
    inventory, used = row["inventory"], row["used"]
    return {
        "vcpus": inventory["vcpus"],
        "vcpus_used": used["vcpus"],
        "memory_mb": inventory["memory_mib"],
        "memory_mb_used": used["memory_mib"],
        "local_gb": inventory["disk_gib"],
        "local_gb_used": used["disk_gib"],
        "free_ram_mb": inventory["memory_mib"] - used["memory_mib"],
        "free_disk_gb": inventory["disk_gib"] - used["disk_gib"],
        "disk_available_least": inventory.get("disk_available_gib", 0),
        "current_workload": used["busy"],
        "running_vms": used["servers"],
    }


def brief(call: Call, row: Mapping[str, Any], with_servers: bool = False) -> dict[str, Any]:
    """A hypervisor in the short list."""
    result = {
        "id": row["uuid"] if call.since("2.53") else row["id"],
        "hypervisor_hostname": row["hypervisor_hostname"],
        "state": "up" if os_services.is_up(call, row) else "down",
        "status": "disabled" if row["disabled"] else "enabled",
    }
    # an empty list is left out before 2.75
    if with_servers and (row["servers"] or call.since("2.75")):
        result["servers"] = row["servers"]
    return result


def view(call: Call, row: Mapping[str, Any], with_servers: bool = False) -> dict[str, Any]:
    """A hypervisor with everything that the call's microversion shows."""
    inventory = row["inventory"]
    result = brief(call, row, with_servers)
    result.update(
        hypervisor_type=row["hypervisor_type"],
        hypervisor_version=row["hypervisor_version"],
        host_ip=row["host_ip"],
        service={
            "id": row["service_uuid"] if call.since("2.53") else row["service_id"],
            "host": row["host"],
            "disabled_reason": row["disabled_reason"],
        },
    )
    if call.since("2.88"):
        result["uptime"] = inventory.get("uptime") if result["state"] == "up" else None
        return result
    result.update(_numbers(row))
    cpu_info = inventory.get("cpu_info") or {}
    result["cpu_info"] = cpu_info if call.since("2.28") else orjson.dumps(cpu_info).decode()
    return result


class HypervisorsController(Controller):
    """List, show, search, sum up."""

    def _with_servers(self, call: Call) -> bool:
        text = call.first("with_servers")
        return bool(text is not None and call.since("2.53") and common.strict_truth(text))

    def _list(self, call: Call, path: str, shape: Any) -> dict[str, Any]:
        databases, with_servers = self.services.databases, self._with_servers(call)
        pattern = call.first("hypervisor_hostname_pattern") if call.since("2.53") else None
        if pattern is not None:
            if call.first("limit") is not None or call.first("marker") is not None:
                raise BadRequest(
                    "Paging over hypervisors with the hypervisor_hostname_pattern query parameter is not"
                    " supported."
                )
            return {"hypervisors": self._matching(call, pattern, shape, with_servers)}
        if not call.since("2.33"):
            rows = db_hypervisors.list_(databases)
            return {"hypervisors": [shape(call, row) for row in rows]}
        limit, asked = common.limit_of(call), call.first("marker")
        key = "uuid" if call.since("2.53") else "id"
        rows = db_hypervisors.list_(
            databases,
            marker=None if asked is None else lambda row: str(row[key]) == asked,
            limit=limit,
            with_servers=with_servers,
        )
        result: dict[str, Any] = {"hypervisors": [shape(call, row, with_servers) for row in rows]}
        if rows and len(rows) == limit:
            url = common.collection_url(call, path)
            result["hypervisors_links"] = [next_link(call, url, str(rows[-1][key]))]
        return result

    def _matching(self, call: Call, pattern: str, shape: Any, with_servers: bool) -> list[dict[str, Any]]:
        rows = db_hypervisors.list_(self.services.databases, pattern=pattern, with_servers=with_servers)
        if not rows:
            raise NotFound(f"No hypervisor matching '{pattern}' could be found.")
        return [shape(call, row, with_servers) for row in rows]

    def _one(self, call: Call, with_servers: bool = False) -> Mapping[str, Any]:
        identifier = call.params["hypervisor_id"]
        if call.since("2.53"):
            identifier = common.uuid_of(identifier, "Invalid uuid")
        elif not identifier.isdigit():
            raise NotFound(f"Hypervisor with ID '{identifier}' could not be found.")
        return db_hypervisors.get(self.services.databases, identifier, with_servers=with_servers)

    @operation("GET", _PATH, policy=_POLICY + "list", query=LIST)
    def index(self, call: Call) -> dict[str, Any]:
        """List hypervisors, briefly."""
        return self._list(call, "os-hypervisors", brief)

    @operation("GET", _PATH + "/detail", policy=_POLICY + "list-detail", query=LIST)
    def detail(self, call: Call) -> dict[str, Any]:
        """List hypervisors with everything."""
        return self._list(call, "os-hypervisors/detail", view)

    @operation("GET", _PATH + "/statistics", policy=_POLICY + "statistics", until="2.87")
    def statistics(self, call: Call) -> dict[str, Any]:
        """Sum up the hypervisors that are enabled."""
        rows = [row for row in db_hypervisors.list_(self.services.databases) if not row["disabled"]]
        numbers = [_numbers(row) for row in rows]
        sums = {key: sum(each[key] for each in numbers) for key in _SUMS}
        return {"hypervisor_statistics": {"count": len(rows), **sums}}

    @operation("GET", _PATH + "/{hypervisor_id}", policy=_POLICY + "show", query=SHOW)
    def show(self, call: Call) -> dict[str, Any]:
        """Show a hypervisor."""
        with_servers = self._with_servers(call)
        return {"hypervisor": view(call, self._one(call, with_servers), with_servers)}

    @operation("GET", _PATH + "/{hypervisor_id}/uptime", policy=_POLICY + "uptime", until="2.87")
    def uptime(self, call: Call) -> dict[str, Any]:
        """Show how long a host has been up."""
        row = self._one(call)
        if not os_services.is_up(call, row):
            raise BadRequest(f"Compute service of {row['host']} is unavailable at this time.")
        return {"hypervisor": {**brief(call, row), "uptime": row["inventory"].get("uptime")}}

    @operation("GET", _PATH + "/{hypervisor_id}/search", policy=_POLICY + "search", until="2.52")
    def search(self, call: Call) -> dict[str, Any]:
        """Find hypervisors by a part of their hostname."""
        return {"hypervisors": self._matching(call, call.params["hypervisor_id"], brief, False)}

    @operation("GET", _PATH + "/{hypervisor_id}/servers", policy=_POLICY + "servers", until="2.52")
    def hosted(self, call: Call) -> dict[str, Any]:
        """The same, with the servers that are there."""
        return {"hypervisors": self._matching(call, call.params["hypervisor_id"], brief, True)}
