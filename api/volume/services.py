"""What the handlers of the Volume API work with: databases, policy, options, doorbells, images."""

from __future__ import annotations

from typing import Any

from oslo_config import cfg

from api.common.server import server_opts
from api.common.services import ApiServices
from api.compute.doorbells import Bell, Doorbells
from api.compute.image_client import ImageClient
from api.volume.policies import all_rules
from db import volume_quotas
from db.volume_quotas import VolumeQuotas
from lifecycle.volume_rpc import VolumeClient

GROUP = "volume_api"
OPTS = [
    *server_opts(8776),
    cfg.IntOpt("max_limit", default=1000, min=1, help="Most rows that one page of a list has."),
    cfg.StrOpt("default_availability_zone", default="nova", help="Zone of volumes that name none."),
    cfg.StrOpt(
        "default_volume_type", default="__DEFAULT__", help="Type of volumes that name none; it must exist."
    ),
    cfg.IntOpt(
        "service_down_time",
        default=60,
        min=1,
        help="Seconds without a heartbeat after which a service is down.",
    ),
    cfg.IntOpt("transfer_key_length", default=16, min=8, help="Length of the key of a volume transfer."),
    cfg.IntOpt("message_ttl_s", default=2592000, min=60, help="How long user messages are kept, in seconds."),
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [(GROUP, OPTS), *volume_quotas.list_opts()]


class VolumeDoorbells(Doorbells):
    """Rings of this API: the scheduler and the workers of backends."""

    def ring_volume(self, host: str) -> None:
        """Intents wait for the worker of ``host@backend``."""
        self._bell(("volume", host), lambda: self._make_volume(host)).ring([True])

    def ring_for(self, intent: dict[str, Any]) -> None:
        """Whoever is to go on with this intent: its target, or the scheduler."""
        if intent["target"] is None:
            self.ring_scheduler()
        else:
            self.ring_volume(intent["target"])

    def volume(self) -> VolumeClient:
        """For calls that wait for the answer: connections, what may be managed."""
        return VolumeClient(self._transport(None))

    def _make_volume(self, host: str) -> Bell:
        return Bell(f"ring-volume-{host}", lambda _items: self.volume().ring(host))


class VolumeServices(ApiServices):
    """What all APIs have, and quotas, doorbells and the image service."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        super().__init__(conf, GROUP, OPTS, all_rules())
        self.quotas = VolumeQuotas(conf)
        self.doorbells = VolumeDoorbells(conf, self.databases)
        self.images = ImageClient(conf)

    def close(self) -> None:
        """Stop the threads that ring, give the database connections back."""
        self.doorbells.close()
        super().close()
