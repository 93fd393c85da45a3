"""What a network agent is told: everything that one host's data plane needs to know.

The conductor puts a ``HostNetwork`` together from the Network API's tables and sends
it (or the parts that changed) over RPC; the agent in ``network/`` makes the host look
like it. It is a *desired state*, not a list of orders: sent again, it changes nothing;
what is on the host and not in it goes away.

Everything is plain data: ``to_dict`` and ``from_dict`` are inverse, and unknown keys (a newer
sender's) are ignored, so an agent may be a release older than its conductor.
"""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

from core.errors import NotFound
from core.network_changes import KINDS, Changed

__all__ = [
    "KINDS",
    "Address",
    "Bandwidth",
    "Changed",
    "Dhcp",
    "FloatingIp",
    "HostNetwork",
    "Members",
    "Network",
    "Port",
    "PortForwarding",
    "Router",
    "RouterPort",
    "Rule",
    "SecurityGroup",
    "Subnet",
    "legs_of",
    "tap_name",
]


def tap_name(port_id: str) -> str:
    """The name of a server's tap device on its host, as upstream makes it (15 characters at most)."""
    return f"tap{port_id[:11]}"


class _Plain:
    """JSON-able through ``to_dict``."""

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        return cls(**{key: _frozen(value) for key, value in data.items() if key in known})


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@dataclasses.dataclass(frozen=True)
class Address(_Plain):
    """One address of a port, with what is needed to configure it."""

    ip_address: str
    subnet_id: str
    prefix_length: int
    gateway_ip: str | None = None


@dataclasses.dataclass(frozen=True)
class Subnet(_Plain):
    """A subnet as the DHCP server and router advertisements need it."""

    id: str
    cidr: str
    ip_version: int
    gateway_ip: str | None
    enable_dhcp: bool
    ipv6_ra_mode: str | None = None
    ipv6_address_mode: str | None = None
    dns_nameservers: tuple[str, ...] = ()
    host_routes: tuple[dict[str, str], ...] = ()
    """{"destination": CIDR, "nexthop": IP}"""


@dataclasses.dataclass(frozen=True)
class Dhcp(_Plain):
    """A network's DHCP and metadata server: the same addresses and MAC on each host that has its ports.

    Guests are served by their own host, so frames to and from this MAC never leave a host.
    """

    port_id: str
    mac_address: str
    addresses: tuple[Address, ...]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        made = super().from_dict(data)
        return dataclasses.replace(made, addresses=_each(Address, made.addresses))


@dataclasses.dataclass(frozen=True)
class Network(_Plain):
    """A network that is on this host: it has ports here, a router whose namespace is here, or was put here."""

    id: str
    project_id: str
    admin_state_up: bool
    mtu: int
    network_type: str
    """vxlan, vlan, flat or local"""
    physical_network: str | None
    segmentation_id: int | None
    dns_domain: str = ""
    external: bool = False
    subnets: tuple[Subnet, ...] = ()
    dhcp: Dhcp | None = None
    """None: no subnet has DHCP, or this host is not to serve it"""
    placed: bool = False
    """it was put on this host, whether it has ports here or not"""
    peers: tuple[str, ...] = ()
    """tunnel addresses of the other hosts that this network is on (vxlan): where frames are flooded to"""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        made = super().from_dict(data)
        dhcp: Any = made.dhcp
        return dataclasses.replace(
            made,
            subnets=_each(Subnet, made.subnets),
            dhcp=Dhcp.from_dict(dhcp) if isinstance(dhcp, Mapping) else dhcp,
        )


@dataclasses.dataclass(frozen=True)
class Bandwidth(_Plain):
    """A QoS bandwidth limit; egress is what the guest sends."""

    direction: str
    max_kbps: int
    max_burst_kbps: int = 0


@dataclasses.dataclass(frozen=True)
class Port(_Plain):
    """A port bound to this host: a server's (its device is a tap), or one that a service asked for."""

    id: str
    network_id: str
    project_id: str
    mac_address: str
    admin_state_up: bool
    device_id: str
    device_owner: str
    addresses: tuple[Address, ...]
    port_security_enabled: bool = True
    security_group_ids: tuple[str, ...] = ()
    allowed_address_pairs: tuple[dict[str, str], ...] = ()
    """{"ip_address": IP or CIDR, "mac_address": MAC}"""
    extra_dhcp_opts: tuple[dict[str, Any], ...] = ()
    """{"opt_name":, "opt_value":, "ip_version":}"""
    dns_name: str = ""
    bandwidth: tuple[Bandwidth, ...] = ()

    @property
    def device(self) -> str:
        return tap_name(self.id)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        made = super().from_dict(data)
        return dataclasses.replace(
            made, addresses=_each(Address, made.addresses), bandwidth=_each(Bandwidth, made.bandwidth)
        )


