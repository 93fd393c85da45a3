"""Security groups and anti-spoofing of the host's ports: desired state in, differences of nftables tables out.

What the rules are, and in which order a packet meets them, is in ``rules.py``. This module decides what a change touches:

- a port: its three chains, its lines in the maps; the chains of its groups if it is their first port here;
- a group: its two chains, shared by its ports;
- members of a group that rules name: the elements of its sets that are said to have changed;
- everything: all of it, compared with what the kernel has; what isn't wanted goes.

The cost of one port's change doesn't grow with the number of ports. Numbers that the kernel remembers things by (a port's mark, a
bridge's conntrack zone) are read back from the kernel's own tables after a restart, so established connections go on.
"""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from oslo_log import log as logging

from core.errors import DriverError
from lifecycle.host_network import Changed, HostNetwork, Network, Port, SecurityGroup
from network.drivers.linux import conntrack, rules
from network.drivers.linux.bridges import bridge_name
from network.drivers.linux.nft import GONE, Chain, Element, Elements, Key, Kind, Rule, Tables, Wanted
from network.drivers.linux.options import Interface
from network.drivers.linux.rules import chain_of, members_of
from network.drivers.linux.taps import is_tap

LOG = logging.getLogger(__name__)

SETS: dict[Key, Kind] = {
    ("bridge", "marks"): Kind("ifname", "mark"),
    ("bridge", "spoof"): Kind("ifname", "verdict"),
    ("bridge", "deliver"): Kind("ifname", "verdict"),
    ("bridge", "macs"): Kind(("ifname", "ether_addr")),
    ("bridge", "anycast"): Kind(("ifname", "ether_addr")),
    ("inet", "bridges"): Kind("ifname"),
    ("inet", "zones"): Kind("ifname", "verdict"),
    ("inet", "out"): Kind("mark", "verdict"),
    ("inet", "in"): Kind("mark", "verdict"),
    # no rule looks into these: they remember for an agent that was away whose connections may be in the table
    ("inet", "owned4"): Kind(("ifname", "ifname", "ipv4_addr")),
    ("inet", "owned6"): Kind(("ifname", "ifname", "ipv6_addr")),
}
ADDRESS_TYPES = {4: "ipv4_addr", 6: "ipv6_addr"}
OWNED = {4: "owned4", 6: "owned6"}
Owned = tuple[str, str, str]
"""(bridge, tap, address)"""
ZONES = 65535


