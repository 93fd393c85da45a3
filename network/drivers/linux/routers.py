"""Routers of this host: a namespace each, with a leg in every network of the router and one outside.

``qr-…`` and ``qg-…`` inside are ends of veth pairs whose other ends hang on the networks' bridges. Translation is
in ``nat``; IPv6 is routed without it, and radvd tells guests the way where a subnet's ``ipv6_ra_mode`` says so. The
agent's restart touches nothing that is right: connections live on.
"""

from __future__ import annotations

import ipaddress
import shutil
import socket
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from oslo_config import cfg

from core.errors import DriverError
from lifecycle.host_network import Changed, HostNetwork, Network, Port, Router, RouterPort
from network.drivers.base import Applied
from network.drivers.linux import connections, nat
from network.drivers.linux.bridges import Bridges, bridge_name
from network.drivers.linux.daemons import Daemon, write
from network.drivers.linux.metadata import METADATA_IPV4, Metadata
from network.drivers.linux.namespaces import Namespaces, configure, veth
from network.drivers.linux.netlink import Links, alias_of, sysctl
from network.drivers.linux.parts import attempt
from network.drivers.linux.router_qos import limit_gateway

PREFIX = "hrouter-"
KIND = "router"
_PROTOCOL = 66
"""of the routes that are ours (RTPROT, free for use), so that others are left alone"""
_FORWARDING = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")
_SYSCTLS = {
    **dict.fromkeys(_FORWARDING, "1"),
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv6/conf/default/accept_dad": "0",
}


def namespace_of(router_id: str) -> str:
    return f"{PREFIX}{router_id}"


def leg_names(port_id: str, *, gateway: bool) -> tuple[str, str]:
    """(outer, inner) device of a leg."""
    return (
        (f"ng{port_id[:11]}", f"qg-{port_id[:11]}")
        if gateway
        else (f"nr{port_id[:11]}", f"qr-{port_id[:11]}")
    )