@dataclasses.dataclass(frozen=True)
class Rule(_Plain):
    """One rule of a security group: what it matches is let through."""

    direction: str
    """ingress (to the guest) or egress"""
    ethertype: str
    """IPv4 or IPv6"""
    protocol: str | None = None
    """a name (tcp, udp, icmp, ipv6-icmp, sctp, ...) or a number as text; None: any"""
    port_range_min: int | None = None
    """with ICMP: the type"""
    port_range_max: int | None = None
    """with ICMP: the code"""
    remote_ip_prefix: str | None = None
    remote_group_id: str | None = None
    """its addresses are in ``HostNetwork.members``"""
    remote_address_group_id: str | None = None
    remote_addresses: tuple[str, ...] = ()
    """CIDRs of the remote address group, resolved"""


@dataclasses.dataclass(frozen=True)
class SecurityGroup(_Plain):
    """A group of ports here."""

    id: str
    stateful: bool
    rules: tuple[Rule, ...]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        made = super().from_dict(data)
        return dataclasses.replace(made, rules=_each(Rule, made.rules))


@functools.lru_cache(maxsize=65536)
def _canonical(text: str) -> str:
    """An address, or a CIDR, in the one way to write it."""
    net = ipaddress.ip_network(text, strict=False)
    return str(net.network_address) if net.prefixlen == net.max_prefixlen else str(net)


class Members:
    """Who is in a security group that a rule here names as remote: addresses (and allowed address pairs) of ports anywhere.

    Kept by port, as that is how they change; two ports may have the same address, in networks of their own.
    """

    def __init__(self, ports: Mapping[str, Iterable[str]] | None = None) -> None:
        self._ports: dict[str, tuple[str, ...]] = {}
        self._counts: Counter[str] = Counter()
        for port_id, addresses in (ports or {}).items():
            self.replace(port_id, addresses)

    def __iter__(self) -> Iterator[str]:
        """Each address once."""
        return iter(self._counts)

    def __contains__(self, address: object) -> bool:
        return address in self._counts

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Members) and self._ports == other._ports

    __hash__ = None  # type: ignore[assignment]

    def replace(self, port_id: str, addresses: Iterable[str]) -> set[str]:
        """These are the port's now (none: it is no member); those that may have come or gone."""
        old = self._ports.pop(port_id, ())
        new = tuple(_canonical(each) for each in addresses)
        if new:
            self._ports[port_id] = new
        self._counts.update(new)
        self._counts.subtract(old)
        for each in old:
            if not self._counts[each]:
                del self._counts[each]
        return set(old) ^ set(new)

    def of(self, port_id: str) -> tuple[str, ...]:
        """A port's; () if it is no member."""
        return self._ports.get(port_id, ())

    def to_dict(self) -> dict[str, list[str]]:
        return {port_id: list(addresses) for port_id, addresses in self._ports.items()}


@dataclasses.dataclass(frozen=True)
class RouterPort(_Plain):
    """An interface or the gateway of a router."""

    port_id: str
    network_id: str
    mac_address: str
    addresses: tuple[Address, ...]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        made = super().from_dict(data)
        return dataclasses.replace(made, addresses=_each(Address, made.addresses))


@dataclasses.dataclass(frozen=True)
class FloatingIp(_Plain):
    """An address of the external network that leads to one of a port."""

    id: str
    floating_ip_address: str
    fixed_ip_address: str
    bandwidth: tuple[Bandwidth, ...] = ()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        made = super().from_dict(data)
        return dataclasses.replace(made, bandwidth=_each(Bandwidth, made.bandwidth))


@dataclasses.dataclass(frozen=True)
class PortForwarding(_Plain):
    """Ports of a floating IP that lead to ports of a fixed address."""

    id: str
    floating_ip_address: str
    protocol: str
    external_port: int
    external_port_last: int
    internal_ip_address: str
    internal_port: int
    internal_port_last: int


