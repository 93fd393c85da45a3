"""Questions that dnsmasq can't answer, carried out of its namespace to the operator's DNS servers.

A DHCP namespace has no way out: its address is the same on every host, so no answer would find it. dnsmasq
asks 127.0.0.1 there, where this agent listens. It answers for the network's own names and addresses (``dns_names``); other questions go on
from the host. Only ``[network_linux]dns_servers`` are asked, never what a tenant names: guests ask their subnet's
``dns_nameservers`` themselves.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
from collections.abc import Callable, Sequence

from core.pools import Pool
from network.drivers.linux.dns_names import Names, refusal
from network.drivers.linux.namespaces import Namespaces

LOG = logging.getLogger(__name__)
ADDRESS = ("127.0.0.1", 5300)
_THREADS = 16
_WAITING = 256
"""Questions at a time; more are dropped, and asked again by who wants to know"""
_PATIENCE_S = 2.0
_LARGEST = 65_535


class DnsRelay:
    """Sockets in the namespaces, one thread that waits at them, a bounded pool that asks."""

    def __init__(self, servers: Sequence[str], namespaces: Namespaces, names: Names) -> None:
        self.servers = list(servers)
        self.names = names
        self._networks: dict[str, tuple[str, str, tuple[str, ...]]] = {}
        """namespace → (network id, its domain, its subnets)"""
        self._namespaces = namespaces
        self._places: dict[str, tuple[int, list[socket.socket]]] = {}
        """namespace → (its inode, sockets)"""
        self._selector = selectors.DefaultSelector()
        self._wake_end, self._woken_end = socket.socketpair()
        self._selector.register(self._woken_end, selectors.EVENT_READ)
        self._free = threading.BoundedSemaphore(_WAITING)
        self._lock = threading.Lock()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Without servers and names there is nothing to do, ever."""
        if self.servers or self.names.usable:
            self._pool = Pool("dns-relay", _THREADS)
            self._thread = threading.Thread(target=self._wait, daemon=True, name="dns-relay")
            self._thread.start()

    def close(self) -> None:
        self._stopping = True
        self._wake_end.send(b"x")
        if self._thread is not None:
            self._thread.join(5)
            self._pool.shutdown(wait=False)
        for name in list(self._places):
            self.forget(name)

    def serve(self, namespace: str, network_id: str, domain: str, cidrs: tuple[str, ...]) -> None:
        """Listen there, unless that is done already. Raises OSError."""
        if self._thread is None:
            return
        inode = self._namespaces.path(namespace).stat().st_ino
        if namespace in self._places and self._places[namespace][0] == inode:
            self._networks[namespace] = network_id, domain, cidrs
            return
        self.forget(namespace)
        made: list[socket.socket] = []
        with self._namespaces.entered(namespace):
            try:
                for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                    made.append(socket.socket(socket.AF_INET, kind))
                    made[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    made[-1].bind(ADDRESS)
                made[1].listen(16)
            except OSError:
                for each in made:
                    each.close()
                raise
        with self._lock:
            self._places[namespace] = inode, made
            self._networks[namespace] = network_id, domain, cidrs
            for each in made:
                each.setblocking(False)
                self._selector.register(each, selectors.EVENT_READ, namespace)
        self._wake_end.send(b"x")

    def forget(self, namespace: str) -> None:
        with self._lock:
            _inode, sockets = self._places.pop(namespace, (0, []))
            self._networks.pop(namespace, None)
            for each in sockets:
                with contextlib.suppress(KeyError, ValueError):
                    self._selector.unregister(each)
                each.close()

    def _wait(self) -> None:
        while not self._stopping:
            for key, _events in self._selector.select(timeout=30):
                place = key.fileobj
                assert isinstance(place, socket.socket)
                with contextlib.suppress(OSError):  # closed meanwhile
                    if place is self._woken_end:
                        place.recv(4096)
                    elif place.type == socket.SOCK_DGRAM:
                        question, who = place.recvfrom(_LARGEST)
                        self._spawn(self._ask, key.data, place, question, who)
                    else:
                        connection, _address = place.accept()
                        if not self._spawn(self._carry, key.data, connection):
                            connection.close()

    def _spawn(self, function: Callable[..., None], *arguments: object) -> bool:
        if not self._free.acquire(blocking=False):
            return False
        self._pool.spawn(self._bounded, function, *arguments)
        return True

    def _bounded(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            function(*arguments)
        finally:
            self._free.release()

    def _known(self, namespace: str, question: bytes) -> bytes | None:
        """The answer, if the question is about the network's own names, or nobody else could be asked."""
        network = self._networks.get(namespace)
        if network is None:
            return None
        network_id, domain, cidrs = network
        found = self.names.answer(network_id, domain, question, cidrs)
        return refusal(question) if found is None and not self.servers else found

    def _ask(self, namespace: str, place: socket.socket, question: bytes, who: tuple[str, int]) -> None:
        """The first server that answers."""
        if (known := self._known(namespace, question)) is not None:
            with contextlib.suppress(OSError):
                place.sendto(known, who)
            return
        for server in self.servers:
            family = socket.AF_INET6 if ":" in server else socket.AF_INET
            # connected: answers of others don't reach it; its port is random, and the question's id comes back
            with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as channel:
                channel.settimeout(_PATIENCE_S)
                channel.connect((server, 53))
                channel.send(question)
                answer = channel.recv(_LARGEST)
                if answer[:2] == question[:2]:
                    place.sendto(answer, who)
                    return
        if self.servers:
            LOG.warning("none of the DNS servers %s answers", ", ".join(self.servers))

    def _carry(self, namespace: str, connection: socket.socket) -> None:
        """Questions over TCP: those whose answers are long."""
        with connection, contextlib.suppress(OSError):
            connection.settimeout(_PATIENCE_S)
            question = _message(connection)
            while question and (known := self._known(namespace, question[2:])) is not None:
                connection.sendall(len(known).to_bytes(2) + known)
                question = _message(connection)
            for server in self.servers if question else ():
                with contextlib.suppress(OSError):
                    with socket.create_connection((server, 53), _PATIENCE_S) as channel:
                        while question:
                            channel.sendall(question)
                            connection.sendall(_message(channel))
                            question = _message(connection)
                    return


def _message(channel: socket.socket) -> bytes:
    """One message of DNS over TCP, with its length in front; b"" at the end."""
    data = b""
    while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2]):
        wanted = 2 - len(data) if len(data) < 2 else 2 + int.from_bytes(data[:2]) - len(data)
        more = channel.recv(wanted)
        if not more:
            return b""
        data += more
    return data
