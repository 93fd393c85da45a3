"""What security groups and anti-spoofing are as nftables rules. Pure functions, no I/O; ``firewall.py`` applies them.

A frame from guest A to guest B on one bridge meets, in this order:

    bridge prerouting   s-A: is the sender who it says it is (MAC, ARP, IP, neighbour discovery, no DHCP server)?
                        the mark says: from A
    inet prerouting     conntrack, in the bridge's zone; o-A: A's egress rules
    bridge forward      is it B's MAC? the mark says: to B
    inet forward        i-B: B's ingress rules
    bridge postrouting  the mark is taken off

(The bridge's nf_call_iptables leads from the bridge's hooks to inet's. Conntrack in the
bridge family would be more direct, but only kernels with nf_conntrack_bridge have it.)

A connection's first direction is checked against the rules for each packet, not only for the first one: so a rule or a
remote member that is taken away ends what is running at once, with no search through the table of
connections. Packets of the other direction pass if the first one does: when a packet of the first direction is
refused, the connection is marked (DEAD_OUT, DEAD_IN), and when one passes again the mark is taken off. Deleting the connection instead would not
hold: the next packet that the guest sends would begin a new one, as its own.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lifecycle.host_network import Port, SecurityGroup
from lifecycle.host_network import Rule as GroupRule
from network.drivers.linux.nft import Chain, Rule
from network.drivers.linux.options import Interface

DEAD_OUT = 0x10000000
DEAD_IN = 0x20000000
MARK_BASE = 0x48000000
"""skb marks of haneul: this plus a port's number (24 bits)"""
ETH_RARP = 0x8035
ICMPV6_ND_OUT = (131, 132, 133, 135, 136, 143)
"""MLD reports and done, router solicitation, neighbour solicitation and advertisement"""
ICMPV6_ND_IN = (130, 134, 135, 136)
"""MLD query, router advertisement, neighbour solicitation and advertisement"""
PROTOCOLS = {
    "ah": 51, "dccp": 33, "egp": 8, "esp": 50, "gre": 47, "icmp": 1, "icmpv6": 58, "igmp": 2,
    "ipip": 4, "ipv6-encap": 41, "ipv6-frag": 44, "ipv6-icmp": 58, "ipv6-nonxt": 59, "ipv6-opts": 60,
    "ipv6-route": 43, "ospf": 89, "pgm": 113, "rsvp": 46, "sctp": 132, "tcp": 6, "udp": 17, "udplite": 136,
    "vrrp": 112,
}  # fmt: skip
WITH_PORTS = {6: "tcp", 17: "udp", 33: "dccp", 132: "sctp", 136: "udplite"}
ANY4, ANY6 = ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")
COUNTER = {"counter": {"packets": 0, "bytes": 0}}
DROP, ACCEPT, RETURN = {"drop": None}, {"accept": None}, {"return": None}

Net = ipaddress.IPv4Network | ipaddress.IPv6Network


def payload(protocol: str, field: str) -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": field}}


def meta(key: str) -> dict[str, Any]:
    return {"meta": {"key": key}}


