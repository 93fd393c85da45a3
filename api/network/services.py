"""What the handlers of the Network API work with: databases, policy, options."""

from __future__ import annotations

from oslo_config import cfg

from api.common.server import server_opts
from api.common.services import ApiServices
from api.network.doorbells import Doorbells
from api.network.policies import all_rules
from db import network_agents, network_quotas, segments
from db.network_quotas import NetworkQuotas
from db.segments import Segments

GROUP = "network_api"
OPTS = [
    *server_opts(9696),
    cfg.IntOpt("max_limit", default=0, min=0, help="Most rows that one page of a list has; 0: no bound."),
    *network_agents.OPTS,
    cfg.StrOpt("default_availability_zone", default="nova", help="Zone of agents that name none."),
    cfg.IntOpt("max_routes", default=30, min=1, help="Extra routes per router."),
    cfg.IntOpt("max_allowed_address_pairs", default=10, min=1, help="Allowed address pairs per port."),
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [(GROUP, OPTS), (segments.GROUP, segments.OPTS), *network_quotas.list_opts()]


class NetworkServices(ApiServices):
    """What all APIs have, and quotas and segments."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        super().__init__(conf, GROUP, OPTS, all_rules())
        self.quotas = NetworkQuotas(conf)
        self.segments = Segments(conf)
        self.doorbells = Doorbells(conf, self.databases)

    def close(self) -> None:
        """Stop the threads that ring, give the database connections back."""
        self.doorbells.close()
        super().close()
