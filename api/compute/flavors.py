"""Flavors: the sizes that servers come in."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.common.paging import next_link
from api.compute import common
from core.errors import BadRequest
from db import flavors as db_flavors

_NUMBER = {
    "anyOf": [
        {"type": "number", "exclusiveMinimum": 0, "maximum": 3.40282e38},
        {"type": "string", "pattern": r"^(?=.*[1-9])[0-9]{1,9}(\.[0-9]{1,9})?$"},
    ]
}
_PROPERTIES = {
    "name": v.NAME,
    "id": {
        "anyOf": [
            {"type": "string", "maxLength": 255, "pattern": r"^(?! )[a-zA-Z0-9. _-]*$"},
            {"type": ["number", "null"]},
        ]
    },
    "ram": v.integer(1),
    "vcpus": v.integer(1),
    "disk": v.integer(0),
    "OS-FLV-EXT-DATA:ephemeral": v.integer(0),
    "swap": v.integer(0),
    "rxtx_factor": _NUMBER,
    "os-flavor-access:is_public": v.BOOLEAN,
}
_DESCRIPTION = {"type": ["string", "null"], "maxLength": 65535}
_REQUIRED = ["name", "ram", "vcpus", "disk"]
CREATE = v.obj({"flavor": v.obj(_PROPERTIES, _REQUIRED)}, ["flavor"])
CREATE_255 = v.obj({"flavor": v.obj({**_PROPERTIES, "description": _DESCRIPTION}, _REQUIRED)}, ["flavor"])
UPDATE = v.obj({"flavor": v.obj({"description": _DESCRIPTION}, ["description"])}, ["flavor"])
_LIST = {
    **v.PAGING,
    "is_public": {"type": "string"},
    "minRam": {"type": "string"},
    "minDisk": {"type": "string"},
    "sort_key": {"enum": list(db_flavors.SORT_KEYS)},
    "sort_dir": {"enum": ["asc", "desc"]},
}
LIST = v.query(_LIST)
LIST_275 = v.query(_LIST, additional=False)
_MANAGE = "os_compute_api:os-flavor-manage:"


def shows_extra_specs(call: Call) -> bool:
    """Does a flavor in the answer come with its extra specs?"""
    return call.since("2.61") and call.allowed("os_compute_api:os-flavor-extra-specs:index")


def view(call: Call, row: sa.RowMapping, extra_specs: bool | None = None) -> dict[str, Any]:
    """A flavor as show and detail give it at the call's microversion.

    ``extra_specs``: lists ask ``shows_extra_specs`` once and say so for every row.
    """
    swap = row["swap_mib"]
    result = {
        "id": row["flavor_id"],
        "name": row["name"],
        "ram": row["memory_mib"],
        "disk": row["root_gib"],
        "vcpus": row["vcpus"],
        "swap": swap if swap or call.since("2.75") else "",
        "rxtx_factor": row["rxtx_factor"],
        "os-flavor-access:is_public": row["is_public"],
        "OS-FLV-EXT-DATA:ephemeral": row["ephemeral_gib"],
        "OS-FLV-DISABLED:disabled": row["disabled"],
        "links": common.resource_links(call, f"flavors/{row['flavor_id']}"),
    }
    if call.since("2.55"):
        result["description"] = row["description"]
    if shows_extra_specs(call) if extra_specs is None else extra_specs:
        result["extra_specs"] = row["extra_specs"]
    return result


def brief(call: Call, row: sa.RowMapping) -> dict[str, Any]:
    """A flavor in the short list."""
    result = {
        "id": row["flavor_id"],
        "name": row["name"],
        "links": common.resource_links(call, f"flavors/{row['flavor_id']}"),
    }
    if call.since("2.55"):
        result["description"] = row["description"]
    return result


def find(call: Call, connection: Any) -> sa.RowMapping:
    """The flavor of the path, if the asker may use it. :raises NotFound:"""
    return db_flavors.get(
        connection, call.params["flavor_id"], call.context.project_id, any_project=common.is_admin(call)
    )


def _whole(call: Call, key: str) -> int:
    text = call.first(key)
    if text is None:
        return 0
    try:
        return int(text)
    except ValueError:
        raise BadRequest(f"Invalid {key} filter [{text}]") from None


def _is_public(call: Call) -> bool | None:
    text = call.first("is_public")
    if text is None:
        return True
    if text.lower() == "none":
        return None
    try:
        return common.strict_truth(text)
    except BadRequest:
        raise BadRequest(f"Invalid is_public filter [{text}]") from None


class FlavorsController(Controller):
    """Create, list, show, change and delete."""

    def _page(self, call: Call, path: str, shape: Any) -> dict[str, Any]:
        admin = common.is_admin(call)
        wanted = db_flavors.Filter(
            # only administrators see what is not theirs to use
            is_public=_is_public(call) if admin else True,
            project_id=call.context.project_id,
            include_disabled=admin,
            min_memory_mib=_whole(call, "minRam"),
            min_root_gib=_whole(call, "minDisk"),
        )
        limit = common.limit_of(call)
        sort = (
            db_flavors.SORT_KEYS[call.first("sort_key") or "flavorid"],
            (call.first("sort_dir") or "asc"),
        )
        with self.services.databases.global_.read() as connection:
            rows = db_flavors.list_(connection, wanted, [sort], call.first("marker"), limit)
        result: dict[str, Any] = {"flavors": [shape(call, row) for row in rows]}
        if rows and len(rows) == limit:
            url = common.collection_url(call, path)
            result["flavors_links"] = [next_link(call, url, rows[-1]["flavor_id"])]
        return result

    @operation("GET", "/flavors", policy="os_compute_api:flavors", query=(("2.1", LIST), ("2.75", LIST_275)))
    def index(self, call: Call) -> dict[str, Any]:
        """List flavors, briefly."""
        return self._page(call, "flavors", brief)

    @operation(
        "GET", "/flavors/detail", policy="os_compute_api:flavors", query=(("2.1", LIST), ("2.75", LIST_275))
    )
    def detail(self, call: Call) -> dict[str, Any]:
        """List flavors with everything."""
        return self._page(
            call, "flavors/detail", functools.partial(view, extra_specs=shows_extra_specs(call))
        )

    @operation("GET", "/flavors/{flavor_id}", policy="os_compute_api:flavors")
    def show(self, call: Call) -> dict[str, Any]:
        """Show a flavor."""
        with self.services.databases.global_.read() as connection:
            return {"flavor": view(call, find(call, connection))}

    @operation("POST", "/flavors", policy=_MANAGE + "create", body=(("2.1", CREATE), ("2.55", CREATE_255)))
    def create(self, call: Call) -> dict[str, Any]:
        """Create a flavor."""
        asked = call.body["flavor"]
        identifier = asked.get("id")
        values = {
            "flavor_id": "" if identifier is None else str(identifier).strip(),
            "name": asked["name"],
            "memory_mib": common.whole(asked["ram"], "ram", 1),
            "vcpus": common.whole(asked["vcpus"], "vcpus", 1),
            "root_gib": common.whole(asked["disk"], "disk", 0),
            "ephemeral_gib": common.whole(asked.get("OS-FLV-EXT-DATA:ephemeral", 0), "ephemeral", 0),
            "swap_mib": common.whole(asked.get("swap", 0), "swap", 0),
            "rxtx_factor": float(asked.get("rxtx_factor", 1.0)),
            "is_public": common.truth(asked.get("os-flavor-access:is_public", True)),
            "description": asked.get("description"),
        }
        with self.services.databases.global_.write() as connection:
            return {"flavor": view(call, db_flavors.create(connection, values))}

    @operation("PUT", "/flavors/{flavor_id}", policy=_MANAGE + "update", since="2.55", body=UPDATE)
    def update(self, call: Call) -> dict[str, Any]:
        """Change a flavor's description."""
        values = {"description": call.body["flavor"]["description"]}
        with self.services.databases.global_.write() as connection:
            return {"flavor": view(call, db_flavors.update(connection, call.params["flavor_id"], values))}

    @operation("DELETE", "/flavors/{flavor_id}", policy=_MANAGE + "delete", status=202)
    def delete(self, call: Call) -> None:
        """Delete a flavor; servers that have it keep it."""
        with self.services.databases.global_.write() as connection:
            db_flavors.delete(connection, call.params["flavor_id"])
