"""Volume types, their extra specs, access and encryption, and default types of projects."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.volume import common, schemas
from core.errors import BadRequest, Conflict, NotFound
from db import volume_quotas
from db import volume_types as db_types
from db.sessions import retrying
from db.volume_base import Condition, Row, has_pair, types

_NEW = {
    "name": schemas.NEW_NAME,
    "description": schemas.DESCRIPTION,
    "os-volume-type-access:is_public": v.BOOLEAN,
    "extra_specs": {**schemas.SPECS, "type": ["object", "null"]},
}
CREATE = schemas.wrapped("volume_type", _NEW, ("name",))
UPDATE = schemas.wrapped(
    "volume_type",
    {"name": schemas.NAME, "description": schemas.DESCRIPTION, "is_public": v.BOOLEAN},
)
SPECS = schemas.wrapped("extra_specs", {})
SPECS["properties"]["extra_specs"] = {**schemas.SPECS, "minProperties": 1}
SPEC = {**schemas.SPECS, "minProperties": 1, "maxProperties": 1}
_SENSITIVE = "volume_extension:types_extra_specs:read_sensitive"
VISIBLE_SPECS = frozenset({"RESKEY:availability_zones", "multiattach", "replication_enabled"})
"""Extra specs that every user may see: upstream's."""
SORT_KEYS = {
    "id": "id",
    "name": "name",
    "created_at": "created_at",
    "updated_at": "updated_at",
    "is_public": "is_public",
}
_POLICY = "volume_extension:type_"


def view(call: Call, row: Mapping[str, Any], *, access: bool = True, qos: bool = True) -> dict[str, Any]:
    """A type; administrators see more of it. ``access``, ``qos``: do these belong to the answer?"""
    found: dict[str, Any] = {
        "id": row["id"],
        "name": row["name"],
        "description": row["description"],
        "is_public": bool(row["is_public"]),
    }
    if access and call.allowed("volume_extension:volume_type_access"):
        found["os-volume-type-access:is_public"] = bool(row["is_public"])
    if call.allowed("volume_extension:access_types_extra_specs"):
        found["extra_specs"] = seen_specs(call, row)
    if qos and call.allowed("volume_extension:access_types_qos_specs_id"):
        found["qos_specs_id"] = row["qos_specs_id"]
    return found


def seen_specs(call: Call, row: Mapping[str, Any]) -> dict[str, str]:
    if call.allowed(_SENSITIVE):
        return dict(row["extra_specs"])
    return {key: value for key, value in row["extra_specs"].items() if key in VISIBLE_SPECS}


def seen(call: Call) -> list[Condition]:
    """The types that the asker sees."""
    return [] if common.is_admin(call) else [db_types.visible(call.context.project_id)]


