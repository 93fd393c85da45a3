"""What the handlers of the Compute API work with: databases, policy, options."""

from __future__ import annotations

from oslo_config import cfg

from api.common.server import server_opts
from api.common.services import ApiServices
from api.compute import consoles, server_create
from api.compute.doorbells import Doorbells
from api.compute.image_client import ImageClient
from api.compute.policies import all_rules
from core import config
from db.quotas import Quotas
from lifecycle.network_client import NetworkClient
from lifecycle.volume_client import VolumeApi

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


class ComputeServices(ApiServices):
    """What all APIs have, and quotas, the doorbells of other roles, and the other APIs."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        super().__init__(conf, GROUP, OPTS, all_rules())
        config.register(conf, consoles.list_opts())
        self.quotas = Quotas(conf)
        self.doorbells = Doorbells(conf, self.databases)
        self.images = ImageClient(conf)
        self.networks = NetworkClient(conf)
        self.volumes = VolumeApi(conf)

    def close(self) -> None:
        """Stop the threads that ring, give the database connections back."""
        self.doorbells.close()
        super().close()
