"""Networks, tunnels and taps on two hosts that are namespaces, with real packets."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import pytest

from core.errors import DriverError
from lifecycle.host_network import Changed, Members, Port
from network.drivers.linux.bridges import bridge_name
from tests.network.drivers.linux import lab
from tests.network.drivers.linux.lab import ALLOW_OUT, Rule, make_group, make_network, make_port, needs_lab

pytestmark = needs_lab


@pytest.fixture
def underlay() -> Iterator[lab.Underlay]:
    with lab.underlay() as made:
        yield made


def names(host: lab.Host) -> set[str]:
    return {each["ifname"] for each in json.loads(host.run("ip", "-j", "link").stdout)}


def settings(host: lab.Host) -> list[dict[str, Any]]:
    """What is configured of each device; its state and timers move by themselves."""
    wanted = ("ifindex", "ifname", "ifalias", "mtu", "master", "address")
    return [
        {key: each.get(key) for key in wanted} for each in json.loads(host.run("ip", "-j", "link").stdout)
    ]


OPEN = make_group(*ALLOW_OUT, Rule("ingress", "IPv4"), Rule("ingress", "IPv6"))


def test_ping_across_vxlan_and_isolation_of_overlapping_tenants(underlay: lab.Underlay) -> None:
    a, b = underlay.host("a"), underlay.host("b")
    guests = {}
    for vni in (1001, 1002):
        net = make_network(vni)
        for host, other, address in ((a, b, "10.0.0.11/24"), (b, a, "10.0.0.12/24")):
            port = make_port(net, address, f"2001:db8::{address[7:9]}/64", security_group_ids=(OPEN.id,))
            host.put(dataclasses.replace(net, peers=(other.tunnel_address,)), port, OPEN)
            guests[vni, host] = port
    # a third guest of the second tenant only: the first must not reach it
    lonely = make_port(net, "10.0.0.13/24", security_group_ids=(OPEN.id,))
    b.put(lonely)
    for host in (a, b):
        assert set(host.apply().ports.values()) == {"ACTIVE"}
    made = {key: underlay.guest(key[1], port) for key, port in guests.items()}
    underlay.guest(b, lonely)
    for vni in (1001, 1002):
        assert made[vni, a].reaches("10.0.0.12")
        assert made[vni, a].reaches("2001:db8::12")
        assert made[vni, b].reaches("10.0.0.11")
    assert made[1002, a].reaches("10.0.0.13")
    assert not made[1001, a].pings("10.0.0.13", count=3)
    # the biggest packet that fits in the network's MTU goes through the tunnel whole
    assert made[1001, a].run("ping", "-c1", "-W2", "-Mdo", "-s", str(1450 - 28), "10.0.0.12").returncode == 0


def test_apply_again_changes_nothing_and_repairs_what_was_changed_by_hand(underlay: lab.Underlay) -> None:
    a = underlay.host("a")
    net = make_network(1001, peers=("172.31.0.2", "172.31.0.3"))
    port = make_port(net, "10.0.0.11/24", security_group_ids=(OPEN.id,))
    a.put(net, port, OPEN)
    a.apply()
    before = settings(a)
    a.apply()
    assert settings(a) == before
    a.run("ip", "link", "add", f"brq{'0' * 11}", "type", "bridge")  # a stranger with a name like ours
    a.run("ip", "link", "set", port.device, "nomaster")
    a.run("ip", "link", "set", port.device, "down")
    a.run("ip", "link", "set", bridge_name(net.id), "type", "bridge", "nf_call_iptables", "0")
    a.run("bridge", "fdb", "del", "00:00:00:00:00:00", "dev", "vx1001", "dst", "172.31.0.2")
    a.run("bridge", "fdb", "append", "00:00:00:00:00:00", "dev", "vx1001", "dst", "172.31.0.9")
    a.apply()
    (tap,) = json.loads(a.run("ip", "-j", "link", "show", port.device).stdout)
    assert tap["master"] == bridge_name(net.id)
    assert "UP" in tap["flags"]
    (bridge,) = json.loads(a.run("ip", "-j", "-d", "link", "show", bridge_name(net.id)).stdout)
    assert bridge["linkinfo"]["info_data"]["nf_call_iptables"] == 1
    assert a.driver is not None
    assert a.inside is not None
    assert a.inside(a.driver.tunnels.peers, "vx1001") == ["172.31.0.2", "172.31.0.3"]
    assert f"brq{'0' * 11}" in names(a)


def test_peers_follow_and_what_was_learnt_of_one_that_left_is_forgotten(underlay: lab.Underlay) -> None:
    a, b = underlay.host("a"), underlay.host("b")
    net = make_network(1001)
    one, two = (make_port(net, ip, security_group_ids=(OPEN.id,)) for ip in ("10.0.0.11/24", "10.0.0.12/24"))
    a.put(dataclasses.replace(net, peers=("172.31.0.2",)), one, OPEN)
    b.put(dataclasses.replace(net, peers=("172.31.0.1",)), two, OPEN)
    a.apply()
    b.apply()
    left, _right = underlay.guest(a, one), underlay.guest(b, two)
    assert left.reaches("10.0.0.12")
    fdb = a.run("bridge", "fdb", "show", "dev", "vx1001").stdout
    assert f"{two.mac_address} dst 172.31.0.2" in fdb
    # b leaves first: frames that it still sent would be learnt from
    b.apply(b.put(dataclasses.replace(net, peers=())))
    a.apply(a.put(dataclasses.replace(net, peers=("172.31.0.3",))))
    fdb = a.run("bridge", "fdb", "show", "dev", "vx1001").stdout
    assert "172.31.0.2" not in fdb
    assert "00:00:00:00:00:00 dst 172.31.0.3" in fdb
    assert not left.pings("10.0.0.12")
    b.apply(b.put(dataclasses.replace(net, peers=("172.31.0.1",))))
    a.apply(a.put(dataclasses.replace(net, peers=("172.31.0.2",))))
    assert left.reaches("10.0.0.12")


def test_what_is_gone_is_removed_and_strangers_stay(underlay: lab.Underlay) -> None:
    a = underlay.host("a")
    before = names(a)
    a.run("ip", "tuntap", "add", "tapstranger", "mode", "tap")
    a.run("ip", "link", "add", "vx77", "type", "vxlan", "id", "77", "dstport", "4789")
    net, other = make_network(1001), make_network(1002)
    ports = [make_port(n, "10.0.0.11/24", security_group_ids=(OPEN.id,)) for n in (net, other)]
    a.put(net, other, *ports, OPEN)
    a.apply()
    a.apply(a.drop(ports[0], net))
    assert ports[0].device not in names(a)
    assert not {"vx1001", bridge_name(net.id)} & names(a)
    assert {"vx1002", bridge_name(other.id), ports[1].device} <= names(a)
    # an agent that starts again knows of nothing: everything that is marked as its own goes
    a.stop()
    a.state = type(a.state)()
    a.start()
    a.apply()
    assert names(a) == before | {"tapstranger", "vx77"}


def test_one_failure_does_not_keep_the_others(underlay: lab.Underlay) -> None:
    a = underlay.host("a")
    a.run("ip", "link", "add", "vx77", "type", "bridge")
    bad, good = make_network(77), make_network(78)
    vlan = make_network(5, network_type="vlan", physical_network="nowhere")
    ports = [make_port(n, "10.0.0.11/24", security_group_ids=(OPEN.id,)) for n in (bad, good)]
    a.put(bad, good, vlan, *ports, OPEN)
    applied = a.apply(errors=True)
    assert applied.ports[ports[1].id] == "ACTIVE"
    text = "\n".join(applied.errors)
    assert "vx77 is not haneul's" in text
    assert "physical_interfaces" in text
    assert len(applied.errors) == 2


def test_two_hundred_ports_converge_and_one_more_costs_what_the_first_did(
    underlay: lab.Underlay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 200 ports, in a group that names itself, one that comes or goes writes the same few rules as among two."""
    a = underlay.host("a")
    group = make_group(*ALLOW_OUT)
    group = dataclasses.replace(
        group, rules=(*group.rules, Rule("ingress", "IPv4", remote_group_id=group.id))
    )
    nets = [make_network(1001 + number) for number in range(4)]
    a.put(group, *nets)
    a.state.members[group.id] = members = Members()
    assert a.driver is not None
    tables = a.driver.firewall.tables
    nft = tables._nft
    written: list[int] = []

    def counted(*words: str, text: str | None = None) -> str:
        written.append(len(json.loads(text)["nftables"]) if text else 0)
        return nft(*words, text=text)

    def one_more(number: int) -> tuple[Port, Changed]:
        address = f"10.0.{number >> 8}.{number & 255}"
        port = make_port(nets[number % 4], f"{address}/16", security_group_ids=(group.id,))
        changed = a.put(port)
        changed.addresses[group.id] = members.replace(port.id, [address])
        return port, changed

    def cost(number: int) -> list[int]:
        """The commands of a port that comes, and of the same when it goes."""
        written.clear()
        port, changed = one_more(number)
        assert a.apply(changed).ports == {port.id: "ACTIVE"}
        changed = a.drop(port)
        changed.addresses[group.id] = members.replace(port.id, ())
        a.apply(changed)
        return list(written)

    for number in range(10, 12):
        one_more(number)
    a.apply()
    monkeypatch.setattr(tables, "_nft", counted)
    first = cost(12)
    assert len(first) == 2
    for number in range(12, 210):
        one_more(number)
    applied = a.apply()
    assert len(applied.ports) == 200 and set(applied.ports.values()) == {"ACTIVE"}
    assert len([name for name in names(a) if name.startswith("tap")]) == 200
    assert cost(210) == first
    written.clear()
    a.apply()
    assert written == []
    left, right = (underlay.guest(a, port) for port in list(a.state.ports.values())[196:200:3])
    assert not left.pings(right.port.addresses[0].ip_address)  # another network's
    near = next(port for port in a.state.ports.values() if port.network_id == left.port.network_id)
    underlay.guest(a, near)
    assert left.reaches(near.addresses[0].ip_address)
    a.stop()  # all devices go with their namespace, much faster than one by one


