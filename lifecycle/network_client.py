"""Calls to the Network API v2.0 at its public door: haneul's own, or a real Neutron.

``api/compute`` asks with the user's token, so that what may be seen and used is the
Network API's to judge; agents and conductors ask as haneul's service user.  Only what
Neutron documents is used.  An error keeps Neutron's type name in its code, as
``network.IpAddressGenerationFailure``, and its message, which is for who asked.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from keystoneauth1 import exceptions as ks_exc
from keystoneauth1.adapter import Adapter
from oslo_config import cfg

from core.clients import configured, service_adapter
from core.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    HaneulError,
    NotFound,
    OverQuota,
    StaleGeneration,
    Unavailable,
)

PREFIX = "network."
OVER_QUOTA = PREFIX + "OverQuota"
_TIMEOUT_S = 30.0
_DOWN = "The network service does not answer now. Try again later."
_ERRORS: Mapping[int, type[HaneulError]] = {
    400: BadRequest,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    412: StaleGeneration,
}


class NetworkClient:
    """Safe to share between threads; connects with the first call."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf
        self._adapter: Adapter | None = None
        self._lock = threading.Lock()

    @property
    def configured(self) -> bool:
        """Is there a network service at all? Without service credentials there is none."""
        return configured(self._conf)

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
        headers = {"Accept": "application/json"}
        if revision is not None:
            headers["If-Match"] = f"revision_number={revision}"
        options: dict[str, Any] = {"params": query} if query else {}
        if body is not None:
            options["json"] = body
        try:
            adapter = self._connected()
            if token is not None:
                # ours beside the user's: a user's token that expires on the way is good still
                headers.update({"X-Auth-Token": token, "X-Service-Token": str(adapter.get_token())})
            answer = adapter.request(
                f"/v2.0{path}",
                method,
                headers=headers,
                authenticated=token is None,
                raise_exc=False,
                timeout=_TIMEOUT_S,
                **options,
            )
        except ks_exc.ClientException as error:
            raise Unavailable(_DOWN, code=PREFIX + "down", cause=error) from error
        if answer.status_code >= 300:
            raise _error(method, path, answer)
        return dict(answer.json()) if answer.content else {}

    def _connected(self) -> Adapter:
        with self._lock:
            if self._adapter is None:
                self._adapter = service_adapter(self._conf, "network", connect_retries=1)
            return self._adapter


def _error(method: str, path: str, answer: Any) -> HaneulError:
    try:
        told = answer.json().get("NeutronError") or {}
    except (ValueError, AttributeError):
        told = {}
    if isinstance(told, str):
        told = {"message": told}
    type_ = told.get("type") or "error"
    message = told.get("message") or f"The network service answered {answer.status_code}."
    cause = f"{method} {path}: status {answer.status_code}"
    if type_ == "OverQuota":
        return OverQuota(message, code=OVER_QUOTA, cause=cause)
    kind = _ERRORS.get(answer.status_code)
    if kind is None:
        return Unavailable(_DOWN, code=PREFIX + "down", cause=f"{cause}: {message}")
    return kind(message, code=PREFIX + type_, cause=cause)
