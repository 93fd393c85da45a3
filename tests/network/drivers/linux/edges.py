"""What a network's edge is asked for in tests: leases, routers, an outside world, connections that tell who came.

Guests and hosts are ``lab``'s. A DHCPv4 client is busybox's, a DHCPv6 client is written here (a
dozen bytes each way), router advertisements are understood by the guest's kernel.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import socket
import struct
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lifecycle.host_network import (
    Address,
    Dhcp,
    FloatingIp,
    Network,
    Port,
    Router,
    RouterPort,
    Rule,
    Subnet,
)
from tests.network.drivers.linux.lab import (
    ALLOW_OUT,
    Guest,
    Host,
    Inside,
    Namespace,
    Underlay,
    make_group,
    make_network,
    make_port,
)

OUTSIDE = "203.0.113.1"
OUTSIDE6 = "2001:db8:ffff::1"
WIRE = "ext0"
_SCRIPT = """#!/bin/sh
case "$1" in bound|renew) env > "$LEASE_FILE.part" && mv "$LEASE_FILE.part" "$LEASE_FILE";; esac
"""


# -- desired state


def random_mac() -> str:
    text = uuid.uuid4().hex
    return f"fa:16:3e:{text[0:2]}:{text[2:4]}:{text[4:6]}"


def make_subnet(cidr: str, **fields: Any) -> Subnet:
    """The first address is the gateway's."""
    net = ipaddress.ip_network(cidr)
    return Subnet(
        **{
            "id": str(uuid.uuid4()),
            "cidr": cidr,
            "ip_version": net.version,
            "gateway_ip": str(net[1]),
            "enable_dhcp": True,
            **fields,
        }
    )


def address_in(subnet: Subnet, number: int) -> Address:
    net = ipaddress.ip_network(subnet.cidr)
    return Address(str(net[number]), subnet.id, net.prefixlen, subnet.gateway_ip)


def served(network: Network, *subnets: Subnet) -> Network:
    """The network with these subnets and, at the second address of each that has DHCP, its server."""
    addresses = tuple(address_in(subnet, 2) for subnet in subnets if subnet.enable_dhcp)
    dhcp = Dhcp(str(uuid.uuid4()), random_mac(), addresses) if addresses else None
    return dataclasses.replace(network, subnets=subnets, dhcp=dhcp)


def slaac_address(subnet: Subnet, mac: str) -> Address:
    """The address that a guest of this MAC makes for itself."""
    numbers = bytes.fromhex(mac.replace(":", ""))
    identifier = bytes([numbers[0] ^ 2]) + numbers[1:3] + b"\xff\xfe" + numbers[3:]
    net = ipaddress.ip_network(subnet.cidr)
    return Address(str(net[int.from_bytes(identifier)]), subnet.id, net.prefixlen, subnet.gateway_ip)


OPEN = make_group(*ALLOW_OUT, Rule("ingress", "IPv4"), Rule("ingress", "IPv6"))


def guest_port(network: Network, number: int, **fields: Any) -> Port:
    """A port with the same number in each subnet of the network."""
    port = make_port(network, security_group_ids=(OPEN.id,), **fields)
    addresses = tuple(
        slaac_address(subnet, port.mac_address)
        if subnet.ipv6_address_mode in ("slaac", "dhcpv6-stateless")
        else address_in(subnet, number)
        for subnet in network.subnets
    )
    return dataclasses.replace(port, addresses=addresses)


def leg(network: Network, *addresses: Address) -> RouterPort:
    return RouterPort(str(uuid.uuid4()), network.id, random_mac(), addresses)


def gateways(network: Network) -> RouterPort:
    """A router's interface at the gateway address of each subnet."""
    return leg(network, *(address_in(subnet, 1) for subnet in network.subnets))


def make_router(gateway: RouterPort | None, *interfaces: RouterPort, **fields: Any) -> Router:
    return Router(
        **{
            "id": str(uuid.uuid4()),
            "project_id": "p",
            "admin_state_up": True,
            "enable_snat": True,
            "gateway": gateway,
            "interfaces": interfaces,
            **fields,
        }
    )


def floating(number: int, fixed: str, **fields: Any) -> FloatingIp:
    return FloatingIp(str(uuid.uuid4()), f"203.0.113.{number}", fixed, **fields)


# -- the outside


