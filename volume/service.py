"""The volume role: carries out the intents of its backends, says what they have, connects hosts.

Runs beside the database. Several processes may serve the same backend: intents are
leased (``conductor.direct_journal``), and everything else repeats harmlessly.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import oslo_messaging
from oslo_config import cfg

from conductor.direct_journal import DirectJournal
from core import config, logs
from core.context import RequestContext
from core.messaging import Messaging
from core.pools import Periodic
from db import sessions, volume_ends, volume_services
from db.sessions import Databases, retrying
from lifecycle.roles import Role
from lifecycle.steps import Registry
from lifecycle.volume_rpc import VOLUME_TOPIC
from volume import connecting
from volume.actions import groups, images, snapshots
from volume.actions.backups import ACTIONS as BACKUP_ACTIONS
from volume.actions.moves import MOVES as MOVE_ACTIONS
from volume.actions.volumes import ACTIONS
from volume.backup.worker import BackupWorker
from volume.drivers import backends
from volume.drivers.backends import Backend
from volume.taker import Taker
from volume.worker import VolumeWorker

LOG = logging.getLogger(__name__)
KINDS = (groups, images, snapshots)
"""modules that add their actions to ``ACTIONS`` when they are imported"""
Row = dict[str, Any]
GROUP = "volume_worker"
OPTS = [
    cfg.StrOpt("availability_zone", default="nova", help="Zone of this worker's backends."),
    cfg.IntOpt(
        "threads",
        default=8,
        min=1,
        help="Intents on volumes, on backups, and of moves, that are carried out at once.",
    ),
    cfg.FloatOpt("lease_s", default=60, min=1, help="How long a worker may be silent about an intent."),
    cfg.FloatOpt(
        "interval_s", default=5, min=0.1, help="Seconds between looks for work that nobody rang for."
    ),
    cfg.FloatOpt("heartbeat_s", default=10, min=0.1, help="Seconds between reports of what backends have."),
    cfg.IntOpt("max_attempts", default=5, min=1, help="How often something is tried before it has failed."),
    cfg.FloatOpt(
        "host_snapshot_s",
        default=7200,
        min=1,
        help="How long a snapshot waits for the host whose server has the volume open, where that has to copy it.",
    ),
    cfg.FloatOpt(
        "retry_s", default=1, min=0, help="First pause before something is tried again; it doubles."
    ),
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [(GROUP, [*OPTS, *connecting.OPTS])]


def make_role(conf: cfg.ConfigOpts) -> VolumeRole:
    """The factory that ``haneul serve volume`` calls."""
    for options in (list_opts(), sessions.list_opts()):
        config.register(conf, options)
    return VolumeRole(conf)


class VolumeRole(Role):
    """One worker process with all its backends."""

    name = "volume"

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._options = conf[GROUP]
        self.databases = Databases(conf)
        self.backends = backends.load(conf)
        self.workers = {each.host: VolumeWorker(conf, self.databases, each) for each in self.backends}
        host = conf.volume.host or conf.host
        self.backup = BackupWorker(conf, self.databases, host, self.workers)
        self._volumes = self._taker(f"volume-{conf.host}", self.workers, lambda: ACTIONS)
        self._moves = self._taker(f"move-{conf.host}", self.workers, lambda: MOVE_ACTIONS)
        self._backups = self._taker(f"backup-{conf.host}", {host: self.backup}, lambda: BACKUP_ACTIONS)
        self.journal = self._volumes.journal
        self._messaging = Messaging(conf)
        for worker in self.workers.values():
            worker.join(self.workers, self._messaging)
        self._servers = [
            self._messaging.server(VOLUME_TOPIC, host, [Endpoint(self, worker)])
            for host, worker in self.workers.items()
        ]
        self._servers.append(self._messaging.server(VOLUME_TOPIC, host, [BackupEndpoint(self)]))
        self._beat = Periodic("volume-heartbeat", self._options.heartbeat_s, self.heartbeat)

    def _taker(self, owner: str, workers: Mapping[str, Any], actions: Callable[[], Registry]) -> Taker:
        options = self._options
        journal = DirectJournal(
            self.databases.global_,
            f"{owner}-{uuid.uuid4().hex[:8]}",
            volume_ends.end,
            lease_s=options.lease_s,
            max_attempts=options.max_attempts,
            retry_s=options.retry_s,
        )
        times = {"interval_s": options.interval_s, "lease_s": options.lease_s}
        return Taker(owner.partition("-")[0], journal, workers, actions, threads=options.threads, **times)

    def start(self) -> None:
        for backend in self.backends:
            backend.driver.start()
        self.heartbeat()
        for server in self._servers:
            server.start()
        self._beat.start()
        self._volumes.start()
        self._moves.start()
        self._backups.start()

    def stop(self) -> None:
        self._volumes.end_taking()
        self._moves.end_taking()
        self._backups.end_taking()
        for server in self._servers:
            server.stop()
            server.wait()
        # first: a restore may wait for a volume; a backup that was cut short goes on where it was
        self._backups.stop(interrupt=True)
        self._moves.stop(interrupt=True)
        self._volumes.stop()
        self._beat.stop()
        for backend in self.backends:
            backend.driver.close()
        self._messaging.close()
        self.databases.dispose()

    def ring(self) -> None:
        self._volumes.ring()
        self._moves.ring()

    def ring_backups(self) -> None:
        self._backups.ring()

    # -- what backends have ------------------------------------------------------

    def heartbeat(self) -> None:
        """Services and pools; a backend that can't say what it has is not alive."""
        for backend in self.backends:
            try:
                pools = pools_of(backend)
            except Exception as error:  # noqa: BLE001 - one backend's trouble is not the others'
                LOG.warning("backend %s does not say what it has: %s", backend.host, error)
                continue
            self._report(backend, pools)
        self.backup.heartbeat(self._options.availability_zone)

    @retrying
    def _report(self, backend: Backend, pools: dict[str, Row]) -> None:
        first = next(iter(pools.values()), {})
        said: Row = {
            "volume_backend_name": backend.backend_name,
            "vendor_name": backend.driver.vendor,
            "storage_protocol": backend.driver.protocol,
            "driver_version": "1.0",
            "pool_name": first.get("pool_name"),
            "display_name": f"Capabilities of {backend.backend_name}",
            "description": "None",
            "visibility": "public",
            "properties": {},
        }
        with self.databases.global_.write() as connection:
            levels = volume_services.heartbeat(
                connection, backend.host, volume_services.VOLUME, self._options.availability_zone, said
            )
            volume_services.report_pools(connection, backend.host, pools)
            volume_services.prune_messages(connection)
        logs.set_levels(levels)