class Routers:
    """All router namespaces of this host."""

    def __init__(
        self, conf: cfg.ConfigOpts, bridges: Bridges, namespaces: Namespaces, metadata: Metadata
    ) -> None:
        self._settings = conf.network_linux
        self._folder = Path(conf.state_path) / "network" / "routers"
        self._bridges = bridges
        self._links: Links = bridges.links
        self._namespaces = namespaces
        self._metadata = metadata
        self._tables: dict[str, nat.RouterTables] = {}

    def start(self) -> None:
        """Nothing: what a router needs is found missing when there is one."""

    def close(self) -> None:
        """Nothing: routers go on routing."""

    def apply(self, state: HostNetwork, changed: Changed, applied: Applied) -> None:
        touched = set(changed.routers)
        for router in state.routers.values():
            legs = {leg.network_id for leg in _legs(router)}
            if changed.everything or legs & changed.networks:
                touched.add(router.id)
        if changed.everything:
            touched |= self._namespaces.ours(PREFIX, self._links)
        for router_id in sorted(touched):
            self._apply_one(state, router_id, applied)

    def _apply_one(self, state: HostNetwork, router_id: str, applied: Applied) -> None:
        router = state.routers.get(router_id)
        status = "ERROR"
        with attempt(applied, f"router {router_id}"):
            if router is not None:
                self._route(state, router)
                status = "ACTIVE" if router.admin_state_up else "DOWN"
            else:
                self._remove(router_id)
        if router is not None:
            applied.routers[router_id] = status
            for each in router.floating_ips:
                applied.floating_ips[each.id] = status

    # -- one router --------------------------------------------------------------

    def _route(self, state: HostNetwork, router: Router) -> None:
        name = namespace_of(router.id)
        if self._namespaces.ensure(name):
            # somebody took the namespace away: what was in it goes on there, heard by nobody
            self._tables.pop(router.id, None)
            self._daemon(router.id).end()
            self._metadata.forget(name)
        # switched off it has its legs and passes nothing on
        self._namespaces.call(name, lambda: _forwarding(router.admin_state_up))
        gateway = leg_names(router.gateway.port_id, gateway=True)[1] if router.gateway else None
        self._remove_other_legs(router)
        with self._namespaces.links(name) as inside:
            configure(inside, "lo", {"127.0.0.1/8", "::1/128", f"{METADATA_IPV4}/32"})
            for leg in router.interfaces:
                self._leg(state, router, leg, inside, set(), gateway=False)
            if router.gateway is not None:
                outside = {f"{address}/32" for address in _outer_addresses(router)}
                self._leg(state, router, router.gateway, inside, outside, gateway=True)
                limit_gateway(
                    self._links,
                    leg_names(router.gateway.port_id, gateway=True)[0],
                    inside,
                    leg_names(router.gateway.port_id, gateway=True)[1],
                    router,
                )
            _routes(inside, router, gateway)
        tables = self._tables.setdefault(router.id, nat.RouterTables(self._settings.nft_command))
        self._namespaces.call(name, lambda: _update(tables, nat.wanted(router, gateway)))
        self._end_connections(router)
        self._advertise(state, router)
        self._metadata.serve_router(name, router)

    def _leg(
        self,
        state: HostNetwork,
        router: Router,
        leg: RouterPort,
        inside: Links,
        more: set[str],
        *,
        gateway: bool,
    ) -> None:
        """Make or mend a leg; neighbours are told of addresses that are new on it."""
        network = state.networks.get(leg.network_id)
        if network is None:
            raise DriverError(f"network {leg.network_id} is not on this host")
        name = namespace_of(router.id)
        outer, inner = leg_names(leg.port_id, gateway=gateway)
        veth(
            self._links, inside, self._namespaces.path(name), outer, inner,
            alias=alias_of(KIND, router.id), mac=leg.mac_address, mtu=network.mtu,
        )  # fmt: skip
        own = {f"{each.ip_address}/{each.prefix_length}" for each in leg.addresses}
        self._namespaces.call(name, lambda: sysctl(f"net/ipv6/conf/{inner}/accept_ra", "0"))
        self._bridges.attach(outer, network)
        added = configure(inside, inner, own | (more - {f"{_ip(each)}/32" for each in own}))
        announced = [_ip(each) for each in added if "." in each]
        if announced:
            self._namespaces.call(name, lambda: announce(inner, leg.mac_address, announced))

    def _remove_other_legs(self, router: Router) -> None:
        wanted = {leg_names(leg.port_id, gateway=False)[0] for leg in router.interfaces}
        if router.gateway is not None:
            wanted.add(leg_names(router.gateway.port_id, gateway=True)[0])
        for link in self._links.all():
            if link.is_ours(KIND, router.id) and link.name not in wanted:
                self._links.delete(link.name)

    def _end_connections(self, router: Router) -> None:
        """Those of floating IPs and forwarded ports that are gone. The rules are the new ones already."""
        known = connections.Translations(self._folder / router.id / "translations.json")
        wanted = connections.translations(router)
        gone = known.gone(wanted)
        if gone:
            with self._namespaces.entered(namespace_of(router.id)):
                connections.end(gone)
        # last: what a crash kept from being ended is found again
        known.keep(wanted)

    def _advertise(self, state: HostNetwork, router: Router) -> None:
        """radvd on the legs whose subnets want it."""
        folder = self._folder / router.id
        daemon = self._daemon(router.id)
        text = "".join(
            _radvd_section(leg_names(leg.port_id, gateway=False)[1], leg, state.networks[leg.network_id])
            for leg in router.interfaces
        )
        if not text:
            daemon.end()
            return
        if shutil.which(self._settings.radvd_command, path="/usr/local/sbin:/usr/sbin:/usr/bin") is None:
            raise DriverError("IPv6 router advertisements need radvd (Debian: apt-get install radvd)")
        folder.mkdir(parents=True, exist_ok=True)
        restart = write(folder / "radvd.conf", text)
        arguments = [
            self._settings.radvd_command, "-C", str(folder / "radvd.conf"), "-p", str(folder / "radvd.pid"),
            "-m", "syslog",
        ]  # fmt: skip
        daemon.ensure(arguments, restart=restart, reload=False)

    def _daemon(self, router_id: str) -> Daemon:
        folder = self._folder / router_id
        return Daemon(self._namespaces, namespace_of(router_id), folder / "radvd.conf", folder / "radvd.pid")

    def _remove(self, router_id: str) -> None:
        name = namespace_of(router_id)
        folder = self._folder / router_id
        self._daemon(router_id).end()
        self._metadata.forget(name)
        self._tables.pop(router_id, None)
        for link in self._links.all():
            if link.is_ours(KIND, router_id):
                self._links.delete(link.name)
        if name in self._namespaces.names(PREFIX):
            self._namespaces.remove(name)
        shutil.rmtree(folder, ignore_errors=True)

    # -- trace -------------------------------------------------------------------

    def trace(self, state: HostNetwork, port: Port) -> list[dict[str, Any]]:
        """The routers here that this port's packets take, and what is done to its addresses."""
        mine = {each.ip_address for each in port.addresses}
        hops: list[dict[str, Any]] = []
        for router in state.routers.values():
            legs = [leg for leg in router.interfaces if leg.network_id == port.network_id]
            if legs:
                hops += self._trace_router(state, router, legs, mine)
        return hops

    def trace_leg(self, state: HostNetwork, router: Router, leg: RouterPort) -> list[dict[str, Any]]:
        """What is behind a router's own port."""
        mine = {each.fixed_ip_address for each in router.floating_ips}
        legs = [] if leg is router.gateway else [leg]
        return self._trace_router(state, router, legs, mine)

    def _trace_router(
        self, state: HostNetwork, router: Router, legs: Sequence[RouterPort], mine: set[str]
    ) -> list[dict[str, Any]]:
        hops = [self._trace_inner(state, router, leg) for leg in legs]
        if router.gateway is not None and self._namespaces.exists(namespace_of(router.id)):
            hops.append(self._trace_nat(router, namespace_of(router.id), mine))
        return hops

    def _trace_inner(self, state: HostNetwork, router: Router, leg: RouterPort) -> dict[str, Any]:
        name = namespace_of(router.id)
        outer, device = leg_names(leg.port_id, gateway=False)
        up = self._namespaces.exists(name) and self._is_up(name, device)
        plugged = self._is_plugged(outer, leg)
        detail: dict[str, Any] = {
            "leg": device,
            "leg_up": up,
            "on_bridge": plugged,
            "addresses": [each.ip_address for each in leg.addresses],
        }
        good = up and plugged and router.admin_state_up
        network = state.networks.get(leg.network_id)
        if network is not None and _radvd_section(device, leg, network):
            detail["radvd"] = self._daemon(router.id).pid()
            good = good and detail["radvd"] is not None
        return {"hop": "router", "name": name, "ok": good, "detail": detail}

    def _is_plugged(self, outer: str, leg: RouterPort) -> bool:
        end = self._links.get(outer)
        bridge = self._links.get(bridge_name(leg.network_id))
        return end is not None and bridge is not None and end.up and end.master == bridge.index

    def _is_up(self, name: str, device: str) -> bool:
        with self._namespaces.links(name) as inside:
            link = inside.get(device)
        return link is not None and link.up

    def _trace_nat(self, router: Router, name: str, mine: set[str]) -> dict[str, Any]:
        counters: list[dict[str, Any]] = []
        tables = self._tables.get(router.id)
        there = tables is not None
        if tables is not None:
            try:
                with self._namespaces.entered(name):
                    counters = tables.counters("inet", "prerouting") + tables.counters("inet", "postrouting")
            except DriverError:  # somebody has removed them: that is what is to be seen here
                there = False
        assert router.gateway is not None
        device = leg_names(router.gateway.port_id, gateway=True)[1]
        up = self._is_up(name, device)
        plugged = self._is_plugged(leg_names(router.gateway.port_id, gateway=True)[0], router.gateway)
        return {
            "hop": "nat",
            "name": name,
            "ok": there and up and plugged,
            "detail": {
                "leg": device,
                "leg_up": up,
                "on_bridge": plugged,
                "translated": there,
                "gateway": [each.ip_address for each in router.gateway.addresses],
                "snat": router.enable_snat,
                "floating_ips": {
                    each.fixed_ip_address: each.floating_ip_address
                    for each in router.floating_ips
                    if each.fixed_ip_address in mine
                },
                "counters": counters,
            },
        }


