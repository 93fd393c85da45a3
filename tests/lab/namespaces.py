"""Network namespaces that a test makes: machines of a small lab, joined by cables.

Names begin with ``hl`` and the test process's pid, so that several runs don't meet and what a
killed run has left can be told (``tests.lab.leftovers``).
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pyroute2 import IPRoute, NetNS, netns

from tests.lab import leftovers, processes
from tests.lab.leftovers import RUN


def missing() -> str | None:
    """Why no namespaces can be made here, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program in ("ip", "nft", "dnsmasq"):
        if processes.find_program(program) is None:
            return f"{program} is not installed (Debian: apt-get install iproute2 nftables dnsmasq-base)"
    return None


@contextlib.contextmanager
def entered(name: str) -> Iterator[None]:
    """The calling thread works in this namespace: its new sockets and children are there."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    target = os.open(RUN / name, os.O_RDONLY)
    try:
        netns.setns(target)
        yield
    finally:
        netns.setns(home)
        os.close(target)
        os.close(home)


class Lab:
    """Namespaces and cables of one test; ``close`` removes them all."""

    def __init__(self) -> None:
        leftovers.remove_left_behind()
        self._prefix = f"hl{os.getpid()}"
        self._made: list[str] = []
        self._relays: list[Relay] = []

    def make(self, name: str) -> str:
        """A namespace with its loopback up; returns its full name."""
        full = f"{self._prefix}-{name}"
        netns.create(full)
        self._made.append(full)
        with NetNS(full) as there:
            there.link("set", index=1, state="up")
        return full

    def cable(self, first: str, first_device: str, second: str, second_device: str, mtu: int = 1550) -> None:
        """A veth pair between two namespaces, up on both ends."""
        with IPRoute() as here:
            names = (f"hla{os.getpid() % 100000}", f"hlb{os.getpid() % 100000}")
            here.link("add", ifname=names[0], kind="veth", peer={"ifname": names[1]}, mtu=mtu)
            for temporary, space, device in zip(
                names, (first, second), (first_device, second_device), strict=True
            ):
                index = here.link_lookup(ifname=temporary)[0]
                here.link("set", index=index, net_ns_fd=space)
                with NetNS(space) as there:
                    index = there.link_lookup(ifname=temporary)[0]
                    there.link("set", index=index, ifname=device, mtu=mtu)
                    there.link("set", index=index, state="up")

    def bridge(self, space: str, name: str, members: Sequence[str] = (), address: str | None = None) -> None:
        """A bridge over devices of a namespace, maybe with an address (CIDR)."""
        with NetNS(space) as there:
            there.link("add", ifname=name, kind="bridge")
            index = there.link_lookup(ifname=name)[0]
            for member in members:
                there.link("set", index=there.link_lookup(ifname=member)[0], master=index)
            there.link("set", index=index, state="up")
        if address:
            self.address(space, name, address)

    def address(self, space: str, device: str, cidr: str) -> None:
        ip, _, prefix = cidr.partition("/")
        with NetNS(space) as there:
            there.addr("add", index=there.link_lookup(ifname=device)[0], address=ip, prefixlen=int(prefix))

    def run(self, space: str, *arguments: str, check: bool = True, timeout: float = 60) -> Any:
        """A program in a namespace, to its end; text output captured."""
        return subprocess.run(
            ["ip", "netns", "exec", space, *arguments],
            capture_output=True,
            text=True,
            check=check,
            timeout=timeout,
        )

    def relay(self, space: str, address: tuple[str, int], target: tuple[str, int]) -> None:
        """Whoever connects to ``address`` in the namespace reaches ``target`` of the test's own."""
        self._relays.append(Relay(space, address, target))

    def close(self) -> None:
        for relay in self._relays:
            relay.close()
        leftovers.remove_namespaces(self._made[::-1])


class Relay:
    """Carries TCP connections out of a namespace to a server of the test process's own."""

    def __init__(self, space: str, address: tuple[str, int], target: tuple[str, int]) -> None:
        self._target = target
        self._ends: set[socket.socket] = set()
        with entered(space):
            self._listener = socket.create_server(address)
        threading.Thread(target=self._accept, daemon=True, name="relay").start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
            except OSError:
                return
            self._ends |= {client, server}
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._copy, args=(source, sink), daemon=True, name="relay").start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.close()


def in_namespace(space: str, function: Callable[[], Any]) -> Any:
    """The result of ``function``, called in a namespace."""
    with entered(space):
        return function()
