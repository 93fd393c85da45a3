"""DHCP of one host: a dnsmasq per network, in a namespace, for the ports of this host alone.

Every host has the same DHCP address and MAC for a network (frames to and from it are kept off the
tunnel), so guests are served by their own host, whatever becomes of the others. dnsmasq knows
only the addresses that the Network API handed out: it invents none.

The namespace also holds the metadata address (169.254.169.254, fe80::a9fe:a9fe), see ``metadata``.
"""

from __future__ import annotations

import ipaddress
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from oslo_config import cfg

from core.errors import DriverError
from lifecycle.host_network import Changed, HostNetwork, Network, Port, Subnet
from lifecycle.host_network import Dhcp as DhcpPort
from network.drivers.base import Applied
from network.drivers.linux.bridges import Bridges
from network.drivers.linux.daemons import Daemon, write
from network.drivers.linux.dns_names import Names, arpa_zone
from network.drivers.linux.dns_relay import ADDRESS, DnsRelay
from network.drivers.linux.metadata import METADATA_IPV4, METADATA_IPV6, Metadata
from network.drivers.linux.namespaces import Namespaces, configure, veth
from network.drivers.linux.netlink import Links, alias_of, sysctl
from network.drivers.linux.parts import attempt

PREFIX = "hdhcp-"
KIND = "dhcp"
_STATEFUL, _STATELESS = "dhcpv6-stateful", "dhcpv6-stateless"


def namespace_of(network_id: str) -> str:
    return f"{PREFIX}{network_id}"


def outer_name(port_id: str) -> str:
    return f"ns{port_id[:11]}"


def inner_name(port_id: str) -> str:
    return f"ns-{port_id[:11]}"


def served(subnet: Subnet) -> bool:
    """Does dnsmasq answer for this subnet?"""
    if not subnet.enable_dhcp:
        return False
    return subnet.ip_version == 4 or subnet.ipv6_address_mode in (_STATEFUL, _STATELESS)


