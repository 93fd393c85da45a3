"""Networks, as a cell's conductor serves them to the agents of its hosts.

* What an agent asks (``network_state``) is read from the Network API's tables.
* What it reports (``network_report``) is written there, where it is still true; of server ports
  that turned, Compute is told.
* What the Network API, or another conductor, has changed (``network_changed``) is
  turned into rings for the hosts of this cell that it concerns; changes that come close together share them.
* What upstream's schedulers do is done here, when a change asks for it and now and then: routers get a
  host, networks with DHCP get the port of their DHCP server, and a host that serves them before a guest has come.

Several conductors may do all this at the same time: every write is conditional.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import oslo_messaging
from oslo_config import cfg
from oslo_db import exception as db_exc

from conductor import host_networks
from conductor.compute_events import PLUGGED, UNPLUGGED, ComputeEvents, Event
from core.context import RequestContext
from core.errors import HaneulError
from core.messaging import Messaging
from core.network_changes import NetworkChanges
from core.pools import Periodic
from db import dhcp_placement, dhcp_ports, network_agents, network_changes, network_concerns, network_reports
from db import router_placement as placement
from db.sessions import Database, Databases, retrying
from lifecycle.host_network import Changed
from lifecycle.network_rpc import NETWORK_CHANGES_TOPIC, NetworkAgentClient, NetworkChangesClient

LOG = logging.getLogger(__name__)
_SPACING_S = 0.02
_KINDS = (
    # (agent type, binary, topic, which configuration says that the host has it)
    (network_agents.L2_AGENT, "neutron-linuxbridge-agent", "N/A", None),
    (network_agents.DHCP_AGENT, "neutron-dhcp-agent", "dhcp_agent", None),
    (network_agents.L3_AGENT, "neutron-l3-agent", "l3_agent", "l3"),
)

GROUP = "conductor_networks"
OPTS: list[cfg.Opt] = [
    cfg.FloatOpt(
        "interval_s",
        default=20,
        min=0.1,
        help="Seconds between looks for routers that need another host, and networks without DHCP port.",
    ),
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [(GROUP, OPTS)]


class Networks:
    """The networks of one cell's hosts."""

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        databases: Databases,
        cell: Database,
        messaging: Messaging,
        global_messaging: Messaging,
        events: ComputeEvents | None = None,
    ) -> None:
        conf.register_opts(OPTS, group=GROUP)
        conf.register_opts(network_agents.OPTS, group=network_agents.GROUP)
        self._options = conf[network_agents.GROUP]
        self._interval_s = conf[GROUP].interval_s
        self._database = databases.global_
        self._cell_id = cell.cell_id
        self._agents = NetworkAgentClient(messaging)
        self._conductors = NetworkChangesClient(global_messaging)
        self.events = events or ComputeEvents(conf)
        self._known = network_concerns.Known()
        self._pending = NetworkChanges()
        self._lock = threading.Lock()
        self._housekeeping_at = 0.0
        self._work = Periodic("conductor-networks", self._interval_s, self.work, _SPACING_S)
        self._server = global_messaging.server(
            NETWORK_CHANGES_TOPIC, f"{conf.host}-{cell.name}", [ChangesEndpoint(self)]
        )

    def start(self) -> None:
        self.events.start()
        self._work.start()
        self._server.start()

    def stop(self) -> None:
        self._server.stop()
        self._server.wait()
        self._work.stop()
        self.events.stop()

    # -- agents ask and report -------------------------------------------------------

    def state(self, host: str, changed: Changed) -> dict[str, Any]:
        """The desired state of a host, as far as it asks."""
        with self._database.read() as connection:
            return host_networks.state(connection, host, changed).to_dict()

    def report(self, host: str, report: Mapping[str, Any]) -> None:
        """Write what an agent says; tell Compute which of its servers' ports turned."""
        if "configurations" in report:
            self._seen(host, report)
        turned = self._write_statuses(host, report)
        self.events.send(
            Event(PLUGGED if port.status == "ACTIVE" else UNPLUGGED, port.device_id, port.id)
            for port in turned
            if port.device_owner.startswith("compute:") and port.device_id
        )
        if report.get("started"):
            # routers may have waited for it
            self._housekeeping_at = 0.0
            self._work.ring()

    @retrying
    def _seen(self, host: str, report: Mapping[str, Any]) -> None:
        configurations = report["configurations"]
        with self._database.write() as connection:
            for agent_type, binary, topic, needs in _KINDS:
                if needs is not None and not configurations.get(needs):
                    continue
                values = {
                    "agent_type": agent_type,
                    "binary": binary,
                    "host": host,
                    "topic": topic,
                    "availability_zone": report.get("availability_zone"),
                    "configurations": configurations,
                    "cell_id": self._cell_id,
                }
                if report.get("started"):
                    values["started_at"] = network_agents.now()
                network_agents.report(connection, values)

    @retrying
    def _write_statuses(self, host: str, report: Mapping[str, Any]) -> list[network_reports.Turned]:
        if not any(report.get(kind) for kind in ("ports", "routers", "floating_ips")):
            return []
        with self._database.write() as connection:
            turned = network_reports.set_ports(connection, host, report.get("ports") or {})
            network_reports.set_routers(connection, host, report.get("routers") or {})
            network_reports.set_floating_ips(connection, host, report.get("floating_ips") or {})
        return turned

    # -- changes -----------------------------------------------------------------------

    def changed(self, changes: NetworkChanges) -> None:
        with self._lock:
            self._pending.add(changes)
        self._work.ring()

    def work(self) -> None:
        """Ring the hosts that changes concern; now and then, look for what nobody rang for."""
        with self._lock:
            changes, self._pending = self._pending, NetworkChanges()
        if changes:
            self._ring(changes)
            self._settle(changes.routers, changes.networks | self._networks_of(changes))
        if time.monotonic() >= self._housekeeping_at:
            self._housekeeping_at = time.monotonic() + self._interval_s * 0.9
            self._settle(None, None)

    def _ring(self, changes: NetworkChanges) -> None:
        with self._database.read() as connection:
            concerned = network_concerns.concerns(connection, changes, self._known)
            mine = network_agents.hosts_of_cell(
                connection, self._cell_id, concerned, self._options.agent_down_time
            )
        for host in sorted(mine):
            try:
                self._agents.changed(host, concerned[host])
            except oslo_messaging.MessagingException as error:
                LOG.warning("could not ring host %s: %s; it looks by itself", host, error)

    def _networks_of(self, changes: NetworkChanges) -> set[str]:
        if not changes.subnets and not changes.created:
            return set()
        with self._database.read() as connection:
            found = network_concerns.networks_of(connection, changes.subnets)
            return found | network_concerns.networks_of_unbound(connection, changes.created)

    # -- what schedulers do ----------------------------------------------------------------

    def _settle(self, routers: Collection[str] | None, networks: Collection[str] | None) -> None:
        """Place routers and make DHCP ports (None: all that need it); others are told what was done."""
        if routers is None or routers:
            self._noting(lambda: self._place(routers))
        if networks is None or networks:
            with self._database.read() as connection:
                serving = network_agents.living(
                    connection, network_agents.DHCP_AGENT, self._options.agent_down_time
                )
                unsettled = dhcp_ports.unsettled(connection, networks) if serving else set()
            for network_id in sorted(unsettled):
                self._noting(lambda network_id=network_id: self._settle_dhcp(network_id))  # type: ignore[misc]
            self._noting(lambda: self._serve(networks))

    def _noting(self, change: Callable[[], Any]) -> None:
        """Run a change; all conductors hear what it has changed."""
        with network_changes.collecting() as changes:
            change()
        if changes:
            self._conductors.changed(changes)

    def _place(self, routers: Collection[str] | None) -> None:
        placed = self._place_once(routers)
        for router_id, host in placed.items():
            LOG.info("router %s is on host %s now", router_id, host)

    @retrying
    def _place_once(self, routers: Collection[str] | None) -> dict[str, str]:
        with self._database.write() as connection:
            return placement.place(connection, self._options.agent_down_time, routers)

    @retrying
    def _serve(self, networks: Collection[str] | None) -> None:
        """Networks with ports, but on no host, get one that serves them DHCP."""
        with self._database.read() as connection:
            alive = network_agents.living(
                connection, network_agents.DHCP_AGENT, self._options.agent_down_time
            )
            hosts = [agent["host"] for agent in alive]
            if not hosts or not dhcp_placement.unserved(connection, hosts, networks):
                return
        with self._database.write() as connection:
            dhcp_placement.place(connection, self._options.agent_down_time, networks)

    def _settle_dhcp(self, network_id: str) -> None:
        try:
            self._settle_dhcp_once(network_id)
        except (HaneulError, db_exc.DBError) as error:
            LOG.warning("the DHCP port of network %s can't be set up: %s", network_id, error)

    @retrying
    def _settle_dhcp_once(self, network_id: str) -> None:
        with self._database.write() as connection:
            dhcp_ports.settle(connection, network_id, self._options.base_mac)


class Endpoint:
    """What agents say on the conductor's topic; see ``lifecycle.network_rpc``."""

    target = oslo_messaging.Target(version="1.0")

    def __init__(self, networks: Networks) -> None:
        self._networks = networks

    @oslo_messaging.rpc.expose
    def network_state(self, context: RequestContext, host: str, changed: dict[str, Any]) -> dict[str, Any]:
        return self._networks.state(host, Changed.from_dict(changed))

    @oslo_messaging.rpc.expose
    def network_report(self, context: RequestContext, host: str, report: dict[str, Any]) -> dict[str, Any]:
        self._networks.report(host, report)
        return {}


class ChangesEndpoint:
    """What all conductors hear."""

    target = oslo_messaging.Target(version="1.0")

    def __init__(self, networks: Networks) -> None:
        self._networks = networks

    @oslo_messaging.rpc.expose
    def network_changed(self, context: RequestContext, changes: dict[str, Any]) -> None:
        self._networks.changed(NetworkChanges.from_dict(changes))
