"""Hosts and guests as network namespaces, for tests of the Linux data plane. Needs root.

A ``Host`` is a namespace with a thread inside it, in which a real ``LinuxDriver`` runs. A ``Guest`` is a namespace whose
``eth0`` is one end of a cable: the other end opens the port's tap as QEMU does, and frames are
copied between the two, offload headers included.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import fcntl
import itertools
import os
import select
import shutil
import socket
import struct
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pyroute2 import netns

from core import config
from lifecycle.host_network import (
    Address,
    Changed,
    HostNetwork,
    Members,
    Network,
    Port,
    Router,
    Rule,
    SecurityGroup,
    Subnet,
)
from network.drivers.base import Applied
from network.drivers.linux import options
from network.drivers.linux.driver import LinuxDriver
from network.drivers.linux.taps import IFF_NO_PI, IFF_TAP, IFF_VNET_HDR, TUN, TUNSETIFF
from tests.lab import leftovers

T = TypeVar("T")
NUMBERS = itertools.count(1)


def missing() -> str | None:
    """Why these tests can't run here, or None."""
    if os.geteuid() != 0:
        return "network namespaces: needs root"
    for program in ("ip", "nft", "ping"):
        if shutil.which(program) is None:
            return f"network namespaces: the program {program} is not installed"
    if not Path(TUN).exists():
        return f"network namespaces: {TUN} is missing"
    if not Path("/proc/sys/net/bridge").exists():
        return "network namespaces: the kernel has no br_netfilter"
    return None


def has_vlans() -> bool:
    """Can this kernel make VLAN devices? /proc/net/vlan comes with the module."""
    if os.geteuid() != 0:
        return False
    with contextlib.suppress(FileNotFoundError):
        subprocess.run(["modprobe", "-q", "8021q"], check=False)
    return Path("/proc/net/vlan").exists()


needs_lab = pytest.mark.skipif(missing() is not None, reason=missing() or "")


class Namespace:
    """A network namespace that goes away with ``close``."""

    def __init__(self, hint: str) -> None:
        self.name = f"hl{os.getpid()}-{next(NUMBERS)}-{hint}"
        netns.create(self.name)
        self.run("ip", "link", "set", "lo", "up")

    def popen(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(["ip", "netns", "exec", self.name, *command], text=True, **options)

    def run(
        self, *command: str, check: bool = True, text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, *command],
            text=True,
            capture_output=True,
            input=text,
            timeout=60,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout} {done.stderr}"
        return done

    def make_socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A socket of this namespace's: it stays one wherever it is used."""
        inside = Inside(self.name)
        made = inside(socket.socket, family, kind)
        inside.close()
        made.settimeout(2)
        return made

    def listen(self, address: str, port: int) -> socket.socket:
        made = self.make_socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        made.listen()
        return made

    def connect(self, address: str, port: int, *, source_port: int = 0, patience: float = 2) -> socket.socket:
        """Raises OSError if nobody answers in time."""
        made = self.make_socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        made.settimeout(patience)
        if source_port:
            made.bind(("", source_port))
        made.connect((address, port))
        return made

    def connects(self, address: str, port: int, patience: float = 1) -> bool:
        try:
            self.connect(address, port, patience=patience).close()
        except OSError:
            return False
        return True

    def close(self) -> None:
        leftovers.remove_namespaces([self.name])


class Inside:
    """A thread that lives in a namespace and does what it is given."""

    def __init__(self, namespace: str) -> None:
        self._pool = concurrent.futures.ThreadPoolExecutor(1, initializer=netns.setns, initargs=(namespace,))

    def __call__(self, function: Callable[..., T], *arguments: Any, **options: Any) -> T:
        return self._pool.submit(function, *arguments, **options).result(timeout=120)

    def close(self) -> None:
        self._pool.shutdown(wait=True)


