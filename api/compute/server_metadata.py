"""Metadata of servers: texts by key, the owner's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.compute import server_access, server_request
from core.errors import BadRequest, Conflict, NotFound
from db import servers
from db.sessions import retrying
from lifecycle.states import VmState

_PATH = "/servers/{server_id}/metadata"
_POLICY = "os_compute_api:server-metadata:"
_SETTLED = (VmState.ACTIVE, VmState.PAUSED, VmState.SUSPENDED, VmState.STOPPED)
_ALL = v.obj({"metadata": v.METADATA}, ["metadata"])
_ONE = v.obj({"meta": {**v.METADATA, "minProperties": 1, "maxProperties": 1}}, ["meta"])
Metadata = dict[str, str]


class ServerMetadataController(Controller):
    """List, show, set, change, delete."""

    @operation("GET", _PATH, policy=_POLICY + "index")
    def index(self, call: Call) -> dict[str, Any]:
        """All metadata of a server."""
        return {"metadata": server_access.find(call).row["metadata"]}

    @operation("GET", _PATH + "/{key}", policy=_POLICY + "show")
    def show(self, call: Call) -> dict[str, Any]:
        """One item."""
        metadata = server_access.find(call).row["metadata"]
        key = call.params["key"]
        if key not in metadata:
            raise NotFound("Metadata item was not found")
        return {"meta": {key: metadata[key]}}

    @operation("POST", _PATH, policy=_POLICY + "create", body=_ALL)
    def create(self, call: Call) -> dict[str, Any]:
        """Add or change items."""
        return {"metadata": self._change(call, lambda old: {**old, **call.body["metadata"]})}

    @operation("PUT", _PATH, policy=_POLICY + "update_all", body=_ALL)
    def replace(self, call: Call) -> dict[str, Any]:
        """These items and no others."""
        return {"metadata": self._change(call, lambda _old: dict(call.body["metadata"]))}

    @operation("PUT", _PATH + "/{key}", policy=_POLICY + "update", body=_ONE)
    def update(self, call: Call) -> dict[str, Any]:
        """Set one item."""
        meta = call.body["meta"]
        if call.params["key"] not in meta:
            raise BadRequest("Request body and URI mismatch")
        self._change(call, lambda old: {**old, **meta})
        return {"meta": meta}

    @operation("DELETE", _PATH + "/{key}", policy=_POLICY + "delete", status=204)
    def delete(self, call: Call) -> None:
        """Remove one item."""
        key = call.params["key"]

        def without(old: Metadata) -> Metadata:
            if key not in old:
                raise NotFound("Metadata item was not found")
            return {name: value for name, value in old.items() if name != key}

        self._change(call, without, verb="delete")

    @retrying
    def _change(self, call: Call, change: Callable[[Metadata], Metadata], verb: str = "update") -> Metadata:
        """Two changes at once both last: the second reads what the first wrote."""
        found = server_access.find(call)
        server_access.refuse_locked(call, found.row)
        metadata = change(found.row["metadata"])
        _refuse_unsettled(found.row, f"{verb} metadata")
        with self.services.databases.global_.read() as connection:
            server_request.check_metadata_quota(call, connection, len(metadata))
        with found.database.write() as connection:
            servers.change(connection, found.database, found.row, {"metadata": metadata})
        return metadata


def _refuse_unsettled(row: servers.Row, what: str) -> None:
    if row["vm_state"] not in _SETTLED:
        raise Conflict(f"Cannot '{what}' instance {row['id']} while it is in vm_state {row['vm_state']}")
    if row["task_state"] is not None:
        raise Conflict(f"Cannot '{what}' instance {row['id']} while it is in task_state {row['task_state']}")
