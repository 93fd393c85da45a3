"""QoS specs: bounds on throughput that types may have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.volume import common, schemas
from core.errors import BadRequest, NotFound
from db import volume_types as db_types
from db.sessions import retrying
from db.volume_base import Row, qos_specs

_CONSUMER = {"enum": ["front-end", "back-end", "both"]}
_SPECS = {r"^[a-zA-Z0-9-_:. ]{1,255}$": {"type": ["string", "number"], "maxLength": 255}}
_FREE = {"type": "object", "patternProperties": _SPECS, "additionalProperties": False}
CREATE = v.obj(
    {
        "qos_specs": {
            **_FREE,
            "properties": {"name": schemas.NEW_NAME, "consumer": _CONSUMER},
            "required": ["name"],
        }
    },
    ["qos_specs"],
)
UPDATE = v.obj(
    {"qos_specs": {**_FREE, "properties": {"consumer": _CONSUMER}, "minProperties": 1}}, ["qos_specs"]
)
KEYS = v.obj({"keys": {"type": "array", "items": schemas.TEXT, "minItems": 1, "maxItems": 1000}}, ["keys"])
_POLICY = "volume_extension:qos_specs_manage:"
_ONE = "/qos-specs/{qos_id}"
SORT_KEYS = {"id": "id", "name": "name", "created_at": "created_at"}


def view(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": row["id"], "name": row["name"], "consumer": row["consumer"], "specs": row["specs"]}


def _links(call: Call, row: Mapping[str, Any]) -> list[dict[str, str]]:
    return common.self_links(call, f"qos-specs/{row['id']}")


class QosSpecsController(Controller):
    """Create, change, tie to types."""

    def _row(self, call: Call, connection: sa.Connection) -> Row:
        return db_types.qos(connection, call.params["qos_id"])

    @operation("GET", "/qos-specs", policy=_POLICY + "get_all")
    def index(self, call: Call) -> dict[str, Any]:
        """List QoS specs."""
        found = common.page_of(call, SORT_KEYS)
        asked = common.asked_filters(call, ["id", "name", "consumer"])
        columns = {"id": "id", "name": "name", "consumer": "consumer"}
        where = common.conditions(call, qos_specs, asked, columns)
        with self.services.databases.global_.read() as connection:
            rows = db_types.list_qos(connection, where, found.sort, found.marker, found.limit, found.offset)
        result = {"qos_specs": [view(row) for row in rows]}
        return common.with_links(call, result, "qos_specs", "qos-specs", rows, found)

    @operation("GET", _ONE, policy=_POLICY + "get")
    def show(self, call: Call) -> dict[str, Any]:
        """Show QoS specs."""
        with self.services.databases.global_.read() as connection:
            row = self._row(call, connection)
        return {"qos_specs": view(row), "links": _links(call, row)}

    @operation("POST", "/qos-specs", policy=_POLICY + "create", body=CREATE)
    def create(self, call: Call) -> dict[str, Any]:
        """Create QoS specs."""
        specs = dict(call.body["qos_specs"])
        name, consumer = specs.pop("name").strip(), specs.pop("consumer", "back-end")
        values = {"name": name, "consumer": consumer, "specs": {k: str(x) for k, x in specs.items()}}
        with self.services.databases.global_.write() as connection:
            row = db_types.create_qos(connection, values)
        return {"qos_specs": view(row), "links": _links(call, row)}

    @operation("PUT", _ONE, policy=_POLICY + "update", body=UPDATE)
    @retrying
    def update(self, call: Call) -> dict[str, Any]:
        """Add and change specs."""
        asked = dict(call.body["qos_specs"])
        shown = dict(asked)
        with self.services.databases.global_.write() as connection:
            row = self._row(call, connection)
            consumer = asked.pop("consumer", row["consumer"])
            specs = {**row["specs"], **{key: str(value) for key, value in asked.items()}}
            db_types.change_qos(connection, row["id"], {"consumer": consumer, "specs": specs})
        return {"qos_specs": shown}

    @operation("PUT", _ONE + "/delete_keys", policy=_POLICY + "update", body=KEYS, status=202)
    @retrying
    def delete_keys(self, call: Call) -> None:
        """Remove specs."""
        with self.services.databases.global_.write() as connection:
            row = self._row(call, connection)
            missing = [key for key in call.body["keys"] if key not in row["specs"]]
            if missing:
                raise BadRequest(f"QoS spec {row['id']} has no spec with key {missing[0]}.")
            left = {key: value for key, value in row["specs"].items() if key not in call.body["keys"]}
            db_types.change_qos(connection, row["id"], {"specs": left})

    @operation("DELETE", _ONE, policy=_POLICY + "delete", status=202)
    def delete(self, call: Call) -> None:
        """Delete QoS specs; with force also those that types have."""
        force = common.strict_truth(call.first("force", "false"), "force")
        with self.services.databases.global_.write() as connection:
            row = self._row(call, connection)
            db_types.delete_qos(connection, row["id"], force)

    @operation("GET", _ONE + "/associations", policy=_POLICY + "get_all")
    def associations(self, call: Call) -> dict[str, Any]:
        """The types with these specs."""
        with self.services.databases.global_.read() as connection:
            row = self._row(call, connection)
            found = db_types.associated(connection, row["id"])
        return {
            "qos_associations": [
                {"association_type": "volume_type", "name": each["name"], "id": each["id"]} for each in found
            ]
        }

    def _type(self, call: Call, connection: sa.Connection) -> Row:
        identifier = call.first("vol_type_id")
        if not identifier:
            raise BadRequest("Volume Type id must not be None.")
        return db_types.get(connection, identifier)

    @operation("GET", _ONE + "/associate", policy=_POLICY + "update", status=202)
    @retrying
    def associate(self, call: Call) -> None:
        """Give a type these specs."""
        with self.services.databases.global_.write() as connection:
            row, type_ = self._row(call, connection), self._type(call, connection)
            if type_["qos_specs_id"] not in (None, row["id"]):
                raise BadRequest(f"Type {type_['id']} is already associated with another qos specs.")
            db_types.change(connection, type_["id"], {"qos_specs_id": row["id"]})

    @operation("GET", _ONE + "/disassociate", policy=_POLICY + "update", status=202)
    @retrying
    def disassociate(self, call: Call) -> None:
        """Take them away from a type."""
        with self.services.databases.global_.write() as connection:
            row, type_ = self._row(call, connection), self._type(call, connection)
            if type_["qos_specs_id"] != row["id"]:
                raise NotFound(f"Type {type_['id']} is not associated with QoS specs {row['id']}.")
            db_types.change(connection, type_["id"], {"qos_specs_id": None})

    @operation("GET", _ONE + "/disassociate_all", policy=_POLICY + "update", status=202)
    def disassociate_all(self, call: Call) -> None:
        """Take them away from all types."""
        with self.services.databases.global_.write() as connection:
            db_types.disassociate_all(connection, self._row(call, connection)["id"])