def match(left: Any, right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def one_of(values: Iterable[Any]) -> Any:
    listed = list(values)
    return listed[0] if len(listed) == 1 else {"set": listed}


def jump(chain: str) -> dict[str, Any]:
    return {"jump": {"target": chain}}


def goto(chain: str) -> dict[str, Any]:
    return {"goto": {"target": chain}}


def vmap(key: Any, name: str) -> dict[str, Any]:
    return {"vmap": {"key": key, "data": f"@{name}"}}


def set_mark(value: Any) -> dict[str, Any]:
    return {"mangle": {"key": meta("mark"), "value": value}}


def net_json(net: Net) -> Any:
    if net.prefixlen == net.max_prefixlen:
        return str(net.network_address)
    return {"prefix": {"addr": str(net.network_address), "len": net.prefixlen}}


def nets_match(side: str, nets: Sequence[Net], *, protocol: str | None = None) -> tuple[Any, ...]:
    """(match,) of an address within ``nets`` (one family, not empty); () if that is every address."""
    if any(net.prefixlen == 0 for net in nets):
        return ()
    left = payload(protocol or ("ip" if nets[0].version == 4 else "ip6"), side)
    return (match(left, one_of(net_json(net) for net in collapsed(nets))),)


def collapsed(nets: Iterable[Net]) -> list[Net]:
    """Sorted, without overlaps; one family."""
    return list(ipaddress.collapse_addresses(nets))  # type: ignore[type-var]


# -- names


def chain_of(kind: str, identifier: str) -> str:
    """s (spoofing), o (out), i (in) of a port; go, gi of a group."""
    return f"{kind}-{identifier}"


def members_of(group_id: str, version: int, *, prefixes: bool = False) -> str:
    return f"{'p' if prefixes else 'm'}{version}-{group_id}"


# -- anti-spoofing


def link_local(mac: str) -> ipaddress.IPv6Address:
    """The address that a guest makes for itself from its MAC (EUI-64)."""
    octets = [int(part, 16) for part in mac.split(":")]
    octets[0] ^= 2
    eui = bytes([*octets[:3], 0xFF, 0xFE, *octets[3:]])
    return ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + eui)


def senders(port: Port) -> dict[str, list[Net]]:
    """{MAC: the addresses that it may send from}: fixed IPs, allowed address pairs, link-local addresses."""
    found: dict[str, list[Net]] = {port.mac_address.lower(): []}
    for address in port.addresses:
        found[port.mac_address.lower()].append(ipaddress.ip_network(address.ip_address))
    for pair in port.allowed_address_pairs:
        mac = (pair.get("mac_address") or port.mac_address).lower()
        found.setdefault(mac, []).append(ipaddress.ip_network(pair["ip_address"], strict=False))
    for mac, nets in found.items():
        nets.append(ipaddress.ip_network(link_local(mac)))
    return found


def spoofing_chain(port: Port) -> Chain:
    """What the port's guest may send: returns if it is honest, else drops."""
    allowed = senders(port)
    rules = [Rule("foreign MAC", (match(payload("ether", "saddr"), one_of(allowed), "!="), COUNTER, DROP))]
    rules += _arp_rules(allowed)
    rules += _dhcp_rules()
    rules += _nd_rules(allowed)
    for mac, nets in allowed.items():
        for version in (4, 6):
            of_family = [net for net in nets if net.version == version]
            if of_family:
                who = match(payload("ether", "saddr"), mac)
                family = match(payload("ether", "type"), "ip" if version == 4 else "ip6")
                rules.append(Rule("own address", (who, family, *nets_match("saddr", of_family), RETURN)))
    # QEMU announces a guest that has moved by RARP
    rules.append(Rule("RARP", (match(payload("ether", "type"), ETH_RARP), RETURN)))
    rules.append(Rule("foreign address", (COUNTER, DROP)))
    return Chain(tuple(rules))


def _arp_rules(allowed: dict[str, list[Net]]) -> Iterable[Rule]:
    """The sender's MAC and IP in the ARP body; 0.0.0.0 asks whether an address is free."""
    for mac, nets in allowed.items():
        v4 = [ipaddress.ip_network("0.0.0.0"), *(net for net in nets if net.version == 4)]
        hardware = match(payload("arp", "saddr ether"), mac)
        yield Rule(
            "own ARP",
            (
                match(payload("ether", "saddr"), mac),
                hardware,
                *nets_match("saddr ip", v4, protocol="arp"),
                RETURN,
            ),
        )
    yield Rule("foreign ARP", (match(payload("ether", "type"), "arp"), COUNTER, DROP))


def _dhcp_rules() -> Iterable[Rule]:
    def ports(source: int, destination: int) -> tuple[Any, ...]:
        return (
            match(payload("udp", "sport"), source),
            match(payload("udp", "dport"), destination),
        )

    asking = match(payload("ip", "saddr"), "0.0.0.0")
    yield Rule("DHCP client", (asking, *ports(68, 67), RETURN))
    ip, ip6 = (match(payload("ether", "type"), name) for name in ("ip", "ip6"))
    yield Rule("DHCP server", (ip, *ports(67, 68), COUNTER, DROP))
    yield Rule("DHCPv6 server", (ip6, *ports(547, 546), COUNTER, DROP))


