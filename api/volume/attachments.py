"""Attachments: reserve a volume for a server, connect a host, complete, and take it away.

Connecting asks the backend's worker while the caller waits.  The row is written
first, so that a crash in between leaves an attachment that can be deleted, and the
answer is written only if the attachment is still the same.

A server's attachment may be deleted only on behalf of the compute service
(CVE-2023-2088): by a service user or with a service token, or when the compute
service says that the server does not use it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from keystoneauth1 import exceptions as ks_exc

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.volume import common, schemas
from core.clients import service_adapter
from core.errors import BadRequest, Conflict, NotFound
from core.volume_states import AttachmentStatus
from db import volume_attachments as db_attachments
from db import volume_types
from db.sessions import retrying
from db.types import now
from db.volume_base import Row, attachments, page, qos_specs, volumes
from db.volumes import service_of

LOG = logging.getLogger(__name__)
_CONNECTOR = {"type": ["object", "null"], "additionalProperties": True}
_MODE = {"enum": ["rw", "ro"]}
_NEW = {"volume_uuid": v.UUID, "instance_uuid": schemas.MAYBE_UUID, "connector": _CONNECTOR}
CREATE = (
    ("3.27", v.obj({"attachment": v.obj(_NEW, ["volume_uuid"])}, ["attachment"])),
    ("3.54", v.obj({"attachment": v.obj({**_NEW, "mode": _MODE}, ["volume_uuid"])}, ["attachment"])),
)
_CHANGED = {"connector": {**_CONNECTOR, "type": "object", "minProperties": 1}}
UPDATE = (
    ("3.27", v.obj({"attachment": v.obj(_CHANGED, ["connector"])}, ["attachment"])),
    ("3.54", v.obj({"attachment": v.obj({**_CHANGED, "mode": _MODE}, ["connector"])}, ["attachment"])),
)
SORT_KEYS = {"id": "id", "attach_status": "status", "created_at": "created_at"}
COLUMNS = {
    "id": "id",
    "volume_id": "volume_id",
    "instance_id": "instance_id",
    "instance_uuid": "instance_id",
    "attach_status": "status",
    "status": "status",
    "attach_mode": "mode",
}
_PATH = "/attachments/{attachment_id}"


def view(row: Mapping[str, Any]) -> dict[str, Any]:
    """An attachment in full."""
    return {
        "id": row["id"],
        "volume_id": row["volume_id"],
        "instance": row["instance_id"],
        "status": row["status"],
        "attach_mode": row["mode"],
        "attached_at": common.micro(row["attached_at"]) or "",
        "detached_at": common.micro(row["detached_at"]) or "",
        "connection_info": row["connection_info"] or {},
    }


def brief(row: Mapping[str, Any]) -> dict[str, Any]:
    """What lists without details show."""
    return {
        "id": row["id"],
        "volume_id": row["volume_id"],
        "instance": row["instance_id"],
        "status": row["status"],
    }


def host_of(connector: Mapping[str, Any]) -> str | None:
    host = connector.get("host")
    return str(host)[:255] if host else None


def is_service(call: Call) -> bool:
    """Is this call made by another service, or on behalf of one?"""
    return "service" in (call.context.service_roles or []) or "service" in (call.context.roles or [])


def refuse_used(call: Call, row: Mapping[str, Any]) -> None:
    """Only the compute service takes away what a server of its uses.

    :raises Conflict: the server uses the attachment, or nobody can say that it does not.
    """
    if row["instance_id"] is None or is_service(call):
        return
    path = f"/servers/{row['instance_id']}/os-volume_attachments/{row['volume_id']}"
    try:
        adapter = service_adapter(call.services.conf, "compute")
        answer = adapter.get(path, raise_exc=False, headers={"OpenStack-API-Version": "compute 2.89"})
        status = answer.status_code
    except (ks_exc.ClientException, OSError) as error:
        LOG.warning("the compute service does not say who uses volume %s: %s", row["volume_id"], error)
        status = 0
    if status == 404:
        return
    raise Conflict(
        "Detach volume from instance using the Compute API: it uses this attachment.",
        code="haneul.volume.attachment_in_use",
    )


def connection_facts(connection: sa.Connection, volume: Row, row: Mapping[str, Any]) -> dict[str, Any]:
    """What the host needs to know beside the driver's own answer."""
    facts: dict[str, Any] = {
        "access_mode": "ro" if volume["readonly"] or row.get("mode") == "ro" else "rw",
        "encrypted": bool(volume["encrypted"]),
        "qos_specs": None,
        "volume_id": volume["id"],
        "attachment_id": row.get("id"),
    }
    type_ = volume_types.get(connection, volume["type_id"]) if volume["type_id"] else None
    if type_ is None:
        return facts
    if type_["qos_specs_id"]:
        specs = connection.execute(
            sa.select(qos_specs.c.specs, qos_specs.c.consumer).where(qos_specs.c.id == type_["qos_specs_id"])
        ).first()
        if specs is not None and specs.consumer in ("front-end", "both"):
            facts["qos_specs"] = specs.specs
    if str(type_["extra_specs"].get("cacheable", "")).strip().lower() == "<is> true":
        facts["cacheable"] = not volume["multiattach"]
    return facts


