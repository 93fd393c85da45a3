"""Leases: a DHCP client in a guest, the driver's dnsmasq on the other side of its tap."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lifecycle.host_network import Network, Port
from network.drivers.linux.dhcp import namespace_of
from tests.lab import leftovers
from tests.network.drivers.linux import edges, lab
from tests.network.drivers.linux.edges import (
    OPEN,
    configure,
    guest_port,
    lease,
    lease6,
    make_subnet,
    routes_in,
    served,
)  # fmt: skip
from tests.network.drivers.linux.lab import eventually, make_network, needs_lab

pytestmark = needs_lab
METADATA = "169.254.169.254/32"


@pytest.fixture
def underlay() -> Iterator[lab.Underlay]:
    with lab.underlay() as made:
        yield made


def dnsmasq_of(host: lab.Host, network: Network) -> int | None:
    file = host.folder / "network" / "dhcp" / network.id / "pid"
    return int(file.read_text()) if file.exists() else None


def one(underlay: lab.Underlay, network: Network, **fields: Any) -> tuple[lab.Host, Port, lab.Guest]:
    host = underlay.host("a")
    port = guest_port(network, 11, **fields)
    host.put(network, port, OPEN)
    host.apply()
    return host, port, underlay.guest(host, port, addresses=False)


def test_a_lease_tells_all_that_the_subnet_says(underlay: lab.Underlay, tmp_path: Path) -> None:
    subnet = make_subnet(
        "10.0.0.0/24",
        dns_nameservers=("192.0.2.53", "192.0.2.54"),
        host_routes=({"destination": "198.51.100.0/24", "nexthop": "10.0.0.9"},),
    )
    network = served(make_network(1001, dns_domain="example.org."), subnet)
    _host, _port, guest = one(underlay, network, dns_name="web")
    given = lease(guest, tmp_path)
    assert (given["ip"], given["mask"], given["router"]) == ("10.0.0.11", "24", "10.0.0.1")
    assert given["dns"] == "192.0.2.53 192.0.2.54"
    assert given["mtu"] == "1450"
    assert given["domain"] == "example.org"
    assert given["serverid"] == "10.0.0.2"
    assert routes_in(given) == {
        "198.51.100.0/24": "10.0.0.9", METADATA: "10.0.0.2", "0.0.0.0/0": "10.0.0.1",
    }  # fmt: skip


def test_only_those_who_have_a_port_here_get_a_lease(underlay: lab.Underlay, tmp_path: Path) -> None:
    network = served(make_network(1001), make_subnet("10.0.0.0/24"))
    host, port, guest = one(underlay, network, port_security_enabled=False)
    assert lease(guest, tmp_path)["ip"] == "10.0.0.11"
    guest.run("ip", "link", "set", "eth0", "address", "fa:16:3e:99:99:99")
    assert lease(guest, tmp_path, patience=2) == {}
    # a second port is served without dnsmasq being started anew
    before = dnsmasq_of(host, network)
    other = guest_port(network, 12)
    host.apply(host.put(other))
    assert lease(underlay.guest(host, other, addresses=False), tmp_path)["ip"] == "10.0.0.12"
    assert dnsmasq_of(host, network) == before
    # and one that is gone is served no more
    guest.run("ip", "link", "set", "eth0", "address", port.mac_address)
    host.apply(host.put(dataclasses.replace(port, addresses=())))
    assert lease(guest, tmp_path, patience=2) == {}


def test_each_host_serves_its_own_guests_under_the_same_address(
    underlay: lab.Underlay, tmp_path: Path
) -> None:
    a, b = underlay.host("a"), underlay.host("b")
    network = served(make_network(1001), make_subnet("10.0.0.0/24"))
    ports = guest_port(network, 11), guest_port(network, 12)
    for host, other, port in ((a, b, ports[0]), (b, a, ports[1])):
        host.put(dataclasses.replace(network, peers=(other.tunnel_address,)), port, OPEN)
        host.apply()
    guests = [underlay.guest(host, port, addresses=False) for host, port in zip((a, b), ports, strict=True)]
    for guest, address in zip(guests, ("10.0.0.11", "10.0.0.12"), strict=True):
        given = lease(guest, tmp_path)
        assert (given["ip"], given["serverid"]) == (address, "10.0.0.2")
        configure(guest, given)
        assert guest.reaches("10.0.0.2")
    assert guests[0].reaches("10.0.0.12")
    # b's host falls silent: a's guest doesn't notice
    b.stop()
    assert lease(guests[0], tmp_path)["ip"] == "10.0.0.11"
    b.start()


def test_options_of_a_port(underlay: lab.Underlay, tmp_path: Path) -> None:
    network = served(make_network(1001), make_subnet("10.0.0.0/24"))
    options = (
        {"opt_name": "bootfile-name", "opt_value": "pxelinux.0", "ip_version": 4},
        {"opt_name": "42", "opt_value": "192.0.2.123", "ip_version": 4},
        {"opt_name": "tftp-server", "opt_value": "192.0.2.7\nserver=6.6.6.6", "ip_version": 4},
    )
    host, _port, guest = one(underlay, network, extra_dhcp_opts=options)
    given = lease(guest, tmp_path, "bootfile", "ntpsrv", "tftp")
    assert "pxelinux.0" in (given.get("boot_file"), given.get("bootfile")), given
    assert given["ntpsrv"] == "192.0.2.123"
    # a line feed in a value would begin a line of dnsmasq's configuration
    assert "tftp" not in given
    other = guest_port(network, 12)
    host.apply(host.put(other))
    assert (
        not {"boot_file", "bootfile"}
        & lease(underlay.guest(host, other, addresses=False), tmp_path, "bootfile").keys()
    )


def test_an_isolated_network_has_metadata_and_no_router(underlay: lab.Underlay, tmp_path: Path) -> None:
    network = served(make_network(1001), make_subnet("10.0.0.0/24", gateway_ip=None))
    _host, _port, guest = one(underlay, network)
    given = lease(guest, tmp_path)
    assert "router" not in given
    assert routes_in(given) == {METADATA: "10.0.0.2"}
    configure(guest, given)
    assert guest.reaches("169.254.169.254")


def test_several_subnets_and_one_without_dhcp(underlay: lab.Underlay, tmp_path: Path) -> None:
    first, second = make_subnet("10.0.0.0/24"), make_subnet("10.9.0.0/16")
    silent = make_subnet("10.5.0.0/24", enable_dhcp=False)
    network = served(make_network(1001), first, second, silent)
    host = underlay.host("a")
    ports = [
        dataclasses.replace(guest_port(network, 11), addresses=(edges.address_in(subnet, 11),))
        for subnet in network.subnets
    ]
    host.put(network, OPEN, *ports)
    host.apply()
    given = [lease(underlay.guest(host, each, addresses=False), tmp_path, patience=3) for each in ports]
    assert [each.get("ip") for each in given] == ["10.0.0.11", "10.9.0.11", None]
    assert [each.get("router") for each in given] == ["10.0.0.1", "10.9.0.1", None]
    assert [each.get("mask") for each in given] == ["24", "16", None]


def names(guest: lab.Guest, name: str) -> str:
    done = guest.run("busybox", "nslookup", name, "10.0.0.2", check=False)
    return done.stdout + done.stderr


def test_names_of_ports_resolve(underlay: lab.Underlay, tmp_path: Path) -> None:
    network = served(make_network(1001, dns_domain="example.org."), make_subnet("10.0.0.0/24"))
    host, _port, guest = one(underlay, network, dns_name="web")
    host.apply(host.put(guest_port(network, 12)))
    given = lease(guest, tmp_path)
    configure(guest, given)
    assert given["dns"] == "10.0.0.2"
    assert eventually(lambda: "10.0.0.11" in names(guest, "web.example.org"))
    assert "10.0.0.12" in names(guest, "host-10-0-0-12.example.org")
    assert "10.0.0.77" not in names(guest, "host-10-0-0-77.example.org")


class Oracle:
    """A DNS server on a host's loopback that knows one address for every name, over UDP and TCP."""

    def __init__(self, host: lab.Host) -> None:
        inside = lab.Inside(host.name)
        self._udp = inside(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.53", 53))
        self._tcp = inside(socket.create_server, ("127.0.0.53", 53))
        inside.close()
        self.asked = 0
        for target in (self._datagrams, self._streams):
            threading.Thread(target=target, daemon=True).start()

    def _answer(self, question: bytes) -> bytes:
        self.asked += 1
        end = question.index(b"\0", 12) + 5
        found = question[end - 4 : end - 2] == b"\0\1"  # an A record was asked for
        header = question[:2] + struct.pack("!HHHHH", 0x8180, 1, int(found), 0, 0)
        record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + socket.inet_aton("192.0.2.99")
        return header + question[12:end] + (record if found else b"")

    def _datagrams(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                question, who = self._udp.recvfrom(4096)
                if not question:
                    return  # closed
                self._udp.sendto(self._answer(question), who)

    def _streams(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _address = self._tcp.accept()
                with peer:
                    question = peer.recv(4096)
                    answer = self._answer(question[2:])
                    peer.sendall(struct.pack("!H", len(answer)) + answer)

    def close(self) -> None:
        for each in (self._udp, self._tcp):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def test_other_names_are_asked_of_the_operators_servers(underlay: lab.Underlay, tmp_path: Path) -> None:
    network = served(make_network(1001, dns_domain="example.org."), make_subnet("10.0.0.0/24"))
    # the first one does not answer
    host = underlay.host("a", dns_servers=["127.0.0.54", "127.0.0.53"])
    port = guest_port(network, 11, dns_name="web")
    host.put(network, port, OPEN)
    host.apply()
    guest = underlay.guest(host, port, addresses=False)
    configure(guest, lease(guest, tmp_path))
    oracle = Oracle(host)
    try:
        assert eventually(lambda: "192.0.2.99" in names(guest, "example.com"), 15)
        query = struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + b"\3www\7example\3com\0" + b"\0\1\0\1"
        with guest.connect("10.0.0.2", 53) as stream:
            stream.settimeout(10)
            stream.sendall(struct.pack("!H", len(query)) + query)
            assert socket.inet_aton("192.0.2.99") in stream.recv(4096)
        asked = oracle.asked
        assert "10.0.0.11" in names(guest, "web.example.org")
        assert oracle.asked == asked
        # an agent that starts again carries on
        host.stop()
        host.start()
        host.apply()
        assert eventually(lambda: "192.0.2.99" in names(guest, "again.example.com"), 15)
    finally:
        oracle.close()


@pytest.mark.skipif(not Path("/proc/sys/net/ipv6").exists(), reason="the kernel has no IPv6")
def test_dhcpv6_stateful(underlay: lab.Underlay) -> None:
    mode = {"ipv6_address_mode": "dhcpv6-stateful", "ipv6_ra_mode": "dhcpv6-stateful"}
    subnet = make_subnet("2001:db8:1::/64", dns_nameservers=("2001:db8::53",), **mode)
    network = served(make_network(1001), make_subnet("10.0.0.0/24"), subnet)
    _host, port, guest = one(underlay, network)
    answer = lease6(guest)
    assert str(ipaddress.IPv6Address(answer[5])) == port.addresses[1].ip_address == "2001:db8:1::b"
    assert str(ipaddress.IPv6Address(answer[23])) == "2001:db8::53"


@pytest.mark.skipif(not Path("/proc/sys/net/ipv6").exists(), reason="the kernel has no IPv6")
def test_dhcpv6_stateless_tells_dns_and_gives_no_address(underlay: lab.Underlay) -> None:
    mode = {"ipv6_address_mode": "dhcpv6-stateless", "ipv6_ra_mode": "dhcpv6-stateless"}
    subnet = make_subnet("2001:db8:1::/64", dns_nameservers=("2001:db8::53",), **mode)
    _host, _port, guest = one(underlay, served(make_network(1001), subnet))
    assert str(ipaddress.IPv6Address(lease6(guest, stateless=True)[23])) == "2001:db8::53"


def test_dnsmasq_lives_on_when_the_agent_starts_again_and_is_mended(
    underlay: lab.Underlay, tmp_path: Path
) -> None:
    network = served(make_network(1001), make_subnet("10.0.0.0/24"))
    host, _port, guest = one(underlay, network)
    before = dnsmasq_of(host, network)
    host.stop()
    assert lease(guest, tmp_path)["ip"] == "10.0.0.11"
    host.start()
    host.apply()
    assert dnsmasq_of(host, network) == before
    assert before is not None
    os.kill(before, 9)
    assert lease(guest, tmp_path, patience=1) == {}
    host.apply()
    assert dnsmasq_of(host, network) != before
    assert lease(guest, tmp_path)["ip"] == "10.0.0.11"


def test_a_dnsmasq_of_another_state_folder_gives_way(underlay: lab.Underlay, tmp_path: Path) -> None:
    """A cloud that was thrown away leaves its daemons; the next one on this host takes over."""
    network = served(make_network(1001), make_subnet("10.0.0.0/24"))
    host, port, guest = one(underlay, network)
    first = dnsmasq_of(host, network)
    host.stop()
    (host.folder / "network").rename(host.folder / "thrown-away")
    host.start()
    host.apply()
    second = dnsmasq_of(host, network)
    assert second not in (None, first)
    assert ended(first)
    assert lease(guest, tmp_path)["ip"] == "10.0.0.11"
    host.stop()
    (host.folder / "network").rename(host.folder / "again")
    host.start()
    host.apply(host.drop(port, network))
    host.apply()
    assert ended(second)


def ended(pid: int | None) -> bool:
    """One that has ended may wait for its parent to look: it has no command line then."""
    file = Path(f"/proc/{pid}/cmdline")
    return not file.exists() or not file.read_bytes()


def test_a_pid_that_is_somebody_elses_is_left_alone(underlay: lab.Underlay, tmp_path: Path) -> None:
    network = served(make_network(1001), make_subnet("10.0.0.0/24"))
    host, _port, guest = one(underlay, network)
    mine = dnsmasq_of(host, network)
    assert mine is not None
    os.kill(mine, 9)
    stranger = guest.popen("sleep", "60")
    try:
        (host.folder / "network" / "dhcp" / network.id / "pid").write_text(f"{stranger.pid}\n")
        host.apply()
        assert lease(guest, tmp_path)["ip"] == "10.0.0.11"
        host.apply(host.drop(network, *host.state.ports.values()))
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_nothing_is_left_of_a_network_that_is_gone(underlay: lab.Underlay) -> None:
    network = served(make_network(1001), make_subnet("10.0.0.0/24"))
    host, port, _guest = one(underlay, network)
    pid = dnsmasq_of(host, network)
    assert host.driver is not None and pid is not None
    spaces = host.driver.namespaces
    assert spaces.exists(namespace_of(network.id))
    host.apply(host.drop(port, network))
    assert not spaces.exists(namespace_of(network.id))
    assert ended(pid)
    assert not (host.folder / "network" / "dhcp" / network.id).exists()
    assert "ns" not in {line[:2] for line in host.run("ls", "/sys/class/net").stdout.splitlines()}


@pytest.fixture
def folder() -> Iterator[str]:
    """A folder of names for several hosts: unmounted behind them all, so it stands before ``underlay``."""
    made = leftovers.make_folder("hh-host-")
    yield str(made / "netns")
    leftovers.remove(made)


def test_agents_that_share_the_folder_of_names_leave_each_others_namespaces(
    folder: str, underlay: lab.Underlay
) -> None:
    """The full look of one host's agent once removed what another's had made."""
    first, second = (underlay.host(hint, netns_folder=folder) for hint in ("a", "b"))
    mine, other = (served(make_network(vni), make_subnet("10.0.0.0/24")) for vni in (1001, 1002))
    for host, network in ((first, mine), (second, other)):
        host.put(network, guest_port(network, 11), OPEN)
        host.apply()
    first.apply()
    for host, network in ((first, mine), (second, other)):
        assert host.driver is not None
        assert host.driver.namespaces.exists(namespace_of(network.id))
        assert dnsmasq_of(host, network)
    first.apply(first.drop(mine, *first.state.ports.values()))
    assert first.driver is not None
    assert first.driver.namespaces.names("hdhcp-") == {namespace_of(other.id)}