def _nd_rules(allowed: dict[str, list[Net]]) -> Iterable[Rule]:
    def kind(*types: int) -> Any:
        return match(payload("icmpv6", "type"), one_of(types))

    yield Rule("router advertisement", (kind(134), COUNTER, DROP))
    unspecified = match(payload("ip6", "saddr"), "::")
    yield Rule("address detection", (unspecified, kind(131, 133, 135, 143), RETURN))
    own = {net for nets in allowed.values() for net in nets if net.version == 6}
    if all(net.prefixlen == 128 for net in own):
        target = {"payload": {"base": "th", "offset": 64, "len": 128}}
        values = one_of(f"0x{int(net.network_address):032x}" for net in sorted(own))
        yield Rule("foreign neighbour", (kind(136), match(target, values, "!="), COUNTER, DROP))


# -- security groups


def port_chains(port: Port, groups: Iterable[SecurityGroup]) -> tuple[Chain, Chain]:
    """(egress, ingress) of a port: what all ports have, then its groups', and the rest is refused.

    A port is stateless if all its groups are.
    """
    listed = sorted(groups, key=lambda group: group.id)
    stateful = not listed or any(group.stateful for group in listed)
    made = []
    for direction, side in (("egress", "out"), ("ingress", "in")):
        rules = [Rule("essential", (jump(f"essential-{side}"),))]
        if stateful:
            rules.append(Rule("connections", (COUNTER, jump(f"connections-{side}"))))
        prefix = "go" if direction == "egress" else "gi"
        rules += [Rule(f"group {group.id}", (COUNTER, jump(chain_of(prefix, group.id)))) for group in listed]
        rules.append(Rule("refused", (COUNTER, goto(f"refused-{side}") if stateful else DROP)))
        made.append(Chain(tuple(rules)))
    return made[0], made[1]


def group_chains(
    group: SecurityGroup, prefixes: set[tuple[str, int]] | frozenset[tuple[str, int]] = frozenset()
) -> tuple[Chain, Chain]:
    """(egress, ingress) of a group, shared by its ports.

    ``prefixes``: (group id, IP version) of remote groups with members that are CIDRs.
    """
    sides: dict[str, list[Rule]] = {"egress": [], "ingress": []}
    for rule in group.rules:
        for expressions in rule_matches(rule, prefixes):
            verdict = goto("ok-out" if rule.direction == "egress" else "ok-in")
            sides[rule.direction].append(Rule(_label(rule), (*expressions, COUNTER, verdict)))
    return Chain(tuple(sides["egress"])), Chain(tuple(sides["ingress"]))


def _label(rule: GroupRule) -> str:
    words = [rule.ethertype, rule.protocol or "any"]
    if rule.port_range_min is not None or rule.port_range_max is not None:
        words.append(f"{rule.port_range_min}-{rule.port_range_max}")
    if rule.remote_ip_prefix:
        words.append(rule.remote_ip_prefix)
    if rule.remote_group_id:
        words.append(f"group {rule.remote_group_id[:8]}")
    return " ".join(words)[:100]


def protocol_number(protocol: str | None, version: int) -> int | None:
    """None: any; -1: unknown, matches nothing. ICMP with IPv6 is ICMPv6, as upstream has it."""
    name = (protocol or "any").lower()
    if name in ("any", "0", "ip"):
        return None
    if name == "icmp" and version == 6:
        return 58
    return PROTOCOLS.get(name, int(name) if name.isdigit() else -1)