class AttachmentsController(Controller):
    """The attachments of a project's volumes."""

    @operation("GET", "/attachments", policy="volume:attachment_get_all", since="3.27")
    def index(self, call: Call) -> dict[str, Any]:
        """List attachments."""
        return self._list(call, "attachments", brief)

    @operation("GET", "/attachments/detail", policy="volume:attachment_get_all", since="3.27")
    def detail(self, call: Call) -> dict[str, Any]:
        """List attachments in full."""
        return self._list(call, "attachments/detail", view)

    def _list(self, call: Call, path: str, shown: Any) -> dict[str, Any]:
        found = common.page_of(call, SORT_KEYS)
        asked = common.asked_filters(call, [*COLUMNS])
        where = common.scope(call, attachments) + common.conditions(call, attachments, asked, COLUMNS)
        with self.services.databases.global_.read() as connection:
            rows = page(
                connection,
                attachments,
                where,
                found.sort,
                found.marker,
                found.limit,
                found.offset,
                "Attachment",
            )
        result = {"attachments": [shown(row) for row in rows]}
        return common.with_links(call, result, "attachments", path, rows, found)

    @operation("GET", _PATH, policy="volume:attachment_get", since="3.27", late_policy=True)
    def show(self, call: Call) -> dict[str, Any]:
        """Show an attachment."""
        with self.services.databases.global_.read() as connection:
            return {"attachment": view(self._found(call, connection))}

    def _found(self, call: Call, connection: sa.Connection) -> Row:
        return common.found(call, connection, attachments, "Volume attachment", call.params["attachment_id"])

    @operation(
        "POST", "/attachments", policy="volume:attachment_create", body=CREATE, since="3.27", late_policy=True
    )
    def create(self, call: Call) -> dict[str, Any]:
        """Reserve a volume; with a connector, connect it at once."""
        asked = call.body["attachment"]
        row = self._reserve(call, asked)
        if not asked.get("connector"):
            return {"attachment": view(row)}
        try:
            return {"attachment": view(self._connect(call, row["id"], asked["connector"], asked.get("mode")))}
        except Exception:
            # nothing of a reservation that could not be connected stays
            self._forget(row["id"])
            raise

    @retrying
    def _reserve(self, call: Call, asked: dict[str, Any]) -> Row:
        with self.services.databases.global_.write() as connection:
            volume = common.found(call, connection, volumes, "Volume", asked["volume_uuid"])
            if (
                volume["multiattach"]
                and volume["bootable"]
                and db_attachments.of_volume(connection, volume["id"])
            ):
                call.authorize(common.mine(call, volume), "volume:multiattach_bootable_volume")
            values = {"instance_id": asked.get("instance_uuid"), "mode": asked.get("mode")}
            return db_attachments.reserve(connection, volume, values)

    @operation("PUT", _PATH, policy="volume:attachment_update", body=UPDATE, since="3.27", late_policy=True)
    def update(self, call: Call) -> dict[str, Any]:
        """Connect a host: it gets to know how to reach the volume."""
        with self.services.databases.global_.read() as connection:
            row = self._found(call, connection)
        asked = call.body["attachment"]
        return {"attachment": view(self._connect(call, row["id"], asked["connector"], asked.get("mode")))}

    def _connect(self, call: Call, identifier: str, connector: dict[str, Any], mode: str | None) -> Row:
        if not connector.get("host"):
            raise BadRequest("Invalid connector: the host is missing.")
        row, volume = self._connecting(identifier, connector, mode)
        host = service_of(volume["host"])
        if host is None:
            raise BadRequest(f"Invalid volume: Volume {volume['id']} is on no backend.")
        answer = self.services.doorbells.volume().initialize_connection(
            call.context, host, volume["id"], connector, row["mode"]
        )
        return self._connected(identifier, answer)

    @retrying
    def _connecting(self, identifier: str, connector: dict[str, Any], mode: str | None) -> tuple[Row, Row]:
        with self.services.databases.global_.write() as connection:
            row = db_attachments.get(connection, identifier)
            volume = db_attachments.volume_for_update(connection, row["volume_id"])
            self._refuse_second_writer(connection, volume, row, connector)
            values: Row = {"connector": connector, "attached_host": host_of(connector)}
            if isinstance(connector.get("mountpoint"), str):
                values["mountpoint"] = connector["mountpoint"][:255]
            values["mode"] = mode or row["mode"] or ("ro" if volume["readonly"] else "rw")
            if volume["readonly"] and values["mode"] == "rw":
                raise BadRequest(
                    f"Invalid volume: Volume {volume['id']} is read only: attach it with mode ro."
                )
            db_attachments.move(connection, volume, row, AttachmentStatus.ATTACHING, values)
            return {**row, **values}, volume

    @staticmethod
    def _refuse_second_writer(
        connection: sa.Connection, volume: Row, row: Row, connector: dict[str, Any]
    ) -> None:
        """:raises BadRequest: the volume is another's, and can't be shared."""
        if volume["multiattach"]:
            return
        for other in db_attachments.of_volume(connection, volume["id"]):
            if other["id"] != row["id"] and other["instance_id"] != row["instance_id"]:
                raise BadRequest(f"Invalid volume: Volume {volume['id']} is attached to another server.")

    @retrying
    def _connected(self, identifier: str, answer: dict[str, Any]) -> Row:
        with self.services.databases.global_.write() as connection:
            row = db_attachments.get(connection, identifier)
            volume = db_attachments.volume_for_update(connection, row["volume_id"])
            info = {
                "driver_volume_type": answer["driver_volume_type"],
                **answer.get("data", {}),
                **connection_facts(connection, volume, row),
            }
            connection.execute(
                attachments.update()
                .where(attachments.c.id == identifier)
                .values(connection_info=info, updated_at=now())
            )
            return {**row, "connection_info": info}

    @operation(
        "POST",
        _PATH + "/action",
        policy="volume:attachment_complete",
        action="os-complete",
        body=schemas.empty("os-complete"),
        since="3.44",
        status=204,
        late_policy=True,
    )
    @retrying
    def complete(self, call: Call) -> None:
        """The host has the volume: it is in use."""
        with self.services.databases.global_.write() as connection:
            row = self._found(call, connection)
            volume = db_attachments.volume_for_update(connection, row["volume_id"])
            if row["status"] == AttachmentStatus.ATTACHED:
                return
            values = {"attached_at": now()}
            db_attachments.move(connection, volume, row, AttachmentStatus.ATTACHED, values)

    @operation("DELETE", _PATH, policy="volume:attachment_delete", since="3.27", late_policy=True)
    def delete(self, call: Call) -> dict[str, Any]:
        """Disconnect and delete; what is left of the volume's attachments is the answer."""
        with self.services.databases.global_.read() as connection:
            row = self._found(call, connection)
        refuse_used(call, row)
        disconnect(call, row)
        return {"attachments": [view(each) for each in self._forget(row["id"])]}

    @retrying
    def _forget(self, identifier: str) -> list[Row]:
        with self.services.databases.global_.write() as connection:
            try:
                row = db_attachments.get(connection, identifier)
            except NotFound:
                return []
            volume = db_attachments.volume_for_update(connection, row["volume_id"])
            db_attachments.remove(connection, volume, identifier)
            return db_attachments.of_volume(connection, volume["id"])


def disconnect(call: Call, row: Row, force: bool = False) -> None:
    """Take the host's connection away, unless another attachment of the volume is on the same host."""
    if not row["connector"]:
        return
    with call.services.databases.global_.read() as connection:
        volume = db_attachments.volume_for_update(connection, row["volume_id"])
        if db_attachments.others_on_host(connection, row):
            return
    if (host := service_of(volume["host"])) is not None:
        call.services.doorbells.volume().terminate_connection(
            call.context, host, volume["id"], row["connector"], force
        )


__all__ = ["AttachmentsController", "connection_facts", "disconnect", "refuse_used", "view"]