class TypesController(Controller):
    """Kinds of volumes that administrators offer."""

    def _filters(self, call: Call) -> list[Condition]:
        asked = common.asked_filters(call, ["is_public", "name", "description", "extra_specs"])
        where = seen(call)
        public = asked.get("is_public")
        if not common.is_admin(call) or public is None:
            if common.is_admin(call):
                where.append(db_types.visible(call.context.project_id))
        elif public.lower() != "none":
            where.append(
                types.c.is_public.is_(sa.true() if common.strict_truth(public, "is_public") else sa.false())
            )
        if call.since("3.52") or "name" in asked:
            where += common.conditions(call, types, asked, {"name": "name", "description": "description"})
        if "extra_specs" in asked and call.since("3.52"):
            where += self._spec_filter(asked["extra_specs"])
        return where

    @staticmethod
    def _spec_filter(text: str) -> list[Condition]:
        try:
            wanted = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            wanted = None
        if not isinstance(wanted, dict):
            raise BadRequest("Invalid filter extra_specs: a dictionary is expected, {'key': 'value'}.")
        return [has_pair(types.c.extra_specs, str(key), str(value)) for key, value in wanted.items()]

    @operation("GET", "/types", policy=_POLICY + "get_all")
    def index(self, call: Call) -> dict[str, Any]:
        """List types."""
        found, where = common.page_of(call, SORT_KEYS), self._filters(call)
        self._ensure_default()
        with self.services.databases.global_.read() as connection:
            rows = db_types.list_(connection, where, found.sort, found.marker, found.limit, found.offset)
        result = {"volume_types": [view(call, row) for row in rows]}
        return common.with_links(call, result, "volume_type", "types", rows, found)

    _has_default = False

    def _ensure_default(self) -> None:
        """The type of volumes that name none is there from the first look on; nobody can delete it."""
        if not self._has_default:
            with self.services.databases.global_.write() as connection:
                db_types.ensure_default(connection)
            self._has_default = True

    @operation("GET", "/types/{type_id}", policy=_POLICY + "get")
    def show(self, call: Call) -> dict[str, Any]:
        """Show a type; "default" is the project's default type."""
        from api.volume.volume_create import default_type

        self._ensure_default()
        with self.services.databases.global_.read() as connection:
            if call.params["type_id"] == "default":
                row = default_type(call, connection)
            else:
                row = db_types.get(connection, call.params["type_id"], *seen(call))
        return {"volume_type": view(call, row)}

    @operation("POST", "/types", policy=_POLICY + "create", body=CREATE)
    def create(self, call: Call) -> dict[str, Any]:
        """Create a type."""
        asked = call.body["volume_type"]
        values = {
            "name": asked["name"].strip(),
            "description": asked.get("description"),
            "is_public": common.truth(asked.get("os-volume-type-access:is_public", True)),
            "extra_specs": dict(asked.get("extra_specs") or {}),
        }
        with self.services.databases.global_.write() as connection:
            row = db_types.create(connection, values)
        return {"volume_type": view(call, row, qos=False)}

    @operation("PUT", "/types/{type_id}", policy=_POLICY + "update", body=UPDATE)
    def update(self, call: Call) -> dict[str, Any]:
        """Change a type's name, description, visibility."""
        asked = call.body["volume_type"]
        values: Row = {}
        if asked.get("name") is not None:
            values["name"] = asked["name"].strip()
            if not values["name"]:
                raise BadRequest("Volume type name can not be empty.")
        if asked.get("description") is not None:
            values["description"] = asked["description"]
        if "is_public" in asked:
            values["is_public"] = common.truth(asked["is_public"])
        if not values:
            raise BadRequest("Specify volume type name, description, is_public or a combination thereof.")
        with self.services.databases.global_.write() as connection:
            row = db_types.get(connection, call.params["type_id"])
            db_types.change(connection, row["id"], values)
            return {"volume_type": view(call, {**row, **values}, access=False, qos=False)}

    @operation("DELETE", "/types/{type_id}", policy=_POLICY + "delete", status=202)
    def delete(self, call: Call) -> None:
        """Delete a type that no volume has."""
        with self.services.databases.global_.write() as connection:
            row = db_types.get(connection, call.params["type_id"])
            if row["name"] == self.services.options.default_volume_type:
                raise BadRequest(
                    f"The volume type {row['name']} is the default volume type and cannot be deleted."
                )
            db_types.delete(connection, row["id"])
            volume_quotas.forget_type(connection, row["id"])


_SPECS = "/types/{type_id}/extra_specs"
_SPECS_POLICY = "volume_extension:types_extra_specs:"


class TypeExtraSpecsController(Controller):
    """What a type asks of a backend, and tells its driver."""

    def _row(self, call: Call, connection: sa.Connection) -> Row:
        return db_types.get(connection, call.params["type_id"], *seen(call))

    @retrying
    def _change(self, call: Call, added: dict[str, str], removed: str | None = None) -> None:
        with self.services.databases.global_.write() as connection:
            row = self._row(call, connection)
            specs = {**row["extra_specs"], **added}
            if "multiattach" in {*added, removed} and db_types.in_use(connection, row["id"]):
                raise BadRequest("Volume Type is currently in use: multiattach can't be changed.")
            if removed is not None:
                if removed not in specs:
                    raise NotFound(f"Volume Type {row['id']} has no extra specs with key {removed}.")
                del specs[removed]
            db_types.change(connection, row["id"], {"extra_specs": specs})

    @operation("GET", _SPECS, policy=_SPECS_POLICY + "index")
    def index(self, call: Call) -> dict[str, Any]:
        """List extra specs."""
        with self.services.databases.global_.read() as connection:
            return {"extra_specs": seen_specs(call, self._row(call, connection))}

    @operation("GET", _SPECS + "/{key}", policy=_SPECS_POLICY + "show")
    def show(self, call: Call) -> dict[str, Any]:
        """Show one extra spec."""
        key = call.params["key"]
        with self.services.databases.global_.read() as connection:
            specs = seen_specs(call, self._row(call, connection))
        if key not in specs:
            raise NotFound(f"Volume Type {call.params['type_id']} has no extra specs with key {key}.")
        return {key: specs[key]}

    @operation("POST", _SPECS, policy=_SPECS_POLICY + "create", body=SPECS)
    def create(self, call: Call) -> dict[str, Any]:
        """Add extra specs."""
        self._change(call, call.body["extra_specs"])
        return {"extra_specs": call.body["extra_specs"]}

    @operation("PUT", _SPECS + "/{key}", policy=_SPECS_POLICY + "update", body=SPEC)
    def update(self, call: Call) -> dict[str, Any]:
        """Set one extra spec."""
        if call.params["key"] not in call.body:
            raise BadRequest("Request body and URI mismatch")
        self._change(call, call.body)
        return dict(call.body)

    @operation("DELETE", _SPECS + "/{key}", policy=_SPECS_POLICY + "delete", status=202)
    def delete(self, call: Call) -> None:
        """Delete one extra spec."""
        self._change(call, {}, call.params["key"])


