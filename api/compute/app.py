"""The Compute API as a WSGI application."""

from __future__ import annotations

from collections.abc import Callable

from oslo_config import cfg

from api.common import auth
from api.common.app import Api, make_wsgi
from api.common.server import ApiRole
from api.compute.controllers import all_controllers
from api.compute.services import GROUP, ComputeServices
from api.compute.versions import LEGACY, PREFIX, VERSIONS


def make_api(services: ComputeServices) -> Api:
    """The operations of this API over ``services``."""
    return Api(
        "compute",
        services,
        all_controllers(services),
        prefixes=(PREFIX, LEGACY),
        versions=VERSIONS,
        project_prefix=True,
        strict_slash=True,
        request_id_headers=("x-openstack-request-id", "x-compute-request-id"),
    )


def make_app(
    conf: cfg.ConfigOpts,
    services: ComputeServices | None = None,
    authenticate: Callable[[auth.WsgiApp], auth.WsgiApp] | None = None,
) -> auth.WsgiApp:
    """The whole stack. Tests hand in ``services`` and a stand-in for keystonemiddleware."""
    return make_wsgi(make_api(services or ComputeServices(conf)), authenticate or auth.keystone(conf))


def make_role(conf: cfg.ConfigOpts) -> ApiRole:
    """This API behind the embedded web server."""
    return ApiRole("compute-api", conf, GROUP, make_app)