class Host(Namespace):
    """A hypervisor host: a namespace on the underlay with a driver in it."""

    def __init__(self, hint: str, tunnel_address: str | None = None, **settings: Any) -> None:
        super().__init__(hint)
        self.folder = leftovers.make_folder("hh-host-")
        self.settings = {
            "tunnel_address": tunnel_address,
            "netns_folder": str(self.folder / "netns"),
            **settings,
        }
        self.tunnel_address = tunnel_address or ""
        self.state = HostNetwork()
        self.inside: Inside | None = None
        self.driver: LinuxDriver | None = None

    def start(self) -> None:
        self.inside = Inside(self.name)
        conf = config.load(overrides={"state_path": str(self.folder)})
        config.register(conf, options.list_opts())
        for key, value in self.settings.items():
            conf.set_override(key, value, group=options.GROUP)
        driver = LinuxDriver(conf, self.name)
        self.inside(driver.start)
        self.driver = driver

    def stop(self) -> None:
        """As an agent that is killed: the data plane stays."""
        if self.inside is not None:
            if self.driver is not None:
                self.inside(self.driver.close)
            self.inside.close()
        self.inside = self.driver = None

    def apply(self, changed: Changed | None = None, *, errors: bool = False) -> Applied:
        assert self.inside is not None
        assert self.driver is not None
        applied = self.inside(self.driver.apply, self.state, changed or Changed(everything=True))
        assert errors or not applied.errors, applied.errors
        return applied

    def put(self, *things: Any) -> Changed:
        """Put networks, ports and groups into the desired state; says what that changes."""
        changed = Changed()
        for thing in things:
            kind = {
                Network: "networks",
                Port: "ports",
                SecurityGroup: "groups",
                Router: "routers",
            }[type(thing)]
            getattr(self.state, kind)[thing.id] = thing
            getattr(changed, kind).add(thing.id)
        return changed

    def have_members(self, group: SecurityGroup, *addresses: str) -> Changed:
        """All members of a group that rules name, each address a port's."""
        self.state.members[group.id] = Members({f"port-{each}": [each] for each in addresses})
        return Changed(named={group.id})

    def drop(self, *things: Any) -> Changed:
        changed = self.put(*things)
        for thing in things:
            for kind in ("networks", "ports", "groups", "routers"):
                getattr(self.state, kind).pop(thing.id, None)
        return changed

    def close(self) -> None:
        """All that the driver has left: namespaces and what runs in them, then the rest, whatever fails."""
        try:
            if self.driver is not None:
                self.state = HostNetwork()
                self.apply(errors=True)
            self.stop()
        finally:
            super().close()
            leftovers.remove(self.folder)


