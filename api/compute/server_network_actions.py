"""Actions on a server that are the Network API's work: its security groups, fixed and floating addresses.

They change ports and floating IPs there; what that does to the server's addresses is
looked at by its host's agent, which is told at once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.compute import security_group_views, server_access
from api.compute.server_networks import Finder
from core.errors import BadRequest, Conflict, NotFound
from db.servers import Located

_PATH = "/servers/{server_id}/action"
SEEN_S = 2.0
_PAUSE_S = 0.03
_IP = {"type": "string", "format": "ip"}


def _body(name: str, properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return v.obj({name: v.obj(properties, required)}, [name])


def _group(name: str) -> dict[str, Any]:
    return _body(name, {"name": {"type": "string", "minLength": 1, "maxLength": 255}}, ["name"])


class ServerNetworkActionsController(Controller):
    """Each says what it changes; the answer is 202."""

    # -- security groups -------------------------------------------------------

    @operation(
        "GET", "/servers/{server_id}/os-security-groups", policy="os_compute_api:os-security-groups:list"
    )
    def security_groups(self, call: Call) -> dict[str, Any]:
        """Security groups of a server's ports, with their rules."""
        found = server_access.find(call)
        if not found.row["network_info"]:
            return {"security_groups": []}
        ports = self._ports(call, found)
        ids = sorted({group for port in ports for group in port["security_groups"]})
        groups = Finder(call).get("/security-groups", id=ids)["security_groups"] if ids else []
        return {"security_groups": [security_group_views.group(call, each) for each in groups]}

    @operation(
        "POST",
        _PATH,
        action="addSecurityGroup",
        policy="os_compute_api:os-security-groups:add",
        status=202,
        body=_group("addSecurityGroup"),
    )
    def add_security_group(self, call: Call) -> None:
        """Add a security group to all ports of a server."""
        found = server_access.find(call)
        group_id = self._group_id(call, call.body["addSecurityGroup"]["name"])
        ports = [
            port
            for port in self._ports(call, found)
            if port.get("port_security_enabled", True) and port["fixed_ips"]
        ]
        if not ports:
            raise BadRequest(
                "Network requires port_security_enabled and subnet associated in order to apply security"
                " groups."
            )
        for port in ports:
            if group_id not in port["security_groups"]:
                self._change(call, port, {"security_groups": [*port["security_groups"], group_id]})
        self._changed(call, found)

    @operation(
        "POST",
        _PATH,
        action="removeSecurityGroup",
        policy="os_compute_api:os-security-groups:remove",
        status=202,
        body=_group("removeSecurityGroup"),
    )
    def remove_security_group(self, call: Call) -> None:
        """Take a security group from all ports of a server."""
        found = server_access.find(call)
        name = call.body["removeSecurityGroup"]["name"]
        group_id = self._group_id(call, name)
        ports = [port for port in self._ports(call, found) if group_id in port["security_groups"]]
        if not ports:
            raise NotFound(f"Security group {name} is not associated with the instance {found.id}")
        for port in ports:
            left = [each for each in port["security_groups"] if each != group_id]
            self._change(call, port, {"security_groups": left})
        self._changed(call, found)

    def _group_id(self, call: Call, name: str) -> str:
        try:
            return Finder(call).group_id(name)
        except BadRequest as error:
            raise NotFound(f"Security group {name} not found.") from error

    # -- fixed addresses -------------------------------------------------------

    @operation(
        "POST",
        _PATH,
        action="addFixedIp",
        policy="os_compute_api:os-multinic:add",
        until="2.43",
        status=202,
        body=_body(
            "addFixedIp", {"networkId": {"type": ["string", "integer"], "minLength": 1}}, ["networkId"]
        ),
    )
    def add_fixed_ip(self, call: Call) -> None:
        """One address more for a server's port in a network."""
        found = server_access.find(call)
        network_id = str(call.body["addFixedIp"]["networkId"])
        ports = [port for port in self._ports(call, found) if port["network_id"] == network_id]
        subnets = self._service.get("/subnets", network_id=network_id)["subnets"] if ports else []
        if not subnets:
            raise BadRequest(f"Network {network_id} could not be found for instance {found.id}.")
        taken = {fixed["subnet_id"] for fixed in ports[0]["fixed_ips"]}
        subnet_id = next((each["id"] for each in subnets if each["id"] in taken), subnets[0]["id"])
        self._change(call, ports[0], {"fixed_ips": [*ports[0]["fixed_ips"], {"subnet_id": subnet_id}]})
        self._changed(call, found)

    @operation(
        "POST",
        _PATH,
        action="removeFixedIp",
        policy="os_compute_api:os-multinic:remove",
        until="2.43",
        status=202,
        body=_body("removeFixedIp", {"address": _IP}, ["address"]),
    )
    def remove_fixed_ip(self, call: Call) -> None:
        """Take an address from a server."""
        found, address = server_access.find(call), call.body["removeFixedIp"]["address"]
        for port in self._ports(call, found):
            left = [fixed for fixed in port["fixed_ips"] if fixed["ip_address"] != address]
            if len(left) < len(port["fixed_ips"]):
                self._change(call, port, {"fixed_ips": left})
                self._changed(call, found)
                return
        raise BadRequest(f"Fixed IP {address} not found for instance {found.id}.")

    # -- floating addresses ----------------------------------------------------

    @operation(
        "POST",
        _PATH,
        action="addFloatingIp",
        policy="os_compute_api:os-floating-ips:add",
        until="2.43",
        status=202,
        body=_body("addFloatingIp", {"address": _IP, "fixed_address": _IP}, ["address"]),
    )
    def add_floating_ip(self, call: Call) -> None:
        """Lead a floating IP to a server."""
        asked, found = call.body["addFloatingIp"], server_access.find(call)
        server_access.refuse_unplaced(found)
        floating = self._floating_ip(call, asked["address"])
        fixed = [
            (nic["port_id"], each["address"])
            for nic in found.row["network_info"]
            for each in nic["addresses"]
            if each["type"] == "fixed" and each["version"] == 4
        ]
        if not fixed:
            raise BadRequest("No fixed IPs associated to instance")
        wanted = asked.get("fixed_address")
        chosen = [pair for pair in fixed if wanted in (None, pair[1])]
        if not chosen:
            raise BadRequest("Specified fixed address not assigned to instance")
        port_id, address = chosen[0]
        self._associate(call, floating, {"port_id": port_id, "fixed_ip_address": address})
        self._changed(call, found)

    @operation(
        "POST",
        _PATH,
        action="removeFloatingIp",
        policy="os_compute_api:os-floating-ips:remove",
        until="2.43",
        status=202,
        body=_body("removeFloatingIp", {"address": _IP}, ["address"]),
    )
    def remove_floating_ip(self, call: Call) -> None:
        """Lead it nowhere."""
        address, found = call.body["removeFloatingIp"]["address"], server_access.find(call)
        floating = self._floating_ip(call, address)
        if floating["port_id"] not in {nic["port_id"] for nic in found.row["network_info"]}:
            raise Conflict(f"Floating IP {address} is not associated with instance {found.id}.")
        self._associate(call, floating, {"port_id": None})
        self._changed(call, found)

    def _floating_ip(self, call: Call, address: str) -> dict[str, Any]:
        found = Finder(call).get("/floatingips", floating_ip_address=address)["floatingips"]
        if not found:
            raise NotFound("floating IP not found")
        return dict(found[0])

    def _associate(self, call: Call, floating: Mapping[str, Any], values: dict[str, Any]) -> None:
        path, body = f"/floatingips/{floating['id']}", {"floatingip": values}
        try:
            self._service.call("PUT", path, body, token=call.context.auth_token)
        except Conflict as error:
            raise BadRequest(error.message) from error

    # -- ports -----------------------------------------------------------------

    @property
    def _service(self) -> Any:
        return self.services.networks

    def _ports(self, call: Call, found: Located) -> list[dict[str, Any]]:
        """Of the server, as the Network API has them now; whose they are was checked with the server."""
        if not self._service.configured:
            return []
        ports: list[dict[str, Any]] = self._service.get("/ports", device_id=found.id)["ports"]
        known = {nic["port_id"] for nic in found.row["network_info"]}
        return [port for port in ports if port["id"] in known]

    def _change(self, call: Call, port: Mapping[str, Any], values: dict[str, Any]) -> None:
        self._service.call("PUT", f"/ports/{port['id']}", {"port": values})

    def _changed(self, call: Call, found: Located) -> None:
        """Tell the host, and give it a moment: who asks next should see what was done."""
        event = {"name": "network-changed", "server_uuid": found.id, "status": "completed"}
        if not found.row["host"]:
            return
        self.services.doorbells.tell(int(found.database.cell_id or 0), found.row["host"], event)
        deadline = time.monotonic() + SEEN_S
        while time.monotonic() < deadline:
            if server_access.find(call).row["network_info"] != found.row["network_info"]:
                return
            time.sleep(_PAUSE_S)