_ACCESS = "volume_extension:volume_type_access:"


def _access_schema(name: str) -> dict[str, Any]:
    return schemas.action(name, v.obj({"project": schemas.TEXT}, ["project"]))


class TypeAccessController(Controller):
    """Who may use a private type."""

    @operation("GET", "/types/{type_id}/os-volume-type-access", policy=_ACCESS + "get_all_for_type")
    def index(self, call: Call) -> dict[str, Any]:
        """List the projects that may use a private type."""
        with self.services.databases.global_.read() as connection:
            row = db_types.get(connection, call.params["type_id"])
            if row["is_public"]:
                raise NotFound("Access list not available for public volume types.")
            found = db_types.projects_of(connection, row["id"])
        return {"volume_type_access": [{"volume_type_id": row["id"], "project_id": each} for each in found]}

    @operation(
        "POST",
        "/types/{type_id}/action",
        policy=_ACCESS + "addProjectAccess",
        action="addProjectAccess",
        body=_access_schema("addProjectAccess"),
        status=202,
    )
    def add(self, call: Call) -> None:
        """Let a project use a private type."""
        with self.services.databases.global_.write() as connection:
            row = self._private(call, connection)
            db_types.add_project(connection, row["id"], call.body["addProjectAccess"]["project"])

    @operation(
        "POST",
        "/types/{type_id}/action",
        policy=_ACCESS + "removeProjectAccess",
        action="removeProjectAccess",
        body=_access_schema("removeProjectAccess"),
        status=202,
    )
    def remove(self, call: Call) -> None:
        """Take that back."""
        with self.services.databases.global_.write() as connection:
            row = self._private(call, connection)
            db_types.remove_project(connection, row["id"], call.body["removeProjectAccess"]["project"])

    @staticmethod
    def _private(call: Call, connection: sa.Connection) -> Row:
        row = db_types.get(connection, call.params["type_id"])
        if row["is_public"]:
            raise Conflict(
                "Invalid input received: Type access modification is not applicable to public volume type."
            )
        return row


_ENCRYPTION = "/types/{type_id}/encryption"
_ENCRYPTION_POLICY = "volume_extension:volume_type_encryption:"
_ENCRYPTED = {
    "provider": schemas.TEXT,
    "control_location": {"enum": ["front-end", "back-end"]},
    "cipher": schemas.MAYBE_TEXT,
    "key_size": {"anyOf": [v.integer(0), {"type": "null"}]},
}


