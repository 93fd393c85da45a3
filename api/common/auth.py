"""Authentication: keystonemiddleware in front, our request context behind.

The middleware runs with ``delay_auth_decision``: version documents are open, and
the app answers 401 itself where a call needs a token.  Validated tokens are kept
in a bounded cache of the process for ``[keystone_authtoken]token_cache_time``.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import webob
from keystonemiddleware import auth_token
from oslo_config import cfg

from core.context import RequestContext
from core.errors import HaneulError

CACHE_KEY = "haneul.token_cache"
WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Any]


class Unauthorized(HaneulError):
    """No token, or one that is not valid."""

    code = "haneul.unauthorized"
    http_status = 401

    def __init__(self) -> None:
        super().__init__("The request you have made requires authentication.")


class TokenCache:
    """A bounded, expiring map with the two methods that keystonemiddleware calls."""

    def __init__(self, size: int = 10_000) -> None:
        self._size = size
        self._items: OrderedDict[str, tuple[float, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> Any:
        with self._lock:
            found = self._items.get(key)
            if found is None:
                return None
            if found[0] < time.monotonic():
                del self._items[key]
                return None
            self._items.move_to_end(key)
            return found[1]

    def set(self, key: str, value: Any, time: float = 300) -> None:  # noqa: A002 - memcache's name
        import time as clock

        with self._lock:
            self._items[key] = (clock.monotonic() + (time or 300), value)
            self._items.move_to_end(key)
            while len(self._items) > self._size:
                self._items.popitem(last=False)


def keystone(conf: cfg.ConfigOpts) -> Callable[[WsgiApp], WsgiApp]:
    """The middleware that validates tokens at Keystone, configured by [keystone_authtoken]."""
    cache = TokenCache()

    def wrap(app: WsgiApp) -> WsgiApp:
        inner = auth_token.AuthProtocol(
            app,
            {
                "oslo_config_config": conf,
                "oslo_config_project": "haneul",
                "delay_auth_decision": True,
                "cache": CACHE_KEY,
                "include_service_catalog": False,
            },
        )

        def middleware(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
            environ[CACHE_KEY] = cache
            return inner(environ, start_response)

        return middleware

    return wrap


def context_of(request: webob.Request, request_id: str) -> RequestContext:
    """The context that the middleware's headers describe; the thread's logs carry it from here on."""
    context: RequestContext = RequestContext.from_environ(request.environ, request_id=request_id)
    return context


def confirmed(request: webob.Request) -> bool:
    return request.environ.get("HTTP_X_IDENTITY_STATUS") == "Confirmed"