def rule_matches(
    rule: GroupRule, prefixes: set[tuple[str, int]] | frozenset[tuple[str, int]]
) -> list[tuple[Any, ...]]:
    """The rule's matches; several if it takes several to say it, none if nothing can match."""
    version = 4 if rule.ethertype == "IPv4" else 6
    if protocol_number(rule.protocol, version) == -1:
        return []
    head: list[Any] = [match(meta("nfproto"), "ipv4" if version == 4 else "ipv6")]
    tail = _protocol_matches(rule, version)
    side = "saddr" if rule.direction == "ingress" else "daddr"
    if rule.remote_group_id:
        left = payload("ip" if version == 4 else "ip6", side)
        names = [members_of(rule.remote_group_id, version)]
        if (rule.remote_group_id, version) in prefixes:
            names.append(members_of(rule.remote_group_id, version, prefixes=True))
        return [(*head, match(left, f"@{name}"), *tail) for name in names]
    wanted = list(rule.remote_addresses) if rule.remote_address_group_id else []
    if rule.remote_ip_prefix:
        wanted.append(rule.remote_ip_prefix)
    if not wanted and not rule.remote_address_group_id:
        return [(*head, *tail)]
    nets = [ipaddress.ip_network(text, strict=False) for text in wanted]
    of_family = [net for net in nets if net.version == version]
    return [(*head, *nets_match(side, of_family), *tail)] if of_family else []


def _protocol_matches(rule: GroupRule, version: int) -> list[Any]:
    number = protocol_number(rule.protocol, version)
    if number is None:
        return []
    low, high = rule.port_range_min, rule.port_range_max
    if number in (1, 58):
        protocol = "icmp" if number == 1 else "icmpv6"
        found = [match(meta("l4proto"), number)]
        if low is not None:
            found.append(match(payload(protocol, "type"), low))
            if high is not None:
                found.append(match(payload(protocol, "code"), high))
        return found
    found = [match(meta("l4proto"), number)]
    if number in WITH_PORTS and (low is not None or high is not None):
        low = low if low is not None else 0
        high = high if high is not None else 65535
        if (low, high) != (0, 65535):
            value: Any = low if low == high else {"range": [low, high]}
            found.append(match(payload("th", "dport"), value))
    return found


# -- what all share


def shared_chains() -> dict[tuple[str, str], Chain]:
    """The base chains, and those that all ports use."""
    made = {("bridge", name): chain for name, chain in _bridge_chains().items()}
    made.update({("inet", name): chain for name, chain in _inet_chains().items()})
    return made


def masquerade_chain(gateways: Mapping[str, Sequence[Interface]]) -> Chain:
    """What comes from a host gateway's network ({device: the host's addresses}) and leaves the host bears the host's address.

    Not what stays on a bridge: bridged packets come by here, too.
    """
    made = []
    for device, addresses in gateways.items():
        for address in addresses:
            protocol = "ip" if address.version == 4 else "ip6"
            inside = net_json(address.network)
            made.append(
                Rule(
                    f"masquerade {device}",
                    (
                        match(payload(protocol, "saddr"), inside),
                        match(payload(protocol, "daddr"), inside, "!="),
                        match(meta("oifname"), device, "!="),
                        match(meta("oifname"), "@bridges", "!="),
                        COUNTER,
                        {"masquerade": None},
                    ),
                )
            )
    return Chain(tuple(made), ("nat", "postrouting", 100))


def _bridge_chains() -> dict[str, Chain]:
    def anycast(device: str, side: str) -> Rule:
        key = {"concat": [meta(device), payload("ether", side)]}
        return Rule("host-local DHCP", (match(key, "@anycast"), COUNTER, DROP))

    unicast = match(
        {"&": [payload("ether", "daddr"), "01:00:00:00:00:00"]},
        "00:00:00:00:00:00",
    )
    own = {"concat": [meta("oifname"), payload("ether", "daddr")]}
    ours = match({"&": [meta("mark"), 0xFF000000]}, MARK_BASE)
    return {
        "from-port": Chain(
            (
                anycast("iifname", "saddr"),
                anycast("iifname", "daddr"),
                Rule("mark", (set_mark({"map": {"key": meta("iifname"), "data": "@marks"}}),)),
                Rule("spoofing", (vmap(meta("iifname"), "spoof"),)),
            ),
            ("filter", "prerouting", -200),
        ),
        "to-port": Chain(
            (
                anycast("oifname", "saddr"),
                anycast("oifname", "daddr"),
                Rule("unmark", (ours, set_mark(0))),
                Rule("mark", (set_mark({"map": {"key": meta("oifname"), "data": "@marks"}}),)),
                Rule("receiver", (vmap(meta("oifname"), "deliver"),)),
            ),
            ("filter", "forward", -200),
        ),
        "deliver-own": Chain((Rule("not its MAC", (unicast, match(own, "@macs", "!="), COUNTER, DROP)),)),
        "leave": Chain((Rule("unmark", (ours, set_mark(0))),), ("filter", "postrouting", 0)),
    }