def pools_of(backend: Backend) -> dict[str, Row]:
    """{host@backend#pool: capabilities in upstream's names}"""
    found = {}
    for pool in backend.driver.pools():
        found[f"{backend.host}#{pool.name}"] = {
            "volume_backend_name": backend.backend_name,
            "vendor_name": backend.driver.vendor,
            "driver_version": "1.0",
            "storage_protocol": backend.driver.protocol,
            "pool_name": pool.name,
            "total_capacity_gb": pool.total_gib,
            "free_capacity_gb": pool.free_gib,
            "reserved_percentage": pool.reserved_percentage,
            "max_over_subscription_ratio": pool.max_over_subscription_ratio,
            "thin_provisioning_support": pool.thin,
            "thick_provisioning_support": not pool.thin,
            "multiattach": pool.multiattach,
            "online_extend_support": pool.online_extend,
            "QoS_support": False,
            "backend_state": "up",
            "location_info": f"{backend.driver.protocol}:{backend.host}",
            **pool.capabilities,
        }
    return found


class BackupEndpoint:
    """The doorbell of the backup service."""

    target = oslo_messaging.Target(version="1.0")

    def __init__(self, role: VolumeRole) -> None:
        self._role = role

    @oslo_messaging.expose
    def ring(self, context: RequestContext) -> None:
        self._role.ring_backups()


class Endpoint:
    """What API and scheduler may ask of a backend (``lifecycle.volume_rpc``)."""

    target = oslo_messaging.Target(version="1.0")

    def __init__(self, role: VolumeRole, worker: VolumeWorker) -> None:
        self._role = role
        self._worker = worker

    @oslo_messaging.expose
    def ring(self, context: RequestContext) -> None:
        self._role.ring()

    @oslo_messaging.expose
    def initialize_connection(
        self, context: RequestContext, volume_id: str, connector: Row, mode: str
    ) -> Row:
        return self._worker.driver.initialize_connection(self._worker.volume(volume_id), connector, mode)

    @oslo_messaging.expose
    def terminate_connection(
        self, context: RequestContext, volume_id: str, connector: Row | None, force: bool
    ) -> None:
        self._worker.driver.terminate_connection(self._worker.volume(volume_id), None if force else connector)

    @oslo_messaging.expose
    def manageable_volumes(self, context: RequestContext) -> list[Row]:
        return self._worker.driver.manageable_volumes()

    @oslo_messaging.expose
    def manageable_snapshots(self, context: RequestContext) -> list[Row]:
        return self._worker.driver.manageable_snapshots()
