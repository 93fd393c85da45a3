"""Calls that upstream took away for good: they answer 410 to whoever is known."""

from __future__ import annotations

from api.common.operations import NO_POLICY, Call, Controller, Operation
from core.errors import HaneulError

_TABLE = """
/os-agents                                          GET POST
/os-agents/{agent_id}                               PUT DELETE
/os-cells                                           GET POST
/os-cells/capacities                                GET
/os-cells/detail                                    GET
/os-cells/info                                      GET
/os-cells/sync_instances                            POST
/os-cells/{cell_id}                                 GET PUT DELETE
/os-cells/{cell_id}/capacities                      GET
/os-certificates                                    POST
/os-certificates/{certificate_id}                   GET
/os-cloudpipe                                       GET POST
/os-cloudpipe/{cloudpipe_id}                        PUT
/os-fixed-ips/{address}                             GET
/os-fixed-ips/{address}/action                      POST
/os-floating-ip-dns                                 GET
/os-floating-ip-dns/{domain_id}                     PUT DELETE
/os-floating-ip-dns/{domain_id}/entries/{entry_id}  GET PUT DELETE
/os-floating-ips-bulk                               GET POST
/os-floating-ips-bulk/{bulk_id}                     GET PUT
/os-fping                                           GET
/os-fping/{server_id}                               GET
/os-networks                                        POST
/os-networks/add                                    POST
/os-networks/{network_id}                           DELETE
/os-networks/{network_id}/action                    POST
/os-security-group-default-rules                    GET POST
/os-security-group-default-rules/{rule_id}          GET DELETE
/os-tenant-networks                                 POST
/os-tenant-networks/{network_id}                    DELETE
/servers/{server_id}/consoles                       GET POST
/servers/{server_id}/consoles/{console_id}          GET DELETE
/servers/{server_id}/os-virtual-interfaces          GET
"""
_ACTIONS = ("resetNetwork", "os-getRDPConsole")
"""Of servers; other actions of theirs are served."""


class Gone(HaneulError):
    """The call was removed upstream."""

    code = "haneul.gone"
    http_status = 410


class GoneController(Controller):
    """One handler for all of them."""

    def operations(self) -> list[Operation]:
        table = [
            (method, path, None)
            for path, *methods in (line.split() for line in _TABLE.strip().splitlines())
            for method in methods
        ]
        actions = [("POST", "/servers/{server_id}/action", action) for action in _ACTIONS]
        return [
            Operation(
                method=method,
                path=path,
                action=action,
                policy=NO_POLICY,
                status=410,
                summary="Removed upstream.",
                name="GoneController.gone",
                handler=self.gone,
            )
            for method, path, action in (*table, *actions)
        ]

    def gone(self, call: Call) -> None:
        """Say so."""
        raise Gone("This resource is no longer available. No forwarding address is given.")
