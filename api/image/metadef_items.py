"""What namespaces of metadata definitions define: objects, properties and tags."""

from __future__ import annotations

from typing import Any

from api.common.operations import Call, Controller, operation
from api.image.common import refuse_nul
from api.image.metadef_common import (
    accept,
    find_permitted,
    find_to_remove,
    object_view,
    page_of,
    paged,
    path_of,
    prefix_for,
    property_view,
    times,
)
from api.image.metadef_schemas import OBJECT as OBJECT_SCHEMA
from api.image.metadef_schemas import PROPERTY as PROPERTY_SCHEMA
from api.image.metadef_schemas import TAG as TAG_SCHEMA
from api.image.metadef_schemas import TAGS_REQUEST, request
from api.image.services import ImageServices
from core.errors import BadRequest, NotFound
from db import metadefs
from db.metadefs import OBJECT, PROPERTY, TAG, Row
from db.sessions import retrying

_PATH = "/metadefs/namespaces/{namespace}"
_OBJECTS, _PROPERTIES, _TAGS = f"{_PATH}/objects", f"{_PATH}/properties", f"{_PATH}/tags"
_OBJECT, _PROPERTY = f"{_OBJECTS}/{{object_name}}", f"{_PROPERTIES}/{{property_name}}"
_TAG = f"{_TAGS}/{{tag_name}}"
_OBJECT_BODY, _PROPERTY_BODY = request(OBJECT_SCHEMA), request(PROPERTY_SCHEMA)


class _Items(Controller):
    """What is alike for all kinds: (namespace, item) pairs out of one transaction each."""

    services: ImageServices

    def _name(self, call: Call, parameter: str) -> str:
        name = call.params[parameter]
        refuse_nul(name)
        return name

    def _add(self, call: Call, kind: str, name: str, body: dict[str, Any]) -> tuple[Row, Row]:
        @retrying
        def add() -> tuple[Row, Row]:
            with self.services.databases.global_.write() as connection:
                namespace = find_permitted(call, connection)
                metadefs.add_items(connection, namespace, kind, [(name, body)])
                return namespace, metadefs.item(connection, namespace, kind, name)

        namespace, made = add()
        plural = {OBJECT: "objects", PROPERTY: "properties", TAG: "tags"}[kind]
        place = path_of(namespace["namespace"], plural, name)
        call.response.headers["Location"] = f"{call.request.application_url.rstrip('/')}{place}"
        return namespace, made

    def _get(self, call: Call, kind: str, name: str) -> tuple[Row, Row]:
        with self.services.databases.global_.read() as connection:
            namespace = find_permitted(call, connection)
            return namespace, metadefs.item(connection, namespace, kind, name)

    def _change(self, call: Call, kind: str, name: str, body: dict[str, Any]) -> tuple[Row, Row]:
        new = body.pop("name")

        @retrying
        def change() -> tuple[Row, Row]:
            with self.services.databases.global_.write() as connection:
                namespace = find_permitted(call, connection)
                found = metadefs.item(connection, namespace, kind, name)
                return namespace, metadefs.update_item(connection, namespace, found, new, body)

        return change()

    def _remove(self, call: Call, kind: str, name: str | None = None) -> None:
        @retrying
        def remove() -> None:
            with self.services.databases.global_.write() as connection:
                metadefs.delete_items(connection, find_to_remove(call, connection), kind, name)

        remove()


class MetadefObjectsController(_Items):
    """/v2/metadefs/namespaces/{namespace}/objects."""

    @operation("GET", _OBJECTS, policy="get_metadef_objects", late_policy=True)
    def index(self, call: Call) -> dict[str, Any]:
        """List the objects of a namespace."""
        page = page_of(call, metadefs.ITEM_SORT_KEYS)
        with self.services.databases.global_.read() as connection:
            namespace = find_permitted(call, connection)
            found = metadefs.items(connection, namespace, OBJECT, page)
        path = path_of(namespace["namespace"], "objects")
        shown = [object_view(namespace, row) for row in found]
        return paged(call, "objects", path, page, [row["name"] for row in found], shown)

    @operation("POST", _OBJECTS, policy="add_metadef_object", late_policy=True, status=201, body=_OBJECT_BODY)
    def create(self, call: Call) -> dict[str, Any]:
        """Define an object."""
        body = accept(call.body, "name")
        return object_view(*self._add(call, OBJECT, body.pop("name"), body))

    @operation("GET", _OBJECT, policy="get_metadef_object", late_policy=True)
    def show(self, call: Call) -> dict[str, Any]:
        """Show an object."""
        return object_view(*self._get(call, OBJECT, self._name(call, "object_name")))

    @operation("PUT", _OBJECT, policy="modify_metadef_object", late_policy=True, body=_OBJECT_BODY)
    def update(self, call: Call) -> dict[str, Any]:
        """Replace an object."""
        name = self._name(call, "object_name")
        return object_view(*self._change(call, OBJECT, name, accept(call.body, "name")))

    @operation("DELETE", _OBJECT, policy="delete_metadef_object", late_policy=True, status=204)
    def delete(self, call: Call) -> None:
        """Delete an object."""
        self._remove(call, OBJECT, self._name(call, "object_name"))

    @operation("DELETE", _OBJECTS, policy="delete_metadef_object", late_policy=True, status=204)
    def delete_all(self, call: Call) -> None:
        """Delete all objects of a namespace."""
        self._remove(call, OBJECT)