class Outside(Namespace):
    """What lies behind the external network: 203.0.113.1 on a wire that leads to hosts' ``ext0``."""

    def __init__(self) -> None:
        super().__init__("out")
        self.run("ip", "link", "add", "br0", "type", "bridge", "forward_delay", "0")
        self.run("ip", "link", "set", "br0", "up")
        self.run("ip", "address", "add", f"{OUTSIDE}/24", "dev", "br0")
        self.run("ip", "address", "add", f"{OUTSIDE6}/64", "dev", "br0", "nodad")
        self._hosts = 0
        self.network = make_network(
            0,
            network_type="flat",
            physical_network="public",
            segmentation_id=None,
            mtu=1500,
            external=True,
            subnets=(
                make_subnet("203.0.113.0/24", enable_dhcp=False),
                make_subnet("2001:db8:ffff::/64", enable_dhcp=False),
            ),
        )

    def plug(self, host: Namespace) -> None:
        """Before the host's driver starts: it looks for the device."""
        self._hosts += 1
        outer = f"w{self._hosts}"
        self.run(
            "ip", "link", "add", outer, "type", "veth", "peer", "name", WIRE, "netns", host.name
        )  # fmt: skip
        self.run("ip", "link", "set", outer, "master", "br0", "up")
        host.run("ip", "link", "set", WIRE, "up")

    def gateway(self, number: int) -> RouterPort:
        """A router's leg on the external network."""
        return leg(self.network, *(address_in(subnet, number) for subnet in self.network.subnets))


@contextlib.contextmanager
def outside() -> Iterator[Outside]:
    made = Outside()
    try:
        yield made
    finally:
        made.close()


# -- leases


def lease(guest: Guest, folder: Path, *options: str, patience: int = 8) -> dict[str, str]:
    """What a DHCPv4 client is given, as busybox names it ({} if nobody answers); not configured yet."""
    script, file = folder / "lease.sh", folder / f"{guest.name}.lease"
    script.write_text(_SCRIPT)
    script.chmod(0o755)
    file.unlink(missing_ok=True)
    asked = [word for name in ("staticroutes", "mtu", "search", *options) for word in ("-O", name)]
    guest.run(
        "env", f"LEASE_FILE={file}", "busybox", "udhcpc", "-f", "-q", "-n", "-i", "eth0",
        "-t", str(patience), "-T", "1", "-A", "1", "-s", str(script), *asked, check=False,
    )  # fmt: skip
    if not file.exists():
        return {}
    return dict(line.split("=", 1) for line in file.read_text().splitlines() if "=" in line)


def configure(guest: Guest, given: dict[str, str], *, static_routes: bool = True) -> None:
    """As a client does that knows option 121 (it then ignores option 3), or one that doesn't."""
    guest.run("ip", "address", "replace", f"{given['ip']}/{given['mask']}", "dev", "eth0")
    words = given.get("staticroutes", "").split() if static_routes else []
    for target, hop in zip(words[::2], words[1::2], strict=True):
        how = ("dev", "eth0") if hop == "0.0.0.0" else ("via", hop)
        guest.run("ip", "route", "replace", target, *how)
    if not words and "router" in given:
        guest.run("ip", "route", "replace", "default", "via", given["router"].split()[0])


def routes_in(given: dict[str, str]) -> dict[str, str]:
    """{destination: next hop} of option 121."""
    words = given.get("staticroutes", "").split()
    return dict(zip(words[::2], words[1::2], strict=True))


def lease6(guest: Guest, *, stateless: bool = False) -> dict[int, bytes]:
    """What a DHCPv6 server says: {option: content}, IA_NA's address as option 5. Raises TimeoutError."""
    inside = Inside(guest.name)
    try:
        return inside(_lease6, guest.port.mac_address, stateless)
    finally:
        inside.close()


_SOLICIT, _REQUEST, _INFORMATION = 1, 3, 11
_CLIENT_ID, _IA_NA, _IA_ADDRESS, _WANTED, _ELAPSED = 1, 3, 5, 6, 8


def _option(code: int, content: bytes) -> bytes:
    return struct.pack("!HH", code, len(content)) + content


