"""Why a volume is where it is, or nowhere: what the scheduler decided about it (haneul's own)."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from api.common.operations import Call, Controller, operation
from api.volume import common
from db.volume_base import intents, volumes
from scheduler import explain


class VolumePlacementController(Controller):
    """One question: why?"""

    @operation(
        "GET", "/haneul/volumes/{volume_id}/placement", policy="haneul:volumes:placement", late_policy=True
    )
    def show(self, call: Call) -> dict[str, Any]:
        """The decisions about a volume: administrators see pools, owners counts per reason."""
        identifier = call.params["volume_id"]
        asked = (
            sa.select(intents.c.arguments, intents.c.updated_at)
            .where(intents.c.resource_id == identifier, intents.c.kind == "volume.create")
            .order_by(intents.c.created_at, intents.c.id)
        )
        with self.services.databases.global_.read() as connection:
            row = common.found(call, connection, volumes, "Volume", identifier)
            made = [each for each in connection.execute(asked) if each.arguments.get("decision")]
        hosts = call.allowed("haneul:volumes:placement:hosts", common.mine(call, row))
        view = explain.admin_view if hosts else explain.owner_view
        return {
            "placement": {
                "volume_id": row["id"],
                "decisions": [
                    {
                        **view(each.arguments["decision"]),
                        "attempt": number,
                        "created_at": common.micro(each.updated_at),
                    }
                    for number, each in enumerate(made, start=1)
                ],
            }
        }
