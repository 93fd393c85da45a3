"""Calls to another service's REST API at its public door, as haneul or as the user who asks.

``network_client`` and ``volume_client`` say what is particular to theirs.  With a user's
token haneul's own goes along as service token: a user's that expires on the way is good
still, and the other service knows on whose behalf it is asked.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from keystoneauth1 import exceptions as ks_exc
from keystoneauth1.adapter import Adapter
from oslo_config import cfg

from core.clients import configured, service_adapter
from core.errors import (
    BadRequest,
    Conflict,
    DriverError,
    Forbidden,
    HaneulError,
    NotFound,
    StaleGeneration,
    Unavailable,
)

LOG = logging.getLogger(__name__)
_TIMEOUT_S = 30.0
_PATIENCE_S = 30.0
_PAUSE_S = 1.0
ERRORS: Mapping[int, type[HaneulError]] = {
    400: BadRequest,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    412: StaleGeneration,
}


class ServiceClient:
    """Safe to share between threads; connects with the first call."""

    service: ClassVar[str]
    """its type in the catalog"""
    code: ClassVar[str]
    """what the codes of its errors begin with"""
    down: ClassVar[str]
    """what is said when it does not answer"""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf
        self._adapter: Adapter | None = None
        self._lock = threading.Lock()

    @property
    def configured(self) -> bool:
        """May there be such a service at all? Without service credentials there is none."""
        return configured(self._conf)

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        token: str | None = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Any call; the answer's body ({} if it has none). ``token``: its owner asks.

        :raises BadRequest, Forbidden, NotFound, Conflict, OverQuota: its answer. :raises Unavailable: none.
        """
        sent = {"Accept": "application/json", **(headers or {})}
        options: dict[str, Any] = {"params": query} if query else {}
        if body is not None:
            options["json"] = body
        try:
            adapter = self._connected()
            if token is not None:
                sent.update({"X-Auth-Token": token, "X-Service-Token": str(adapter.get_token())})
            answer = adapter.request(
                path,
                method,
                headers=sent,
                authenticated=token is None,
                raise_exc=False,
                timeout=_TIMEOUT_S,
                **options,
            )
        except ks_exc.ClientException as error:
            raise Unavailable(self.down, code=f"{self.code}down", cause=error) from error
        if answer.status_code >= 300:
            raise self._refusal(answer, f"{method} {path}: status {answer.status_code}")
        return dict(answer.json()) if answer.content else {}

    def _refusal(self, answer: Any, cause: str) -> HaneulError:
        """The error for an answer of 300 and more."""
        raise NotImplementedError

    def _unavailable(self, cause: str) -> Unavailable:
        return Unavailable(self.down, code=f"{self.code}down", cause=cause)

    def _connected(self) -> Adapter:
        with self._lock:
            if self._adapter is None:
                self._adapter = service_adapter(self._conf, self.service, connect_retries=1)
            return self._adapter


def body_of(answer: Any) -> dict[str, Any]:
    """The answer's JSON object; {} if it is none (a proxy's page)."""
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def patiently(function: Callable[[], Any], check: Callable[[], None]) -> Any:
    """``function()``, again for a while when the service behind it does not answer.

    A restart of a service must not fail the servers that are built meanwhile. ``check``
    raises when it is no longer wanted.

    :raises DriverError: it stayed away; with the code that says so.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return function()
        except Unavailable as error:
            if time.monotonic() > deadline:
                raise DriverError(error.message, code=error.code, cause=error.cause) from error
            LOG.warning("%s (%s); it is tried again", error, error.cause)
        check()
        time.sleep(_PAUSE_S)
