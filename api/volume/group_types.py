"""Group types and their specs: what administrators offer for groups of volumes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exc

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.volume import common, schemas
from core.errors import BadRequest, Conflict, NotFound
from db.sessions import retrying
from db.types import now
from db.volume_base import Condition, Row, find, group_types, groups, new_id, page

_NEW = {
    "name": schemas.NEW_NAME,
    "description": schemas.DESCRIPTION,
    "is_public": v.BOOLEAN,
    "group_specs": {**schemas.SPECS, "type": ["object", "null"]},
}
CREATE = schemas.wrapped("group_type", _NEW, ("name",))
UPDATE = schemas.wrapped(
    "group_type", {"name": schemas.NAME, "description": schemas.DESCRIPTION, "is_public": v.BOOLEAN}
)
SPECS = v.obj({"group_specs": schemas.SPECS}, ["group_specs"])
SPEC = {**schemas.SPECS, "minProperties": 1, "maxProperties": 1}
SORT_KEYS = {"id": "id", "name": "name", "created_at": "created_at", "is_public": "is_public"}
_ONE = "/group_types/{group_type_id}"
_POLICY = "group:group_types:"
DEFAULT_SPEC = "default"


def view(call: Call, row: Mapping[str, Any]) -> dict[str, Any]:
    """A group type; its specs are for administrators."""
    found = {
        "id": row["id"],
        "name": row["name"],
        "description": row["description"],
        "is_public": bool(row["is_public"]),
    }
    if call.allowed("group:access_group_types_specs"):
        found["group_specs"] = row["group_specs"]
    return found


def seen(call: Call) -> list[Condition]:
    return [] if common.is_admin(call) else [group_types.c.is_public.is_(sa.true())]


def by_name_or_id(call: Call, connection: sa.Connection, text: str) -> Row:
    """:raises NotFound:"""
    statement = sa.select(group_types).where(
        sa.or_(group_types.c.id == text, group_types.c.name == text), *seen(call)
    )
    row = connection.execute(statement).mappings().first()
    if row is None:
        raise NotFound(f"Group type {text} could not be found.")
    return dict(row)


class GroupTypesController(Controller):
    """Create, list, show, change, delete."""

    @operation("GET", "/group_types", policy=_POLICY + "get", since="3.11")
    def index(self, call: Call) -> dict[str, Any]:
        """List group types."""
        found, where = common.page_of(call, SORT_KEYS), seen(call)
        public = call.first("is_public")
        if common.is_admin(call) and public is not None and public.lower() != "none":
            chosen = sa.true() if common.strict_truth(public, "is_public") else sa.false()
            where.append(group_types.c.is_public.is_(chosen))
        with self.services.databases.global_.read() as connection:
            rows = page(
                connection,
                group_types,
                where,
                found.sort,
                found.marker,
                found.limit,
                found.offset,
                "Group type",
            )
        result = {"group_types": [view(call, row) for row in rows]}
        return common.with_links(call, result, "group_type", "group_types", rows, found)

    @operation("GET", _ONE, policy=_POLICY + "get", since="3.11")
    def show(self, call: Call) -> dict[str, Any]:
        """Show a group type; "default" is the one with that name."""
        with self.services.databases.global_.read() as connection:
            if call.params["group_type_id"] == "default":
                return {"group_type": view(call, by_name_or_id(call, connection, DEFAULT_SPEC))}
            row = find(connection, group_types, "Group type", call.params["group_type_id"], *seen(call))
        return {"group_type": view(call, row)}

    @operation("POST", "/group_types", policy=_POLICY + "create", since="3.11", status=202, body=CREATE)
    def create(self, call: Call) -> dict[str, Any]:
        """Create a group type."""
        asked = call.body["group_type"]
        row: Row = {
            "id": new_id(),
            "name": asked["name"].strip(),
            "description": asked.get("description"),
            "is_public": common.truth(asked.get("is_public", True)),
            "group_specs": dict(asked.get("group_specs") or {}),
            "created_at": now(),
            "updated_at": None,
        }
        try:
            with self.services.databases.global_.write() as connection:
                connection.execute(group_types.insert(), [row])
        except db_exc.DBDuplicateEntry as error:
            raise Conflict(f"Group Type {row['name']} already exists.", cause=error) from error
        return {"group_type": view(call, row)}

    @operation("PUT", _ONE, policy=_POLICY + "update", since="3.11", body=UPDATE)
    def update(self, call: Call) -> dict[str, Any]:
        """Change a group type."""
        asked = call.body["group_type"]
        values: Row = {}
        if asked.get("name") is not None:
            values["name"] = asked["name"].strip()
            if not values["name"]:
                raise BadRequest("Group type name can not be empty.")
        if asked.get("description") is not None:
            values["description"] = asked["description"]
        if "is_public" in asked:
            values["is_public"] = common.truth(asked["is_public"])
        if not values:
            raise BadRequest("Specify group type name, description or a combination thereof.")
        try:
            with self.services.databases.global_.write() as connection:
                row = find(connection, group_types, "Group type", call.params["group_type_id"])
                statement = group_types.update().where(group_types.c.id == row["id"])
                connection.execute(statement.values(updated_at=now(), **values))
        except db_exc.DBDuplicateEntry as error:
            raise Conflict(f"Group Type {values['name']} already exists.", cause=error) from error
        return {"group_type": view(call, {**row, **values})}

    @operation("DELETE", _ONE, policy=_POLICY + "delete", since="3.11", status=202)
    def delete(self, call: Call) -> None:
        """Delete a group type that no group has."""
        with self.services.databases.global_.write() as connection:
            row = find(connection, group_types, "Group type", call.params["group_type_id"])
            used = sa.select(groups.c.id).where(groups.c.group_type_id == row["id"]).limit(1)
            if connection.execute(used).first() is not None:
                raise BadRequest("Target group type is still in use.")
            connection.execute(group_types.delete().where(group_types.c.id == row["id"]))


_SPECS = _ONE + "/group_specs"
_SPECS_POLICY = "group:group_types_specs:"


class GroupTypeSpecsController(Controller):
    """What a group type promises."""

    def _specs(self, call: Call) -> dict[str, str]:
        with self.services.databases.global_.read() as connection:
            row = find(connection, group_types, "Group type", call.params["group_type_id"])
        return dict(row["group_specs"])

    def _key(self, call: Call, specs: Mapping[str, str]) -> str:
        key = call.params["key"]
        if key not in specs:
            raise NotFound(f"Group Type {call.params['group_type_id']} has no specs with key {key}.")
        return key

    @retrying
    def _change(self, call: Call, added: Mapping[str, str], remove: bool = False) -> None:
        with self.services.databases.global_.write() as connection:
            row = find(connection, group_types, "Group type", call.params["group_type_id"])
            specs = {**row["group_specs"], **added}
            if remove:
                del specs[self._key(call, specs)]
            statement = group_types.update().where(group_types.c.id == row["id"])
            connection.execute(statement.values(updated_at=now(), group_specs=specs))

    @operation("GET", _SPECS, policy=_SPECS_POLICY + "get_all", since="3.11")
    def index(self, call: Call) -> dict[str, Any]:
        """List group specs."""
        return {"group_specs": self._specs(call)}

    @operation("GET", _SPECS + "/{key}", policy=_SPECS_POLICY + "get", since="3.11")
    def show(self, call: Call) -> dict[str, Any]:
        """Show one."""
        specs = self._specs(call)
        key = self._key(call, specs)
        return {key: specs[key]}

    @operation("POST", _SPECS, policy=_SPECS_POLICY + "create", since="3.11", status=202, body=SPECS)
    def create(self, call: Call) -> dict[str, Any]:
        """Add some."""
        self._change(call, call.body["group_specs"])
        return {"group_specs": call.body["group_specs"]}

    @operation("PUT", _SPECS + "/{key}", policy=_SPECS_POLICY + "update", since="3.11", body=SPEC)
    def update(self, call: Call) -> dict[str, Any]:
        """Set one."""
        if call.params["key"] not in call.body:
            raise BadRequest("Request body and URI mismatch.")
        self._change(call, call.body)
        return dict(call.body)

    @operation("DELETE", _SPECS + "/{key}", policy=_SPECS_POLICY + "delete", since="3.11", status=202)
    def delete(self, call: Call) -> None:
        """Delete one."""
        self._change(call, {}, remove=True)
