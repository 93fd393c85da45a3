"""The Network API as a WSGI application."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from oslo_config import cfg

from api.common import auth
from api.common.app import Api, make_wsgi
from api.common.operations import Call, Operation
from api.common.server import ApiRole
from api.network.common import PREFIX, neutron_format
from api.network.controllers import all_controllers
from api.network.services import GROUP, NetworkServices
from db import network_changes


class NetworkApi(Api):
    """After each call that may have written, who has to know is told."""

    def run(self, operation: Operation, call: Call) -> Any:
        with network_changes.collecting() as changes:
            answer = super().run(operation, call)
        self.services.doorbells.changed(changes)
        return answer


def make_api(services: NetworkServices) -> Api:
    """The operations of this API over ``services``."""
    return NetworkApi(
        "network", services, all_controllers(services), prefixes=(PREFIX,), fault_format=neutron_format
    )


def make_app(
    conf: cfg.ConfigOpts,
    services: NetworkServices | None = None,
    authenticate: Callable[[auth.WsgiApp], auth.WsgiApp] | None = None,
) -> auth.WsgiApp:
    """The whole stack. Tests hand in ``services`` and a stand-in for keystonemiddleware."""
    return make_wsgi(make_api(services or NetworkServices(conf)), authenticate or auth.keystone(conf))


def make_role(conf: cfg.ConfigOpts) -> ApiRole:
    """This API behind the embedded web server."""
    return ApiRole("network-api", conf, GROUP, make_app)
