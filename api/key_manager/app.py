"""The key manager as a WSGI application."""

from __future__ import annotations

from collections.abc import Callable

import orjson
import webob
from oslo_config import cfg

from api.common import auth
from api.common.app import Api, make_wsgi
from api.common.operations import Controller
from api.common.server import ApiRole
from api.key_manager.secrets import SecretsController
from api.key_manager.services import GROUP, KeyManagerServices
from api.key_manager.versions import PREFIX, VersionsController
from core.errors import HaneulError

CONTROLLERS: tuple[type[Controller], ...] = (VersionsController, SecretsController)


def fault_format(status: int, message: str, error: HaneulError | None) -> tuple[bytes, str]:
    """{"code": 404, "title": "Not Found", "description": …}"""
    title = webob.util.status_reasons.get(status, "Error")
    return orjson.dumps({"code": status, "title": title, "description": message}), "application/json"


def make_api(services: KeyManagerServices | None) -> Api:
    """The operations of this API over ``services``."""
    return Api(
        "key-manager",
        services,
        [controller(services) for controller in CONTROLLERS],
        prefixes=(PREFIX,),
        fault_format=fault_format,
    )


def make_app(
    conf: cfg.ConfigOpts,
    services: KeyManagerServices | None = None,
    authenticate: Callable[[auth.WsgiApp], auth.WsgiApp] | None = None,
) -> auth.WsgiApp:
    """The whole stack. Tests hand in ``services`` and a stand-in for keystonemiddleware."""
    return make_wsgi(make_api(services or KeyManagerServices(conf)), authenticate or auth.keystone(conf))


def make_role(conf: cfg.ConfigOpts) -> ApiRole:
    """This API behind the embedded web server."""
    return ApiRole("key-manager-api", conf, GROUP, make_app)
