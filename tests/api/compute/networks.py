"""The real Network API beside the Compute API in one process: personas are the same, no network is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import webtest

from api.compute.services import ComputeServices
from api.network.app import make_app
from lifecycle.network_client import NetworkClient
from tests.api.identity import authenticate
from tests.api.network.conftest import Api, make_services

SERVICE_TOKEN = "service@services"


class _Answer:
    """What the client reads of an answer."""

    def __init__(self, answer: webtest.TestResponse) -> None:
        self.status_code, self.content = answer.status_int, answer.body
        self.json = lambda: answer.json


class _Adapter:
    def __init__(self, app: webtest.TestApp) -> None:
        self._app = app
        self.calls: list[tuple[str, str]] = []

    def get_token(self) -> str:
        return SERVICE_TOKEN

    def request(self, path: str, method: str, *, headers: dict[str, str], **options: Any) -> _Answer:
        self.calls.append((method, path))
        query = []
        for key, value in (options.get("params") or {}).items():
            query += [(key, str(each)) for each in (value if isinstance(value, list) else [value])]
        arguments: dict[str, Any] = {"headers": {"X-Auth-Token": SERVICE_TOKEN, **headers}, "status": "*"}
        if method == "GET":
            return _Answer(self._app.get(path, params=query, **arguments))
        call = getattr(self._app, f"{method.lower()}_json")
        return _Answer(call(path, params=options.get("json", webtest.utils.NoDefault), **arguments))


class InProcessNetworks(NetworkClient):
    """``calls``: (method, path) of everything that was asked."""

    configured = True  # type: ignore[assignment]

    def __init__(self, app: webtest.TestApp) -> None:
        self._made = _Adapter(app)

    @property
    def calls(self) -> list[tuple[str, str]]:
        return self._made.calls

    def _connected(self) -> Any:
        return self._made


def attach(services: ComputeServices, folder: Path) -> Api:
    """Give the Compute API a Network API; returns the latter, to be spoken to by the test."""
    networks = make_services(f"sqlite:///{folder}/networks.sqlite")
    app = webtest.TestApp(make_app(networks.conf, networks, authenticate))
    services.networks = InProcessNetworks(app)
    return Api(app)
