"""Security groups and anti-spoofing, with real packets between guests."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import re
import struct
from collections.abc import Callable, Iterator

import pytest

from lifecycle.host_network import Address, Changed, Dhcp
from network.drivers.linux.bridges import bridge_name
from tests.network.drivers.linux import lab
from tests.network.drivers.linux.lab import (
    ALLOW_OUT,
    Flow,
    Rule,
    eventually,
    make_group,
    make_network,
    make_port,
    needs_lab,
    open_raw,
)

pytestmark = needs_lab

SSH = Rule("ingress", "IPv4", "tcp", 22, 22)
PING = Rule("ingress", "IPv4", "icmp")
OPEN = make_group(*ALLOW_OUT, Rule("ingress", "IPv4"), Rule("ingress", "IPv6"))


@pytest.fixture
def underlay() -> Iterator[lab.Underlay]:
    with lab.underlay() as made:
        yield made


@dataclasses.dataclass
class Pair:
    """Two guests of one network on one host."""

    host: lab.Host
    network: lab.Network
    a: lab.Guest
    b: lab.Guest


PairMaker = Callable[..., Pair]


@pytest.fixture
def pair(underlay: lab.Underlay) -> PairMaker:
    def make(group_a: lab.SecurityGroup, group_b: lab.SecurityGroup, **fields: object) -> Pair:
        host = underlay.host("a")
        network = make_network(1001)
        ports = [
            make_port(network, "10.0.0.11/24", "2001:db8::11/64", security_group_ids=(group_a.id,), **fields),
            make_port(network, "10.0.0.12/24", "2001:db8::12/64", security_group_ids=(group_b.id,)),
        ]
        host.put(network, *ports, group_a, group_b)
        host.apply()
        return Pair(host, network, *(underlay.guest(host, port) for port in ports))

    return make


def with_rules(group: lab.SecurityGroup, *rules: Rule) -> lab.SecurityGroup:
    return dataclasses.replace(group, rules=rules)


def test_rules_hold_in_both_directions_between_two_taps_of_one_bridge(pair: PairMaker) -> None:
    group_a = make_group(*ALLOW_OUT)
    group_b = make_group(SSH, PING, Rule("ingress", "IPv6", "icmp"))
    both = pair(group_a, group_b)
    assert both.a.reaches("10.0.0.12")
    assert both.a.reaches("2001:db8::12")  # ICMP with IPv6 means ICMPv6
    with both.b.listen("10.0.0.12", 22), both.b.listen("10.0.0.12", 23), both.a.listen("10.0.0.11", 22):
        assert both.a.connects("10.0.0.12", 22)
        assert not both.a.connects("10.0.0.12", 23)  # B's ingress
        assert not both.b.connects("10.0.0.11", 22)  # B's egress, and A's ingress
        both.host.apply(both.host.put(with_rules(group_a, *ALLOW_OUT, SSH)))
        assert not both.b.connects("10.0.0.11", 22)  # B's egress still
        both.host.apply(both.host.put(with_rules(group_b, *group_b.rules, *ALLOW_OUT)))
        assert both.b.connects("10.0.0.11", 22)


def test_ports_icmp_types_prefixes_and_address_groups(pair: PairMaker) -> None:
    group_a = make_group(*ALLOW_OUT)
    group_b = make_group(
        Rule("ingress", "IPv4", "icmp", 8, 0, remote_ip_prefix="10.0.0.11/32"),
        Rule("ingress", "IPv4", "tcp", 100, 200),
        Rule(
            "ingress", "IPv4", "6", 300, 300, remote_address_group_id="g", remote_addresses=("10.9.0.0/16",)
        ),
        Rule(
            "ingress", "IPv4", "tcp", 400, 400, remote_address_group_id="g", remote_addresses=("10.0.0.0/28",)
        ),
        Rule("ingress", "IPv4", "tcp", 500, 500, remote_ip_prefix="10.0.0.12/32"),
        Rule("ingress", "IPv6", "tcp", 600, None, remote_ip_prefix="2001:db8::/64"),
        Rule("ingress", "IPv4", "unheard-of"),
    )
    both = pair(group_a, group_b)
    assert both.a.reaches("10.0.0.12")
    expected = {99: False, 100: True, 200: True, 201: False, 300: False, 400: True, 500: False}
    for number, passes in expected.items():
        with both.b.listen("10.0.0.12", number):
            assert both.a.connects("10.0.0.12", number) is passes, number
    with both.b.listen("2001:db8::12", 599), both.b.listen("2001:db8::12", 700):
        assert both.a.connects("2001:db8::12", 700)
        assert not both.a.connects("2001:db8::12", 599)


def test_a_rule_that_goes_ends_a_running_flow_and_one_that_comes_lets_it_on(pair: PairMaker) -> None:
    group_a = make_group(*ALLOW_OUT)
    group_b = make_group(SSH, PING, Rule("ingress", "IPv4", "tcp", 80, 80), *ALLOW_OUT)
    both = pair(group_a, group_b)
    assert both.a.reaches("10.0.0.12")
    ssh = Flow.open(both.a, both.b, "10.0.0.12", 22)
    web = Flow.open(both.a, both.b, "10.0.0.12", 80)
    assert ssh.passes()
    assert ssh.passes(back=True)
    both.host.apply(both.host.put(with_rules(group_b, *group_b.rules[1:])))
    assert not ssh.passes(1)
    # the other side can't take the connection over by speaking up, although it may open any of its own
    assert not ssh.passes(1, back=True)
    assert web.passes()
    assert web.passes(back=True)
    both.host.apply(both.host.put(group_b))
    assert ssh.passes(10)
    assert ssh.passes(10, back=True)


def test_an_egress_rule_that_goes_ends_a_running_flow(pair: PairMaker) -> None:
    group_a = make_group(*ALLOW_OUT)
    both = pair(group_a, make_group(SSH, PING))
    assert both.a.reaches("10.0.0.12")
    flow = Flow.open(both.a, both.b, "10.0.0.12", 22)
    both.host.apply(both.host.put(with_rules(group_a)))
    assert not flow.passes(1)
    assert not flow.passes(1, back=True)


def test_remote_group_members_come_and_go(pair: PairMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = make_group(*ALLOW_OUT)
    servers = make_group(
        Rule("ingress", "IPv4", "tcp", 22, 22, remote_group_id=clients.id),
        Rule("ingress", "IPv6", "tcp", 22, 22, remote_group_id=clients.id),
    )
    both = pair(clients, servers)
    with both.b.listen("10.0.0.12", 22), both.b.listen("2001:db8::12", 22):
        assert not both.a.connects("10.0.0.12", 22)
        members = tuple(f"10.0.{n // 250}.{n % 250 + 1}" for n in range(1000)) + ("2001:db8::11",)
        both.host.apply(both.host.have_members(clients, *members))
        assert both.a.connects("10.0.0.12", 22)
        assert both.a.connects("2001:db8::12", 22)
    flow = Flow.open(both.a, both.b, "10.0.0.12", 22)
    assert flow.passes()
    before = both.host.run("nft", "-a", "list", "chain", "inet", "haneul", f"gi-{servers.id}").stdout
    # one port leaves, one of the same name in another network stays; then that goes, too
    mine = both.host.state.members[clients.id]
    mine.replace("twin", ["10.0.0.11"])
    touched = mine.replace("port-10.0.0.11", ())
    assert touched == {"10.0.0.11"}
    assert both.host.driver is not None
    tables = both.host.driver.firewall.tables
    written: list[str | None] = []
    nft = tables._nft
    monkeypatch.setattr(
        tables, "_nft", lambda *words, text=None: written.append(text) or nft(*words, text=text)
    )
    both.host.apply(Changed(addresses={clients.id: touched}))
    assert not written
    assert flow.passes(10)
    both.host.apply(Changed(addresses={clients.id: mine.replace("twin", ())}))
    assert not flow.passes(1)
    (text,) = written
    (command,) = json.loads(text or "")["nftables"]
    assert command["delete"]["element"]["elem"] == ["10.0.0.11"]
    fewer = tuple(each for each in members if each != "10.0.0.11")
    # only the set was changed: the chain's rules are those that were there
    after = both.host.run("nft", "-a", "list", "chain", "inet", "haneul", f"gi-{servers.id}").stdout
    assert re.findall("handle [0-9]+", before) == re.findall("handle [0-9]+", after)
    # an allowed address pair may be a CIDR
    both.host.apply(Changed(addresses={clients.id: mine.replace("wide", ["10.0.0.8/29"])}))
    assert flow.passes(10)
    both.host.apply(both.host.have_members(clients, *fewer))
    assert not flow.passes(1)


def test_an_agent_that_starts_again_drops_no_connection(pair: PairMaker) -> None:
    group_a, group_b = make_group(*ALLOW_OUT), make_group(SSH, PING)
    both = pair(group_a, group_b)
    assert both.a.reaches("10.0.0.12")
    flow = Flow.open(both.a, both.b, "10.0.0.12", 22)
    before = json.loads(both.host.run("nft", "-j", "-a", "list", "table", "inet", "haneul").stdout)
    both.host.stop()
    assert flow.passes()
    both.host.start()
    both.host.apply()
    assert flow.passes()
    after = json.loads(both.host.run("nft", "-j", "-a", "list", "table", "inet", "haneul").stdout)
    assert handles(before) == handles(after)  # no rule was written again


def handles(listing: dict[str, list[dict[str, dict[str, object]]]]) -> list[tuple[str, object]]:
    return [
        (kind, each["handle"])
        for entry in listing["nftables"]
        for kind, each in entry.items()
        if "handle" in each
    ]


def test_what_was_changed_by_hand_is_repaired_and_other_tables_stay(pair: PairMaker) -> None:
    group_a, group_b = make_group(*ALLOW_OUT), make_group(SSH, PING)
    both = pair(group_a, group_b)
    assert both.a.reaches("10.0.0.12")
    flow = Flow.open(both.a, both.b, "10.0.0.12", 22)
    host = both.host
    host.run("nft", "add", "table", "inet", "stranger")
    host.run("nft", "add", "chain", "inet", "stranger", "c")
    host.run("nft", "insert", "rule", "inet", "haneul", f"gi-{group_b.id}", "drop")
    assert not flow.passes(1)
    host.apply()
    assert flow.passes(10)
    host.run("nft", "flush", "chain", "bridge", "haneul", f"s-{both.a.port.id}")
    host.run("nft", "delete", "element", "inet", "haneul", "bridges", "{", bridge_name(both.network.id), "}")
    host.run("nft", "add", "chain", "inet", "haneul", "garbage")
    host.apply()
    text = host.run("nft", "list", "ruleset").stdout
    assert "garbage" not in text
    assert "foreign MAC" in host.run("nft", "list", "chain", "bridge", "haneul", f"s-{both.a.port.id}").stdout
    assert bridge_name(both.network.id) in host.run("nft", "list", "set", "inet", "haneul", "bridges").stdout
    assert flow.passes()
    # even all of it: a small change finds out, and the zone is the same again, so connections live on
    host.run("nft", "delete", "table", "inet", "haneul")
    host.run("nft", "delete", "table", "bridge", "haneul")
    host.apply(host.put(group_b))
    assert "foreign MAC" in host.run("nft", "list", "chain", "bridge", "haneul", f"s-{both.a.port.id}").stdout
    assert flow.passes()
    assert "table inet stranger" in host.run("nft", "list", "tables").stdout


def test_overlapping_tenants_with_the_same_connections(underlay: lab.Underlay) -> None:
    """Same addresses, same ports, on one host: what one may doesn't help the other."""
    host = underlay.host("a")
    guests = []
    for vni, group in ((1001, make_group(*ALLOW_OUT, SSH, PING)), (1002, make_group(*ALLOW_OUT, SSH, PING))):
        network = make_network(vni)
        ports = [
            make_port(network, address, security_group_ids=(group.id,))
            for address in ("10.0.0.11/24", "10.0.0.12/24")
        ]
        host.put(network, *ports, group)
        host.apply()
        guests.append((group, underlay.guest(host, ports[0]), underlay.guest(host, ports[1])))
    flows = []
    for _group, a, b in guests:
        assert a.reaches("10.0.0.12")
        flows.append(Flow.open(a, b, "10.0.0.12", 22, source_port=40000))
    assert all(flow.passes() and flow.passes(back=True) for flow in flows)
    host.apply(host.put(with_rules(guests[0][0], *ALLOW_OUT)))
    assert not flows[0].passes(1)
    assert flows[1].passes()
    assert flows[1].passes(back=True)


