"""Which backends a worker serves: ``[volume] enabled_backends`` names groups, each with a driver.

[volume]
enabled_backends = files, fast

[files]
driver = file
path = /var/lib/haneul/volumes
"""

from __future__ import annotations

import dataclasses
import socket
from typing import Any

from oslo_config import cfg
from stevedore import driver as stevedore_driver
from stevedore.exception import NoMatches

from core.errors import Unavailable
from volume.drivers.base import VolumeDriver

GROUP = "volume"
NAMESPACE = "haneul.volume.drivers"
OPTS: list[cfg.Opt] = [
    cfg.ListOpt(
        "enabled_backends", default=["files"], help="Groups of this file that describe a backend each."
    ),
    cfg.StrOpt("host", help="Name of this worker in host@backend#pool (default: [DEFAULT]host)."),
]
BACKEND_OPTS: list[cfg.Opt] = [
    cfg.StrOpt("driver", default="file", help=f"An entry point of {NAMESPACE}: file, lvm, rbd, simulated."),
    cfg.StrOpt("volume_backend_name", help="What volume types ask for (default: the group's name)."),
    cfg.FloatOpt(
        "max_over_subscription_ratio",
        default=20.0,
        min=1,
        help="How often a thin pool's space may be promised.",
    ),
    cfg.IntOpt("reserved_percentage", default=0, min=0, max=100, help="Share of a pool that is kept free."),
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """For the sample configuration; ``files`` stands for any backend."""
    return [(GROUP, OPTS), ("files", BACKEND_OPTS)]


@dataclasses.dataclass(frozen=True)
class Backend:
    """One enabled backend."""

    name: str
    host: str
    """host@backend"""
    driver: VolumeDriver
    backend_name: str


def load(conf: cfg.ConfigOpts) -> list[Backend]:
    """The enabled backends, not started. :raises Unavailable: one names no driver that there is."""
    conf.register_opts(OPTS, group=GROUP)
    host = conf.volume.host or getattr(conf, "host", None) or socket.gethostname()
    found = []
    for name in conf.volume.enabled_backends:
        conf.register_opts(BACKEND_OPTS, group=name)
        kind = conf[name].driver
        try:
            made: Any = stevedore_driver.DriverManager(
                NAMESPACE, kind, invoke_on_load=True, invoke_args=(conf, name)
            ).driver
        except NoMatches as error:
            raise Unavailable(f"[{name}] driver: there is no volume driver {kind!r}", cause=error) from error
        found.append(Backend(name, f"{host}@{name}", made, conf[name].volume_backend_name or name))
    return found
