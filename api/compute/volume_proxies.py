"""Until 2.35 the Compute API passed on what is the Volume API's: volumes and snapshots.

The Volume API is asked with the caller's token and its answers are put into the old
shapes.  From 2.36 on these paths are not there (404): clients ask the Volume API.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.compute import common, volume_lookups
from core.errors import Forbidden, NotFound, OverQuota

_LAST = "2.35"
_LIST = v.query({"limit": v.LIMIT, "offset": v.LIMIT})
_SIZE = {"type": ["integer", "string"], "pattern": "^[0-9]+$", "minimum": 1, "minLength": 1}
_VOLUME = {
    "display_name": {"type": "string"},
    "display_description": {"type": "string"},
    "size": _SIZE,
    "volume_type": {"type": "string"},
    "metadata": {"type": "object"},
    "snapshot_id": {"type": "string"},
    "availability_zone": {"type": "string"},
}
_SNAPSHOT = {
    "volume_id": {"type": "string"},
    "force": v.BOOLEAN,
    "display_name": {"type": "string"},
    "display_description": {"type": "string"},
}


class _Proxy(Controller):
    def ask(
        self, call: Call, method: str, path: str, body: Mapping[str, Any] | None = None, **query: Any
    ) -> dict[str, Any]:
        """:raises NotFound: there is no volume service, or what is asked for is not there."""
        if not self.services.volumes.configured:
            raise NotFound("The resource could not be found: there is no volume service.")
        found: dict[str, Any] = self.services.volumes.call(
            method, path, body, token=call.context.auth_token, project_id=call.context.project_id, **query
        )
        return found

    def page(self, call: Call, noun: str) -> list[dict[str, Any]]:
        """What a list shows; it has pages by offset only."""
        query: dict[str, Any] = {"limit": common.limit_of(call), "offset": call.first("offset")}
        found: list[dict[str, Any]] = self.ask(call, "GET", f"/{noun}/detail", **query)[noun]
        return found


class VolumeProxiesController(_Proxy):
    """Volumes: create, list, show, delete."""

    @operation("GET", "/os-volumes", policy="os_compute_api:os-volumes:list", until=_LAST, query=_LIST)
    def index(self, call: Call) -> dict[str, Any]:
        """List volumes: here, too, with everything."""
        return {"volumes": [_volume(each) for each in self.page(call, "volumes")]}

    @operation(
        "GET", "/os-volumes/detail", policy="os_compute_api:os-volumes:detail", until=_LAST, query=_LIST
    )
    def detail(self, call: Call) -> dict[str, Any]:
        """List volumes with everything."""
        return {"volumes": [_volume(each) for each in self.page(call, "volumes")]}

    @operation("GET", "/os-volumes/{volume_id}", policy="os_compute_api:os-volumes:show", until=_LAST)
    def show(self, call: Call) -> dict[str, Any]:
        """Show a volume."""
        return {"volume": _volume(volume_lookups.seen_volume(call, call.params["volume_id"]))}

    @operation(
        "POST",
        "/os-volumes",
        policy="os_compute_api:os-volumes:create",
        until=_LAST,
        body=v.obj({"volume": v.obj(_VOLUME, ["size"])}, ["volume"]),
    )
    def create(self, call: Call) -> dict[str, Any]:
        """Create a volume."""
        asked = call.body["volume"]
        volume = _asked(asked, ("volume_type", "metadata", "snapshot_id", "availability_zone"))
        volume["size"] = common.whole(asked["size"], "size", 1)
        try:
            made = self.ask(call, "POST", "/volumes", {"volume": volume})["volume"]
        except OverQuota as error:
            # 403 here, while the Volume API itself says 413
            raise Forbidden(error.message, cause=error) from error
        call.response.headers["Location"] = common.collection_url(call, f"os-volumes/{made['id']}")
        return {"volume": _volume(made)}

    @operation(
        "DELETE",
        "/os-volumes/{volume_id}",
        policy="os_compute_api:os-volumes:delete",
        until=_LAST,
        status=202,
    )
    def delete(self, call: Call) -> None:
        """Delete a volume."""
        self.ask(call, "DELETE", f"/volumes/{call.params['volume_id']}")


class SnapshotProxiesController(_Proxy):
    """Snapshots of volumes: create, list, show, delete."""

    @operation(
        "GET", "/os-snapshots", policy="os_compute_api:os-volumes:snapshots:list", until=_LAST, query=_LIST
    )
    def index(self, call: Call) -> dict[str, Any]:
        """List snapshots: here, too, with everything."""
        return {"snapshots": [_snapshot(each) for each in self.page(call, "snapshots")]}

    @operation(
        "GET",
        "/os-snapshots/detail",
        policy="os_compute_api:os-volumes:snapshots:detail",
        until=_LAST,
        query=_LIST,
    )
    def detail(self, call: Call) -> dict[str, Any]:
        """List snapshots with everything."""
        return {"snapshots": [_snapshot(each) for each in self.page(call, "snapshots")]}

    @operation(
        "GET",
        "/os-snapshots/{snapshot_id}",
        policy="os_compute_api:os-volumes:snapshots:show",
        until=_LAST,
    )
    def show(self, call: Call) -> dict[str, Any]:
        """Show a snapshot."""
        found = self.ask(call, "GET", f"/snapshots/{call.params['snapshot_id']}")
        return {"snapshot": _snapshot(found["snapshot"])}

    @operation(
        "POST",
        "/os-snapshots",
        policy="os_compute_api:os-volumes:snapshots:create",
        until=_LAST,
        body=v.obj({"snapshot": v.obj(_SNAPSHOT, ["volume_id"])}, ["snapshot"]),
    )
    def create(self, call: Call) -> dict[str, Any]:
        """Snapshot a volume; of one in use only with force."""
        asked = call.body["snapshot"]
        snapshot = {**_asked(asked, ("volume_id",)), "force": common.truth(asked.get("force", False))}
        try:
            made = self.ask(call, "POST", "/snapshots", {"snapshot": snapshot})["snapshot"]
        except OverQuota as error:
            raise Forbidden(error.message, cause=error) from error
        return {"snapshot": _snapshot(made)}

    @operation(
        "DELETE",
        "/os-snapshots/{snapshot_id}",
        policy="os_compute_api:os-volumes:snapshots:delete",
        until=_LAST,
        status=202,
    )
    def delete(self, call: Call) -> None:
        """Delete a snapshot."""
        self.ask(call, "DELETE", f"/snapshots/{call.params['snapshot_id']}")


def _asked(body: Mapping[str, Any], same: tuple[str, ...]) -> dict[str, Any]:
    """A body as the Volume API wants it: what was given, under its names."""
    result = {key: body[key] for key in same if key in body}
    for old, new in (("display_name", "name"), ("display_description", "description")):
        if old in body:
            result[new] = body[old]
    return result


def _volume(found: Mapping[str, Any]) -> dict[str, Any]:
    """One attachment is all that the old shape has room for; an empty one says that there is none."""
    attachment: dict[str, Any] = {}
    for first in found["attachments"][:1]:
        attachment = {"id": found["id"], "volumeId": found["id"], "serverId": first["server_id"]}
        if first.get("device"):
            attachment["device"] = first["device"]
    return {
        "id": found["id"],
        "status": found["status"],
        "size": found["size"],
        "availabilityZone": found["availability_zone"],
        "createdAt": found["created_at"],
        "attachments": [attachment],
        "displayName": found["name"],
        "displayDescription": found["description"],
        "volumeType": found["volume_type"],
        "snapshotId": found["snapshot_id"],
        "metadata": found["metadata"],
    }


def _snapshot(found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": found["id"],
        "volumeId": found["volume_id"],
        "status": found["status"],
        "size": found["size"],
        "createdAt": found["created_at"],
        "displayName": found["name"],
        "displayDescription": found["description"],
    }
