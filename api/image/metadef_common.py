"""What the controllers of metadata definitions share: finding a namespace, pages, how things are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import sqlalchemy as sa

from api.common.operations import Call
from api.image.common import asker, refuse_nul, timestamp
from core.errors import BadRequest, Forbidden, NotFound
from db import metadefs
from db.metadefs import Page, Row

BASE = "/v2/metadefs/namespaces"
_READ_ONLY = ("created_at", "updated_at", "self", "schema")


def find(call: Call, connection: sa.Connection) -> Row:
    """The namespace of the path. :raises NotFound: there is none that the asker may see."""
    name = call.params["namespace"]
    refuse_nul(name)
    namespace = metadefs.get(connection, name, asker(call))
    if not call.allowed("get_metadef_namespace", target(namespace)):
        raise NotFound(f"Metadata definition namespace={name} was not found.")
    return namespace


def target(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """A namespace as policies see it."""
    return {
        "project_id": namespace["owner"],
        "owner": namespace["owner"],
        "user_id": None,
        "visibility": namespace["visibility"],
    }


def find_permitted(call: Call, connection: sa.Connection) -> Row:
    """The namespace of the path, if the operation's policy allows the call on it."""
    namespace = find(call, connection)
    call.authorize(target(namespace))
    return namespace


def find_to_remove(call: Call, connection: sa.Connection) -> Row:
    """As ``find_permitted``. :raises Forbidden: it is protected, with all that it defines."""
    namespace = find_permitted(call, connection)
    if namespace["protected"]:
        raise Forbidden(
            f"Metadata definition namespace={namespace['namespace']} is protected:"
            " neither it nor what it defines can be deleted."
        )
    return namespace


def accept(body: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """A body as it may be kept. :raises Forbidden: it sets what only the service sets.

    ``names``: keys that must not be empty, since they become part of a path.
    """
    for name in _READ_ONLY:
        if name in body:
            raise Forbidden(f"Attribute '{name}' is read-only.")
    refuse_nul(body)
    for name in names:
        if name in body and not body[name].strip():
            raise BadRequest(f"'{name}' must not be empty.")
    return dict(body)


def page_of(call: Call, sort_keys: Sequence[str]) -> Page:
    """limit, marker, sort_key and sort_dir of a request. :raises BadRequest: one of them can't be."""
    options = call.services.options
    text = call.first("limit")
    try:
        limit = int(options.limit_param_default) if text is None else int(text)
    except ValueError as error:
        raise BadRequest("limit param must be an integer") from error
    if limit < 0:
        raise BadRequest("limit param must be positive")
    sort_key = call.first("sort_key") or "created_at"
    if sort_key not in sort_keys:
        raise BadRequest(
            f"Invalid sort key: {sort_key}. It must be one of the following: {', '.join(sort_keys)}."
        )
    sort_dir = call.first("sort_dir") or "desc"
    if sort_dir not in ("asc", "desc"):
        raise BadRequest(f"Invalid sort direction: {sort_dir}")
    marker = call.first("marker")
    refuse_nul(marker)
    return Page(sort_key, sort_dir, marker, min(limit, int(options.api_limit_max)))


def paged(
    call: Call, name: str, path: str, page: Page, names: Sequence[str], shown: list[dict[str, Any]]
) -> dict[str, Any]:
    """A list's answer. ``names``: what markers are made of, one for each that was found."""
    query = [(key, value) for key, values in call.query.items() if key != "marker" for value in values]
    answer: dict[str, Any] = {
        name: shown,
        "first": f"{path}?{urlencode(query)}" if query else path,
        "schema": f"/v2/schemas/metadefs/{name}",
    }
    if names and len(names) == page.limit:
        answer["next"] = f"{path}?{urlencode([*query, ('marker', names[-1])])}"
    return answer


def path_of(*parts: str) -> str:
    return "/".join([BASE, *(quote(part, safe="") for part in parts)])


def times(row: Mapping[str, Any]) -> dict[str, str]:
    return {name: timestamp(row[name]) for name in ("created_at", "updated_at") if name in row}


def namespace_view(namespace: Row) -> dict[str, Any]:
    """A namespace without what it defines; what was never said is not shown."""
    names = ("namespace", "display_name", "description", "visibility", "protected", "owner")
    view = {name: namespace[name] for name in names if namespace[name] is not None}
    if namespace["associations"]:
        view["resource_type_associations"] = [association_view(row) for row in namespace["associations"]]
    return {
        **view,
        **times(namespace),
        "self": path_of(namespace["namespace"]),
        "schema": "/v2/schemas/metadefs/namespace",
    }


def association_view(row: Row) -> dict[str, Any]:
    """A resource type that a namespace is for."""
    names = ("name", "prefix", "properties_target")
    return {name: row[name] for name in names if row.get(name) is not None} | times(row)


def object_view(namespace: Row, row: Row, prefix: str = "") -> dict[str, Any]:
    body = dict(row["body"])
    if prefix:
        body["properties"] = {f"{prefix}{name}": found for name, found in body.get("properties", {}).items()}
        body["required"] = [f"{prefix}{name}" for name in body.get("required", [])]
    return {
        "name": row["name"],
        "required": [],
        "properties": {},
        **body,
        **times(row),
        "self": path_of(namespace["namespace"], "objects", row["name"]),
        "schema": "/v2/schemas/metadefs/object",
    }


def property_view(row: Row, prefix: str = "") -> dict[str, Any]:
    return {"name": f"{prefix}{row['name']}", **row["body"]}


def prefix_for(namespace: Row, resource_type: str) -> str:
    """What properties begin with on that type. :raises NotFound: the namespace is not for it."""
    for row in namespace["associations"]:
        if row["name"] == resource_type:
            return row["prefix"] or ""
    raise NotFound(
        f"The metadata definition resource-type association of resource-type={resource_type} to"
        f" namespace={namespace['namespace']} was not found."
    )
