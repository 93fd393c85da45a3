"""A data plane that only remembers: for load tests, and for development without root.

It answers as a real host would when all goes well. ``[simulated_network] delay`` makes
each ``apply`` take time, ``failures`` makes it fail: ``ports:0.1`` (each port with that
probability) or ``ports#3`` (the third port of this process), likewise for ``routers``.
"""

from __future__ import annotations

import ipaddress
import random
import threading
import time
from typing import Any

from oslo_config import cfg

from core.errors import BadRequest
from lifecycle.host_network import Changed, HostNetwork
from network.drivers.base import Applied, NetworkDriver

GROUP = "simulated_network"
OPTS = [
    cfg.FloatOpt("delay", default=0.0, min=0, help="Seconds that it takes to apply changes."),
    cfg.ListOpt(
        "failures",
        default=[],
        help="What fails: KIND:PROBABILITY or KIND#NTH, where KIND is ports or routers.",
    ),
    cfg.ListOpt(
        "physical_networks", default=["public"], help="Physical networks that every simulated host reaches."
    ),
    cfg.BoolOpt("l3", default=True, help="Simulated hosts hold routers."),
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [(GROUP, OPTS)]


class _Failures:
    """:raises BadRequest: a rule that says nothing."""

    def __init__(self, rules: list[str]) -> None:
        self._chances: dict[str, float] = {}
        self._nths: dict[str, set[int]] = {}
        self._counts: dict[str, int] = {}
        for rule in rules:
            kind, separator, text = rule.partition("#" if "#" in rule else ":")
            try:
                if separator == "#":
                    self._nths.setdefault(kind, set()).add(int(text))
                else:
                    self._chances[kind] = float(text)
            except ValueError:
                raise BadRequest(f"[simulated_network] failures: {rule!r} is no rule") from None

    def now(self, kind: str) -> bool:
        """Does this one fail?"""
        self._counts[kind] = count = self._counts.get(kind, 0) + 1
        return count in self._nths.get(kind, ()) or random.random() < self._chances.get(kind, 0)


class SimulatedDriver(NetworkDriver):
    """Keeps ports and routers in dictionaries."""

    def __init__(self, conf: cfg.ConfigOpts, host: str) -> None:
        conf.register_opts(OPTS, group=GROUP)
        self._options = conf[GROUP]
        self.host = host
        self.physical_networks = list(self._options.physical_networks)
        self._failures = _Failures(self._options.failures)
        self._lock = threading.Lock()
        self.ports: dict[str, dict[str, Any]] = {}
        """what is plugged: port id → {"network_id", "peers", "rules": number of rules}"""
        self.routers: set[str] = set()
        self.applied = 0
        """things that ``apply`` was told to look at, for tests and benchmarks"""

    def start(self) -> None:
        """Nothing is needed."""

    def close(self) -> None:
        """Nothing is held."""

    def configurations(self) -> dict[str, Any]:
        # an address of its own for each host, so that peers are told apart
        number = int.from_bytes(self.host.encode()[-3:])
        return {
            "interface_mappings": {name: f"sim-{name}" for name in self.physical_networks},
            "bridge_mappings": {},
            "tunnel_types": ["vxlan"],
            "tunneling_ip": str(ipaddress.ip_address("10.0.0.0") + number % 2**24),
            "l3": self._options.l3,
            "devices": len(self.ports),
        }

    def apply(self, state: HostNetwork, changed: Changed) -> Applied:
        if self._options.delay:
            time.sleep(self._options.delay)
        done = Applied()
        with self._lock:
            self._apply_ports(state, set(state.ports) if changed.everything else changed.ports, done)
            self._apply_routers(state, set(state.routers) if changed.everything else changed.routers, done)
            if changed.everything:
                self.ports = {id_: held for id_, held in self.ports.items() if id_ in state.ports}
                self.routers &= set(state.routers)
        return done

    def _apply_ports(self, state: HostNetwork, ids: set[str], done: Applied) -> None:
        for port_id in ids:
            self.applied += 1
            port = state.ports.get(port_id)
            if port is None:
                self.ports.pop(port_id, None)
                continue
            if self._failures.now("ports") or port.network_id not in state.networks:
                done.ports[port_id] = "ERROR"
                done.errors.append(f"port {port_id}: the simulation was told to fail")
                continue
            rules = sum(len(state.groups[each].rules) for each in port.security_group_ids)
            self.ports[port_id] = {
                "network_id": port.network_id,
                "peers": state.networks[port.network_id].peers,
                "rules": rules,
            }
            done.ports[port_id] = "ACTIVE" if port.admin_state_up else "DOWN"

    def _apply_routers(self, state: HostNetwork, ids: set[str], done: Applied) -> None:
        for router_id in ids:
            self.applied += 1
            router = state.routers.get(router_id)
            if router is None:
                self.routers.discard(router_id)
                continue
            if self._failures.now("routers"):
                done.routers[router_id] = "ERROR"
                done.errors.append(f"router {router_id}: the simulation was told to fail")
                continue
            self.routers.add(router_id)
            done.routers[router_id] = "ACTIVE" if router.admin_state_up else "DOWN"
            done.floating_ips.update({each.id: "ACTIVE" for each in router.floating_ips})

    def trace(self, state: HostNetwork, port_id: str) -> list[dict[str, Any]]:
        port = state.ports.get(port_id)
        if port is None:
            router, leg = state.leg(port_id)
            plugged = router.id in self.routers
            first = {"hop": "router", "name": f"hrouter-{router.id}"}
            network = state.networks[leg.network_id]
        else:
            plugged = port_id in self.ports
            first = {"hop": "tap", "name": port.device}
            network = state.networks[port.network_id]
        hops: list[dict[str, Any]] = [
            {**first, "ok": plugged, "detail": {"simulated": True}},
            {"hop": "bridge", "name": f"brq{network.id[:11]}", "ok": plugged, "detail": {}},
        ]
        if network.network_type == "vxlan":
            name = f"vx{network.segmentation_id}"
            hops.append({"hop": "tunnel", "name": name, "ok": True, "detail": {"peers": list(network.peers)}})
        return hops
