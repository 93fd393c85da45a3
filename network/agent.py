"""The network agent of one host: keeps the desired state, has the driver make the host look like it.

It asks the cell's conductor for everything when it starts and every
``resync_interval_s``, and for what a doorbell names in between: rings that come close
together share one question and one ``apply``. What the state refers to and does not hold (the network
of a first port, the groups that its rules name) is asked for next; what nothing
refers to any more is dropped. What fails is tried again, less and less often.

It knows no table and holds no credentials: a lost message costs time, never correctness.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import oslo_messaging
from oslo_config import cfg

from core.context import RequestContext
from core.errors import HaneulError
from core.messaging import Messaging
from core.pools import Periodic
from lifecycle.host_network import KINDS, Changed, HostNetwork, legs_of
from lifecycle.network_rpc import NETWORK_AGENT_TOPIC, NetworkConductorClient
from network.drivers.base import Applied, NetworkDriver
from network.reports import Reporter

LOG = logging.getLogger(__name__)
_SPACING_S = 0.02
_ROUNDS = 4
"""Questions for what the answers before referred to: port → group → members of another is the longest way."""
_RETRY_S, _RETRY_MOST_S = 1.0, 60.0
_MOST_IDS = 1000
"""Of more changed things everything is asked for, which is one question."""

GROUP = "network_agent"
OPTS = [
    cfg.StrOpt(
        "driver", default="linux", help="Data plane of this host: an entry point of haneul.network.drivers."
    ),
    cfg.FloatOpt(
        "resync_interval_s", default=60, min=1, help="Seconds between looks at everything, rung for or not."
    ),
    cfg.FloatOpt("report_interval_s", default=30, min=0.1, help="Seconds between reports of being alive."),
    cfg.StrOpt("availability_zone", default="", help="Zone that this host's agent names; empty: none."),
    cfg.ListOpt("simulated_hosts", default=[], help="With driver=simulated: names of the hosts to play."),
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [(GROUP, OPTS)]


class Agent:
    """One host."""

    def __init__(
        self, conf: cfg.ConfigOpts, host: str, driver: NetworkDriver, messaging: Messaging, reporter: Reporter
    ) -> None:
        self.host = host
        self.driver = driver
        self.state = HostNetwork()
        self._options = conf[GROUP]
        self._conductor = NetworkConductorClient(messaging)
        self._reporter = reporter
        self._lock = threading.Lock()
        self._pending = Changed()
        self._failed = Changed()
        self._failures = 0
        self._last_errors: list[str] = []
        self._resync_at = 0.0
        self._work = Periodic(f"network-{host}", self._options.resync_interval_s, self.work, _SPACING_S)
        self._server = messaging.server(NETWORK_AGENT_TOPIC, host, [Endpoint(self)])

    def start(self) -> None:
        """:raises DriverError: the host lacks something, in one line."""
        self.driver.start()
        self._server.start()
        self._reporter.add(self)
        self._work.start()
        self._work.ring()

    def stop(self) -> None:
        self._reporter.remove(self)
        self._server.stop()
        self._work.stop(5)
        self._server.wait()
        self.driver.close()

    # -- what others say ----------------------------------------------------------

    def ring(self, changed: Changed) -> None:
        with self._lock:
            self._pending.add(changed)
        self._work.ring()

    def trace(self, port_id: str) -> list[dict[str, Any]]:
        """:raises NotFound: the port is not here."""
        with self._lock:
            state = HostNetwork(**{kind: dict(getattr(self.state, kind)) for kind in KINDS})
        return self.driver.trace(state, port_id)

    # -- one round -------------------------------------------------------------------

    def work(self) -> None:
        """Ask for what may have changed, apply it, report what became of it."""
        now = time.monotonic()
        with self._lock:
            asked, self._pending = self._pending, Changed()
        if now >= self._resync_at or len(asked) > _MOST_IDS:
            asked.everything = True
        if not asked:
            return
        try:
            changed = self._learn(asked)
        except oslo_messaging.MessagingException as error:
            LOG.warning("host %s: no conductor answers (%s); asked again soon", self.host, error)
            self._again(asked)
            return
        if asked.everything:
            # a little early, so that the regular call of the thread is the one that finds it due
            self._resync_at = now + self._options.resync_interval_s * 0.9
        self._apply(changed)

    def _apply(self, changed: Changed) -> None:
        try:
            applied = self.driver.apply(self.state, changed)
        except HaneulError as error:
            LOG.error("host %s: nothing could be applied: %s (%s)", self.host, error.message, error.cause)
            self._again(changed)
            return
        except Exception:  # an unforeseen fault of a driver: as any other, it is tried again
            self._again(changed)
            raise
        failed = self._failed_of(applied)
        if applied.errors and applied.errors != self._last_errors:
            for line in applied.errors:
                LOG.warning("host %s: %s", self.host, line)
        self._last_errors = applied.errors
        if failed:
            self._again(failed)
        elif not self._failed:
            self._failures = 0
        self._reporter.add_statuses(self, applied)

    def _failed_of(self, applied: Applied) -> Changed:
        failed = Changed(
            ports={id_ for id_, status in applied.ports.items() if status == "ERROR"},
            routers={id_ for id_, status in applied.routers.items() if status == "ERROR"},
        )
        failed.everything = applied.incomplete
        lost = {id_ for id_, status in applied.floating_ips.items() if status == "ERROR"}
        for router in self.state.routers.values():
            if lost.intersection(each.id for each in router.floating_ips):
                failed.routers.add(router.id)
        if applied.errors and not failed:
            failed.everything = True  # something that no port or router stands for
        return failed

    def _again(self, changed: Changed) -> None:
        """Try these again, later each time until all went well once."""
        with self._lock:
            self._failed.add(changed)
        pause = min(_RETRY_S * 2**self._failures, _RETRY_MOST_S)
        self._failures += 1
        self._reporter.wake(self, pause)

    def retry(self) -> None:
        """The pause is over: what failed is looked at again."""
        with self._lock:
            self._pending.add(self._failed)
            self._failed = Changed()
        self._work.ring()

    # -- learning ------------------------------------------------------------------------

    def _learn(self, asked: Changed) -> Changed:
        """Bring the state up to date; what the driver has to look at."""
        changed = Changed()
        changed.add(asked)
        question = asked
        for _ in range(_ROUNDS):
            part = self._conductor.state(self.host, question)
            self._note_differences(part, changed)
            with self._lock:
                touched = Changed(addresses=self.state.merge(part, question))
            changed.add(touched)
            asked.add(touched)  # if the next question fails, this one's answer is not told again
            question = self._missing()
            if not question:
                break
            changed.add(question)
        else:
            self._leave_out(question, changed)
        self._forget(changed)
        return changed

    def _leave_out(self, missing: Changed, changed: Changed) -> None:
        """Something was deleted while we asked: who refers to it waits until a later question has sorted it out."""
        waiting = Changed(
            ports={
                port.id
                for port in self.state.ports.values()
                if port.network_id in missing.networks or missing.groups.intersection(port.security_group_ids)
            },
            routers={
                router.id
                for router in self.state.routers.values()
                if any(leg.network_id in missing.networks for leg in legs_of(router))
            },
        )
        with self._lock:
            for kind in ("ports", "routers"):
                for id_ in getattr(waiting, kind):
                    del getattr(self.state, kind)[id_]
                getattr(changed, kind).difference_update(getattr(waiting, kind))
        self._again(waiting)

    def _note_differences(self, part: HostNetwork, changed: Changed) -> None:
        for kind in KINDS:
            mine = getattr(self.state, kind)
            getattr(changed, kind).update(
                id_ for id_, new in getattr(part, kind).items() if mine.get(id_) != new
            )

    def _used(self) -> tuple[set[str], set[str], set[str]]:
        """(networks, groups of ports here, groups that their rules name)"""
        networks = {port.network_id for port in self.state.ports.values()}
        networks.update(each.id for each in self.state.networks.values() if each.placed)
        for router in self.state.routers.values():
            networks.update(leg.network_id for leg in legs_of(router))
        groups = {each for port in self.state.ports.values() for each in port.security_group_ids}
        named = {
            rule.remote_group_id
            for each in groups
            if each in self.state.groups
            for rule in self.state.groups[each].rules
            if rule.remote_group_id
        }
        return networks, groups, named

    def _missing(self) -> Changed:
        networks, groups, named = self._used()
        return Changed(
            networks=networks - self.state.networks.keys(),
            groups=groups - self.state.groups.keys(),
            named=named - self.state.members.keys(),
        )

    def _forget(self, changed: Changed) -> None:
        """Drop what nothing here refers to any more."""
        networks, groups, named = self._used()
        with self._lock:
            for kind, used, told in (
                ("networks", networks, changed.networks),
                ("groups", groups, changed.groups),
                ("members", named, changed.named),
            ):
                mine = getattr(self.state, kind)
                for id_ in set(mine) - used:
                    del mine[id_]
                    told.add(id_)


class Endpoint:
    """What the agent hears; see ``lifecycle.network_rpc``."""

    target = oslo_messaging.Target(version="1.0")

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    @oslo_messaging.rpc.expose
    def changed(self, context: RequestContext, changed: dict[str, Any]) -> None:
        self._agent.ring(Changed.from_dict(changed))

    @oslo_messaging.rpc.expose
    @oslo_messaging.expected_exceptions(HaneulError)
    def trace(self, context: RequestContext, port_id: str) -> list[dict[str, Any]]:
        return self._agent.trace(port_id)
