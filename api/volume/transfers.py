"""Transfers: a volume is offered, and whoever knows the key takes it.

The key is shown once and kept as a salted hash only.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.volume import common, schemas
from core.errors import BadRequest, Conflict, Forbidden, NotFound
from db import volume_quotas, volume_types
from db import volumes as db_volumes
from db.sessions import retrying
from db.types import now
from db.volume_base import Condition, Row, find, new_id, page, snapshots, transfers, volumes

_NEW = {"volume_id": v.UUID, "name": schemas.NAME}
CREATE = (
    ("3.0", v.obj({"transfer": v.obj(_NEW, ["volume_id"])}, ["transfer"])),
    ("3.55", v.obj({"transfer": v.obj({**_NEW, "no_snapshots": v.BOOLEAN}, ["volume_id"])}, ["transfer"])),
)
ACCEPT = v.obj({"accept": v.obj({"auth_key": {"type": ["string", "integer"]}}, ["auth_key"])}, ["accept"])
SORT_KEYS = {"id": "id", "name": "name", "created_at": "created_at", "volume_id": "volume_id"}
COLUMNS = {"id": "id", "name": "name", "volume_id": "volume_id"}
_ROUNDS = 100_000


class WrongKey(Forbidden):
    """The key is not the one that was shown when the volume was offered."""

    http_status = 400
    code = "haneul.volume.transfer_key"


def _hash(salt: str, key: str) -> str:
    return hashlib.pbkdf2_hmac("sha256", key.encode(), bytes.fromhex(salt), _ROUNDS).hex()


def view(call: Call, row: Mapping[str, Any], detail: bool = True) -> dict[str, Any]:
    """A transfer."""
    found: dict[str, Any] = {"id": row["id"], "name": row["name"], "volume_id": row["volume_id"]}
    if detail:
        found["created_at"] = common.micro(row["created_at"])
        if call.since("3.55"):
            found["no_snapshots"] = bool(row["no_snapshots"])
        if call.since("3.57"):
            found.update(
                source_project_id=row["source_project_id"],
                destination_project_id=None,
                accepted=False,
            )
    found["links"] = common.self_links(call, f"volume-transfers/{row['id']}")
    return found


class TransfersController(Controller):
    """Offer a volume, take it; also by the path that was there before 3.55."""

    def _scope(self, call: Call) -> list[Condition]:
        everyone = call.first("all_tenants")
        if everyone is not None and common.strict_truth(everyone, "all_tenants") and common.is_admin(call):
            return []
        return [transfers.c.source_project_id == call.context.project_id]

    def _list(self, call: Call, path: str, detail: bool) -> dict[str, Any]:
        found = common.page_of(call, SORT_KEYS)
        asked = common.asked_filters(call, [*COLUMNS, "is_public"]) if call.since("3.52") else {}
        where = self._scope(call) + common.conditions(call, transfers, asked, COLUMNS)
        with self.services.databases.global_.read() as connection:
            rows = page(
                connection, transfers, where, found.sort, found.marker, found.limit, found.offset, "Transfer"
            )
        result = {"transfers": [view(call, row, detail) for row in rows]}
        return common.with_links(call, result, "transfers", path, rows, found)

    @operation("GET", "/volume-transfers", policy="volume:get_all_transfers")
    @operation("GET", "/os-volume-transfer", policy="volume:get_all_transfers")
    def index(self, call: Call) -> dict[str, Any]:
        """List transfers."""
        return self._list(call, "volume-transfers", False)

    @operation("GET", "/volume-transfers/detail", policy="volume:get_all_transfers")
    @operation("GET", "/os-volume-transfer/detail", policy="volume:get_all_transfers")
    def detail(self, call: Call) -> dict[str, Any]:
        """List transfers in full."""
        return self._list(call, "volume-transfers/detail", True)

    def _row(self, call: Call, connection: sa.Connection) -> Row:
        identifier = call.params["transfer_id"]
        row = find(connection, transfers, "Transfer", identifier)
        if row["source_project_id"] != call.context.project_id and not common.is_admin(call):
            raise NotFound(f"Transfer {identifier} could not be found.")
        call.authorize({"project_id": row["source_project_id"], "user_id": None})
        return row

    @operation("GET", "/volume-transfers/{transfer_id}", policy="volume:get_transfer", late_policy=True)
    @operation("GET", "/os-volume-transfer/{transfer_id}", policy="volume:get_transfer", late_policy=True)
    def show(self, call: Call) -> dict[str, Any]:
        """Show a transfer."""
        with self.services.databases.global_.read() as connection:
            return {"transfer": view(call, self._row(call, connection))}

    @operation(
        "POST",
        "/volume-transfers",
        policy="volume:create_transfer",
        body=CREATE,
        status=202,
        late_policy=True,
    )
    @operation(
        "POST",
        "/os-volume-transfer",
        policy="volume:create_transfer",
        body=CREATE,
        status=202,
        late_policy=True,
    )
    @retrying
    def create(self, call: Call) -> dict[str, Any]:
        """Offer a volume; the answer holds the key, this once."""
        asked = call.body["transfer"]
        key = secrets.token_hex(self.services.options.transfer_key_length)[
            : self.services.options.transfer_key_length
        ]
        salt = secrets.token_hex(8)
        with self.services.databases.global_.write() as connection:
            volume = common.found(call, connection, volumes, "Volume", asked["volume_id"])
            if volume["status"] != "available":
                raise BadRequest(f"Invalid volume: status must be available, but it is {volume['status']}.")
            if volume["encryption_key_id"] and not call.since("3.70"):
                raise BadRequest(
                    "Invalid volume: transferring encrypted volume is not supported before 3.70."
                )
            no_snapshots = common.truth(asked.get("no_snapshots", False))
            below = db_volumes.snapshots_of(connection, volume["id"])
            if not no_snapshots and any(each["status"] not in ("available", "error") for each in below):
                raise BadRequest("Invalid snapshot: a snapshot of the volume is busy.")
            row: Row = {
                "id": new_id(),
                "volume_id": volume["id"],
                "name": asked.get("name"),
                "salt": salt,
                "key_hash": _hash(salt, key),
                "source_project_id": volume["project_id"],
                "no_snapshots": no_snapshots,
                "created_at": now(),
                "updated_at": None,
            }
            connection.execute(transfers.insert(), [row])
            db_volumes.move(connection, volume, "awaiting-transfer", {"previous_status": "available"})
        return {"transfer": {**view(call, row), "auth_key": key}}

    @operation(
        "POST",
        "/volume-transfers/{transfer_id}/accept",
        policy="volume:accept_transfer",
        body=ACCEPT,
        status=202,
    )
    @operation(
        "POST",
        "/os-volume-transfer/{transfer_id}/accept",
        policy="volume:accept_transfer",
        body=ACCEPT,
        status=202,
    )
    @retrying
    def accept(self, call: Call) -> dict[str, Any]:
        """Take an offered volume: whoever knows the key may."""
        with self.services.databases.global_.write() as connection:
            row = find(connection, transfers, "Transfer", call.params["transfer_id"])
            key = str(call.body["accept"]["auth_key"])
            if not hmac.compare_digest(_hash(row["salt"], key), row["key_hash"]):
                raise WrongKey(f"Invalid auth key: Attempt to transfer {row['id']} with invalid auth key.")
            volume = db_volumes.get(connection, row["volume_id"])
            if volume["status"] != "awaiting-transfer":
                raise Conflict(f"Volume {volume['id']} is not offered any more.")
            self._take(call, connection, row, volume)
        found = view(call, row, False)
        return {"transfer": {key: found[key] for key in ("id", "name", "volume_id", "links")}}

    def _take(self, call: Call, connection: sa.Connection, row: Row, volume: Row) -> None:
        project_id, user_id = str(call.context.project_id), call.context.user_id
        type_ = volume_types.get(connection, volume["type_id"]) if volume["type_id"] else None
        if type_ is not None and not volume_types.may_use(connection, type_, project_id):
            raise BadRequest(f"Invalid volume: Project {project_id} may not use the type of the volume.")
        below = db_volumes.snapshots_of(connection, volume["id"])
        if below and row["no_snapshots"]:
            raise BadRequest("Invalid volume: the volume has snapshots, which were not offered.")
        quotas = self.services.quotas
        amounts = dict(volume_quotas.of_volume(volume["size_gib"], volume["type_id"]))
        for snapshot in below:
            for key, more in volume_quotas.of_snapshot(
                snapshot["size_gib"], snapshot["type_id"], quotas.snapshots_count_gib
            ).items():
                amounts[key] = amounts.get(key, 0) + more
        quotas.check(connection, project_id, amounts, size_gib=volume["size_gib"])
        owner = {"project_id": project_id, "user_id": user_id}
        db_volumes.move(connection, volume, "available", {**owner, "previous_status": None})
        connection.execute(snapshots.update().where(snapshots.c.volume_id == volume["id"]).values(**owner))
        connection.execute(transfers.delete().where(transfers.c.id == row["id"]))

    @operation(
        "DELETE",
        "/volume-transfers/{transfer_id}",
        policy="volume:delete_transfer",
        status=202,
        late_policy=True,
    )
    @operation(
        "DELETE",
        "/os-volume-transfer/{transfer_id}",
        policy="volume:delete_transfer",
        status=202,
        late_policy=True,
    )
    @retrying
    def delete(self, call: Call) -> None:
        """Take the offer back."""
        with self.services.databases.global_.write() as connection:
            row = self._row(call, connection)
            volume = db_volumes.get(connection, row["volume_id"])
            connection.execute(transfers.delete().where(transfers.c.id == row["id"]))
            if volume["status"] == "awaiting-transfer":
                db_volumes.move(connection, volume, "available", {"previous_status": None})