def test_admin_state(underlay: lab.Underlay) -> None:
    a = underlay.host("a")
    net = make_network(1001)
    one, two = (make_port(net, ip, security_group_ids=(OPEN.id,)) for ip in ("10.0.0.11/24", "10.0.0.12/24"))
    a.put(net, one, two, OPEN)
    a.apply()
    left, _right = underlay.guest(a, one), underlay.guest(a, two)
    assert left.reaches("10.0.0.12")
    down = dataclasses.replace(two, admin_state_up=False)
    assert a.apply(a.put(down)).ports == {two.id: "DOWN"}
    assert not left.pings("10.0.0.12")
    assert a.apply(a.put(two)).ports == {two.id: "ACTIVE"}
    assert left.reaches("10.0.0.12")
    closed = a.apply(a.put(dataclasses.replace(net, admin_state_up=False)))
    assert closed.ports == {one.id: "DOWN", two.id: "DOWN"}
    assert not left.pings("10.0.0.12")


def test_a_flat_network_on_an_uplink(underlay: lab.Underlay) -> None:
    """Untagged frames: guests of two hosts, and a machine that no agent knows, are on one wire."""
    network = make_network(
        0, network_type="flat", physical_network="physnet1", segmentation_id=None, mtu=1500
    )
    ports = [
        make_port(network, f"10.0.0.{n}/24", f"2001:db8::{n}/64", security_group_ids=(OPEN.id,))
        for n in (11, 12)
    ]
    hosts = [underlay.host(hint, physical_interfaces=["physnet1:ul0"]) for hint in "ab"]
    for host, port in zip(hosts, ports, strict=True):
        host.run("ip", "address", "flush", "dev", "ul0")
        host.run("ip", "address", "add", f"{host.tunnel_address}/32", "dev", "lo")
        host.put(network, port, OPEN)
        assert host.apply().ports == {port.id: "ACTIVE"}
    one, two = (underlay.guest(host, port, mtu=1500) for host, port in zip(hosts, ports, strict=True))
    underlay.switch.run("ip", "address", "add", "10.0.0.99/24", "dev", "br0")
    for address in ("10.0.0.12", "2001:db8::12", "10.0.0.99"):
        assert one.reaches(address)
    assert one.run("ping", "-c1", "-W2", "-Mdo", "-s", str(1500 - 28), "10.0.0.12").returncode == 0
    flow = lab.Flow.open(one, two, "10.0.0.12", 7000)
    a = hosts[0]
    a.stop()
    a.start()
    a.apply()
    assert flow.passes() and flow.passes(back=True)
    a.run("ip", "link", "set", "ul0", "nomaster")
    assert not one.pings("10.0.0.12")
    a.apply()
    assert one.reaches("10.0.0.12")
    a.apply(a.drop(ports[0], network))  # the uplink is not haneul's: it is let go
    assert "ul0" in names(a)
    assert bridge_name(network.id) not in names(a)