class MetadefPropertiesController(_Items):
    """/v2/metadefs/namespaces/{namespace}/properties."""

    @operation("GET", _PROPERTIES, policy="get_metadef_properties", late_policy=True)
    def index(self, call: Call) -> dict[str, Any]:
        """List the properties of a namespace."""
        with self.services.databases.global_.read() as connection:
            found = metadefs.items(connection, find_permitted(call, connection), PROPERTY)
        return {
            "properties": {row["name"]: property_view(row) for row in found},
            "schema": "/v2/schemas/metadefs/properties",
        }

    @operation(
        "POST",
        _PROPERTIES,
        policy="add_metadef_property",
        late_policy=True,
        status=201,
        body=_PROPERTY_BODY,
    )
    def create(self, call: Call) -> dict[str, Any]:
        """Define a property."""
        body = accept(call.body, "name")
        return property_view(self._add(call, PROPERTY, body.pop("name"), body)[1])

    @operation("GET", _PROPERTY, policy="get_metadef_property", late_policy=True)
    def show(self, call: Call) -> dict[str, Any]:
        """Show a property; with ``resource_type`` the name has that type's prefix."""
        name, prefix = self._name(call, "property_name"), ""
        resource_type = call.first("resource_type")
        with self.services.databases.global_.read() as connection:
            namespace = find_permitted(call, connection)
            if resource_type is not None:
                prefix = prefix_for(namespace, resource_type)
                if not name.startswith(prefix):
                    raise NotFound(
                        f"Property {name} does not start with the expected resource type association"
                        f" prefix of '{prefix}'."
                    )
            found = metadefs.item(connection, namespace, PROPERTY, name.removeprefix(prefix))
        return property_view(found, prefix)

    @operation("PUT", _PROPERTY, policy="modify_metadef_property", late_policy=True, body=_PROPERTY_BODY)
    def update(self, call: Call) -> dict[str, Any]:
        """Replace a property."""
        name = self._name(call, "property_name")
        return property_view(self._change(call, PROPERTY, name, accept(call.body, "name"))[1])

    @operation("DELETE", _PROPERTY, policy="remove_metadef_property", late_policy=True, status=204)
    def delete(self, call: Call) -> None:
        """Delete a property."""
        self._remove(call, PROPERTY, self._name(call, "property_name"))

    @operation("DELETE", _PROPERTIES, policy="remove_metadef_property", late_policy=True, status=204)
    def delete_all(self, call: Call) -> None:
        """Delete all properties of a namespace."""
        self._remove(call, PROPERTY)


class MetadefTagsController(_Items):
    """/v2/metadefs/namespaces/{namespace}/tags."""

    @operation("GET", _TAGS, policy="get_metadef_tags", late_policy=True)
    def index(self, call: Call) -> dict[str, Any]:
        """List the tags of a namespace."""
        page = page_of(call, metadefs.ITEM_SORT_KEYS)
        with self.services.databases.global_.read() as connection:
            namespace = find_permitted(call, connection)
            found = metadefs.items(connection, namespace, TAG, page)
        names = [row["name"] for row in found]
        path = path_of(namespace["namespace"], "tags")
        return paged(call, "tags", path, page, names, [{"name": name} for name in names])

    @operation("POST", _TAGS, policy="add_metadef_tags", late_policy=True, status=201, body=TAGS_REQUEST)
    def create_all(self, call: Call) -> dict[str, Any]:
        """Define the tags of a namespace: instead of those there are, or besides them."""
        names = [tag["name"] for tag in accept(call.body)["tags"]]
        if len(set(names)) != len(names) or not all(name.strip() for name in names):
            raise BadRequest("Tags must have names, and each its own.")
        append = call.request.headers.get("X-Openstack-Append", "").lower() in ("true", "1", "yes", "on")

        @retrying
        def add() -> None:
            with self.services.databases.global_.write() as connection:
                # what replaces also removes: that a protected namespace forbids
                namespace = (find_permitted if append else find_to_remove)(call, connection)
                if not append:
                    metadefs.delete_items(connection, namespace, TAG)
                metadefs.add_items(connection, namespace, TAG, [(name, {}) for name in names])

        add()
        return {"tags": [{"name": name} for name in names]}

    @operation("DELETE", _TAGS, policy="delete_metadef_tags", late_policy=True, status=204)
    def delete_all(self, call: Call) -> None:
        """Delete all tags of a namespace."""
        self._remove(call, TAG)

    @operation("GET", _TAG, policy="get_metadef_tag", late_policy=True)
    def show(self, call: Call) -> dict[str, Any]:
        """Show a tag."""
        return self._view(self._get(call, TAG, self._name(call, "tag_name"))[1])

    @operation("POST", _TAG, policy="add_metadef_tag", late_policy=True, status=201)
    def create(self, call: Call) -> dict[str, Any]:
        """Define a tag."""
        name = self._name(call, "tag_name")
        if not name.strip() or len(name) > 255:
            raise BadRequest("The name of a tag has 1 to 255 characters.")
        return self._view(self._add(call, TAG, name, {})[1])

    @operation("PUT", _TAG, policy="modify_metadef_tag", late_policy=True, body=TAG_SCHEMA)
    def update(self, call: Call) -> dict[str, Any]:
        """Rename a tag."""
        name = self._name(call, "tag_name")
        return self._view(self._change(call, TAG, name, accept(call.body, "name"))[1])

    @operation("DELETE", _TAG, policy="delete_metadef_tag", late_policy=True, status=204)
    def delete(self, call: Call) -> None:
        """Delete a tag."""
        self._remove(call, TAG, self._name(call, "tag_name"))

    def _view(self, row: Row) -> dict[str, Any]:
        return {"name": row["name"], **times(row)}
