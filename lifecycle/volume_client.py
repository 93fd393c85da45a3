"""Calls to the Volume API v3 at its public door: haneul's own, or a real Cinder.

``api/compute`` asks with the user's token (what may be seen, made and counted is the
Volume API's to judge), agents and conductors as haneul's service user, which the Volume
API must know as a service: only such a one lets go of a server's attachment
(CVE-2023-2088).  Only what Cinder documents is used, at the microversion below.
Messages of errors are kept: they are for who asked.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from keystoneauth1 import exceptions as ks_exc

from core.errors import BadRequest, HaneulError, NotFound, OverQuota
from lifecycle.service_client import ERRORS, ServiceClient, body_of

PREFIX = "volume."
OVER_QUOTA = PREFIX + "OverQuota"
MICROVERSION = "3.60"
"""Attachments (3.27), their completion (3.44), read-only ones (3.54); what older Cinders know, too."""
_PROJECT = re.compile(r"/v3/(?P<project>[0-9a-fA-F-]{32,36})/?$")
Row = dict[str, Any]


class VolumeApi(ServiceClient):
    """Safe to share between threads; connects with the first call."""

    service = "block-storage"
    code = PREFIX
    down = "The volume service does not answer now. Try again later."

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        token: str | None = None,
        project_id: str | None = None,
        **query: Any,
    ) -> Row:
        """Any call below /v3. ``token`` and ``project_id``: of who asks, else haneul does."""
        given = {key: value for key, value in query.items() if value is not None}
        headers = {"OpenStack-API-Version": f"volume {MICROVERSION}"}
        where = self._base(project_id if token is not None else None)
        return self.request(method, where + path, body, token=token, query=given, headers=headers)

    def _base(self, project_id: str | None) -> str:
        """Empty, or the whole address: older catalogs name the asker's project in it."""
        if project_id is None:
            return ""
        try:
            endpoint = str(self._connected().get_endpoint() or "")
        except ks_exc.ClientException as error:
            raise self._unavailable(str(error)) from error
        found = _PROJECT.search(endpoint)
        return f"{endpoint[: found.start('project')]}{project_id}" if found else ""

    def _refusal(self, answer: Any, cause: str) -> HaneulError:
        (told,) = list(body_of(answer).values())[:1] or [None]
        message = told.get("message") if isinstance(told, dict) else None
        message = message or f"The volume service answered {answer.status_code}."
        if answer.status_code == 413:
            return OverQuota(message, code=OVER_QUOTA, cause=cause)
        kind = ERRORS.get(answer.status_code)
        if kind is None:
            return self._unavailable(f"{cause}: {message}")
        return kind(message, code=f"{PREFIX}{answer.status_code}", cause=cause)

    # -- volumes -----------------------------------------------------------------

    def volume(self, volume_id: str, *, token: str | None = None, project_id: str | None = None) -> Row:
        """:raises NotFound: none that the asker may see."""
        found: Row = self.call("GET", f"/volumes/{volume_id}", token=token, project_id=project_id)["volume"]
        return found

    def snapshot(self, snapshot_id: str, *, token: str | None = None, project_id: str | None = None) -> Row:
        """:raises NotFound: none that the asker may see."""
        path = f"/snapshots/{snapshot_id}"
        found: Row = self.call("GET", path, token=token, project_id=project_id)["snapshot"]
        return found

    def create_volume(
        self, volume: Mapping[str, Any], *, token: str | None = None, project_id: str | None = None
    ) -> Row:
        """Answered when it is accepted: it is made behind. :raises BadRequest, OverQuota:"""
        body = {"volume": dict(volume)}
        made: Row = self.call("POST", "/volumes", body, token=token, project_id=project_id)["volume"]
        return made

    def delete_volume(self, volume_id: str) -> None:
        """Content when there is none. :raises BadRequest: its state does not allow it (it is in use, …)."""
        try:
            self.call("DELETE", f"/volumes/{volume_id}")
        except NotFound:
            return

    def act(self, identifier: str, action: str, kind: str = "volumes") -> None:
        """An action without arguments, as os-begin_detaching."""
        self.call("POST", f"/{kind}/{identifier}/action", {action: {}})

    def report_snapshot(self, snapshot_id: str, status: str, progress: str | None = None) -> None:
        """How far a snapshot has come that a host takes for its backend. :raises BadRequest: it is over already."""
        report = {"status": status, **({"progress": progress} if progress else {})}
        path = f"/snapshots/{snapshot_id}/action"
        self.call("POST", path, {"os-update_snapshot_status": report})

    # -- attachments -------------------------------------------------------------

    def attachments_of(self, server_id: str) -> list[Row]:
        """All attachments of a server, without details: {"id", "volume_id", "instance", "status"}."""
        found: list[Row] = self.call("GET", "/attachments", instance_id=server_id, all_tenants=1)[
            "attachments"
        ]
        return sorted((row for row in found if row["instance"] == server_id), key=lambda row: str(row["id"]))

    def attachment(self, attachment_id: str) -> Row:
        """With "connection_info". :raises NotFound:"""
        found: Row = self.call("GET", f"/attachments/{attachment_id}")["attachment"]
        return found

    def reserve(self, volume_id: str, server_id: str) -> Row:
        """A new attachment that connects nothing yet. :raises BadRequest: the volume is another's."""
        body = {"attachment": {"volume_uuid": volume_id, "instance_uuid": server_id, "connector": None}}
        made: Row = self.call("POST", "/attachments", body)["attachment"]
        return made

    def connect(self, attachment_id: str, connector: Mapping[str, Any], mode: str = "rw") -> Row:
        """The host that ``connector`` describes may reach the volume: "connection_info" says how."""
        body = {"attachment": {"connector": dict(connector), "mode": mode}}
        changed: Row = self.call("PUT", f"/attachments/{attachment_id}", body)["attachment"]
        return changed

    def complete(self, attachment_id: str) -> None:
        """The volume is in use."""
        self.call("POST", f"/attachments/{attachment_id}/action", {"os-complete": {}})

    def delete_attachment(self, attachment_id: str) -> None:
        """Content when there is none."""
        try:
            self.call("DELETE", f"/attachments/{attachment_id}")
        except NotFound:
            return


def release(
    api: VolumeApi,
    server_id: str,
    doomed: Collection[str] = (),
    *,
    only: Collection[str] | None = None,
) -> None:
    """Delete the server's attachments, then the volumes in ``doomed``; repeats harmlessly.

    ``only``: no more than the attachments of these volumes.  What still serves another server
    (multi-attach) or has snapshots is not deleted: the Volume API refuses, and it stays.
    """
    for row in api.attachments_of(server_id):
        if only is None or row["volume_id"] in only:
            api.delete_attachment(row["id"])
    for volume_id in doomed:
        delete_volume(api, volume_id)


def delete_volume(api: VolumeApi, volume_id: str) -> None:
    """Delete a volume that goes with its server, unless something else needs it."""
    try:
        api.delete_volume(volume_id)
    except BadRequest:
        # in use by another server, or it has snapshots: then it is left to its owner, as upstream does
        if api.volume(volume_id)["status"] in ("creating", "downloading"):
            api.act(volume_id, "os-force_delete")