def test_a_flat_network_with_the_host_as_gateway(underlay: lab.Underlay) -> None:
    a = underlay.host("a", host_gateways=["public:203.0.113.1/24"])
    net = make_network(0, network_type="flat", physical_network="public", segmentation_id=None)
    port = make_port(net, "203.0.113.20/24", security_group_ids=(OPEN.id,))
    a.put(net, port, OPEN)
    a.apply()
    guest = underlay.guest(a, port)
    guest.run("ip", "route", "add", "default", "via", "203.0.113.1")
    assert guest.reaches("203.0.113.1")
    # outside, nobody knows the way back: the host's address stands for it
    outside = underlay.host("b")
    flow = lab.Flow.open(guest, outside, outside.tunnel_address, 7000)
    assert flow.server.getpeername()[0] == a.tunnel_address
    assert flow.passes()
    a.stop()
    a.start()
    a.apply()
    assert guest.reaches("203.0.113.1")
    assert flow.passes()
    assert flow.passes(back=True)


def test_a_flat_network_takes_no_device_with_addresses(underlay: lab.Underlay) -> None:
    a = underlay.host("a", physical_interfaces=["physnet1:ul0"])
    net = make_network(0, network_type="flat", physical_network="physnet1", segmentation_id=None)
    a.put(net)
    applied = a.apply(errors=True)
    assert "has addresses of the host (172.31.0.1/24" in applied.errors[0]
    a.run("ip", "address", "flush", "dev", "ul0")
    a.apply()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"physical_interfaces": ["physnet1:nodev"]}, "no device nodev"),
        ({"physical_interfaces": ["physnet1"]}, "is not NAME:DEVICE"),
        ({"host_gateways": ["public:10.0.0.1"]}, "is not NAME:ADDRESS/LENGTH"),
        ({"tap_user": "nobody-of-this-name"}, "no user"),
    ],
)
def test_start_says_what_is_wrong(settings: dict[str, Any], text: str) -> None:
    host = lab.Host("x", **settings)
    try:
        with pytest.raises(DriverError, match=text):
            host.start()
    finally:
        host.close()


def test_start_refuses_a_tunnel_address_that_is_not_here() -> None:
    host = lab.Host("x", "192.0.2.1")
    try:
        with pytest.raises(DriverError, match=r"no address 192\.0\.2\.1"):
            host.start()
    finally:
        host.close()


def test_hosts_without_any_way_out_have_no_tunnels() -> None:
    host = lab.Host("x")
    try:
        host.start()
        assert host.driver is not None
        assert host.driver.configurations()["tunnel_types"] == []
        host.put(make_network(1001))
        applied = host.apply(Changed(everything=True), errors=True)
        assert "no tunnel_address" in applied.errors[0]
    finally:
        host.close()
