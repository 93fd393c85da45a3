"""The conductor role of a cell: hears hosts, hands out intents, writes their ends, sweeps.

Several conductors may serve one cell: the journal's conditional updates keep
them apart, and the sweep is harmless when done twice.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import oslo_messaging
from oslo_config import cfg

from conductor import hosts, network_info, networks
from conductor.ends import cleanup_of, message_of
from conductor.hostless import HostlessParts, UnplacedVolumes
from conductor.journal import Journal
from conductor.sweeper import Sweeper
from core import config
from core.context import RequestContext
from core.errors import Unavailable
from core.messaging import Messaging
from core.pools import Periodic
from db import sessions
from db.sessions import Databases
from lifecycle.roles import Role
from lifecycle.rpc import CONDUCTOR_TOPIC, AgentClient, SchedulerClient

LOG = logging.getLogger(__name__)
_SPACING_S = 0.02
"""Intents that were rung for within this time are handed out together."""

GROUP = "conductor"
OPTS = [
    cfg.StrOpt("cell", default="cell1", help="Name of the cell that this conductor serves."),
    cfg.FloatOpt("lease_s", default=60, min=0.1, help="How long a worker may be silent about an intent."),
    cfg.FloatOpt(
        "resend_s", default=15, min=0.1, help="After this a host that was sent an intent must know it."
    ),
    cfg.FloatOpt(
        "retry_s", default=1, min=0, help="First pause before something is tried again; it doubles."
    ),
    cfg.FloatOpt("sweep_interval_s", default=5, min=0.1, help="Seconds between looks for what nobody holds."),
    cfg.FloatOpt("give_up_s", default=600, min=1, help="What waits for a host down for so long is ended."),
    cfg.IntOpt("max_attempts", default=3, min=1, help="Hosts tried for a create; repeats of other intents."),
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [(GROUP, OPTS)]


def make_role(conf: cfg.ConfigOpts) -> ConductorRole:
    """The factory that ``haneul serve conductor`` calls."""
    for module_opts in (list_opts(), hosts.list_opts(), networks.list_opts(), sessions.list_opts()):
        config.register(conf, module_opts)
    return ConductorRole(conf)


class ConductorRole(Role):
    """One conductor of one cell."""

    name = "conductor"

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf
        self.databases = Databases(conf)
        row = next((row for row in self.databases.cell_rows() if row["name"] == conf.conductor.cell), None)
        if row is None:
            raise Unavailable(
                f"there is no cell {conf.conductor.cell!r}: create it with 'haneul cell create'"
            )
        self.cell = self.databases.cell(row["id"])
        self._global_messaging = Messaging(conf)
        url = row["transport_url"]
        self._messaging = Messaging(conf, url) if url else self._global_messaging
        self.journal = Journal(
            self.databases,
            self.cell,
            lease_s=conf.conductor.lease_s,
            max_attempts=conf.conductor.max_attempts,
            retry_s=conf.conductor.retry_s,
        )
        self.hosts = hosts.Hosts(conf, self.databases, self.cell)
        self.agents = AgentClient(self._messaging)
        self._scheduler = SchedulerClient(self._global_messaging)
        self._parts = HostlessParts(conf, self.ring)
        self._unplaced = UnplacedVolumes(conf, self.databases.global_)
        self._sweeper = Sweeper(conf, self)
        self._rung: set[str] = set()
        self._rung_lock = threading.Lock()
        self._dispatcher = Periodic("conductor-dispatch", 3600, self._dispatch_rung, _SPACING_S)
        self._sweep = Periodic("conductor-sweep", conf.conductor.sweep_interval_s, self._sweeper.sweep)
        # a thread of its own: the Volume API may not answer
        self._release = Periodic(
            "conductor-release", conf.conductor.sweep_interval_s, self._unplaced.run, _SPACING_S
        )
        self.networks = networks.Networks(
            conf, self.databases, self.cell, self._messaging, self._global_messaging
        )
        self._server = self._messaging.server(
            CONDUCTOR_TOPIC,
            f"{conf.host}-{self.cell.name}",
            [Endpoint(self), networks.Endpoint(self.networks)],
        )

    def start(self) -> None:
        self.hosts.ensure_service(self._conf.host, "nova-conductor")
        self._dispatcher.start()
        self._sweep.start()
        self._release.start()
        self.networks.start()
        self._server.start()
        self._sweep.ring()

    def stop(self) -> None:
        self._server.stop()
        self._server.wait()
        self.networks.stop()
        self._dispatcher.stop()
        self._sweep.stop()
        self._release.stop(1)
        self._parts.close()
        self._messaging.close()
        self.databases.dispose()

    # -- handing out ---------------------------------------------------------

    def ring(self, intent_ids: Sequence[str]) -> None:
        """Send these intents off, together with whatever else was rung for meanwhile."""
        with self._rung_lock:
            self._rung.update(intent_ids)
        self._dispatcher.ring()

    def _dispatch_rung(self) -> None:
        with self._rung_lock:
            ids, self._rung = self._rung, set()
        if ids:
            self.dispatch(sorted(ids))

    def dispatch(self, ids: Sequence[str] | None = None) -> None:
        """Grant leases for waiting intents and send each to its host; no ids: all that wait."""
        rows = self.journal.waiting(ids)
        if not rows:
            return
        dead = self.hosts.dead(self._conf.service_down_time, {row["target"] for row in rows if row["target"]})
        sendable = []
        for row in rows:
            if row["kind"] == "server.delete" and (row["target"] is None or row["target"] in dead):
                self.delete_without_host(row)
            elif row["target"] is None:
                error = {"step": None, "code": "haneul.no_host", "message": "the server is on no host"}
                self.journal.fail(row, error)
            elif row["target"] not in dead:
                sendable.append(row)
        self.send(self.journal.grant(self.journal.settled(sendable)))

    def delete_without_host(self, row: dict[str, Any]) -> None:
        """Carry out a deletion whose server has no host, or a dead one, once its ports and volumes are let go."""
        if self._parts.gone(row):
            self.journal.delete_without_host(row, cleanup_of(row) if row["target"] else None)

    def missed(self, host: str, held: Mapping[str, int]) -> list[dict[str, Any]]:
        """Intents that ``host`` was sent some time ago and does not hold, granted anew."""
        rows = self.journal.held_by(host, silent_s=self._conf.conductor.resend_s)
        rows = self.journal.settled([row for row in rows if row["id"] not in held])
        return [message_of(row) for row in self.journal.grant(rows)]

    def send(self, rows: Sequence[dict[str, Any]]) -> None:
        """Cast granted intents, one message per host. A cast that fails is the sweeper's."""
        by_host: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            by_host.setdefault(row["target"], []).append(message_of(row))
        for host, messages in by_host.items():
            try:
                self.agents.run(host, messages)
            except oslo_messaging.MessagingException as error:
                LOG.warning("could not reach host %s: %s; its intents are sent again later", host, error)

    def ring_scheduler(self) -> None:
        try:
            self._scheduler.ring()
        except oslo_messaging.MessagingException as error:
            LOG.warning("could not ring the scheduler: %s; it looks by itself", error)