class TypeEncryptionController(Controller):
    """How the volumes of a type are encrypted."""

    def _found(self, call: Call, connection: sa.Connection) -> Row:
        type_ = db_types.get(connection, call.params["type_id"])
        row = db_types.encryption(connection, type_["id"])
        wanted = call.params.get("encryption_id")
        if row is None or wanted not in (None, row["id"], *row):
            raise NotFound(f"Volume type encryption for type {type_['id']} does not exist.")
        return row

    @staticmethod
    def _values(asked: Mapping[str, Any]) -> Row:
        values: Row = {key: asked[key] for key in _ENCRYPTED if key in asked}
        if values.get("key_size") is not None:
            values["key_size"] = common.whole(values["key_size"], "key_size", 0)
        return values

    @staticmethod
    def _refuse_used(connection: sa.Connection, type_id: str) -> None:
        if db_types.in_use(connection, type_id):
            raise BadRequest("Cannot create, change or delete encryption specs: the volume type is in use.")

    @operation("GET", _ENCRYPTION, policy=_ENCRYPTION_POLICY + "get")
    def index(self, call: Call) -> dict[str, Any]:
        """Show a type's encryption, {} without one."""
        with self.services.databases.global_.read() as connection:
            type_ = db_types.get(connection, call.params["type_id"])
            row = db_types.encryption(connection, type_["id"])
        if row is None:
            return {}
        return {
            "volume_type_id": type_["id"],
            "encryption_id": row["id"],
            "provider": row["provider"],
            "control_location": row["control_location"],
            "cipher": row["cipher"],
            "key_size": row["key_size"],
            "created_at": common.micro(row["created_at"]),
            "updated_at": common.micro(row["updated_at"]),
            "deleted": False,
            "deleted_at": None,
        }

    @operation("GET", _ENCRYPTION + "/{key}", policy=_ENCRYPTION_POLICY + "get")
    def show(self, call: Call) -> dict[str, Any]:
        """Show one attribute of it."""
        key = call.params["key"]
        found = self.index(call)
        if key not in found:
            raise NotFound(f"Volume type encryption for type {call.params['type_id']} has no {key}.")
        return {key: found[key]}

    @operation(
        "POST",
        _ENCRYPTION,
        policy=_ENCRYPTION_POLICY + "create",
        body=schemas.wrapped("encryption", _ENCRYPTED, ("provider", "control_location")),
    )
    def create(self, call: Call) -> dict[str, Any]:
        """Encrypt the volumes of a type that has none yet."""
        with self.services.databases.global_.write() as connection:
            type_ = db_types.get(connection, call.params["type_id"])
            self._refuse_used(connection, type_["id"])
            row = db_types.create_encryption(connection, type_["id"], self._values(call.body["encryption"]))
        shown = {key: row.get(key) for key in _ENCRYPTED}
        return {"encryption": {**shown, "volume_type_id": type_["id"], "encryption_id": row["id"]}}

    @operation(
        "PUT",
        _ENCRYPTION + "/{encryption_id}",
        policy=_ENCRYPTION_POLICY + "update",
        body=schemas.wrapped("encryption", _ENCRYPTED),
    )
    def update(self, call: Call) -> dict[str, Any]:
        """Change it."""
        with self.services.databases.global_.write() as connection:
            row = self._found(call, connection)
            self._refuse_used(connection, row["type_id"])
            values = self._values(call.body["encryption"])
            if values:
                db_types.change_encryption(connection, row["type_id"], values)
        return {"encryption": values}

    @operation("DELETE", _ENCRYPTION + "/{encryption_id}", policy=_ENCRYPTION_POLICY + "delete", status=202)
    def delete(self, call: Call) -> None:
        """The volumes of the type are not encrypted any more."""
        with self.services.databases.global_.write() as connection:
            row = self._found(call, connection)
            self._refuse_used(connection, row["type_id"])
            db_types.delete_encryption(connection, row["type_id"])


class DefaultTypesController(Controller):
    """The types of volumes that name none, per project."""

    @operation("GET", "/default-types", policy="volume_extension:default_get_all", since="3.62")
    def index(self, call: Call) -> dict[str, Any]:
        """List the default types of projects."""
        with self.services.databases.global_.read() as connection:
            found = db_types.defaults(connection)
        return {
            "default_types": [{"project_id": key, "volume_type_id": value} for key, value in found.items()]
        }

    @operation("GET", "/default-types/{project_id}", policy="volume_extension:default_get", since="3.62")
    def show(self, call: Call) -> dict[str, Any]:
        """Show a project's default type."""
        project_id = call.params["project_id"]
        with self.services.databases.global_.read() as connection:
            found = db_types.defaults(connection, project_id)
        if project_id not in found:
            raise NotFound(f"Default type for project {project_id} not found.")
        return {"default_type": {"project_id": project_id, "volume_type_id": found[project_id]}}

    @operation(
        "PUT",
        "/default-types/{project_id}",
        policy="volume_extension:default_set_or_update",
        since="3.62",
        body=schemas.wrapped("default_type", {"volume_type": schemas.TEXT}, ("volume_type",)),
    )
    @retrying
    def update(self, call: Call) -> dict[str, Any]:
        """Set a project's default type."""
        project_id = call.params["project_id"]
        with self.services.databases.global_.write() as connection:
            row = db_types.by_name_or_id(connection, call.body["default_type"]["volume_type"])
            db_types.set_default(connection, project_id, row["id"])
        return {"default_type": {"project_id": project_id, "volume_type_id": row["id"]}}

    @operation(
        "DELETE",
        "/default-types/{project_id}",
        policy="volume_extension:default_unset",
        since="3.62",
        status=204,
    )
    def delete(self, call: Call) -> None:
        """A project's default type is the deployment's again."""
        with self.services.databases.global_.write() as connection:
            db_types.set_default(connection, call.params["project_id"], None)
