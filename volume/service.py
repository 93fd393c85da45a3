"""The volume role: carries out the intents of its backends, says what they have, connects hosts.

Runs beside the database. Several processes may serve the same backend: intents are
leased (``conductor.direct_journal``), and everything else repeats harmlessly.
"""

from __future__ import annotations

import logging
import uuid
from typing import Any

import oslo_messaging
from oslo_config import cfg

from conductor.direct_journal import DirectJournal
from core import config, logs
from core.context import RequestContext
from core.messaging import Messaging
from core.pools import Periodic, Pool
from db import sessions, volume_ends, volume_services
from db.sessions import Databases, retrying
from lifecycle.engine import Engine
from lifecycle.roles import Role
from lifecycle.steps import Run
from lifecycle.volume_rpc import VOLUME_TOPIC
from volume.actions import groups, images, snapshots
from volume.actions.volumes import ACTIONS
from volume.drivers import backends
from volume.drivers.backends import Backend
from volume.worker import VolumeWorker

LOG = logging.getLogger(__name__)
_SPACING_S = 0.02
KINDS = (groups, images, snapshots)
"""modules that add their actions to ``ACTIONS`` when they are imported"""
Row = dict[str, Any]
GROUP = "volume_worker"
OPTS = [
    cfg.StrOpt("availability_zone", default="nova", help="Zone of this worker's backends."),
    cfg.IntOpt("threads", default=8, min=1, help="Intents that are carried out at once."),
    cfg.FloatOpt("lease_s", default=60, min=1, help="How long a worker may be silent about an intent."),
    cfg.FloatOpt(
        "interval_s", default=5, min=0.1, help="Seconds between looks for work that nobody rang for."
    ),
    cfg.FloatOpt("heartbeat_s", default=10, min=0.1, help="Seconds between reports of what backends have."),
    cfg.IntOpt("max_attempts", default=5, min=1, help="How often something is tried before it has failed."),
    cfg.FloatOpt(
        "retry_s", default=1, min=0, help="First pause before something is tried again; it doubles."
    ),
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [(GROUP, OPTS)]


def make_role(conf: cfg.ConfigOpts) -> VolumeRole:
    """The factory that ``haneul serve volume`` calls."""
    for options in (list_opts(), sessions.list_opts()):
        config.register(conf, options)
    return VolumeRole(conf)


class VolumeRole(Role):
    """One worker process with all its backends."""

    name = "volume"
    engine = Engine()

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._options = conf[GROUP]
        self.databases = Databases(conf)
        self.backends = backends.load(conf)
        self.workers = {each.host: VolumeWorker(conf, self.databases, each) for each in self.backends}
        owner = f"volume-{conf.host}-{uuid.uuid4().hex[:8]}"
        self.journal = DirectJournal(
            self.databases.global_,
            owner,
            volume_ends.end,
            lease_s=self._options.lease_s,
            max_attempts=self._options.max_attempts,
            retry_s=self._options.retry_s,
        )
        self._messaging = Messaging(conf)
        self._servers = [
            self._messaging.server(VOLUME_TOPIC, host, [Endpoint(self, worker)])
            for host, worker in self.workers.items()
        ]
        self._pool = Pool("volume-work", self._options.threads)
        self._loop = Periodic("volume-take", self._options.interval_s, self.take, _SPACING_S)
        self._beat = Periodic("volume-heartbeat", self._options.heartbeat_s, self.heartbeat)
        self._renewal = Periodic("volume-leases", self._options.lease_s / 3, self.journal.renew)

    def start(self) -> None:
        for backend in self.backends:
            backend.driver.start()
        self.heartbeat()
        for server in self._servers:
            server.start()
        for periodic in (self._loop, self._beat, self._renewal):
            periodic.start()
        self._loop.ring()

    def stop(self) -> None:
        self._loop.stop()
        for server in self._servers:
            server.stop()
            server.wait()
        self._pool.shutdown()
        for periodic in (self._beat, self._renewal):
            periodic.stop()
        for backend in self.backends:
            backend.driver.close()
        self._messaging.close()
        self.databases.dispose()

    def ring(self) -> None:
        self._loop.ring()

    # -- intents -----------------------------------------------------------------

    def take(self) -> None:
        """Lease what waits and hand it to the pool, as much as there are threads."""
        held = self.journal.held
        if held >= self._options.threads:
            return
        rows = self.journal.take(list(self.workers), ACTIONS.kinds(), self._options.threads - held)
        for row in rows:
            run = Run(
                intent_id=row["id"],
                kind=row["kind"],
                attempt=row["attempts"],
                resource_id=row["resource_id"],
                arguments=row["arguments"],
                results=dict(row["results"] or {}),
                worker=self.workers[row["target"]],
                context={key: row[key] for key in ("request_id", "project_id", "user_id")},
            )
            self.journal.hold(run)
            self._pool.spawn(self.execute, run, row["error"])

    def execute(self, run: Run, error: Row | None) -> None:
        """Carry out one intent; then look for the next."""
        try:
            self.engine.execute(ACTIONS[run.kind], run, self.journal, error)
        finally:
            self.journal.release(run)
            self._loop.ring()

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