class Endpoint:
    """What the conductor hears; see ``lifecycle.rpc``."""

    target = oslo_messaging.Target(version="1.0")

    def __init__(self, role: ConductorRole) -> None:
        self._role = role

    @oslo_messaging.rpc.expose
    def ring(self, context: RequestContext, intent_ids: list[str]) -> None:
        self._role.ring(intent_ids)

    @oslo_messaging.rpc.expose
    def report(self, context: RequestContext, host: str, reports: list[dict[str, Any]]) -> list[str]:
        verdicts, freed = self._role.journal.report(reports)
        if freed:
            ended = {report["type"] for report in reports}
            # orders to a host stand in line behind one another; of a server's there is one
            if "cancel" in verdicts or any(type_ == "host" for type_, _ in freed):
                self._role.dispatch()
            if ended & {"failed", "retry"}:
                self._role.ring_scheduler()
        return verdicts

    @oslo_messaging.rpc.expose
    def heartbeat(self, context: RequestContext, host: str, beat: dict[str, Any]) -> dict[str, Any]:
        if not self._role.hosts.beat(host):
            return {"unknown": True}
        held = beat.get("held") or {}
        answer: dict[str, Any] = self._role.journal.renew(host, held)
        # what was sent and never came: a host can ask, also when nothing that is sent to it arrives
        return {**answer, "intents": self._role.missed(host, held)}

    @oslo_messaging.rpc.expose
    def hello(self, context: RequestContext, host: str, greeting: dict[str, Any]) -> dict[str, Any]:
        self._role.hosts.hello(host, greeting)
        held = [row for row in self._role.journal.held_by(host) if row["kind"] in greeting["kinds"]]
        granted = self._role.journal.grant(self._role.journal.settled(held))
        waiting = [row for row in self._role.journal.waiting() if row["target"] == host]
        granted += self._role.journal.grant(waiting)
        return {"intents": [message_of(row) for row in granted]}

    @oslo_messaging.rpc.expose
    def power_states(self, context: RequestContext, host: str, states: dict[str, int]) -> None:
        self._role.hosts.power_states(host, states)

    @oslo_messaging.rpc.expose
    def network_info(
        self, context: RequestContext, host: str, known: dict[str, list[dict[str, Any]]], gone: list[str]
    ) -> dict[str, Any]:
        return network_info.write(self._role.cell, host, known, gone)
