"""The older way to attach: reserve, initialize_connection, attach and their ways back, as actions."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.volume import attachments as attachments_api
from api.volume import common, schemas
from api.volume.volume_actions import PATH
from core.errors import BadRequest, NotFound
from core.volume_states import AttachmentStatus, volume_status_of
from db import volume_attachments as db_attachments
from db import volume_moves
from db import volumes as db_volumes
from db.sessions import retrying
from db.types import now
from db.volume_base import Row, volumes
from db.volumes import service_of

_POLICY = "volume_extension:volume_actions:"
_CONNECTOR = {"type": "object", "additionalProperties": True}
ATTACH = schemas.action(
    "os-attach",
    v.obj(
        {
            "instance_uuid": schemas.MAYBE_UUID,
            "host_name": schemas.MAYBE_TEXT,
            "mountpoint": schemas.TEXT,
            "mode": {"enum": ["rw", "ro", None]},
        },
        ["mountpoint"],
    ),
)
DETACH = schemas.action(
    "os-detach", {**v.obj({"attachment_id": schemas.MAYBE_UUID}), "type": ["object", "null"]}
)
FORCE_DETACH = schemas.action(
    "os-force_detach",
    {
        **v.obj(
            {"attachment_id": schemas.MAYBE_UUID, "connector": {**_CONNECTOR, "type": ["object", "null"]}}
        ),
        "type": ["object", "null"],
    },
)
INITIALIZE = schemas.action("os-initialize_connection", v.obj({"connector": _CONNECTOR}, ["connector"]))
TERMINATE = schemas.action(
    "os-terminate_connection",
    v.obj({"connector": {**_CONNECTOR, "type": ["object", "null"]}, "force": v.BOOLEAN}, ["connector"]),
)


class VolumeAttachActionsController(Controller):
    """Reserve, attach, detach, connect, disconnect."""

    def _row(self, call: Call, connection: sa.Connection) -> Row:
        return common.found(call, connection, volumes, "Volume", call.params["volume_id"])

    @retrying
    def _status(self, call: Call, from_: tuple[str, ...], to: str | None, what: str) -> None:
        """The status by hand: ``to`` None is what the attachments say."""
        with self.services.databases.global_.write() as connection:
            row = self._row(call, connection)
            if row["status"] not in from_:
                raise BadRequest(
                    f"Invalid volume: Volume {row['id']} status must be {' or '.join(from_)} to {what},"
                    f" but it is {row['status']}."
                )
            if to is None:
                left = [each["status"] for each in db_attachments.of_volume(connection, row["id"])]
                to = volume_status_of(left)
            db_volumes.move(connection, row, to)

    @operation(
        "POST",
        PATH,
        policy=_POLICY + "reserve",
        action="os-reserve",
        body=schemas.empty("os-reserve"),
        status=202,
        late_policy=True,
    )
    def reserve(self, call: Call) -> None:
        """Reserve a volume: it is going to be attached."""
        with self.services.databases.global_.read() as connection:
            row = self._row(call, connection)
        may = ("available", "in-use") if row["multiattach"] else ("available",)
        self._status(call, may, "attaching", "reserve")

    @operation(
        "POST",
        PATH,
        policy=_POLICY + "unreserve",
        action="os-unreserve",
        body=schemas.empty("os-unreserve"),
        status=202,
        late_policy=True,
    )
    def unreserve(self, call: Call) -> None:
        """Take a reservation back."""
        with self.services.databases.global_.read() as connection:
            if self._row(call, connection)["status"] != "attaching":
                return
        self._status(call, ("attaching",), None, "unreserve")

    @operation(
        "POST",
        PATH,
        policy=_POLICY + "begin_detaching",
        action="os-begin_detaching",
        body=schemas.empty("os-begin_detaching"),
        status=202,
        late_policy=True,
    )
    def begin_detaching(self, call: Call) -> None:
        """The compute service begins to detach."""
        self._status(call, ("in-use",), "detaching", "detach")

    @operation(
        "POST",
        PATH,
        policy=_POLICY + "roll_detaching",
        action="os-roll_detaching",
        body=schemas.empty("os-roll_detaching"),
        status=202,
        late_policy=True,
    )
    def roll_detaching(self, call: Call) -> None:
        """It could not: the volume stays in use."""
        with self.services.databases.global_.read() as connection:
            if self._row(call, connection)["status"] != "detaching":
                return
        self._status(call, ("detaching",), "in-use", "roll back detaching")

    @operation(
        "POST", PATH, policy=_POLICY + "attach", action="os-attach", body=ATTACH, status=202, late_policy=True
    )
    @retrying
    def attach(self, call: Call) -> None:
        """Record that a volume is attached."""
        asked = call.body["os-attach"]
        server, host = asked.get("instance_uuid"), asked.get("host_name")
        if bool(server) == bool(host):
            raise BadRequest(
                "Invalid request to attach volume: one of instance_uuid and host_name is expected."
            )
        with self.services.databases.global_.write() as connection:
            row = self._row(call, connection)
            mode = asked.get("mode") or ("ro" if row["readonly"] else "rw")
            if row["readonly"] and mode == "rw":
                raise BadRequest(f"Invalid volume: Volume {row['id']} is read only: attach it with mode ro.")
            if row["status"] == "attaching" and not db_attachments.of_volume(connection, row["id"]):
                # reserved by os-reserve, which keeps no attachment
                db_volumes.move(connection, row, "available")
                row = self._row(call, connection)
            values = {
                "instance_id": server,
                "attached_host": host,
                "mountpoint": asked["mountpoint"],
                "mode": mode,
                "attached_at": now(),
                "status": AttachmentStatus.ATTACHED,
            }
            db_attachments.reserve(connection, row, values)

    def _attachment(self, call: Call, asked: dict[str, Any]) -> Row | None:
        with self.services.databases.global_.read() as connection:
            row = self._row(call, connection)
            found = db_attachments.of_volume(connection, row["id"])
        if (identifier := asked.get("attachment_id")) is not None:
            found = [each for each in found if each["id"] == identifier]
            if not found:
                self._refuse_another(call, identifier)
                raise NotFound(
                    f"Volume attachment could not be found with filter: attachment_id = {identifier}."
                )
        if len(found) > 1:
            raise BadRequest("Invalid volume: it is attached more than once: attachment_id is expected.")
        return found[0] if found else None

    def _refuse_another(self, call: Call, identifier: str) -> None:
        """:raises BadRequest: it is the attachment of another volume that the asker may see."""
        try:
            with self.services.databases.global_.read() as connection:
                volume_id = db_attachments.get(connection, identifier)["volume_id"]
                common.found(call, connection, volumes, "Volume", volume_id)
        except NotFound:
            return
        raise BadRequest(f"Invalid input received: attachment {identifier} is that of another volume.")

    @operation(
        "POST", PATH, policy=_POLICY + "detach", action="os-detach", body=DETACH, status=202, late_policy=True
    )
    def detach(self, call: Call) -> None:
        """Record that a volume is not attached any more."""
        attachment = self._attachment(call, call.body["os-detach"] or {})
        if attachment is None:
            self._status(
                call, ("in-use", "detaching", "attaching", "error_detaching", "available"), None, "detach"
            )
            return
        attachments_api.refuse_used(call, attachment)
        self._remove(attachment)

    @operation(
        "POST",
        PATH,
        policy="volume_extension:volume_admin_actions:force_detach",
        action="os-force_detach",
        body=FORCE_DETACH,
        status=202,
        late_policy=True,
    )
    def force_detach(self, call: Call) -> None:
        """Detach whatever the state of the connection."""
        attachment = self._attachment(call, call.body["os-force_detach"] or {})
        if attachment is None:
            self._status(
                call,
                ("in-use", "detaching", "attaching", "error_detaching", "error_attaching"),
                None,
                "detach",
            )
            return
        attachments_api.refuse_used(call, attachment)
        attachments_api.disconnect(call, attachment, force=True)
        self._remove(attachment, repairs=True)

    @retrying
    def _remove(self, attachment: Row, *, repairs: bool = False) -> None:
        with self.services.databases.global_.write() as connection:
            volume = db_attachments.volume_for_update(connection, attachment["volume_id"])
            db_attachments.remove(connection, volume, attachment["id"], repairs=repairs)

    @operation(
        "POST",
        PATH,
        policy=_POLICY + "initialize_connection",
        action="os-initialize_connection",
        body=INITIALIZE,
        late_policy=True,
    )
    def initialize_connection(self, call: Call) -> dict[str, Any]:
        """How a host reaches the volume."""
        connector = call.body["os-initialize_connection"]["connector"]
        if not connector.get("host"):
            raise BadRequest("Invalid connector: the host is missing.")
        with self.services.databases.global_.read() as connection:
            row = self._row(call, connection)
            if row["migration_status"] in volume_moves.MOVING and row["status"] != "in-use":
                # a host that writes now would write to what is about to be left
                raise BadRequest(f"Invalid volume: Volume {row['id']} is part of an active migration.")
            facts = attachments_api.connection_facts(connection, row, {})
        answer = self.services.doorbells.volume().initialize_connection(
            call.context, self._backend(row), row["id"], connector, facts["access_mode"]
        )
        data = {
            key: value for key, value in {**answer.get("data", {}), **facts}.items() if key != "attachment_id"
        }
        return {"connection_info": {"driver_volume_type": answer["driver_volume_type"], "data": data}}

    @operation(
        "POST",
        PATH,
        policy=_POLICY + "terminate_connection",
        action="os-terminate_connection",
        body=TERMINATE,
        status=202,
        late_policy=True,
    )
    def terminate_connection(self, call: Call) -> None:
        """The host does not reach the volume any more."""
        asked = call.body["os-terminate_connection"]
        with self.services.databases.global_.read() as connection:
            row = self._row(call, connection)
            attached = db_attachments.of_volume(connection, row["id"])
        for each in attached:
            attachments_api.refuse_used(call, each)
        force = common.truth(asked.get("force", False))
        self.services.doorbells.volume().terminate_connection(
            call.context, self._backend(row), row["id"], asked["connector"], force
        )

    @staticmethod
    def _backend(row: Row) -> str:
        host = service_of(row["host"])
        if host is None:
            raise BadRequest(f"Invalid volume: Volume {row['id']} is on no backend.")
        return host
