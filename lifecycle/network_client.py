"""Calls to the Network API v2.0 at its public door: haneul's own, or a real Neutron.

``api/compute`` asks with the user's token, so that what may be seen and used is the
Network API's to judge; agents and conductors ask as haneul's service user.  Only what
Neutron documents is used.  An error keeps Neutron's type name in its code, as
``network.IpAddressGenerationFailure``, and its message, which is for who asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.errors import HaneulError, OverQuota
from lifecycle.service_client import ERRORS, ServiceClient, body_of

PREFIX = "network."
OVER_QUOTA = PREFIX + "OverQuota"


class NetworkClient(ServiceClient):
    """Safe to share between threads; connects with the first call."""

    service = "network"
    code = PREFIX
    down = "The network service does not answer now. Try again later."

    def get(self, path: str, token: str | None = None, **query: Any) -> dict[str, Any]:
        """GET; a list among the query's values is given several times, None is left out.

        ``path`` is below /v2.0. ``token``: ask as its owner, else as haneul.

        :raises BadRequest, Forbidden, NotFound, Conflict: its answer. :raises Unavailable: none.
        """
        given = {key: value for key, value in query.items() if value is not None}
        return self.call("GET", path, token=token, query=given)

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        token: str | None = None,
        query: Mapping[str, Any] | None = None,
        revision: int | None = None,
    ) -> dict[str, Any]:
        """Any call. ``revision``: only if the object still has it (StaleGeneration if not)."""
        headers = {} if revision is None else {"If-Match": f"revision_number={revision}"}
        return self.request(method, f"/v2.0{path}", body, token=token, query=query, headers=headers)

    def _refusal(self, answer: Any, cause: str) -> HaneulError:
        told = body_of(answer).get("NeutronError") or {}
        if isinstance(told, str):
            told = {"message": told}
        type_ = told.get("type") or "error"
        message = told.get("message") or f"The network service answered {answer.status_code}."
        if type_ == "OverQuota":
            return OverQuota(message, code=OVER_QUOTA, cause=cause)
        kind = ERRORS.get(answer.status_code)
        if kind is None:
            return self._unavailable(f"{cause}: {message}")
        return kind(message, code=PREFIX + type_, cause=cause)