def test_who_gets_an_address_gets_no_answers_to_the_one_before(pair: PairMaker) -> None:
    both = pair(make_group(*ALLOW_OUT), OPEN)
    assert both.a.reaches("10.0.0.12")
    flow = Flow.open(both.a, both.b, "10.0.0.12", 22, source_port=40001)
    assert both.a.connects("10.0.0.12", 22) is False
    zones = both.host.run("nft", "list", "map", "inet", "haneul", "zones").stdout
    (zone,) = re.findall(r"jump zone-([0-9]+)", zones)

    def tracked(address: str) -> bool:
        table = both.host.run("cat", "/proc/net/nf_conntrack").stdout
        return any(f"zone={zone} " in line and f"={address} " in line for line in table.splitlines())

    assert tracked("10.0.0.11")
    both.host.apply(both.host.put(dataclasses.replace(both.a.port, addresses=())))
    assert not tracked("10.0.0.11")
    assert not flow.passes(1, back=True)
    both.host.apply(both.host.put(both.a.port))
    assert flow.passes(10)
    assert tracked("10.0.0.11")
    both.host.apply(both.host.drop(both.a.port))
    assert not tracked("10.0.0.11")


def test_what_went_while_the_agent_was_away(underlay: lab.Underlay) -> None:
    """A port, an address, a rule: their connections end at the agent's start, and no others."""
    host = underlay.host("a")
    network = make_network(1001)
    out, closing, kept = make_group(*ALLOW_OUT), make_group(*ALLOW_OUT, SSH), make_group(*ALLOW_OUT, SSH)
    gone, changing, client, server, guarded = (
        make_port(network, f"10.0.0.{last}/24", security_group_ids=(group.id,))
        for last, group in ((11, out), (12, out), (13, out), (14, kept), (15, closing))
    )
    host.put(network, out, closing, kept, gone, changing, client, server, guarded)
    host.apply()
    a, b, c, s, g = (underlay.guest(host, each) for each in (gone, changing, client, server, guarded))
    flows = [Flow.open(each, s, "10.0.0.14", 22, source_port=41000) for each in (a, b, c)]
    ending = Flow.open(c, g, "10.0.0.15", 22)

    def tracked(address: str) -> bool:
        table = host.run("cat", "/proc/net/nf_conntrack").stdout
        return any(f"={address} " in line for line in table.splitlines())

    assert all(flow.passes() for flow in (*flows, ending))
    assert tracked("10.0.0.11") and tracked("10.0.0.12") and tracked("10.0.0.13")
    host.stop()
    assert all(flow.passes() for flow in (*flows, ending))
    host.drop(gone)
    host.put(dataclasses.replace(changing, addresses=()), with_rules(closing, *ALLOW_OUT))
    # the address of the port that went has a new owner already
    heir = make_port(network, "10.0.0.11/24", security_group_ids=(out.id,))
    host.put(heir)
    host.start()
    host.apply()
    assert not tracked("10.0.0.11")
    assert not tracked("10.0.0.12")
    assert not flows[0].passes(1, back=True)
    assert not ending.passes(1)
    assert flows[2].passes()
    assert flows[2].passes(back=True)


