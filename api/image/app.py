"""The Image API v2 as a WSGI application."""

from __future__ import annotations

from collections.abc import Callable

from oslo_config import cfg

from api.common import auth, faults
from api.common.app import Api, make_wsgi
from api.common.server import ApiRole
from api.image.controllers import all_controllers
from api.image.services import GROUP, ImageServices
from api.image.versions import ALIASES, PREFIX


def make_api(services: ImageServices) -> Api:
    """The operations of this API over ``services``."""
    return Api(
        "image",
        services,
        all_controllers(services),
        prefixes=(PREFIX, *ALIASES),
        fault_format=faults.html_format,
        strict_slash=True,
    )


def make_app(
    conf: cfg.ConfigOpts,
    services: ImageServices | None = None,
    authenticate: Callable[[auth.WsgiApp], auth.WsgiApp] | None = None,
) -> auth.WsgiApp:
    """The whole stack. Tests hand in ``services`` and a stand-in for keystonemiddleware."""
    return make_wsgi(make_api(services or ImageServices(conf)), authenticate or auth.keystone(conf))


def make_role(conf: cfg.ConfigOpts) -> ApiRole:
    """This API behind the embedded web server."""
    return ApiRole("image-api", conf, GROUP, make_app)