@dataclasses.dataclass(frozen=True)
class Router(_Plain):
    """A router whose namespace is on this host. Its networks are in ``HostNetwork.networks``."""

    id: str
    project_id: str
    admin_state_up: bool
    enable_snat: bool
    gateway: RouterPort | None
    interfaces: tuple[RouterPort, ...]
    routes: tuple[dict[str, str], ...] = ()
    """{"destination": CIDR, "nexthop": IP}"""
    floating_ips: tuple[FloatingIp, ...] = ()
    port_forwardings: tuple[PortForwarding, ...] = ()
    bandwidth: tuple[Bandwidth, ...] = ()
    """of its gateway"""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        made = super().from_dict(data)
        gateway: Any = made.gateway
        return dataclasses.replace(
            made,
            gateway=RouterPort.from_dict(gateway) if isinstance(gateway, Mapping) else gateway,
            interfaces=_each(RouterPort, made.interfaces),
            floating_ips=_each(FloatingIp, made.floating_ips),
            port_forwardings=_each(PortForwarding, made.port_forwardings),
            bandwidth=_each(Bandwidth, made.bandwidth),
        )


def legs_of(router: Router) -> tuple[RouterPort, ...]:
    """A router's interfaces, and its gateway."""
    return router.interfaces if router.gateway is None else (*router.interfaces, router.gateway)


def _each(kind: Any, values: Iterable[Any]) -> Any:
    return tuple(kind.from_dict(value) if isinstance(value, Mapping) else value for value in values)


_TYPES: dict[str, Any] = {"networks": Network, "ports": Port, "groups": SecurityGroup, "routers": Router}


@dataclasses.dataclass
class HostNetwork:
    """The whole desired state of one host, or a part of it; each kind by id."""

    networks: dict[str, Network] = dataclasses.field(default_factory=dict)
    ports: dict[str, Port] = dataclasses.field(default_factory=dict)
    groups: dict[str, SecurityGroup] = dataclasses.field(default_factory=dict)
    routers: dict[str, Router] = dataclasses.field(default_factory=dict)
    members: dict[str, Members] = dataclasses.field(default_factory=dict)
    """of each security group that a rule of a port here names; in an answer maybe only those asked for"""

    def to_dict(self) -> dict[str, Any]:
        """{kind: [objects]}, and "members": {group id: {port id: [addresses]}}."""
        made: dict[str, Any] = {
            kind: [each.to_dict() for each in getattr(self, kind).values()] for kind in KINDS
        }
        made["members"] = {group_id: each.to_dict() for group_id, each in self.members.items()}
        return made

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> HostNetwork:
        made = cls()
        for kind in KINDS:
            objects = (_TYPES[kind].from_dict(each) for each in data.get(kind) or ())
            setattr(made, kind, {each.id: each for each in objects})
        made.members = {group_id: Members(some) for group_id, some in (data.get("members") or {}).items()}
        return made

    def merge(self, part: HostNetwork, asked: Changed) -> dict[str, set[str]]:
        """Take over ``part``, the answer to a question for ``asked``: what is not in it is gone.

        Returns the addresses of members that may have come or gone, by group; not of groups whose members were
        asked for as a whole.
        """
        for kind in KINDS:
            mine, new = getattr(self, kind), getattr(part, kind)
            gone = set(mine) if asked.everything else getattr(asked, kind)
            for identifier in gone - set(new):
                mine.pop(identifier, None)
            mine.update(new)
        return self._merge_members(part, asked)

    def _merge_members(self, part: HostNetwork, asked: Changed) -> dict[str, set[str]]:
        if asked.everything:
            self.members = dict(part.members)
            return {}
        for group_id in asked.named:
            self.members[group_id] = part.members.get(group_id, Members())
        touched: dict[str, set[str]] = {}
        for group_id, port_ids in asked.members.items():
            mine = self.members.get(group_id)
            if mine is None or group_id in asked.named:
                continue  # no rule here names it (any more); or all of it was told just now
            told = part.members.get(group_id, Members())
            for port_id in port_ids:
                addresses = mine.replace(port_id, told.of(port_id))
                if addresses:
                    touched.setdefault(group_id, set()).update(addresses)
        return touched

    def leg(self, port_id: str) -> tuple[Router, RouterPort]:
        """The router whose port this is, and the leg. :raises NotFound: it is none of a router here."""
        for router in self.routers.values():
            for leg in legs_of(router):
                if leg.port_id == port_id:
                    return router, leg
        raise NotFound(f"port {port_id} is not on this host")

    def ports_of(self, network_id: str) -> list[Port]:
        return [port for port in self.ports.values() if port.network_id == network_id]