def test_stateless_groups_know_no_answers(pair: PairMaker) -> None:
    group_a = make_group(Rule("egress", "IPv4"), stateful=False)
    both = pair(group_a, OPEN)
    with both.b.listen("10.0.0.12", 22):
        assert not both.a.connects("10.0.0.12", 22)
        both.host.apply(
            both.host.put(
                with_rules(group_a, Rule("egress", "IPv4"), Rule("ingress", "IPv4", "tcp", 1024, 65535))
            )
        )
        assert both.a.connects("10.0.0.12", 22)


def test_a_port_without_groups_is_closed_and_one_without_port_security_is_open(pair: PairMaker) -> None:
    both = pair(OPEN, OPEN)
    assert both.a.reaches("10.0.0.12")
    closed = dataclasses.replace(both.b.port, security_group_ids=())
    both.host.apply(both.host.put(closed))
    assert not both.a.pings("10.0.0.12")
    both.host.apply(both.host.put(dataclasses.replace(closed, port_security_enabled=False)))
    assert both.a.reaches("10.0.0.12")
    both.b.run("ip", "address", "add", "10.0.0.99/24", "dev", "eth0")
    assert both.a.reaches("10.0.0.99")
    both.host.apply(both.host.put(both.b.port))
    assert both.a.reaches("10.0.0.12")
    assert not both.a.pings("10.0.0.99")