def _legs(router: Router) -> Iterable[RouterPort]:
    yield from router.interfaces
    if router.gateway is not None:
        yield router.gateway


def _outer_addresses(router: Router) -> set[str]:
    return {each.floating_ip_address for each in router.floating_ips} | {
        each.floating_ip_address for each in router.port_forwardings
    }


def _ip(cidr: str) -> str:
    return cidr.partition("/")[0]


def _forwarding(on: bool) -> None:
    for path, value in _SYSCTLS.items():
        sysctl(path, "0" if path in _FORWARDING and not on else value)


def _update(tables: nat.RouterTables, wanted: nat.Wanted) -> None:
    tables.update(wanted)


def _routes(inside: Links, router: Router, gateway: str | None) -> None:
    """The default routes and the router's own, and no others that we made."""
    wanted: dict[tuple[int, str], tuple[str, str | None]] = {}
    for address in router.gateway.addresses if router.gateway else ():
        if address.gateway_ip:
            version = ipaddress.ip_address(address.gateway_ip).version
            wanted.setdefault((version, "default"), (address.gateway_ip, gateway))
    for each in router.routes:
        destination = ipaddress.ip_network(each["destination"])
        key = "default" if destination.prefixlen == 0 else str(destination)
        wanted[destination.version, key] = (each["nexthop"], None)
    for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
        with inside.route("set routes") as route:
            present: dict[str, Any] = {}
            for each in route.get_routes(family=family, proto=_PROTOCOL):
                destination = each.get("dst")
                present[f"{destination}/{each['dst_len']}" if destination else "default"] = each
            for key, (hop, device) in sorted((k[1], v) for k, v in wanted.items() if k[0] == version):
                there = present.pop(key, None)
                if there is not None and there.get("gateway") == hop:
                    continue
                options: dict[str, Any] = {"dst": key, "gateway": hop, "proto": _PROTOCOL, "family": family}
                if device is not None:
                    # the next hop may be on none of our subnets (a shared external network): it is on the wire
                    options |= {"oif": inside.need(device).index, "flags": 4}
                route.route("replace", **options)
            for key in present:
                route.route("del", dst=key, proto=_PROTOCOL, family=family)


