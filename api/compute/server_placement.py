"""Why a server is where it is, or nowhere: what schedulers decided about it (haneul's own)."""

from __future__ import annotations

from typing import Any

from api.common.operations import Call, Controller, operation
from api.compute import common, server_access
from db import server_details
from scheduler import explain


class ServerPlacementController(Controller):
    """One question: why?"""

    @operation("GET", "/haneul/servers/{server_id}/placement", policy="haneul:servers:placement")
    def show(self, call: Call) -> dict[str, Any]:
        """The decisions about a server: administrators see hosts, owners counts per reason."""
        found = server_access.find(call, deleted=True)
        hosts = call.allowed("haneul:servers:placement:hosts", server_access.target_of(found.row))
        view = explain.admin_view if hosts else explain.owner_view
        return {
            "placement": {
                "server_id": found.id,
                "decisions": [
                    {
                        **view(row["explanation"]),
                        "attempt": number,
                        "created_at": common.zulu(row["created_at"]),
                    }
                    for number, row in enumerate(
                        server_details.decisions(call.services.databases, found.id), start=1
                    )
                ],
            }
        }