def test_foreign_addresses_are_refused_unless_they_are_allowed_pairs(pair: PairMaker) -> None:
    both = pair(OPEN, OPEN)
    assert both.a.reaches("10.0.0.12")
    both.a.run("ip", "address", "add", "10.0.0.77/24", "dev", "eth0")
    both.a.run("ip", "address", "add", "2001:db8::77/64", "dev", "eth0", "nodad")
    both.b.run("ip", "neigh", "replace", "10.0.0.77", "lladdr", both.a.port.mac_address, "dev", "eth0")

    def pings_as(source: str, target: str) -> bool:
        return both.a.run("ping", "-c1", "-W1", "-I", source, target, check=False).returncode == 0

    assert not pings_as("10.0.0.77", "10.0.0.12")
    assert not pings_as("2001:db8::77", "2001:db8::12")
    allowed = dataclasses.replace(
        both.a.port,
        allowed_address_pairs=(
            {"ip_address": "10.0.0.64/26", "mac_address": both.a.port.mac_address},
            {"ip_address": "2001:db8::77", "mac_address": both.a.port.mac_address},
        ),
    )
    both.host.apply(both.host.put(allowed))
    assert eventually(lambda: pings_as("10.0.0.77", "10.0.0.12"))
    assert eventually(lambda: pings_as("2001:db8::77", "2001:db8::12"))
    both.host.apply(both.host.put(both.a.port))
    assert not pings_as("10.0.0.77", "10.0.0.12")
    # a foreign MAC
    both.a.run("ip", "link", "set", "eth0", "address", "fa:16:3e:00:00:01")
    assert not both.a.pings("10.0.0.12", count=2)


