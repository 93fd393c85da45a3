"""The Volume API as a WSGI application."""

from __future__ import annotations

from collections.abc import Callable

from oslo_config import cfg

from api.common import auth
from api.common.app import Api, make_wsgi
from api.common.server import ApiRole
from api.volume.common import cinder_format
from api.volume.controllers import all_controllers
from api.volume.services import GROUP, VolumeServices
from api.volume.versions import PREFIX, VERSIONS


def make_api(services: VolumeServices) -> Api:
    """The operations of this API over ``services``."""
    return Api(
        "volume",
        services,
        all_controllers(services),
        prefixes=(PREFIX,),
        versions=VERSIONS,
        fault_format=cinder_format,
        project_prefix=True,
        strict_slash=True,
        request_id_headers=("x-openstack-request-id", "x-compute-request-id"),
    )


def make_app(
    conf: cfg.ConfigOpts,
    services: VolumeServices | None = None,
    authenticate: Callable[[auth.WsgiApp], auth.WsgiApp] | None = None,
) -> auth.WsgiApp:
    """The whole stack. Tests hand in ``services`` and a stand-in for keystonemiddleware."""
    return make_wsgi(make_api(services or VolumeServices(conf)), authenticate or auth.keystone(conf))


def make_role(conf: cfg.ConfigOpts) -> ApiRole:
    """This API behind the embedded web server."""
    return ApiRole("volume-api", conf, GROUP, make_app)