def open_tap(name: str) -> int:
    handle = os.open(TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(handle, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    return handle


class Guest(Namespace):
    """A guest on a port: its own IP stack behind the port's tap."""

    def __init__(self, host: Host, port: Port, *, addresses: bool = True, mtu: int = 1450) -> None:
        super().__init__("g" + port.id[:4])
        self.port = port
        outside = Inside(host.name)
        inside = Inside(self.name)
        self._ends = (outside(open_tap, port.device), inside(open_tap, "eth0"))
        outside.close()
        inside.close()
        self._wake = os.pipe()
        self._pump = threading.Thread(target=self._copy, daemon=True)
        self._pump.start()
        self.run("ip", "link", "set", "eth0", "address", port.mac_address, "mtu", str(mtu))
        self.run("ip", "link", "set", "eth0", "up")
        for address in port.addresses if addresses else ():
            text = f"{address.ip_address}/{address.prefix_length}"
            no_wait = ["nodad"] if ":" in text else []
            self.run("ip", "address", "add", text, "dev", "eth0", *no_wait)

    def _copy(self) -> None:
        left, right = self._ends
        other = {left: right, right: left}
        while True:
            readable, _, _ = select.select([left, right, self._wake[0]], [], [])
            if self._wake[0] in readable:
                return
            for end in readable:
                # a device that is down or whose queue is full loses frames, as a cable does
                with contextlib.suppress(OSError):
                    os.write(other[end], os.read(end, 1 << 17))

    def pings(self, address: str, *, count: int = 1, patience: float = 1.0) -> bool:
        """One answer is enough."""
        return (
            self.run(
                "ping", "-c", str(count), "-i", "0.2", "-W", str(patience), address, check=False
            ).returncode
            == 0
        )

    def reaches(self, address: str) -> bool:
        """Within 5 s: devices that have just come up may need a moment."""
        return eventually(lambda: self.pings(address))

    def close(self) -> None:
        os.write(self._wake[1], b"x")
        self._pump.join(5)
        for handle in (*self._ends, *self._wake):
            os.close(handle)
        super().close()


def open_raw(where: Namespace, device: str = "eth0") -> socket.socket:
    """A packet socket on a device: sends and hears whole frames."""
    inside = Inside(where.name)
    made = inside(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    made.bind((device, 3))
    inside.close()
    return made


def hears(receiver: socket.socket, tail: bytes, patience: float = 2) -> bool:
    """Does a frame that has these bytes after its addresses arrive?"""
    end = time.monotonic() + patience
    while (left := end - time.monotonic()) > 0:
        receiver.settimeout(left)
        with contextlib.suppress(TimeoutError):
            if receiver.recv(65535)[12 : 12 + len(tail)] == tail:
                return True
    return False


def eventually(condition: Callable[[], bool], patience: float = 5.0) -> bool:
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return condition()


@dataclasses.dataclass
class Flow:
    """A TCP connection between two namespaces, both ends in the test's hands."""

    client: socket.socket
    server: socket.socket

    @classmethod
    def open(
        cls, client: Namespace, server: Namespace, address: str, port: int, source_port: int = 0
    ) -> Flow:
        with server.listen(address, port) as listener:
            near = client.connect(address, port, source_port=source_port)
            far, _ = listener.accept()
        far.settimeout(2)
        return cls(near, far)

    def passes(self, patience: float = 2.0, *, back: bool = False) -> bool:
        """Does a new word get there (``back``: from server to client)?"""
        one, two = (self.server, self.client) if back else (self.client, self.server)
        word = f"{next(NUMBERS)};".encode()
        one.send(word)
        heard = b""
        end = time.monotonic() + patience
        while time.monotonic() < end:
            two.settimeout(max(end - time.monotonic(), 0.01))
            with contextlib.suppress(TimeoutError):
                heard += two.recv(4096)
            if heard.endswith(word):
                return True
        return False

    def rate(self, seconds: float, *, back: bool = False) -> float:
        """Bytes per second that arrive after a first second, in which a burst is used up."""
        sender, receiver = (self.server, self.client) if back else (self.client, self.server)
        stop = threading.Event()
        sender.settimeout(0.2)
        receiver.settimeout(10)

        def send() -> None:
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    sender.send(bytes(16384))

        thread = threading.Thread(target=send)
        thread.start()
        got, counting = 0, False
        begin = time.monotonic()
        while time.monotonic() < begin + 1 + seconds:
            if not counting and time.monotonic() > begin + 1:
                got, counting = 0, True
            got += len(receiver.recv(65536))
        stop.set()
        thread.join()
        return got / seconds

    def close(self) -> None:
        self.client.close()
        self.server.close()


@dataclasses.dataclass
class Underlay:
    """A switch between hosts; ``host`` plugs another one in."""

    switch: Namespace
    stack: contextlib.ExitStack
    hosts: int = 0

    def host(self, hint: str, prepare: Callable[[Host], None] | None = None, **settings: Any) -> Host:
        """``prepare`` is called before the host's driver starts."""
        self.hosts += 1
        address = f"172.31.0.{self.hosts}"
        host = Host(hint, address, **settings)
        self.stack.callback(host.close)
        outer = f"p{self.hosts}"
        self.switch.run(
            "ip", "link", "add", outer, "mtu", "1550", "type", "veth",
            "peer", "name", "ul0", "mtu", "1550", "netns", host.name,
        )  # fmt: skip
        self.switch.run("ip", "link", "set", outer, "master", "br0", "up")
        host.run("ip", "address", "add", f"{address}/24", "dev", "ul0")
        host.run("ip", "link", "set", "ul0", "up")
        if prepare is not None:
            prepare(host)
        host.start()
        return host

    def guest(self, host: Host, port: Port, **options: Any) -> Guest:
        guest = Guest(host, port, **options)
        self.stack.callback(guest.close)
        return guest


@contextlib.contextmanager
def underlay() -> Iterator[Underlay]:
    with contextlib.ExitStack() as stack:
        switch = Namespace("sw")
        stack.callback(switch.close)
        switch.run("ip", "link", "add", "br0", "mtu", "1550", "type", "bridge")
        switch.run("ip", "link", "set", "br0", "up")
        yield Underlay(switch, stack)


# -- desired state


def make_network(vni: int, *, peers: tuple[str, ...] = (), **fields: Any) -> Network:
    return Network(
        **{
            "id": str(uuid.uuid4()),
            "project_id": "p",
            "admin_state_up": True,
            "mtu": 1450,
            "network_type": "vxlan",
            "physical_network": None,
            "segmentation_id": vni,
            "peers": peers,
            "subnets": (Subnet(str(uuid.uuid4()), "10.0.0.0/24", 4, "10.0.0.1", True),),
            **fields,
        }
    )


def make_port(network: Network, *addresses: str, **fields: Any) -> Port:
    """Addresses with lengths: "10.0.0.5/24"."""
    identifier = str(uuid.uuid4())
    pairs = [text.split("/") for text in addresses]
    return Port(
        **{
            "id": identifier,
            "network_id": network.id,
            "project_id": network.project_id,
            "mac_address": f"fa:16:3e:{identifier[0:2]}:{identifier[2:4]}:{identifier[4:6]}",
            "admin_state_up": True,
            "device_id": str(uuid.uuid4()),
            "device_owner": "compute:nova",
            "addresses": tuple(Address(ip, "subnet", int(length)) for ip, length in pairs),
            "port_security_enabled": True,
            **fields,
        }
    )


def make_group(*rules: Rule, **fields: Any) -> SecurityGroup:
    return SecurityGroup(**{"id": str(uuid.uuid4()), "stateful": True, "rules": rules, **fields})


ALLOW_OUT = (Rule("egress", "IPv4"), Rule("egress", "IPv6"))