def frame(destination: str, source: str, kind: int, body: bytes) -> bytes:
    def mac(text: str) -> bytes:
        return bytes.fromhex(text.replace(":", ""))

    return mac(destination) + mac(source) + struct.pack("!H", kind) + body


def arp_reply(source: str, ip: str, sender: str | None = None) -> bytes:
    hardware = bytes.fromhex((sender or source).replace(":", ""))
    address = bytes(int(part) for part in ip.split("."))
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2) + hardware + address + b"\xff" * 6 + address
    return frame("ff:ff:ff:ff:ff:ff", source, 0x0806, body.ljust(46, b"\0"))


def udp(source_mac: str, source: str, sport: int, dport: int) -> bytes:
    payload = b"x" * 20
    datagram = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload
    addresses = bytes(int(p) for p in source.split(".")) + b"\xff" * 4
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(datagram), 0, 0, 64, 17, 0) + addresses
    total = sum(struct.unpack("!10H", header))
    total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return frame(
        "ff:ff:ff:ff:ff:ff",
        source_mac,
        0x0800,
        header[:10] + struct.pack("!H", total) + header[12:] + datagram,
    )


def test_forged_frames_do_not_arrive(pair: PairMaker) -> None:
    both = pair(OPEN, OPEN)
    assert both.a.reaches("10.0.0.12")
    mine, other = both.a.port.mac_address, "fa:16:3e:00:00:01"
    rarp = frame("ff:ff:ff:ff:ff:ff", mine, 0x8035, b"\0" * 46)
    arrive = {
        "own ARP": arp_reply(mine, "10.0.0.11"),
        "probe": arp_reply(mine, "0.0.0.0"),
        "DHCP client": udp(mine, "0.0.0.0", 68, 67),
        "RARP": rarp,
    }
    forged = {
        "ARP for another's address": arp_reply(mine, "10.0.0.12"),
        "ARP with another's MAC inside": arp_reply(mine, "10.0.0.11", sender=other),
        "ARP from another MAC": arp_reply(other, "10.0.0.11"),
        "DHCP server": udp(mine, "10.0.0.11", 67, 68),
        "another's IP": udp(mine, "10.0.0.12", 1000, 2000),
        "unknown protocol": frame("ff:ff:ff:ff:ff:ff", mine, 0x88CC, b"\0" * 46),
        "VLAN tag": frame("ff:ff:ff:ff:ff:ff", mine, 0x8100, b"\0\5" + arp_reply(mine, "10.0.0.11")[12:]),
        "router advertisement": icmpv6(mine, 134),
        "neighbour advertisement for another": icmpv6(mine, 136, target="fe80::1"),
    }
    with open_raw(both.a) as sender, open_raw(both.b) as receiver:
        for name, data in [*forged.items(), *arrive.items()]:
            sender.send(data)
            arrived = lab.hears(receiver, data[12:], patience=2 if name in arrive else 0.3)
            assert arrived is (name in arrive), name


def icmpv6(source_mac: str, kind: int, target: str = "::") -> bytes:
    octets = [int(part, 16) for part in source_mac.split(":")]
    own = b"\xfe\x80" + bytes(6) + bytes([octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]])
    everyone = ipaddress.ip_address("ff02::1").packed
    body = struct.pack("!BBHI", kind, 0, 0, 0) + ipaddress.ip_address(target).packed
    pseudo = own + everyone + struct.pack("!II", len(body), 58) + body
    total = sum(struct.unpack(f"!{len(pseudo) // 2}H", pseudo))
    total = (total & 0xFFFF) + (total >> 16)
    total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    body = body[:2] + struct.pack("!H", total) + body[4:]
    header = struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + own + everyone
    return frame("33:33:00:00:00:01", source_mac, 0x86DD, header + body)