def _radvd_section(device: str, leg: RouterPort, network: Network) -> str:
    subnets = {subnet.id: subnet for subnet in network.subnets}
    mine = [subnets[each.subnet_id] for each in leg.addresses if each.subnet_id in subnets]
    mine = [subnet for subnet in mine if subnet.ip_version == 6 and subnet.ipv6_ra_mode]
    if not mine:
        return ""
    managed = any(subnet.ipv6_ra_mode == "dhcpv6-stateful" for subnet in mine)
    other = any(subnet.ipv6_ra_mode == "dhcpv6-stateless" for subnet in mine)
    lines = [
        f"interface {device} {{",
        "  AdvSendAdvert on;",
        "  MinRtrAdvInterval 30;",
        "  MaxRtrAdvInterval 100;",
        f"  AdvLinkMTU {network.mtu};",
        f"  AdvManagedFlag {'on' if managed else 'off'};",
        f"  AdvOtherConfigFlag {'on' if other else 'off'};",
    ]
    servers = list(dict.fromkeys(s for subnet in mine for s in subnet.dns_nameservers if ":" in s))
    if servers:
        lines.append(f"  RDNSS {' '.join(servers)} {{}};")
    for subnet in mine:
        autonomous = "off" if subnet.ipv6_ra_mode == "dhcpv6-stateful" else "on"
        lines += [
            f"  prefix {subnet.cidr} {{",
            "    AdvOnLink on;",
            f"    AdvAutonomous {autonomous};",
            "  };",
        ]
    return "\n".join([*lines, "};", ""])


def announce(device: str, mac: str, addresses: Iterable[str]) -> None:
    """Gratuitous ARP, in the namespace that this thread is in: neighbours learn where an address is now (RFC 5227)."""
    own = bytes.fromhex(mac.replace(":", ""))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806)) as channel:
        channel.bind((device, 0x0806))
        for address in addresses:
            ip = socket.inet_aton(address)
            header = b"\xff" * 6 + own + b"\x08\x06"
            for operation in (1, 2):
                body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + own + ip + b"\xff" * 6 + ip
                channel.send(header + body)