class Dhcp:
    """All DHCP namespaces of this host."""

    def __init__(
        self, conf: cfg.ConfigOpts, bridges: Bridges, namespaces: Namespaces, metadata: Metadata
    ) -> None:
        self._settings = conf.network_linux
        self._folder = Path(conf.state_path) / "network" / "dhcp"
        self._bridges = bridges
        self._links: Links = bridges.links
        self._namespaces = namespaces
        self._metadata = metadata
        self.names = Names(conf)
        self._relay = DnsRelay(self._settings.dns_servers, namespaces, self.names)
        self._legs: dict[str, str] = {}
        """network id → its DHCP port's id, where no other leg is left"""
        self._networks: dict[str, str] = {}
        """port id → its network's id, when it was last seen: a port that is gone is nothing but its id"""

    def start(self) -> None:
        """:raises DriverError: dnsmasq is missing."""
        if shutil.which(self._settings.dnsmasq_command, path="/usr/local/sbin:/usr/sbin:/usr/bin") is None:
            raise DriverError("dnsmasq is not installed (Debian: apt-get install dnsmasq-base)")
        self._relay.start()

    def close(self) -> None:
        """dnsmasq goes on serving; what it can't answer waits for the next agent."""
        self._relay.close()

    def apply(self, state: HostNetwork, changed: Changed, applied: Applied) -> None:
        touched = changed.networks | self._of_ports(state, changed)
        if changed.everything:
            touched = set(state.networks) | self._namespaces.ours(PREFIX, self._links)
        for network_id in sorted(touched):
            with attempt(applied, f"DHCP of network {network_id}"):
                network = state.networks.get(network_id)
                if network is not None and wanted(network):
                    self._serve(network, state.ports_of(network_id))
                else:
                    self._remove(network_id)

    def _of_ports(self, state: HostNetwork, changed: Changed) -> set[str]:
        """The networks of ports that changed, came or went."""
        if changed.everything:
            self._networks = {port.id: port.network_id for port in state.ports.values()}
            return set()
        touched = set()
        for port_id in changed.ports:
            port = state.ports.get(port_id)
            before = self._networks.pop(port_id, None)
            if port is not None:
                self._networks[port_id] = port.network_id
                touched.add(port.network_id)
            elif before is not None:
                touched.add(before)
        return touched

    # -- one network -------------------------------------------------------------

    def _serve(self, network: Network, ports: list[Port]) -> None:
        port = network.dhcp
        if port is None:
            raise DriverError("it has no DHCP port yet")
        name = namespace_of(network.id)
        if self._namespaces.ensure(name):
            # somebody took the namespace away: a daemon that was in it goes on there, heard by nobody
            self._daemon(network.id).end()
            self._metadata.forget(name)
        addresses = {f"{each.ip_address}/{each.prefix_length}" for each in port.addresses}
        with self._namespaces.links(name) as inside:
            device = inner_name(port.port_id)
            veth(
                self._links, inside, self._namespaces.path(name), outer_name(port.port_id), device,
                alias=alias_of(KIND, network.id), mac=port.mac_address, mtu=network.mtu,
            )  # fmt: skip
            self._remove_other_legs(network.id, port.port_id)
            configure(inside, device, addresses | {f"{METADATA_IPV4}/32", f"{METADATA_IPV6}/64"})
        self._namespaces.call(name, lambda: sysctl(f"net/ipv6/conf/{device}/accept_ra", "0"))
        self._bridges.attach(outer_name(port.port_id), network)
        self._run_dnsmasq(network, port, ports)
        cidrs = tuple(subnet.cidr for subnet in network.subnets)
        self._relay.serve(name, network.id, self._domain(network), cidrs)
        self._metadata.serve_network(name, device, network.id, ports)

    def _remove_other_legs(self, network_id: str, port_id: str) -> None:
        """Of a DHCP port that was replaced by another. Looked for once: listing all devices is dear."""
        if self._legs.get(network_id) == port_id:
            return
        for link in self._links.all():
            if link.is_ours(KIND, network_id) and link.name != outer_name(port_id):
                self._links.delete(link.name)
        self._legs[network_id] = port_id

    def _run_dnsmasq(self, network: Network, port: DhcpPort, ports: list[Port]) -> None:
        folder = self._folder / network.id
        daemon = self._daemon(network.id)
        if not any(served(subnet) for subnet in network.subnets):
            daemon.end()
            return
        folder.mkdir(parents=True, exist_ok=True)
        domain = self._domain(network)
        reload = write(folder / "hosts", hosts_file(network, ports, domain))
        reload |= write(folder / "names", names_file(ports, domain))
        reload |= write(folder / "options", options_file(network, port, ports))
        restart = write(folder / "conf", self._configuration(network, port, folder, domain))
        daemon.ensure(
            [self._settings.dnsmasq_command, f"--conf-file={folder / 'conf'}"], restart=restart, reload=reload
        )

    def _domain(self, network: Network) -> str:
        return str(network.dns_domain.strip(".") or self._settings.dns_domain)

    def _configuration(self, network: Network, port: DhcpPort, folder: Path, domain: str) -> str:
        lines = [
            "# written by haneul's network agent",
            "user=root",
            "no-hosts",
            "no-resolv",
            "bind-interfaces",
            "except-interface=lo",
            f"interface={inner_name(port.port_id)}",
            f"pid-file={folder / 'pid'}",
            f"dhcp-hostsfile={folder / 'hosts'}",
            f"dhcp-optsfile={folder / 'options'}",
            f"addn-hosts={folder / 'names'}",
            "leasefile-ro",
            "dhcp-authoritative",
            f"dhcp-lease-max={self._settings.dhcp_lease_max}",
        ]
        if domain:
            # what is not in "names" here may be on another host: this agent finds out, if it may ask
            own = "server=/{}/{}#{}".format(domain, *ADDRESS) if self.names.usable else f"local=/{domain}/"
            lines += [f"domain={domain}", own]
            if self.names.usable:
                zones = sorted({arpa_zone(subnet.cidr) for subnet in network.subnets})
                lines += ["server=/{}/{}#{}".format(zone, *ADDRESS) for zone in zones]
        if self._relay.servers:
            lines.append("server={}#{}".format(*ADDRESS))
        lines += [
            line
            for subnet in network.subnets
            if served(subnet)
            for line in range_lines(subnet, self._settings.dhcp_lease_duration)
        ]
        return "\n".join(lines) + "\n"

    def _daemon(self, network_id: str) -> Daemon:
        folder = self._folder / network_id
        return Daemon(self._namespaces, namespace_of(network_id), folder / "conf", folder / "pid")

    def _remove(self, network_id: str) -> None:
        name = namespace_of(network_id)
        self._legs.pop(network_id, None)
        if not self._namespaces.path(name).exists() and not (self._folder / network_id).exists():
            return
        self._daemon(network_id).end()
        self._metadata.forget(name)
        self._relay.forget(name)
        for link in self._links.all():
            if link.is_ours(KIND, network_id):
                self._links.delete(link.name)
        if name in self._namespaces.names(PREFIX):
            self._namespaces.remove(name)
        shutil.rmtree(self._folder / network_id, ignore_errors=True)

    # -- trace -------------------------------------------------------------------

    def trace(self, state: HostNetwork, port: Port) -> list[dict[str, Any]]:
        """The DHCP and metadata server that this port speaks to."""
        network = state.networks.get(port.network_id)
        if network is None or network.dhcp is None:
            return []
        name = namespace_of(network.id)
        pid = self._daemon(network.id).pid()
        needed = any(served(subnet) for subnet in network.subnets)  # else metadata are all that is there
        return [
            {
                "hop": "dhcp",
                "name": name,
                "ok": self._namespaces.exists(name) and (pid is not None or not needed),
                "detail": {
                    "dnsmasq": pid,
                    "addresses": [each.ip_address for each in network.dhcp.addresses],
                    "metadata": self._metadata.serves(name),
                },
            }
        ]


