"""Host aggregates: groups of hosts with metadata that the scheduler reads, zones among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.compute import common
from core.errors import BadRequest
from db import aggregates as db_aggregates
from db import hypervisors as db_hypervisors

_ZONE = {"type": ["string", "null"], "minLength": 1, "maxLength": 255, "pattern": r"^[^:\s]([^:]*[^:\s])?$"}
_PROPERTIES = {"name": v.NAME, "availability_zone": _ZONE}
CREATE = v.obj({"aggregate": v.obj(_PROPERTIES, ["name"])}, ["aggregate"])
UPDATE = v.obj({"aggregate": {**v.obj(_PROPERTIES), "minProperties": 1}}, ["aggregate"])
_HOST = v.obj({"host": {"type": "string", "minLength": 1, "maxLength": 255}}, ["host"])
ADD_HOST = v.obj({"add_host": _HOST}, ["add_host"])
REMOVE_HOST = v.obj({"remove_host": _HOST}, ["remove_host"])
_METADATA = {
    "type": "object",
    "patternProperties": {r"^[a-zA-Z0-9-_:. ]{1,255}$": {"type": ["string", "null"], "maxLength": 255}},
    "additionalProperties": False,
}
SET_METADATA = v.obj({"set_metadata": v.obj({"metadata": _METADATA}, ["metadata"])}, ["set_metadata"])
_ONE = "/os-aggregates/{aggregate_id}"
_ACTION = _ONE + "/action"
_POLICY = "os_compute_api:os-aggregates:"


def view(call: Call, row: Mapping[str, Any]) -> dict[str, Any]:
    """An aggregate as everything but create answers."""
    return {**brief(call, row), "hosts": row["hosts"], "metadata": row["metadata"]}


def brief(call: Call, row: Mapping[str, Any]) -> dict[str, Any]:
    """An aggregate as create answers."""
    result = {
        "id": row["id"],
        "name": row["name"],
        "availability_zone": row["metadata"].get(db_aggregates.ZONE),
        "created_at": common.micro(row["created_at"]),
        "updated_at": common.micro(row["updated_at"]),
        "deleted": False,
        "deleted_at": None,
    }
    if call.since("2.41"):
        result["uuid"] = row["uuid"]
    return result


class AggregatesController(Controller):
    """Create, list, show, change, delete; hosts and metadata."""

    def _id(self, call: Call) -> int:
        return common.number_of(call.params["aggregate_id"], "aggregate_id")

    def _occupied(self, aggregate_id: int) -> set[str]:
        """Hosts of the aggregate that have servers."""
        databases = self.services.databases
        with databases.global_.read() as connection:
            members = db_aggregates.get(connection, aggregate_id)["hosts"]
        return db_hypervisors.occupied_hosts(databases, members)

    @operation("GET", "/os-aggregates", policy=_POLICY + "index")
    def index(self, call: Call) -> dict[str, Any]:
        """List aggregates."""
        with self.services.databases.global_.read() as connection:
            return {"aggregates": [view(call, row) for row in db_aggregates.list_(connection)]}

    @operation("POST", "/os-aggregates", policy=_POLICY + "create", body=CREATE)
    def create(self, call: Call) -> dict[str, Any]:
        """Create an aggregate."""
        asked = call.body["aggregate"]
        with self.services.databases.global_.write() as connection:
            row = db_aggregates.create(connection, asked["name"], asked.get("availability_zone"))
            return {"aggregate": brief(call, row)}

    @operation("GET", _ONE, policy=_POLICY + "show")
    def show(self, call: Call) -> dict[str, Any]:
        """Show an aggregate."""
        with self.services.databases.global_.read() as connection:
            return {"aggregate": view(call, db_aggregates.get(connection, self._id(call)))}

    @operation("PUT", _ONE, policy=_POLICY + "update", body=UPDATE)
    def update(self, call: Call) -> dict[str, Any]:
        """Change an aggregate's name or zone."""
        asked = call.body["aggregate"]
        metadata = None
        if "availability_zone" in asked:
            metadata = {db_aggregates.ZONE: asked["availability_zone"]}
        return self._change(call, asked.get("name"), metadata)

    def _change(
        self, call: Call, name: str | None, metadata: Mapping[str, str | None] | None
    ) -> dict[str, Any]:
        aggregate_id = self._id(call)
        occupied = self._occupied(aggregate_id)
        with self.services.databases.global_.write() as connection:
            row = db_aggregates.update(
                connection, aggregate_id, name=name, metadata=metadata, occupied=occupied
            )
            return {"aggregate": view(call, row)}

    @operation("DELETE", _ONE, policy=_POLICY + "delete")
    def delete(self, call: Call) -> None:
        """Delete an aggregate that has no hosts."""
        with self.services.databases.global_.write() as connection:
            db_aggregates.delete(connection, self._id(call))

    @operation("POST", _ACTION, policy=_POLICY + "add_host", action="add_host", body=ADD_HOST)
    def add_host(self, call: Call) -> dict[str, Any]:
        """Put a host into an aggregate."""
        return self._move(call, db_aggregates.add_host, call.body["add_host"]["host"])

    @operation("POST", _ACTION, policy=_POLICY + "remove_host", action="remove_host", body=REMOVE_HOST)
    def remove_host(self, call: Call) -> dict[str, Any]:
        """Take a host out of an aggregate."""
        return self._move(call, db_aggregates.remove_host, call.body["remove_host"]["host"])

    def _move(self, call: Call, change: Any, host: str) -> dict[str, Any]:
        databases, aggregate_id = self.services.databases, self._id(call)
        occupied = host in db_hypervisors.occupied_hosts(databases, [host])
        with databases.global_.write() as connection:
            return {"aggregate": view(call, change(connection, aggregate_id, host, occupied=occupied))}

    @operation("POST", _ACTION, policy=_POLICY + "set_metadata", action="set_metadata", body=SET_METADATA)
    def set_metadata(self, call: Call) -> dict[str, Any]:
        """Set metadata; null removes a key."""
        metadata = call.body["set_metadata"]["metadata"]
        zone = metadata.get(db_aggregates.ZONE)
        if zone is not None and (not zone or ":" in zone):
            raise BadRequest(f"Availability zone '{zone}' is not valid: no colon, at least one character.")
        return self._change(call, None, metadata)