def _inet_chains() -> dict[str, Chain]:
    inside = match(meta("iifname"), "@bridges")
    stays = match(meta("oifname"), "@bridges")
    crosses_out = match(meta("oifname"), "@bridges", "!=")
    crosses_in = match(meta("iifname"), "@bridges", "!=")
    made = {
        "zone": Chain((Rule("zone", (vmap(meta("iifname"), "zones"),)),), ("filter", "prerouting", -300)),
        "egress": Chain((Rule("port", (vmap(meta("mark"), "out"),)),), ("filter", "prerouting", -140)),
        "ingress": Chain(
            (
                # the host's own stack has no business on a network's bridge, whoever addresses it
                Rule("not through the host", (inside, crosses_out, COUNTER, DROP)),
                Rule("not through the host", (stays, crosses_in, COUNTER, DROP)),
                Rule("port", (vmap(meta("mark"), "in"),)),
            ),
            ("filter", "forward", -5),
        ),
        "host": Chain((Rule("not to the host", (inside, COUNTER, DROP)),), ("filter", "input", -5)),
    }
    for side, bit in (("out", DEAD_OUT), ("in", DEAD_IN)):
        made.update(_side_chains(side, bit))
    made["essential-out"] = _essential((68, 67), (546, 547), ICMPV6_ND_OUT)
    made["essential-in"] = _essential((67, 68), (547, 546), ICMPV6_ND_IN)
    return made


def _side_chains(side: str, bit: int) -> dict[str, Chain]:
    connection = {"ct": {"key": "mark"}}
    state = {"ct": {"key": "state"}}
    established = match(state, "established", "in")
    reply = match({"ct": {"key": "direction"}}, "reply")
    alive = match({"&": [connection, DEAD_OUT | DEAD_IN]}, 0)
    dead_here = match({"&": [connection, bit]}, bit)
    revive = {"mangle": {"key": connection, "value": {"&": [connection, 0xFFFFFFFF ^ bit]}}}
    kill = {"mangle": {"key": connection, "value": {"|": [connection, bit]}}}
    return {
        f"connections-{side}": Chain(
            (
                Rule("invalid", (match(state, "invalid", "in"), COUNTER, DROP)),
                Rule("related", (match(state, "related", "in"), alive, ACCEPT)),
                Rule("answers", (established, reply, alive, ACCEPT)),
                Rule("answers to what is refused", (established, reply, COUNTER, DROP)),
            )
        ),
        f"ok-{side}": Chain((Rule("alive again", (dead_here, revive)), Rule("accept", (ACCEPT,)))),
        f"refused-{side}": Chain((Rule("dead", (established, kill)), Rule("drop", (DROP,)))),
    }


def _essential(dhcp: tuple[int, int], dhcp6: tuple[int, int], nd: tuple[int, ...]) -> Chain:
    def udp(ports: tuple[int, int], family: str) -> tuple[Any, ...]:
        return (
            match(meta("nfproto"), family),
            match(payload("udp", "sport"), ports[0]),
            match(payload("udp", "dport"), ports[1]),
            ACCEPT,
        )

    return Chain(
        (
            Rule("DHCP", udp(dhcp, "ipv4")),
            Rule("DHCPv6", udp(dhcp6, "ipv6")),
            Rule("neighbour discovery", (match(payload("icmpv6", "type"), one_of(nd)), ACCEPT)),
        )
    )
