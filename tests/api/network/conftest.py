"""The Network API over one SQLite file, without a network.

``api`` speaks as a persona: ``api.get("/networks", as_="member@p1")``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import webtest

from api.network.app import make_app
from api.network.services import NetworkServices
from core import config
from core.network_changes import NetworkChanges
from db.global_schema import global_metadata
from tests.api.client import MEMBER as MEMBER
from tests.api.client import OTHER as OTHER
from tests.api.client import READER as READER
from tests.api.client import Client, configured, make_tables
from tests.api.identity import authenticate

ADMIN = "admin@p0"
SERVICE = "service@services"


class Api(Client):
    """The persona as a keyword, bodies as answers; and short ways to make things."""

    prefix = "/v2.0"

    def request(self, method: str, path: str, body: Any = None, **options: Any) -> webtest.TestResponse:
        return self.call(method, path, body, **options)

    def get(self, path: str, **options: Any) -> Any:
        return self.call("get", path, **options).json

    def post(self, path: str, body: Any, **options: Any) -> Any:
        return self.call("post", path, body, **options).json

    def put(self, path: str, body: Any, **options: Any) -> Any:
        return self.call("put", path, body, **options).json

    def delete(self, path: str, **options: Any) -> Any:
        return self.call("delete", path, **options)

    def refused(self, method: str, path: str, body: Any, status: int, type_: str, **options: Any) -> str:
        """The message of an error of this status and type."""
        answer = self.request(method, path, body, status=status, **options).json
        assert set(answer) == {"NeutronError"} and set(answer["NeutronError"]) == {
            "type",
            "message",
            "detail",
        }
        assert answer["NeutronError"]["type"] == type_
        return str(answer["NeutronError"]["message"])

    def network(self, as_: str = MEMBER, **values: Any) -> dict[str, Any]:
        return dict(self.post("/networks", {"network": values}, as_=as_)["network"])

    def subnet(
        self, network_id: str, cidr: str = "10.0.0.0/24", as_: str = MEMBER, **values: Any
    ) -> dict[str, Any]:
        version = 6 if ":" in cidr else 4
        body = {"network_id": network_id, "cidr": cidr, "ip_version": version, **values}
        return dict(self.post("/subnets", {"subnet": body}, as_=as_)["subnet"])

    def port(self, network_id: str, as_: str = MEMBER, **values: Any) -> dict[str, Any]:
        return dict(self.post("/ports", {"port": {"network_id": network_id, **values}}, as_=as_)["port"])

    def external(self, cidr: str = "203.0.113.0/24") -> tuple[dict[str, Any], dict[str, Any]]:
        """An external network with a subnet."""
        network = self.network(as_=ADMIN, **{"router:external": True})
        return network, self.subnet(network["id"], cidr, as_=ADMIN, enable_dhcp=False)


class Bells:
    """Hears what is rung instead of sending it."""

    def __init__(self) -> None:
        self.heard: list[NetworkChanges] = []

    def changed(self, changes: NetworkChanges) -> None:
        self.heard.append(changes)

    def close(self) -> None:
        """Nothing is held."""


def make_services(url: str, **overrides: Any) -> NetworkServices:
    """The tables in the database at ``url``, and the services over it."""
    make_tables(url, global_metadata)
    conf = configured(url)
    services = NetworkServices(conf)
    services.doorbells.close()
    services.doorbells = Bells()  # type: ignore[assignment]
    for name, value in overrides.items():
        config.override(conf, name, value)
    return services


@pytest.fixture
def services(tmp_path: Path) -> Iterator[NetworkServices]:
    made = make_services(f"sqlite:///{tmp_path}/global.sqlite")
    yield made
    made.close()


@pytest.fixture
def api(services: NetworkServices) -> Api:
    return Api(webtest.TestApp(make_app(services.conf, services, authenticate)))