def test_frames_for_others_are_not_overheard(pair: PairMaker) -> None:
    both = pair(OPEN, OPEN)
    assert both.a.reaches("10.0.0.12")
    flooded = frame(
        "fa:16:3e:99:99:99",
        both.a.port.mac_address,
        0x0800,
        udp(both.a.port.mac_address, "10.0.0.11", 1, 2)[14:],
    )
    with open_raw(both.a) as sender, open_raw(both.b) as receiver:
        sender.send(flooded)
        assert not lab.hears(receiver, flooded[12:], patience=0.5)


def test_frames_of_the_dhcp_servers_mac_stay_on_the_host(underlay: lab.Underlay) -> None:
    a, b = underlay.host("a"), underlay.host("b")
    network = make_network(1001)
    dhcp = Dhcp("d", "fa:16:3e:dd:dd:dd", (Address("10.0.0.2", "subnet", 24),))
    ports = [make_port(network, f"10.0.0.1{n}/24", security_group_ids=(OPEN.id,)) for n in (1, 2)]
    for host, other, port in ((a, b, ports[0]), (b, a, ports[1])):
        host.put(dataclasses.replace(network, dhcp=dhcp, peers=(other.tunnel_address,)), port, OPEN)
        host.apply()
    left, right = underlay.guest(a, ports[0]), underlay.guest(b, ports[1])
    assert left.reaches("10.0.0.12")
    # the server's leg on host a, as the DHCP part attaches it
    a.run("ip", "link", "add", "nsout", "type", "veth", "peer", "name", "nsin")
    a.run("ip", "link", "set", "nsin", "address", dhcp.mac_address, "up")
    assert a.inside is not None
    assert a.driver is not None
    a.inside(a.driver.bridges.attach, "nsout", a.state.networks[network.id])
    data = arp_reply(dhcp.mac_address, "10.0.0.2")
    with open_raw(a, "nsin") as sender, open_raw(left) as near, open_raw(right) as far:
        sender.send(data)
        assert lab.hears(near, data[12:])
        assert not lab.hears(far, data[12:], patience=0.5)
    # and if another host lets it out nevertheless, it isn't let in
    b.run("nft", "flush", "set", "bridge", "haneul", "anycast")
    with open_raw(b, "vx1001") as sender, open_raw(left) as near:
        sender.send(data)
        assert not lab.hears(near, data[12:], patience=0.5)


def test_guests_do_not_reach_the_host(underlay: lab.Underlay) -> None:
    host = underlay.host("a")
    network = make_network(1001)
    port = make_port(network, "10.0.0.11/24", security_group_ids=(OPEN.id,), port_security_enabled=False)
    host.put(network, port, OPEN)
    host.apply()
    guest = underlay.guest(host, port)
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    (bridge,) = json.loads(host.run("ip", "-j", "link", "show", bridge_name(network.id)).stdout)
    guest.run("ip", "route", "add", "172.31.0.0/24", "dev", "eth0")
    guest.run("ip", "neigh", "add", "172.31.0.1", "lladdr", bridge["address"], "dev", "eth0")
    host.run("ip", "route", "add", "10.0.0.0/24", "dev", bridge_name(network.id))
    assert not guest.pings("172.31.0.1", count=2)


def test_changing_one_port_of_many_touches_only_it(underlay: lab.Underlay) -> None:
    host = underlay.host("a")
    network = make_network(1001)
    ports = [
        make_port(network, f"10.0.{n // 250}.{n % 250 + 1}/16", security_group_ids=(OPEN.id,))
        for n in range(60)
    ]
    host.put(network, OPEN, *ports)
    host.apply()
    before = json.loads(host.run("nft", "-j", "-a", "list", "ruleset").stdout)
    host.apply(host.put(dataclasses.replace(ports[7], addresses=(Address("10.0.9.9", "s", 16),))))
    after = json.loads(host.run("nft", "-j", "-a", "list", "ruleset").stdout)
    changed = {
        entry["rule"]["chain"]
        for entry in after["nftables"]
        if "rule" in entry and entry not in before["nftables"]
    }
    assert changed == {f"s-{ports[7].id}"}
    host.apply(host.drop(ports[7]))
    text = host.run("nft", "list", "ruleset").stdout
    assert ports[7].id not in text
    assert ports[7].device not in text
    assert ports[8].device in text