def _options(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while len(data) >= 4:
        code, length = struct.unpack("!HH", data[:4])
        found[code] = data[4 : 4 + length]
        data = data[4 + length :]
    return found


def _lease6(mac: str, stateless: bool) -> dict[int, bytes]:
    client = _option(_CLIENT_ID, struct.pack("!HH", 3, 1) + bytes.fromhex(mac.replace(":", "")))
    asked = _option(_WANTED, struct.pack("!HH", 23, 24)) + _option(_ELAPSED, b"\0\0")
    association = _option(_IA_NA, struct.pack("!III", 1, 0, 0))
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client_socket:
        client_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client_socket.bind(("::", 546))
        if stateless:
            return _ask6(client_socket, _INFORMATION, client + asked)
        offer = _ask6(client_socket, _SOLICIT, client + asked + association)
        server = _option(2, offer[2])
        answer = _ask6(client_socket, _REQUEST, client + server + asked + _option(_IA_NA, offer[_IA_NA]))
        inner = _options(answer[_IA_NA][12:])
        return {**answer, **({_IA_ADDRESS: inner[_IA_ADDRESS][:16]} if _IA_ADDRESS in inner else {})}


def _ask6(client: socket.socket, kind: int, content: bytes) -> dict[int, bytes]:
    number = uuid.uuid4().bytes[:3]
    target = ("ff02::1:2", 547, 0, socket.if_nametoindex("eth0"))
    client.settimeout(1)
    for _ in range(8):
        try:
            client.sendto(bytes([kind]) + number + content, target)
            while True:
                data = client.recv(4096)
                if data[1:4] == number:
                    return _options(data[4:])
        except TimeoutError:
            continue
        except OSError:
            # just after the device came up its link-local address is not usable yet
            time.sleep(0.5)
    raise TimeoutError(f"no answer to a DHCPv6 message of type {kind}")


# -- connections that tell who came


class Door:
    """Listens in a namespace on a TCP or UDP port; tells who comes what address they have here, then echoes."""

    def __init__(self, space: Namespace, port: int, *, udp: bool = False, address: str = "::") -> None:
        inside = Inside(space.name)
        self._udp = udp
        self._peers: list[socket.socket] = []
        self._socket = inside(self._open, address, port)
        inside.close()
        threading.Thread(target=self._datagrams if udp else self._accept, daemon=True).start()

    def _open(self, address: str, port: int) -> socket.socket:
        made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM if self._udp else socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind((address, port))
        if not self._udp:
            made.listen()
        return made

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, address = self._socket.accept()
                self._peers.append(peer)
                threading.Thread(target=self._echo, args=(peer, _plain(address[0])), daemon=True).start()

    @staticmethod
    def _echo(peer: socket.socket, address: str) -> None:
        with contextlib.suppress(OSError):
            peer.sendall(address.encode() + b"\n")
            while data := peer.recv(4096):
                peer.sendall(data)

    def _datagrams(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                _data, address = self._socket.recvfrom(4096)
                self._socket.sendto(_plain(address[0]).encode(), address)

    def close(self) -> None:
        # shutdown wakes the thread that waits in accept; close alone would not
        for each in (self._socket, *self._peers):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def _plain(address: str) -> str:
    return address.removeprefix("::ffff:")


@contextlib.contextmanager
def door(space: Namespace, port: int, **options: Any) -> Iterator[Door]:
    made = Door(space, port, **options)
    try:
        yield made
    finally:
        made.close()


class Call:
    """A TCP connection out of a namespace to a ``Door``; ``seen_as``: whom the door saw.

    :raises OSError: nobody answers.
    """

    def __init__(self, space: Namespace, address: str, port: int, patience: float = 3.0) -> None:
        inside = Inside(space.name)
        try:
            self._socket = inside(socket.create_connection, (address, port), patience)
        finally:
            inside.close()
        self._socket.settimeout(patience)
        self.seen_as = self._line()

    def _line(self) -> str:
        received = b""
        while not received.endswith(b"\n"):
            more = self._socket.recv(1)
            if not more:
                raise ConnectionError("the other end has gone")
            received += more
        return received.decode().strip()

    def says(self, text: str = "hello") -> bool:
        """Is ``text`` echoed, soon enough?"""
        try:
            self._socket.sendall(text.encode() + b"\n")
            return self._line() == text
        except OSError:
            return False

    def close(self) -> None:
        self._socket.close()


def seen_as(space: Namespace, address: str, port: int) -> str | None:
    """The address that the door at ``address`` sees, or None if it can't be reached."""
    try:
        call = Call(space, address, port)
    except OSError:
        return None
    call.close()
    return call.seen_as


def seen_as_udp(space: Namespace, address: str, port: int) -> str | None:
    def ask() -> str | None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as client:
            client.settimeout(1)
            client.connect((address, port))
            for _ in range(3):
                with contextlib.suppress(OSError):
                    client.send(b"who am I")
                    return client.recv(4096).decode()
        return None

    inside = Inside(space.name)
    try:
        return inside(ask)
    finally:
        inside.close()


def edge_host(underlay: Underlay, outer: Outside, hint: str, **settings: Any) -> Host:
    """A host that has a cable to the outside."""
    return underlay.host(hint, prepare=outer.plug, physical_interfaces=[f"public:{WIRE}"], **settings)