class Firewall:
    """The rules of this network namespace.

    ``outlet``: a network's device to other hosts, or None; ``gateways``: host gateways' devices and addresses.
    """

    def __init__(
        self,
        tables: Tables,
        outlet: Callable[[Network], str | None],
        gateways: Mapping[str, Sequence[Interface]] | None = None,
    ) -> None:
        self.tables = tables
        self.outlet = outlet
        self._shared = rules.shared_chains()
        if gateways:
            self._shared["inet", "masquerade"] = rules.masquerade_chain(gateways)
        self._made: dict[str, tuple[Port, list[SecurityGroup], dict[Key, Chain]]] = {}
        """port id → its chains, and what they were made from"""
        self._owned: dict[str, set[Owned]] = {}
        """port id → what it has had since it was last written"""

    def start(self) -> None:
        """Raises DriverError if nftables can't be used."""
        self.tables.start()

    def apply(self, state: HostNetwork, changed: Changed) -> None:
        """Make the rules follow ``state``, in one transaction.

        If the tables are not there, or the part that changed can't be written (somebody has removed what it
        builds on), all is compared and written.

        :raises DriverError: nothing has changed.
        """
        self.tables.read_if_stale()
        leaving = self._leaving(state, changed)
        self._write(state, changed)
        ids = state.ports.keys() if changed.everything else changed.ports
        if changed.everything:
            self._owned = {}
        for port_id in ids:
            self._owned[port_id] = owned_by(state.ports.get(port_id))
            if not self._owned[port_id]:
                del self._owned[port_id]
        for zone, addresses in leaving:
            conntrack.forget(zone, addresses)

    def _leaving(self, state: HostNetwork, changed: Changed) -> list[tuple[int, list[str]]]:
        """[(zone, addresses)] that ports have had and don't have any more.

        What they had is known by this process, and by the kernel from an agent before it: ports that went while
        nobody was here count, too. By port, not by address alone: it may be another's by now.
        """
        elements = self.tables.present.elements
        ids = self._owned.keys() | state.ports.keys() if changed.everything else changed.ports
        before = {each for port_id in ids for each in self._owned.get(port_id, ())}
        if changed.everything:
            before |= {each for name in OWNED.values() for each in elements.get(("inet", name), {})}  # type: ignore[misc]
        after = {each for port_id in ids for each in owned_by(state.ports.get(port_id))}
        zones = _Numbers(self.tables)
        found: dict[int, set[str]] = {}
        for bridge, _tap, address in before - after:
            zone = zones.of_bridge(bridge)
            if zone is not None:
                found.setdefault(zone, set()).add(address)
        return [(zone, sorted(addresses)) for zone, addresses in sorted(found.items())]

    def _write(self, state: HostNetwork, changed: Changed) -> None:
        standing = self._shared.keys() <= self.tables.present.chains.keys()
        if standing and not changed.everything:
            try:
                self.tables.update(self._part(state, changed))
            except DriverError as error:
                LOG.warning("the firewall's tables are looked over: %s", error.message)
            else:
                return
        self.tables.read_if_stale()
        self.tables.update(self._everything(state))

    # -- what is wanted

    def _everything(self, state: HostNetwork) -> Wanted:
        for port_id in self._made.keys() - state.ports.keys():
            del self._made[port_id]
        wanted = Wanted(whole=True, sets=dict(SETS), chains=dict(self._shared))
        wanted.elements.update({key: Elements({}) for key in SETS})
        numbers = _Numbers(self.tables)
        for network in state.networks.values():
            self._network(network, wanted, numbers)
        for port in state.ports.values():
            if is_tap(port):
                self._port(state, port, wanted, numbers)
        used = {g for port in state.ports.values() if guarded(port) for g in port.security_group_ids}
        for group_id in sorted(used):
            if group_id in state.groups:
                self._group(state, state.groups[group_id], wanted)
        return wanted

    def _part(self, state: HostNetwork, changed: Changed) -> Wanted:
        wanted = Wanted()
        numbers = _Numbers(self.tables)
        ports = [state.ports[each] for each in sorted(changed.ports & state.ports.keys())]
        for network_id in sorted(changed.networks | {port.network_id for port in ports}):
            if network_id in state.networks:
                self._network(state.networks[network_id], wanted, numbers)
            else:
                self._no_network(network_id, wanted)
        for port in ports:
            if is_tap(port):
                self._port(state, port, wanted, numbers)
        for port_id in sorted(changed.ports - state.ports.keys()):
            self._owns(port_id, None, wanted)
            self._no_port(port_id, wanted)
        for group_id in sorted(changed.groups | {g for port in ports for g in port.security_group_ids}):
            self._group_part(state, group_id, group_id in changed.groups, wanted)
        self._members_part(state, changed, wanted)
        return wanted

    def _group_part(self, state: HostNetwork, group_id: str, is_changed: bool, wanted: Wanted) -> None:
        chains = self.tables.present.chains
        group = state.groups.get(group_id)
        used = ("inet", chain_of("gi", group_id)) in chains
        if group is None:
            if is_changed and used:
                for kind in ("gi", "go"):
                    wanted.chains["inet", chain_of(kind, group_id)] = None
        elif is_changed if used else self._has_ports(state, group_id):
            self._group(state, group, wanted)

    def _has_ports(self, state: HostNetwork, group_id: str) -> bool:
        return any(group_id in port.security_group_ids for port in state.ports.values() if guarded(port))

    def _members_part(self, state: HostNetwork, changed: Changed, wanted: Wanted) -> None:
        """Of each group the elements that are said to have changed; all of them where CIDRs have, as those merge."""
        for group_id in sorted(changed.named | changed.addresses.keys()):
            if ("inet", members_of(group_id, 4)) not in self._sets():
                continue  # no rule in force names it; the first that does brings its sets along
            parts = [(_member(text), text) for text in sorted(changed.addresses.get(group_id, ()))]
            if group_id in changed.named or any(address is None for (_, address, _), _text in parts):
                self._members_changed(state, group_id, wanted)
                continue
            members = state.members.get(group_id, ())
            for (version, address, _net), text in parts:
                assert address is not None
                wanted.put("inet", members_of(group_id, version), address, None if text in members else GONE)

    def _members_changed(self, state: HostNetwork, group_id: str, wanted: Wanted) -> None:
        """A remote group's members: its sets; the groups that name it only if CIDRs came or went."""
        before = {v for v in (4, 6) if ("inet", members_of(group_id, v, prefixes=True)) in self._sets()}
        self._members(group_id, state.members.get(group_id, ()), wanted)
        after = {v for v in (4, 6) if wanted.sets.get(("inet", members_of(group_id, v, prefixes=True)))}
        if before - after or after - before:
            for other in state.groups.values():
                named = any(rule.remote_group_id == group_id for rule in other.rules)
                if named and ("inet", chain_of("gi", other.id)) in self.tables.present.chains:
                    self._group(state, other, wanted)

    def _sets(self) -> Iterable[Key]:
        return self.tables.present.sets.keys()

    def _network(self, network: Network, wanted: Wanted, numbers: _Numbers) -> None:
        bridge = bridge_name(network.id)
        zone = numbers.zone(network.id)
        wanted.chains["inet", f"zone-{zone}"] = Chain(
            (Rule("zone", ({"mangle": {"key": {"ct": {"key": "zone"}}, "value": zone}},)),)
        )
        wanted.put("inet", "bridges", bridge)
        wanted.put("inet", "zones", bridge, f"zone-{zone}")
        device = self.outlet(network)
        if device is None:
            return
        mac = network.dhcp.mac_address.lower() if network.dhcp else None
        for old in self._pairs("anycast", device):
            if old != (device, mac):
                wanted.put("bridge", "anycast", old, GONE)
        if mac:
            wanted.put("bridge", "anycast", (device, mac))

    def _no_network(self, network_id: str, wanted: Wanted) -> None:
        bridge = bridge_name(network_id)
        zone = self.tables.present.elements.get(("inet", "zones"), {}).get(bridge)
        wanted.put("inet", "bridges", bridge, GONE)
        wanted.put("inet", "zones", bridge, GONE)
        if isinstance(zone, str):
            wanted.chains["inet", zone] = None
        # its line in "anycast" stays until the next comparison of everything: its device is not known any more

    def _pairs(self, name: str, device: str) -> list[tuple[str, ...]]:
        there = self.tables.present.elements.get(("bridge", name), {})
        return [each for each in there if isinstance(each, tuple) and each[0] == device]

    def _owns(self, port_id: str, port: Port | None, wanted: Wanted) -> None:
        """Its addresses, remembered in the kernel."""
        owned = owned_by(port)
        if not wanted.whole:
            for old in self._owned.get(port_id, set()) - owned:
                wanted.put("inet", OWNED[_version(old)], old, GONE)
        for each in owned:
            wanted.put("inet", OWNED[_version(each)], each)

    def _port(self, state: HostNetwork, port: Port, wanted: Wanted, numbers: _Numbers) -> None:
        self._owns(port.id, port, wanted)
        if not port.port_security_enabled:
            self._no_port(port.id, wanted)
            return
        device = port.device
        mark = numbers.mark(device)
        macs = {(device, mac) for mac in rules.senders(port)}
        wanted.put("bridge", "marks", device, mark)
        wanted.put("bridge", "spoof", device, chain_of("s", port.id))
        wanted.put("bridge", "deliver", device, "deliver-own")
        for old in self._pairs("macs", device):
            if old not in macs:
                wanted.put("bridge", "macs", old, GONE)
        for pair in macs:
            wanted.put("bridge", "macs", pair)
        wanted.put("inet", "out", mark, chain_of("o", port.id))
        wanted.put("inet", "in", mark, chain_of("i", port.id))
        wanted.chains.update(self._port_chains(state, port))

    def _port_chains(self, state: HostNetwork, port: Port) -> dict[Key, Chain]:
        """Made once for a port that doesn't change: the comparison of everything comes every minute."""
        groups = [state.groups[each] for each in port.security_group_ids if each in state.groups]
        kinds = [dataclasses.replace(group, rules=()) for group in groups]
        known = self._made.get(port.id)
        if known is not None and known[:2] == (port, kinds):
            return known[2]
        egress, ingress = rules.port_chains(port, groups)
        chains: dict[Key, Chain] = {
            ("bridge", chain_of("s", port.id)): rules.spoofing_chain(port),
            ("inet", chain_of("o", port.id)): egress,
            ("inet", chain_of("i", port.id)): ingress,
        }
        self._made[port.id] = (port, kinds, chains)
        return chains

    def _no_port(self, port_id: str, wanted: Wanted) -> None:
        device = f"tap{port_id[:11]}"
        mark = self.tables.present.elements.get(("bridge", "marks"), {}).get(device)
        if wanted.whole:
            return
        for name in ("marks", "spoof", "deliver"):
            wanted.put("bridge", name, device, GONE)
        for old in self._pairs("macs", device):
            wanted.put("bridge", "macs", old, GONE)
        if isinstance(mark, int):
            wanted.put("inet", "out", mark, GONE)
            wanted.put("inet", "in", mark, GONE)
        self._made.pop(port_id, None)
        wanted.chains["bridge", chain_of("s", port_id)] = None
        wanted.chains["inet", chain_of("o", port_id)] = None
        wanted.chains["inet", chain_of("i", port_id)] = None

    def _group(self, state: HostNetwork, group: SecurityGroup, wanted: Wanted) -> None:
        """Its chains, and the sets of the groups that its rules name."""
        remote = sorted({rule.remote_group_id for rule in group.rules if rule.remote_group_id})
        prefixes = set()
        for remote_id in remote:
            members = state.members.get(remote_id, ())
            prefixes |= {(remote_id, version) for version in self._members(remote_id, members, wanted)}
        egress, ingress = rules.group_chains(group, prefixes)
        wanted.chains["inet", chain_of("go", group.id)] = egress
        wanted.chains["inet", chain_of("gi", group.id)] = ingress

    def _members(self, group_id: str, members: Iterable[str], wanted: Wanted) -> set[int]:
        """The sets of a group's members: one of addresses, and where there are CIDRs, one of those.

        (An interval set for both would be one thing less, but adding an address to it costs
        more the larger it is, and neighbours merge.) Returns the IP versions that have CIDRs.
        """
        known = [_member(text) for text in members]
        with_prefixes = set()
        for version, kind in ADDRESS_TYPES.items():
            single: dict[Element, Any] = {
                address: None for of, address, _net in known if of == version and address is not None
            }
            wide = [net for of, address, net in known if of == version and address is None]
            key = ("inet", members_of(group_id, version))
            wanted.sets[key] = Kind(kind)
            wanted.elements[key] = Elements(single, whole=True)
            key = ("inet", members_of(group_id, version, prefixes=True))
            if wide:
                with_prefixes.add(version)
                wanted.sets[key] = Kind(kind, interval=True)
                merged = _halves(rules.collapsed(wide))
                wanted.elements[key] = Elements({str(net): None for net in merged}, whole=True)
            elif key in self.tables.present.sets:
                wanted.sets[key] = None
        return with_prefixes


