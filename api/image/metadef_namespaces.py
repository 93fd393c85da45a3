"""Namespaces of metadata definitions, and the resource types that they are for."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from api.common.operations import Call, Controller, operation
from api.image.common import asker, refuse_nul
from api.image.metadef_common import (
    BASE,
    accept,
    association_view,
    find,
    find_permitted,
    find_to_remove,
    namespace_view,
    object_view,
    page_of,
    paged,
    path_of,
    prefix_for,
    target,
    times,
)
from api.image.metadef_schemas import NAMESPACE, READ_ONLY, RESOURCE_TYPE, request
from api.image.services import ImageServices
from core.errors import BadRequest, Forbidden
from db import metadefs
from db.metadefs import OBJECT, PROPERTY, TAG, Row
from db.sessions import retrying

_PATH = "/metadefs/namespaces/{namespace}"
_TYPES = f"{_PATH}/resource_types"
_REQUEST = request(NAMESPACE)


class MetadefNamespacesController(Controller):
    """/v2/metadefs/namespaces."""

    services: ImageServices

    @operation("GET", "/metadefs/namespaces", policy="get_metadef_namespaces")
    def index(self, call: Call) -> dict[str, Any]:
        """List the namespaces that the project may see."""
        page = page_of(call, metadefs.NAMESPACE_SORT_KEYS)
        visibility = call.first("visibility")
        if visibility not in (None, "public", "private"):
            raise BadRequest(f"Invalid visibility value: {visibility}")
        types = [name for name in (call.first("resource_types") or "").split(",") if name]
        refuse_nul(types)
        with self.services.databases.global_.read() as connection:
            found = metadefs.list_(connection, asker(call), page, visibility, types)
        shown = [namespace_view(row) for row in found if call.allowed("get_metadef_namespace", target(row))]
        return paged(call, "namespaces", BASE, page, [row["namespace"] for row in found], shown)

    @operation(
        "POST",
        "/metadefs/namespaces",
        policy="add_metadef_namespace",
        late_policy=True,
        status=201,
        body=_REQUEST,
    )
    def create(self, call: Call) -> dict[str, Any]:
        """Create a namespace, with what it defines if the body has that."""
        body = accept(call.body, "namespace")
        values = self._values(call, body)
        call.authorize(target(values))
        defined = {
            OBJECT: [_named(found) for found in body.get("objects", [])],
            PROPERTY: [_named({**found, "name": name}) for name, found in body.get("properties", {}).items()],
            TAG: [_named(found) for found in body.get("tags", [])],
        }
        types = [_association(found) for found in body.get("resource_type_associations", [])]
        rules = {OBJECT: "add_metadef_object", PROPERTY: "add_metadef_property", TAG: "add_metadef_tags"}
        for kind, rule in rules.items():
            if defined[kind]:
                call.authorize(target(values), rule)
        if types:
            call.authorize(target(values), "add_metadef_resource_type_association")

        @retrying
        def insert() -> dict[str, Any]:
            with self.services.databases.global_.write() as connection:
                namespace = metadefs.create(connection, values)
                for found in types:
                    metadefs.associate(connection, namespace, found)
                for kind, named in defined.items():
                    metadefs.add_items(connection, namespace, kind, named)
                return self._whole(connection, metadefs.get(connection, values["namespace"], asker(call)))

        made = insert()
        call.response.headers["Location"] = f"{call.request.application_url.rstrip('/')}{made['self']}"
        return made

    def _values(self, call: Call, body: dict[str, Any]) -> dict[str, Any]:
        """The columns that a body sets; what it leaves out is as at first, also in an update."""
        owner = body.get("owner") or call.context.project_id
        if owner != call.context.project_id and not asker(call).is_admin:
            raise Forbidden(f"You are not permitted to create namespaces owned by '{owner}'.")
        return {
            "namespace": body["namespace"],
            "display_name": body.get("display_name"),
            "description": body.get("description"),
            "visibility": body.get("visibility", "private"),
            "protected": body.get("protected", False),
            "owner": owner,
        }

    def _whole(self, connection: sa.Connection, namespace: Row, prefix: str = "") -> dict[str, Any]:
        """A namespace with all that it defines."""
        view = namespace_view(namespace)
        if objects := metadefs.items(connection, namespace, OBJECT):
            view["objects"] = [object_view(namespace, row, prefix) for row in objects]
        if properties := metadefs.items(connection, namespace, PROPERTY):
            view["properties"] = {f"{prefix}{row['name']}": row["body"] for row in properties}
        if tags := metadefs.items(connection, namespace, TAG):
            view["tags"] = [{"name": row["name"]} for row in tags]
        return view

    @operation("GET", _PATH, policy="get_metadef_namespace", late_policy=True)
    def show(self, call: Call) -> dict[str, Any]:
        """Show a namespace and what it defines; names as ``resource_type`` has them."""
        resource_type = call.first("resource_type")
        with self.services.databases.global_.read() as connection:
            namespace = find(call, connection)
            prefix = prefix_for(namespace, resource_type) if resource_type is not None else ""
            return self._whole(connection, namespace, prefix)

    @operation("PUT", _PATH, policy="modify_metadef_namespace", late_policy=True, body=_REQUEST)
    def update(self, call: Call) -> dict[str, Any]:
        """Replace the attributes of a namespace; what it defines stays."""
        values = self._values(call, accept(call.body, "namespace"))

        @retrying
        def change() -> Row:
            with self.services.databases.global_.write() as connection:
                return metadefs.update(connection, find_permitted(call, connection), values)

        return namespace_view(change())

    @operation("DELETE", _PATH, policy="delete_metadef_namespace", late_policy=True, status=204)
    def delete(self, call: Call) -> None:
        """Delete a namespace and all that it defines."""

        @retrying
        def delete() -> None:
            with self.services.databases.global_.write() as connection:
                metadefs.delete(connection, find_to_remove(call, connection))

        delete()


class MetadefResourceTypesController(Controller):
    """/v2/metadefs/resource_types and /v2/metadefs/namespaces/{namespace}/resource_types."""

    services: ImageServices

    @operation("GET", "/metadefs/resource_types", policy="list_metadef_resource_types")
    def index(self, call: Call) -> dict[str, Any]:
        """List resource types."""
        with self.services.databases.global_.read() as connection:
            found = metadefs.resource_types(connection)
        return {"resource_types": [{"name": row["name"], **times(row)} for row in found]}

    @operation("GET", _TYPES, policy="get_metadef_resource_type", late_policy=True)
    def show(self, call: Call) -> dict[str, Any]:
        """List the resource types that a namespace is for."""
        with self.services.databases.global_.read() as connection:
            namespace = find_permitted(call, connection)
        return {"resource_type_associations": [association_view(row) for row in namespace["associations"]]}

    @operation(
        "POST",
        _TYPES,
        policy="add_metadef_resource_type_association",
        late_policy=True,
        status=201,
        body=RESOURCE_TYPE,
    )
    def create(self, call: Call) -> dict[str, Any]:
        """Say that a namespace is for a resource type."""
        values = _association(accept(call.body, "name"))

        @retrying
        def insert() -> Row:
            with self.services.databases.global_.write() as connection:
                return metadefs.associate(connection, find_permitted(call, connection), values)

        view = association_view(insert())
        place = path_of(call.params["namespace"], "resource_types", values["name"])
        call.response.headers["Location"] = f"{call.request.application_url.rstrip('/')}{place}"
        return view

    @operation(
        "DELETE",
        f"{_TYPES}/{{resource_type}}",
        policy="remove_metadef_resource_type_association",
        late_policy=True,
        status=204,
    )
    def delete(self, call: Call) -> None:
        """Say that a namespace is not for a resource type any more."""
        refuse_nul(call.params["resource_type"])

        @retrying
        def delete() -> None:
            with self.services.databases.global_.write() as connection:
                metadefs.dissociate(
                    connection, find_to_remove(call, connection), call.params["resource_type"]
                )

        delete()


def _named(found: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """An item of a body as (name, the rest). :raises BadRequest: it has no usable name."""
    name = found.get("name", "")
    if not name.strip() or len(name) > 255:
        raise BadRequest("What a namespace defines must have a name of 1 to 255 characters.")
    return name, {key: value for key, value in found.items() if key not in ("name", *READ_ONLY)}


def _association(found: dict[str, Any]) -> dict[str, Any]:
    values = {name: found.get(name) for name in ("name", "prefix", "properties_target")}
    if not (values["name"] or "").strip():
        raise BadRequest("A resource type must have a name.")
    for name, value in values.items():
        if value is not None and len(value) > 80:
            raise BadRequest(f"'{name}' of a resource type has at most 80 characters.")
    return values