def wanted(network: Network) -> bool:
    """Does this host serve DHCP or metadata for the network? An external one has guests of nobody's."""
    return network.dhcp is not None and network.admin_state_up


def range_lines(subnet: Subnet, lease_s: int) -> Iterable[str]:
    """Which addresses are this subnet's; ``static``: only those of the hosts file are given."""
    cidr = ipaddress.ip_network(subnet.cidr)
    lease = "infinite" if lease_s == -1 else f"{lease_s}s"
    tag = f"set:subnet-{subnet.id}"
    if cidr.version == 4:
        yield f"dhcp-range={tag},{cidr.network_address},static,{cidr.netmask},{lease}"
    elif subnet.ipv6_address_mode == _STATEFUL:
        yield f"dhcp-range={tag},{cidr.network_address},static,{max(cidr.prefixlen, 64)},{lease}"
    else:
        yield f"dhcp-range={tag},{cidr.network_address},static,{max(cidr.prefixlen, 64)},{lease}"


def host_name(port: Port, address: str, domain: str) -> str:
    name = port.dns_name or "host-" + address.replace(".", "-").replace(":", "-")
    return f"{name}.{domain}" if domain else name


def hosts_file(network: Network, ports: Iterable[Port], domain: str) -> str:
    """One line per address: who gets it, and the tags that its options go by."""
    subnets = {subnet.id: subnet for subnet in network.subnets if served(subnet)}
    lines = []
    for port in sorted(ports, key=lambda port: port.id):
        tags = f"set:port-{port.id}," if port.extra_dhcp_opts else ""
        for address in port.addresses:
            subnet = subnets.get(address.subnet_id)
            if subnet is None:
                continue
            if subnet.ipv6_address_mode == _STATELESS:
                lines.append(f"{port.mac_address},{tags}{host_name(port, address.ip_address, domain)}")
                continue
            ip = address.ip_address if subnet.ip_version == 4 else f"[{address.ip_address}]"
            lines.append(f"{port.mac_address},{tags}{host_name(port, address.ip_address, domain)},{ip}")
    return "".join(f"{line}\n" for line in lines)


def names_file(ports: Iterable[Port], domain: str) -> str:
    """What the names of the ports here resolve to."""
    lines = []
    for port in sorted(ports, key=lambda port: port.id):
        for address in port.addresses:
            full = host_name(port, address.ip_address, domain)
            lines.append(f"{address.ip_address}\t{full} {full.partition('.')[0]}\n")
    return "".join(lines)


def options_file(network: Network, server: DhcpPort, ports: Iterable[Port]) -> str:
    """Options by subnet, and those that ports ask for."""
    lines: list[str] = []
    mine = {each.subnet_id: each.ip_address for each in server.addresses}
    for subnet in network.subnets:
        if served(subnet):
            lines += _subnet_options(network, subnet, mine.get(subnet.id))
    for port in sorted(ports, key=lambda port: port.id):
        lines += _port_options(port)
    return "".join(f"{line}\n" for line in lines)


def _subnet_options(network: Network, subnet: Subnet, server: str | None) -> list[str]:
    tag = f"tag:subnet-{subnet.id}"
    if subnet.ip_version == 6:
        servers = ",".join(f"[{each}]" for each in subnet.dns_nameservers or ([server] if server else []))
        return [f"{tag},option6:dns-server,{servers}"] if servers else []
    lines = [f"{tag},option:mtu,{network.mtu}"]
    names = subnet.dns_nameservers or ((server,) if server else ())
    if names == ("0.0.0.0",):  # upstream's way to say: none
        lines.append(f"{tag},option:dns-server")
    elif names:
        lines.append(f"{tag},option:dns-server,{','.join(names)}")
    routes = [(each["destination"], each["nexthop"]) for each in subnet.host_routes]
    if server and not any(destination == f"{METADATA_IPV4}/32" for destination, _hop in routes):
        routes.append((f"{METADATA_IPV4}/32", server))
    if subnet.gateway_ip:
        if not any(destination == "0.0.0.0/0" for destination, _hop in routes):
            routes.append(("0.0.0.0/0", subnet.gateway_ip))
        lines.append(f"{tag},option:router,{subnet.gateway_ip}")
    else:
        lines.append(f"{tag},option:router")
    if routes:
        text = ",".join(f"{destination},{hop}" for destination, hop in routes)
        # 249 is what Windows asks for
        lines += [f"{tag},option:classless-static-route,{text}", f"{tag},249,{text}"]
    return lines


def _port_options(port: Port) -> list[str]:
    """extra_dhcp_opts: by name or number, IPv4 or IPv6. A line feed would begin another line: refused."""
    lines = []
    for each in port.extra_dhcp_opts:
        name, value = str(each.get("opt_name") or ""), str(each.get("opt_value") or "")
        if not name or not (name + value).isprintable():
            continue
        kind = "option6" if each.get("ip_version") == 6 else "option"
        shown = f"{kind}:{name}" if not (name.isdigit() and kind == "option") else name
        lines.append(f"tag:port-{port.id},{shown},{value}")
    return lines