def guarded(port: Port) -> bool:
    """Do rules hold for it?"""
    return is_tap(port) and port.port_security_enabled


def owned_by(port: Port | None) -> set[Owned]:
    """The addresses that a port has, where the kernel knows them; nothing if it is no tap here."""
    if port is None or not is_tap(port):
        return set()
    bridge = bridge_name(port.network_id)
    return {(bridge, port.device, str(ipaddress.ip_address(each.ip_address))) for each in port.addresses}


def _version(owned: Owned) -> int:
    return 6 if ":" in owned[2] else 4


@functools.lru_cache(maxsize=65536)
def _member(text: str) -> tuple[int, str | None, Any]:
    """(IP version, the address if it is a single one, the network) of a group's member.

    Remembered, as a large group comes again with each of its ports, all but one member the same.
    """
    net = ipaddress.ip_network(text, strict=False)
    single = net.prefixlen == net.max_prefixlen
    return net.version, str(net.network_address) if single else None, net


def _halves(nets: Iterable[Any]) -> list[Any]:
    """Everything (/0) as two halves: an interval set can't hold a whole family."""
    return [part for net in nets for part in (net.subnets() if net.prefixlen == 0 else [net])]


class _Numbers:
    """Marks of ports and zones of networks: those that the kernel has go on, new ones are free ones."""

    def __init__(self, tables: Tables) -> None:
        present = tables.present
        marks = present.elements.get(("bridge", "marks"), {})
        self._marks = {str(k): v for k, v in marks.items() if isinstance(v, int)}
        self._taken = set(self._marks.values())
        self._next = rules.MARK_BASE + 1
        zones = present.elements.get(("inet", "zones"), {})
        self._zones = {
            str(bridge): int(chain.removeprefix("zone-"))
            for bridge, chain in zones.items()
            if isinstance(chain, str) and chain.removeprefix("zone-").isdigit()
        }
        self._taken_zones = set(self._zones.values())

    def mark(self, device: str) -> int:
        if device not in self._marks:
            while self._next in self._taken:
                self._next += 1
            self._marks[device] = self._next
            self._taken.add(self._next)
        return self._marks[device]

    def of_bridge(self, bridge: str) -> int | None:
        """The zone of a bridge that has one, its network may be gone."""
        return self._zones.get(bridge)

    def zone(self, network_id: str) -> int:
        """From the network's id, so that tables removed by hand come back with the same zones; 0 is the host's own."""
        bridge = bridge_name(network_id)
        if bridge not in self._zones:
            if len(self._taken_zones) >= ZONES:
                raise DriverError(f"more than {ZONES} networks on one host")
            number = zlib.crc32(network_id.encode()) % ZONES + 1
            while number in self._taken_zones:
                number = number % ZONES + 1
            self._zones[bridge] = number
            self._taken_zones.add(number)
        return self._zones[bridge]
