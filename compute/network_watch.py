"""What is known of the ports of a host's servers, kept current.

Events say which server's ports have changed (``external_events``); from time to time all
of the host's are looked at, for what was not heard.  What differs from the last time goes
to the conductor, which holds the rows.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from oslo_config import cfg

from compute.nics import Nic, nic_of
from compute.ports import Ports
from core.errors import HaneulError, NotFound
from core.pools import Periodic
from lifecycle.rpc import ConductorClient

LOG = logging.getLogger(__name__)
OPTS: list[cfg.Opt] = [
    cfg.IntOpt(
        "heal_instance_info_cache_interval",
        default=300,
        min=-1,
        help="Seconds between looks at all ports of a host's servers; 0 or less: only events count.",
    ),
]
_SPACING_S = 0.05
_AT_A_TIME = 40
"""Servers, and ports, in one query: it is a URL"""
_NEVER_S = 86_400.0


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [("DEFAULT", OPTS)]


class NetworkWatch:
    """One per agent. ``pull_out(server, MAC)`` is called when a NIC's port was deleted."""

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        host: str,
        ports: Ports,
        conductor: ConductorClient,
        pull_out: Callable[[str, str], None],
    ) -> None:
        self._host = host
        self._ports = ports
        self._conductor = conductor
        self._pull_out = pull_out
        self._lock = threading.Lock()
        self._rung: set[str] = set()
        self._gone: set[str] = set()
        self._told: dict[str, list[Nic]] = {}
        interval = conf.heal_instance_info_cache_interval
        self._heals = interval > 0
        self._ringer = Periodic(f"network-watch-{host}", _NEVER_S, self._look, _SPACING_S)
        self._healer = Periodic(f"network-heal-{host}", float(max(interval, 1)), self.heal)

    def start(self) -> None:
        self._ringer.start()
        if self._heals and self._ports.client.configured:
            self._healer.start()

    def stop(self) -> None:
        # either may wait for a conductor or a network service: nothing is lost by leaving it there
        self._ringer.stop(1)
        self._healer.stop(1)

    def hear(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Events of the Network API; ``tag`` is the port."""
        with self._lock:
            for event in events:
                self._rung.add(event["server_uuid"])
                if event["name"] == "network-vif-deleted" and event.get("tag"):
                    self._gone.add(event["tag"])
        self._ringer.ring()

    def _look(self) -> None:
        with self._lock:
            servers, self._rung = self._rung, set()
            gone, self._gone = self._gone, set()
        try:
            for some in _portions(sorted(servers)):
                ports = self._ports.client.get("/ports", device_id=some)["ports"]
                self._tell({server_id: [] for server_id in some}, ports, gone, fresh=True)
        except HaneulError as error:
            LOG.warning("what changed of servers' ports can't be looked at: %s", error)
            with self._lock:
                self._rung |= servers
                self._gone |= gone

    def heal(self) -> None:
        """Look at all ports bound to this host."""
        ports = self._ports.client.get("/ports", **{"binding:host_id": self._host})["ports"]
        by_server: dict[str, list[dict[str, Any]]] = {}
        for port in ports:
            if str(port.get("device_owner", "")).startswith("compute:"):
                by_server.setdefault(port["device_id"], []).append(port)
        for some in _portions(sorted(by_server)):
            self._tell({id_: [] for id_ in some}, [p for id_ in some for p in by_server[id_]], set())

    def _tell(
        self,
        known: dict[str, list[Nic]],
        ports: Sequence[dict[str, Any]],
        gone: Collection[str],
        *,
        fresh: bool = False,
    ) -> None:
        """Bring the conductor's rows of the servers in ``known`` up to date. ``fresh``: names, too."""
        mine = [port for port in ports if port.get("binding:host_id") == self._host]
        facts = self._ports.facts.facts(mine, fresh=fresh)
        for port in mine:
            known[port["device_id"]].append(nic_of(port, facts))
        changed = {id_: nics for id_, nics in known.items() if fresh or self._told.get(id_) != nics}
        if not changed:
            return
        answer = self._conductor.network_info(self._host, changed, sorted(gone))
        if absent := self._deleted(answer["missing"]):
            more = self._conductor.network_info(self._host, changed, absent)
            answer["removed"] += more["removed"]
        self._told.update(changed)
        for server_id, mac_address in answer["removed"]:
            self._pull_out(server_id, mac_address)

    def _deleted(self, port_ids: Sequence[str]) -> list[str]:
        """Which of these do not exist: an event was lost (or the port is another host's by now)."""
        deleted = []
        for port_id in port_ids:
            try:
                self._ports.client.get(f"/ports/{port_id}", fields=["id"])
            except NotFound:
                deleted.append(port_id)
        return deleted


def _portions(items: Sequence[str]) -> Iterable[Sequence[str]]:
    for first in range(0, len(items), _AT_A_TIME):
        yield items[first : first + _AT_A_TIME]
