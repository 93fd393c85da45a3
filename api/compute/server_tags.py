"""Tags of servers (2.26): short texts to find them by."""

from __future__ import annotations

from typing import Any

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.compute import common, server_access
from api.compute.schemas.servers import MAX_TAGS, TAG, TAGS
from core.errors import BadRequest, Conflict, NotFound
from db import server_details, servers
from db.servers import Located
from db.sessions import retrying
from lifecycle.states import VmState

_PATH = "/servers/{server_id}/tags"
_POLICY = "os_compute_api:os-server-tags:"
_SETTLED = (VmState.ACTIVE, VmState.PAUSED, VmState.SUSPENDED, VmState.STOPPED)
_SET = v.obj({"tags": {**TAGS, "maxItems": MAX_TAGS}}, ["tags"])


def _settled(call: Call, what: str) -> Located:
    found = server_access.find(call)
    state = found.row["vm_state"]
    if state not in _SETTLED:
        raise Conflict(f"Cannot '{what}' instance {found.id} while it is in vm_state {state}")
    return found


class ServerTagsController(Controller):
    """List, look, set, add, remove."""

    def _tags(self, found: Located) -> list[str]:
        return servers.tags_of(found.database, [found.id])[found.id]

    @operation("GET", _PATH, policy=_POLICY + "index", since="2.26")
    def index(self, call: Call) -> dict[str, Any]:
        """All tags of a server."""
        return {"tags": self._tags(server_access.find(call))}

    @operation("GET", _PATH + "/{tag}", policy=_POLICY + "show", since="2.26", status=204)
    def show(self, call: Call) -> None:
        """Has the server this tag? 204 or 404."""
        found = server_access.find(call)
        if call.params["tag"] not in self._tags(found):
            raise _missing(found, call.params["tag"])

    @operation("PUT", _PATH, policy=_POLICY + "update_all", since="2.26", body=_SET)
    def replace(self, call: Call) -> dict[str, Any]:
        """These tags and no others."""
        found = _settled(call, "update tags")
        tags = sorted(set(call.body["tags"]))
        self._replace(found, tags)
        return {"tags": tags}

    @operation("DELETE", _PATH, policy=_POLICY + "delete_all", since="2.26", status=204)
    def clear(self, call: Call) -> None:
        """Remove all tags."""
        self._replace(_settled(call, "delete tags"), [])

    @retrying
    def _replace(self, found: Located, tags: list[str]) -> None:
        with found.database.write() as connection:
            # the change of the row orders two writers: else both could insert the same tag
            servers.touch(connection, found)
            server_details.replace_tags(connection, found.database, found.id, tags)

    @operation(
        "PUT",
        _PATH + "/{tag}",
        policy=_POLICY + "update",
        since="2.26",
        status=201,
        body={"type": "null"},
        optional_body=True,
    )
    def add(self, call: Call) -> None:
        """Add a tag: 201, or 204 if it is there."""
        tag = call.params["tag"]
        if len(tag) > TAG["maxLength"]:  # type: ignore[operator]
            raise BadRequest(f"Tag {tag[:80]!r} is too long: at most {TAG['maxLength']} characters.")
        if "," in tag or "/" in tag:
            raise BadRequest(f"Tag {tag!r} must not contain ',' or '/'.")
        found = _settled(call, "update tag")
        if self._add(found, tag):
            path = f"servers/{found.id}/tags/{tag}"
            call.response.headers["Location"] = common.collection_url(call, path)
        else:
            call.response.status_int = 204

    @retrying
    def _add(self, found: Located, tag: str) -> bool:
        with found.database.write() as connection:
            servers.touch(connection, found)
            return server_details.add_tag(connection, found.database, found.id, tag)

    @operation("DELETE", _PATH + "/{tag}", policy=_POLICY + "delete", since="2.26", status=204)
    def remove(self, call: Call) -> None:
        """Remove a tag."""
        found = _settled(call, "delete tag")
        tag = call.params["tag"]
        with found.database.write() as connection:
            if not server_details.remove_tag(connection, found.database, found.id, tag):
                raise _missing(found, tag)
            servers.touch(connection, found)


def _missing(found: Located, tag: str) -> NotFound:
    return NotFound(f"Server {found.id} has no tag '{tag}'")
