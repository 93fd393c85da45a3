"""Services: who is there, and whether the scheduler may use it.

Named after its path: ``api.compute.services`` is what handlers work with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.compute import common
from core.errors import BadRequest, NotFound
from db import aggregates as db_aggregates
from db import services as db_services

_NAME = {"type": "string", "minLength": 1, "maxLength": 255}
_REASON = {**_NAME, "pattern": r"^\S([\s\S]*\S)?$"}
_OLD = {"host": _NAME, "binary": _NAME, "disabled_reason": _REASON}
UPDATE = (
    ("2.1", v.obj(_OLD, ["host", "binary"])),
    ("2.11", v.obj({**_OLD, "forced_down": v.BOOLEAN}, ["host", "binary"])),
    (
        "2.53",
        {
            **v.obj(
                {
                    "status": {"enum": ["enabled", "disabled"]},
                    "disabled_reason": _REASON,
                    "forced_down": v.BOOLEAN,
                }
            ),
            "minProperties": 1,
        },
    ),
)
_QUERY = {"host": {"type": "string"}, "binary": {"type": "string"}}
LIST = (("2.1", v.query(_QUERY)), ("2.75", v.query(_QUERY, additional=False)))
_POLICY = "os_compute_api:os-services:"


def zone_of(call: Call, zones: Mapping[str, str], row: Mapping[str, Any]) -> str:
    """The availability zone in which a service is listed."""
    options = call.services.options
    if row["binary"] != db_services.COMPUTE:
        return str(options.internal_service_availability_zone)
    return zones.get(row["host"], str(options.default_availability_zone))


def is_up(call: Call, row: Mapping[str, Any]) -> bool:
    return db_services.is_up(row, call.services.conf.service_down_time)


def view(call: Call, zones: Mapping[str, str], row: Mapping[str, Any]) -> dict[str, Any]:
    """A service as lists show it."""
    result = {
        "id": row["uuid"] if call.since("2.53") else row["id"],
        "binary": row["binary"],
        "host": row["host"],
        "zone": zone_of(call, zones, row),
        "status": "disabled" if row["disabled"] else "enabled",
        "state": "up" if is_up(call, row) else "down",
        "updated_at": common.micro(db_services.seen(row)),
        "disabled_reason": row["disabled_reason"],
    }
    if call.since("2.11"):
        result["forced_down"] = row["forced_down"]
    return result


class OsServicesController(Controller):
    """List, enable, disable, force down, delete."""

    def _zones(self) -> dict[str, str]:
        with self.services.databases.global_.read() as connection:
            return db_aggregates.zones(connection)

    @operation("GET", "/os-services", policy=_POLICY + "list", query=LIST)
    def index(self, call: Call) -> dict[str, Any]:
        """List services."""
        host, binary = common.present(call, "host"), common.present(call, "binary")
        rows, unknown = db_services.list_(self.services.databases, host, binary)
        zones = self._zones()
        result = [view(call, zones, row) for row in rows]
        if call.since("2.69") and binary in (None, db_services.COMPUTE):
            result += [{"binary": db_services.COMPUTE, "host": name, "status": "UNKNOWN"} for name in unknown]
        return {"services": result}

    @operation("PUT", "/os-services/{service_id}", policy=_POLICY + "update", body=UPDATE)
    def update(self, call: Call) -> dict[str, Any]:
        """Enable, disable or force down; until 2.52 the path names the action."""
        if call.since("2.53"):
            return self._update(call)
        return self._act(call)

    def _update(self, call: Call) -> dict[str, Any]:
        cell, row = db_services.by_uuid(
            self.services.databases, common.uuid_of(call.params["service_id"], "Invalid uuid")
        )
        if row["binary"] != db_services.COMPUTE:
            raise BadRequest(
                f"Updating a {row['binary']} service is not supported. Only nova-compute services can be"
                " updated."
            )
        values: dict[str, Any] = {}
        status, reason = call.body.get("status"), call.body.get("disabled_reason")
        if reason is not None and status != "disabled":
            raise BadRequest(f"Specifying 'disabled_reason' with status '{status}' is invalid.")
        if status is not None:
            values.update(disabled=status == "disabled", disabled_reason=reason)
        if "forced_down" in call.body:
            values["forced_down"] = common.truth(call.body["forced_down"])
        changed = db_services.update(self.services.databases, cell, row, values)
        return {"service": view(call, self._zones(), changed)}

    def _act(self, call: Call) -> dict[str, Any]:
        action, body = call.params["service_id"], call.body
        if action not in ("enable", "disable", "disable-log-reason", "force-down") or (
            action == "force-down" and not call.since("2.11")
        ):
            raise NotFound(f"Unknown action '{action}'.")
        result = {"host": body["host"], "binary": body["binary"]}
        if action == "force-down":
            if "forced_down" not in body:
                raise BadRequest("Missing required element 'forced_down' in the body.")
            values: dict[str, Any] = {"forced_down": common.truth(body["forced_down"])}
            result.update(values)
        else:
            reason = body.get("disabled_reason")
            if action == "disable-log-reason":
                if not reason:
                    raise BadRequest("Missing required element 'disabled_reason' in the body.")
                result["disabled_reason"] = reason
            disabled = action != "enable"
            values = {
                "disabled": disabled,
                "disabled_reason": reason if action == "disable-log-reason" else None,
            }
            result["status"] = "disabled" if disabled else "enabled"
        cell, row = db_services.by_host(self.services.databases, body["host"], body["binary"])
        db_services.update(self.services.databases, cell, row, values)
        return {"service": result}

    @operation("DELETE", "/os-services/{service_id}", policy=_POLICY + "delete", status=204)
    def delete(self, call: Call) -> None:
        """Forget a service; a compute service only when no server is on its host."""
        databases, identifier = self.services.databases, call.params["service_id"]
        if call.since("2.53"):
            cell, row = db_services.by_uuid(databases, common.uuid_of(identifier, "Invalid uuid"))
        else:
            cell, row = db_services.by_id(databases, common.number_of(identifier, "id"))
        db_services.delete(databases, cell, row)
