"""The data plane of a Linux host: puts its parts to work, in an order that never leaves a port unguarded.

    networks (bridges, tunnels, uplinks) → rules → taps → bandwidth → DHCP → routers → what is gone

Rules name devices, so they stand before a tap is plugged and go after it. A part says what
it could not do with DriverError; the driver notes it in ``Applied`` and goes on with the next thing.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pyroute2
from oslo_config import cfg

from core import config
from core.errors import DriverError
from lifecycle.host_network import Changed, HostNetwork, Port
from network.drivers.base import Applied, NetworkDriver
from network.drivers.linux import options
from network.drivers.linux.alone import claim
from network.drivers.linux.bridges import Bridges
from network.drivers.linux.dhcp import Dhcp
from network.drivers.linux.firewall import Firewall
from network.drivers.linux.metadata import Metadata
from network.drivers.linux.namespaces import Namespaces
from network.drivers.linux.netlink import Links
from network.drivers.linux.networks import Networks
from network.drivers.linux.nft import Tables
from network.drivers.linux.parts import attempt
from network.drivers.linux.qos import Limits
from network.drivers.linux.routers import Routers
from network.drivers.linux.taps import Taps, is_tap
from network.drivers.linux.trace import local_path, network_path
from network.drivers.linux.tunnels import Tunnels
from network.drivers.linux.vlans import Uplinks, gateway_names

BRIDGE_NETFILTER = Path("/proc/sys/net/bridge")


class LinuxDriver(NetworkDriver):
    """Acts in the network namespace that this process runs in, as root."""

    def __init__(self, conf: cfg.ConfigOpts, host: str | None = None) -> None:
        config.register(conf, options.list_opts())
        self.conf = conf
        self.host = host or conf.host
        self._lock = threading.Lock()
        self._devices: dict[str, str] = {}
        """port id → tap, of the ports that were plugged: a port that is gone leaves nothing but its id"""
        self._running = False

    def start(self) -> None:
        """Look for what is needed, make the host's gateways. Raises DriverError with one line."""
        if os.geteuid() != 0:
            raise DriverError("the network agent needs root (it makes devices, namespaces and rules)")
        self._alone = claim()
        try:
            self._start_parts()
        except BaseException:
            self._alone.close()
            raise
        self._running = True

    def _start_parts(self) -> None:
        settings = self.conf.network_linux
        self.links = Links()
        self.bridges = Bridges(self.links)
        self.tunnels = Tunnels(self.links, self._tunnel_address(), settings.vxlan_port)
        self.uplinks = Uplinks(
            self.links,
            options.physical_interfaces(settings.physical_interfaces),
            options.host_gateways(settings.host_gateways),
        )
        self.networks = Networks(self.links, self.bridges, self.tunnels, self.uplinks)
        self.taps = Taps(self.links, settings.tap_user)
        gateways = {gateway_names(name)[0]: each for name, each in self.uplinks.gateways.items()}
        self.firewall = Firewall(Tables(settings.nft_command), self.networks.outlet, gateways)
        self.limits = Limits(self.links)
        self.namespaces = Namespaces(Path(settings.netns_folder))
        self.metadata = Metadata(self.conf, self.namespaces)
        self.dhcp = Dhcp(self.conf, self.bridges, self.namespaces, self.metadata)
        self.routers = Routers(self.conf, self.bridges, self.namespaces, self.metadata)
        need_bridge_netfilter()
        self.taps.start()
        self.firewall.start()
        self.uplinks.start()
        self.dhcp.start()
        self.routers.start()
        # last: it has a thread, and nothing that could fail comes after it
        self.metadata.start()

    def _tunnel_address(self) -> str | None:
        """As configured, if the host has it; else the one that it speaks to its default gateway with."""
        configured: str | None = self.conf.network_linux.tunnel_address
        with self.links.route("look up this host's addresses") as route:
            present = {each.get("address") for each in route.get_addr()}
            if configured:
                if configured not in present:
                    raise DriverError(
                        f"[network_linux] tunnel_address: this host has no address {configured}"
                    )
                return configured
            for entry in route.get_default_routes(family=2):
                found = entry.get("prefsrc") or _address_of(route, entry.get("oif"))
                if found:
                    return str(found)
        return None

    def close(self) -> None:
        if self._running:
            self._running = False
            self.dhcp.close()
            self.routers.close()
            self.metadata.close()
            self.links.close()
            self._alone.close()

    def configurations(self) -> dict[str, Any]:
        mappings = {**self.uplinks.devices, **{name: f"hgw:{name}" for name in self.uplinks.gateways}}
        return {
            "interface_mappings": mappings,
            "bridge_mappings": {},
            "tunnel_types": ["vxlan"] if self.tunnels.local else [],
            "tunneling_ip": self.tunnels.local,
            "l3": True,
            "devices": len(self._devices),
        }

    # -- apply

    def apply(self, state: HostNetwork, changed: Changed) -> Applied:
        applied = Applied()
        with self._lock, self.links.snapshot() if changed.everything else contextlib.nullcontext():
            self._apply_networks(state, changed, applied)
            self._apply_ports(state, changed, applied)
            self.dhcp.apply(state, changed, applied)
            self.routers.apply(state, changed, applied)
            self._remove_networks(state, changed, applied)
        return applied

    def _apply_networks(self, state: HostNetwork, changed: Changed, applied: Applied) -> None:
        wanted = set(state.networks) if changed.everything else changed.networks & state.networks.keys()
        for network_id in sorted(wanted):
            with attempt(applied, f"network {network_id}"):
                self.networks.ensure(state.networks[network_id])

    def _changed_ports(self, state: HostNetwork, changed: Changed) -> tuple[list[Port], set[str]]:
        """(what to plug, ids of what is gone)."""
        ports = [port for port in state.ports.values() if is_tap(port)]
        if changed.everything:
            return ports, self._devices.keys() - state.ports.keys()
        touched = [p for p in ports if p.id in changed.ports or p.network_id in changed.networks]
        return touched, changed.ports - state.ports.keys()

    def _apply_ports(self, state: HostNetwork, changed: Changed, applied: Applied) -> None:
        touched, gone = self._changed_ports(state, changed)
        for port_id in sorted(gone):
            with attempt(applied, f"port {port_id}"):
                device = self._devices.get(port_id) or f"tap{port_id[:11]}"
                self.taps.remove(port_id, device)
                self.limits.remove(port_id)
                self._devices.pop(port_id, None)
        if changed.everything:
            with attempt(applied, "ports that are gone"):
                self.taps.remove_strangers(state.ports)
                self.limits.remove_strangers(state.ports)
        safe = False
        with attempt(applied, "security groups"):
            self.firewall.apply(state, changed)
            safe = True
        applied.incomplete = not safe  # rules that changed may not be those of ports that did
        for port in touched:
            # a port that is plugged keeps the rules that it has; a new one waits until there are some
            known = port.id in self._devices
            applied.ports[port.id] = self._plug(state, port, applied) if safe or known else "ERROR"
            if not safe:
                applied.ports[port.id] = "ERROR"

    def _plug(self, state: HostNetwork, port: Port, applied: Applied) -> str:
        with attempt(applied, f"port {port.id}"):
            network = state.networks.get(port.network_id)
            if network is None:
                raise DriverError(f"its network {port.network_id} is not on this host")
            self.taps.ensure(port, network)
            self.limits.ensure(port)
            self._devices[port.id] = port.device
            return "ACTIVE" if port.admin_state_up and network.admin_state_up else "DOWN"
        return "ERROR"

    def _remove_networks(self, state: HostNetwork, changed: Changed, applied: Applied) -> None:
        for network_id in sorted(changed.networks - state.networks.keys()):
            with attempt(applied, f"network {network_id}"):
                self.networks.remove(network_id)
        if changed.everything:
            with attempt(applied, "networks that are gone"):
                self.networks.remove_strangers(state.networks)

    def trace(self, state: HostNetwork, port_id: str) -> list[dict[str, Any]]:
        port = state.ports.get(port_id)
        if port is None:
            router, leg = state.leg(port_id)
            with self._lock:
                hops = self.routers.trace_leg(state, router, leg)
                return [*hops, *network_path(self.networks, state, leg.network_id)]
        with self._lock:
            hops = local_path(self.networks, self.firewall, state, port)
            return [*hops, *self.dhcp.trace(state, port), *self.routers.trace(state, port)]


def need_bridge_netfilter() -> None:
    """Bridged packets meet conntrack through br_netfilter. Raises DriverError if it can't be had."""
    if not BRIDGE_NETFILTER.exists():
        with contextlib.suppress(FileNotFoundError):
            subprocess.run(["modprobe", "br_netfilter"], capture_output=True, check=False, timeout=30)
    if not BRIDGE_NETFILTER.exists():
        raise DriverError("the kernel module br_netfilter is missing: modprobe br_netfilter")


def _address_of(route: pyroute2.IPRoute, index: int | None) -> str | None:
    for each in route.get_addr(family=2, index=index) if index else ():
        return str(each.get("address"))
    return None
