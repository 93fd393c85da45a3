"""What belongs to a server and can be asked for by itself: addresses, password, …"""

from __future__ import annotations

import re
from typing import Any

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.compute import host_calls, server_access
from api.compute.server_views import addresses
from core.errors import BadRequest, NotFound
from db import servers
from db.sessions import retrying

_SERVER = "/servers/{server_id}"
_CONSOLES = v.obj(
    {
        "remote_console": v.obj(
            {
                "protocol": {"enum": ["vnc", "spice", "serial", "mks"]},
                "type": {"enum": ["novnc", "xvpvnc", "spice-html5", "serial", "webmks"]},
            },
            ["protocol", "type"],
        )
    },
    ["remote_console"],
)


class ServerPartsController(Controller):
    """Small resources below one server."""

    # -- addresses ---------------------------------------------------------------

    def _addresses(self, call: Call) -> dict[str, list[dict[str, Any]]]:
        found = addresses(server_access.find(call).row["network_info"])
        return {
            label: [{"version": each["version"], "addr": each["addr"]} for each in listed]
            for label, listed in found.items()
        }

    @operation("GET", _SERVER + "/ips", policy="os_compute_api:ips:index")
    def addresses(self, call: Call) -> dict[str, Any]:
        """Addresses of a server by network."""
        return {"addresses": self._addresses(call)}

    @operation("GET", _SERVER + "/ips/{label}", policy="os_compute_api:ips:show")
    def addresses_of_network(self, call: Call) -> dict[str, Any]:
        """Addresses of a server in one network."""
        found, label = self._addresses(call), call.params["label"]
        if label not in found:
            raise NotFound("Instance is not a member of specified network")
        return {label: found[label]}

    # -- password ----------------------------------------------------------------

    @operation("GET", _SERVER + "/os-server-password", policy="os_compute_api:os-server-password:show")
    def password(self, call: Call) -> dict[str, Any]:
        """The password that the guest has left, encrypted with its key; "" if none."""
        return {"password": server_access.find(call).row["system_metadata"].get("password", "")}

    @operation(
        "DELETE",
        _SERVER + "/os-server-password",
        policy="os_compute_api:os-server-password:clear",
        status=204,
    )
    def clear_password(self, call: Call) -> None:
        """Forget it."""
        self._clear_password(call)

    @retrying
    def _clear_password(self, call: Call) -> None:
        found = server_access.find(call)
        kept = {key: value for key, value in found.row["system_metadata"].items() if key != "password"}
        if kept != found.row["system_metadata"]:
            with found.database.write() as connection:
                servers.stay(connection, found)
                servers.change(connection, found.database, found.row, {"system_metadata": kept})

    # -- the host's word -----------------------------------------------------------

    @operation("GET", _SERVER + "/diagnostics", policy="os_compute_api:os-server-diagnostics")
    def diagnostics(self, call: Call) -> dict[str, Any]:
        """Counters of a server's processors, disks and ports."""
        found = server_access.find(call)
        server_access.refuse_unplaced(found)
        facts = host_calls.diagnostics(call, found)
        return facts if call.since("2.48") else old_diagnostics(facts)

    @operation("GET", _SERVER + "/topology", policy="compute:server:topology:index", since="2.78")
    def topology(self, call: Call) -> dict[str, Any]:
        """NUMA cells of a server; it is given none."""
        server_access.find(call)
        return {"nodes": [], "pagesize_kb": None}

    @operation(
        "POST",
        _SERVER + "/remote-consoles",
        policy="os_compute_api:os-remote-consoles",
        since="2.6",
        body=_CONSOLES,
    )
    def remote_console(self, call: Call) -> dict[str, Any]:
        """Consoles need a proxy for them: this cloud has none."""
        server_access.find(call)
        raise BadRequest(f"Unavailable console type {call.body['remote_console']['type']}.")

    # -- migrations ------------------------------------------------------------------

    @operation("GET", _SERVER + "/migrations", policy="os_compute_api:servers:migrations:index", since="2.23")
    def migrations(self, call: Call) -> dict[str, Any]:
        """Migrations of a server that go on."""
        server_access.find(call)
        return {"migrations": []}

    @operation(
        "GET",
        _SERVER + "/migrations/{migration_id}",
        policy="os_compute_api:servers:migrations:show",
        since="2.23",
    )
    @operation(
        "DELETE",
        _SERVER + "/migrations/{migration_id}",
        policy="os_compute_api:servers:migrations:delete",
        since="2.24",
        status=202,
    )
    def migration(self, call: Call) -> dict[str, Any]:
        """One of them."""
        found = server_access.find(call)
        number = call.params["migration_id"]
        raise NotFound(f"Migration {number} not found for instance {found.id}")


_OLD_DISK = (
    ("read", "read_bytes"),
    ("read_req", "read_requests"),
    ("write", "write_bytes"),
    ("write_req", "write_requests"),
    ("errors", "errors_count"),
)
_OLD_NIC = re.compile(r"^(rx|tx)_(octets|packets|errors|drop)$")


def old_diagnostics(facts: dict[str, Any]) -> dict[str, Any]:
    """Until 2.47: flat, with the names that libvirt's driver had; memory in KiB."""
    old: dict[str, Any] = {}
    for number, cpu in enumerate(facts.get("cpu_details") or ()):
        old[f"cpu{number}_time"] = cpu.get("time")
    for number, disk in enumerate(facts.get("disk_details") or ()):
        letter = "abcdefghijklmnopqrstuvwxyz"[number % 26]
        for suffix, key in _OLD_DISK:
            old[f"vd{letter}_{suffix}"] = disk.get(key)
    for number, nic in enumerate(facts.get("nic_details") or ()):
        for key, value in nic.items():
            if match := _OLD_NIC.match(key):
                name = "" if match[2] == "octets" else f"_{match[2]}"
                old[f"vnet{number}_{match[1]}{name}"] = value
    memory = facts.get("memory_details") or {}
    old["memory"] = (memory.get("maximum") or 0) * 1024
    old["memory-actual"] = (memory.get("used") or memory.get("maximum") or 0) * 1024
    return old
