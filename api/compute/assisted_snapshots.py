"""os-assisted-volume-snapshots: a backend has the host of a server take a snapshot of a volume that is open there.

Upstream's hosts put a new file on top of the volume's and go on writing to that, which only the file drivers
of upstream know how to live with. Here the host makes a whole copy of what the volume holds at
one moment, in the file that the backend has made for it, and the guest never leaves its own file: whatever dies
meanwhile, nothing of the volume is touched. So that nobody takes the one for the other, ``type`` must be ``copy``;
upstream's ``qcow2`` is refused. When the copy is whole the snapshot's progress is 90% (os-update_snapshot_status).
"""

from __future__ import annotations

import uuid
from typing import Any

import sqlalchemy as sa

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.compute.server_volumes import device_of, guest
from core.errors import BadRequest
from db import intents, servers

KIND = "server.snapshot_volume"
_ID = {"type": "string", "minLength": 1, "maxLength": 255}
_INFO = v.obj(
    {"snapshot_id": v.UUID, "type": {"enum": ["copy", "qcow2"]}, "new_file": _ID, "id": _ID},
    ["snapshot_id", "type", "new_file"],
)
CREATE = v.obj(
    {"snapshot": v.obj({"volume_id": v.UUID, "create_info": _INFO}, ["volume_id", "create_info"])},
    ["snapshot"],
)


class AssistedSnapshotsController(Controller):
    """Snapshots of attached volumes, for backends that can't take them."""

    @operation(
        "POST",
        "/os-assisted-volume-snapshots",
        policy="os_compute_api:os-assisted-volume-snapshots:create",
        body=CREATE,
    )
    def create(self, call: Call) -> dict[str, Any]:
        """Have a snapshot taken; whoever asked looks at the snapshot's progress."""
        asked = call.body["snapshot"]
        info, volume_id = asked["create_info"], asked["volume_id"]
        if info["type"] != "copy":
            raise BadRequest(
                "Snapshots of type qcow2 would change the file that a guest writes to: only copy is served."
            )
        found = servers.find(self.services.databases, self._server(volume_id))
        if not found.row["host"]:
            raise BadRequest(f"Server {found.id} has no host: nothing has the volume open.")
        intent = intents.row(
            KIND,
            "server",
            found.id,
            call.context,
            {
                "guest": guest(call, found),
                "device": device_of(found, volume_id),
                "snapshot_id": info["snapshot_id"],
                "new_file": info["new_file"],
            },
            target=found.row["host"],
            project_id=found.row["project_id"],
        )
        # one for each snapshot, however often it is asked for
        intent["id"] = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{KIND} {info['snapshot_id']}"))
        table = intents.table(found.database)
        with found.database.write() as connection:
            known = connection.execute(sa.select(table.c.id).where(table.c.id == intent["id"])).first()
            if known is None:
                intents.insert(connection, table, [intent])
        self.services.doorbells.ring_conductor(int(found.database.cell_id or 0), [intent["id"]])
        return {"snapshot": {"id": info.get("id") or info["snapshot_id"], "volumeId": volume_id}}

    def _server(self, volume_id: str) -> str:
        volume = self.services.volumes.volume(volume_id)
        ids = sorted({each["server_id"] for each in volume["attachments"] if each.get("server_id")})
        if len(ids) != 1:
            raise BadRequest(f"Volume {volume_id} is attached to {len(ids)} servers, not to one.")
        return str(ids[0])
