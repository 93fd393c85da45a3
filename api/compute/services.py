"""What the handlers of the Compute API work with: databases, policy, options."""

from __future__ import annotations

from keystonemiddleware import auth_token
from oslo_config import cfg

from api.common.server import server_opts
from api.compute import server_create
from api.compute.doorbells import Doorbells
from api.compute.image_client import ImageClient
from api.compute.image_proxy import ImageProxy
from api.compute.policies import all_rules
from core.policy import Policy
from db.quotas import Quotas
from db.sessions import Databases

GROUP = "compute_api"
OPTS = [
    *server_opts(8774),
    cfg.IntOpt("max_limit", default=1000, min=1, help="Most rows that one page of a list has."),
    cfg.StrOpt(
        "default_availability_zone", default="nova", help="Zone of hosts that no aggregate puts in one."
    ),
    cfg.StrOpt(
        "internal_service_availability_zone",
        default="internal",
        help="Zone in which services that run no servers are listed.",
    ),
    *server_create.OPTS,
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [(GROUP, OPTS)]


class ComputeServices:
    """Made once per process and shared by all request threads."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        conf.register_opts(OPTS, group=GROUP)
        for group, options in auth_token.list_opts():
            conf.register_opts(options, group=group)
        self.conf = conf
        self.options = conf[GROUP]
        self.databases = Databases(conf)
        self.quotas = Quotas(conf)
        self.policy = Policy(conf, all_rules())
        self.doorbells = Doorbells(conf, self.databases)
        self.images = ImageClient(conf)
        self.image_proxy = ImageProxy(conf)
        self.auth_uri = conf.keystone_authtoken.www_authenticate_uri or ""

    def close(self) -> None:
        """Stop the threads that ring, give the database connections back."""
        self.doorbells.close()
        self.databases.dispose()
