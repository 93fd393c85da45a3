"""The agent of one hypervisor host: takes whole intents, runs their steps, reports.

It knows no table and holds no credentials of a database: what it needs is in
the intents that the conductor sends, and what it learns goes back in reports,
heartbeats and greetings (``lifecycle.rpc``).  Several agents may share one
process and one reporter (simulated hosts); a real host has one.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import threading
from typing import Any

import oslo_messaging
from oslo_config import cfg

from compute import attachments, network_watch, ports
from compute.actions.servers import ACTIONS
from compute.drivers.base import ComputeDriver, PowerState
from compute.images import Images
from compute.reports import Reporter, ReportingJournal
from core.context import RequestContext
from core.errors import HaneulError
from core.messaging import Messaging
from core.pools import Periodic, Pool
from lifecycle.engine import Engine
from lifecycle.rpc import AGENT_TOPIC, ConductorClient
from lifecycle.steps import Fenced, Run

LOG = logging.getLogger(__name__)
RELEASE = "0.1"
Error = dict[str, Any] | None

GROUP = "compute"
OPTS = [
    cfg.StrOpt(
        "driver", default="libvirt", help="Hypervisor driver: an entry point of haneul.compute.drivers."
    ),
    cfg.IntOpt("max_concurrent_intents", default=10, min=1, help="Intents that one host works on at a time."),
    cfg.FloatOpt("heartbeat_interval_s", default=10, min=0.1, help="Seconds between heartbeats."),
    cfg.FloatOpt("power_sync_interval_s", default=60, min=1, help="Seconds between looks at all guests."),
    cfg.FloatOpt("shutdown_timeout_s", default=60, min=0, help="How long a guest may take to shut down."),
    cfg.ListOpt("simulated_hosts", default=[], help="With driver=simulated: names of the hosts to play."),
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [(GROUP, OPTS), *ports.list_opts(), *attachments.list_opts(), *network_watch.list_opts()]


class Worker:
    """What the steps see of the agent."""

    def __init__(self, conf: cfg.ConfigOpts, host: str, driver: ComputeDriver) -> None:
        self.host = host
        self.driver = driver
        self.ports = ports.Ports(conf, host)
        self.attachments = attachments.Attachments(conf, host, driver)
        self.shutdown_timeout_s = conf.compute.shutdown_timeout_s
        self.memory_mib = 0
        self.images = Images(conf)


class Agent:
    """One host: an RPC server, a pool of workers, a heartbeat."""

    target = oslo_messaging.Target(version="1.0")

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        host: str,
        driver: ComputeDriver,
        messaging: Messaging,
        reporter: Reporter,
        engine: Engine | None = None,
    ) -> None:
        self.host = host
        self.driver = driver
        self.worker = Worker(conf, host, driver)
        self._conductor = ConductorClient(messaging)
        self._journal = ReportingJournal(reporter, host)
        self._engine = engine or Engine()
        self._pool = Pool(f"intents-{host}", conf.compute.max_concurrent_intents)
        self._running: dict[str, Run] = {}
        self._queues: dict[str, collections.deque[tuple[Run, Error]]] = {}
        """per resource: what waits for the intent that works on it; the key is there while one does"""
        self._stopping = False
        self._lock = threading.Lock()
        self._server = messaging.server(AGENT_TOPIC, host, [Endpoint(self)])
        self._beat = Periodic(f"heartbeat-{host}", conf.compute.heartbeat_interval_s, self.heartbeat)
        self._sync = Periodic(f"power-sync-{host}", conf.compute.power_sync_interval_s, self.sync_power)
        self.watch = network_watch.NetworkWatch(
            conf, host, self.worker.ports, self._conductor, self._pull_out
        )
        self._greeted = False

    def start(self) -> None:
        """Probe the hypervisor, hear, greet the conductor, take up what was held."""
        self.driver.start()
        self.worker.memory_mib = self.driver.inventory().memory_mib
        self._server.start()
        self.driver.listen(self._power_changed)
        self._beat.start()
        self._sync.start()
        self.watch.start()
        self._beat.ring()

    def stop(self) -> None:
        """Take nothing more; what runs stops at its next step boundary and is taken up at the next start."""
        with self._lock:
            self._stopping = True
            for run in self._running.values():
                run.fenced.set()
        # a heartbeat may wait for a conductor that has gone already: nothing is lost by leaving it there
        self._beat.stop(1)
        self._sync.stop(1)
        self.watch.stop()
        self._server.stop()
        self._pool.shutdown(wait=False)
        self._server.wait()
        self.driver.close()

    # -- intents -------------------------------------------------------------

    def take(self, message: dict[str, Any]) -> None:
        """Begin an intent, unless this or a newer attempt of it runs here already.

        One at a time per resource. The journal sends a second one only when the first
        is over or taken away, so the first stops and the second begins after it: an old
        attempt can't make anything behind the back of the deletion that followed it.
        """
        intent_id, attempt = message["id"], message["attempt"]
        run = Run(
            intent_id=intent_id,
            kind=message["kind"],
            attempt=attempt,
            resource_id=message["resource_id"],
            arguments=message["arguments"],
            results=dict(message.get("results") or {}),
            worker=self.worker,
            context=message.get("context") or {},
        )
        if message.get("cancel"):
            run.cancelled.set()
        with self._lock:
            if self._stopping:
                return
            held = self._running.get(intent_id)
            if held is not None:
                if run.cancelled.is_set():
                    held.cancelled.set()
                # The same intent again: its lease was renewed by the sweeper, or the
                # message came twice. One thread per intent; it reports the newest attempt.
                held.attempt = max(held.attempt, attempt)
                return
            self._running[intent_id] = run
            if run.resource_id in self._queues:
                for other in self._running.values():
                    if other.resource_id == run.resource_id and other is not run:
                        other.fenced.set()
                self._queues[run.resource_id].append((run, message.get("error")))
                return
            self._queues[run.resource_id] = collections.deque()
        self._pool.spawn(self._execute, run, message.get("error"))

    def _execute(self, run: Run, error: Error) -> None:
        ending = ""
        try:
            if run.kind not in ACTIONS:
                self._refuse(run)
            else:
                ending = self._engine.execute(ACTIONS[run.kind], run, self._journal, error)
        finally:
            with self._lock:
                self._running.pop(run.intent_id, None)
                queue = self._queues[run.resource_id]
                following = queue.popleft() if queue and not self._stopping else None
                if following is None:
                    del self._queues[run.resource_id]
            if following is not None:
                self._pool.spawn(self._execute, *following)
        if ending == "failed" and run.kind.startswith("server."):
            # half a start or stop may have had its effect: the hypervisor's word counts
            self._power_changed(run.resource_id, self.driver.power_state(run.resource_id))

    def _refuse(self, run: Run) -> None:
        """The control plane may be newer than this agent."""
        error = {
            "step": None,
            "code": "haneul.unsupported",
            "message": f"host {self.host} runs a release that can't do {run.kind}",
        }
        with contextlib.suppress(Fenced):
            self._journal.end(run, "failed", [], error=error)

    def cancel(self, intent_ids: list[str]) -> None:
        with self._lock:
            runs = [self._running[id_] for id_ in intent_ids if id_ in self._running]
        for run in runs:
            run.cancelled.set()

    # -- heartbeats ----------------------------------------------------------

    def heartbeat(self) -> None:
        """Say that the host lives and what it works on; hear what was taken away."""
        if not self._greeted and not self._greet():
            return
        with self._lock:
            runs = list(self._running.values())
            held = {run.intent_id: run.attempt for run in runs}
        answer = self._conductor.heartbeat(self.host, {"held": held})
        if answer.get("unknown"):
            self._greeted = False
            self._beat.ring()
        for message in answer.get("intents", ()):
            self.take(message)
        self.cancel(answer.get("cancelled", []))
        refused = set(answer.get("refused", []))
        for run in runs:
            if run.intent_id in refused and run.attempt == held[run.intent_id]:
                run.fenced.set()

    def _greet(self) -> bool:
        """False: no answer; it is tried again at once, as a host that is not known gets no servers."""
        inventory = self.driver.inventory()
        self.worker.memory_mib = inventory.memory_mib
        greeting = {"release": RELEASE, "inventory": inventory.to_dict(), "kinds": ACTIONS.kinds()}
        try:
            answer = self._conductor.hello(self.host, greeting)
        except oslo_messaging.MessagingTimeout:
            LOG.warning("host %s: no conductor answers its greeting", self.host)
            self._beat.ring()
            return False
        self._greeted = True
        for message in answer["intents"]:
            self.take(message)
        return True

    def sync_power(self) -> None:
        """Tell the conductor the power state of every guest of ours, and of strangers the number."""
        states: dict[str, int] = {}
        strangers: list[str] = []
        for guest in self.driver.guests():
            if guest.server_id is None:
                strangers.append(guest.name)
            else:
                states[guest.server_id] = int(guest.power_state)
        if strangers:
            LOG.info("guests that are not haneul's, left alone: %s", ", ".join(sorted(strangers)))
        self._conductor.power_states(self.host, states)

    def _pull_out(self, server_id: str, mac_address: str) -> None:
        """A port was deleted behind the server's back: the guest must not keep a dead interface."""
        try:
            self.driver.detach_nic(server_id, mac_address)
        except HaneulError as error:
            LOG.warning("interface %s of server %s can't be pulled out: %s", mac_address, server_id, error)

    def _power_changed(self, server_id: str, state: PowerState) -> None:
        with self._lock:
            busy = any(run.resource_id == server_id for run in self._running.values())
        if not busy:
            self._conductor.power_states(self.host, {server_id: int(state)})


class Endpoint:
    """What the agent hears; see ``lifecycle.rpc``."""

    target = oslo_messaging.Target(version="1.0")

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    @oslo_messaging.rpc.expose
    def run(self, context: RequestContext, intents: list[dict[str, Any]]) -> None:
        for message in intents:
            self._agent.take(message)

    @oslo_messaging.rpc.expose
    def cancel(self, context: RequestContext, intent_ids: list[str]) -> None:
        self._agent.cancel(intent_ids)

    @oslo_messaging.rpc.expose
    def external_events(self, context: RequestContext, events: list[dict[str, Any]]) -> None:
        self._agent.worker.ports.plugging.hear(events)
        self._agent.watch.hear(event for event in events if event["name"] != "network-vif-plugged")

    @oslo_messaging.rpc.expose
    def console_output(self, context: RequestContext, server_id: str, max_bytes: int) -> str:
        return self._agent.driver.console_output(server_id, max_bytes)

    @oslo_messaging.rpc.expose
    def diagnostics(self, context: RequestContext, server_id: str) -> dict[str, Any]:
        return self._agent.driver.diagnostics(server_id)

    @oslo_messaging.rpc.expose
    def vnc(self, context: RequestContext, server_id: str) -> dict[str, Any]:
        return self._agent.driver.vnc(server_id)
