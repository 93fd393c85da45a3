"""The metadata proxy: answers guests at 169.254.169.254 and fe80::a9fe:a9fe, inside their networks' namespaces.

Who asks is told by the network and the source address, which a guest can't forge (anti-spoofing holds at its
tap); what it says about itself in headers is thrown away. The request goes on to the metadata service with
the server's id, signed (``core.metadata``).

Listening sockets are opened inside the namespaces; one thread waits at all of them and a bounded pool answers. A guest
holds a few of its threads at most, and each for a bounded time: however many connections it opens, others are answered.
"""

from __future__ import annotations

import collections
import contextlib
import http.server
import ipaddress
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import urllib3
from keystoneauth1 import exceptions as keystone_exceptions
from oslo_config import cfg

from core import clients
from core import metadata as signing
from core.errors import Unavailable
from core.pools import Pool
from lifecycle.host_network import Port, Router
from network.drivers.linux.namespaces import Namespaces

LOG = logging.getLogger(__name__)
METADATA_IPV4, METADATA_IPV6 = "169.254.169.254", "fe80::a9fe:a9fe"
_PORT = 80
_THREADS = 32
_PER_GUEST = 4
"""Connections of one guest at a time; cloud-init uses one."""
_BODY_BYTES = 64 * 1024
_DRAINED_BYTES = 1 << 20
_PATIENCE_S = 10.0
_REMEMBERED_S = 30.0
_PASSED_ON = ("Accept", "Content-Type", "User-Agent")

GROUP = "metadata_proxy"
OPTS = [
    cfg.URIOpt("url", default="http://127.0.0.1:8775", help="Where the metadata service is."),
    cfg.StrOpt("cafile", help="CA bundle to check the metadata service's certificate with."),
    cfg.FloatOpt("timeout_s", default=30, min=1, help="How long the metadata service may take."),
]

Identity = tuple[str, str]
"""(server id, project id)"""
Finder = Callable[[str], Identity | None]
"""source address → who it is"""


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [(GROUP, OPTS), *signing.list_opts()]


class _Place:
    """One namespace that is served."""

    def __init__(self, sockets: list[socket.socket], inode: int, find: Finder) -> None:
        self.sockets = sockets
        self.inode = inode
        self.find = find


class Metadata:
    """All of this host's listening sockets."""

    def __init__(self, conf: cfg.ConfigOpts, namespaces: Namespaces) -> None:
        for group, options in list_opts():
            conf.register_opts(options, group=group)
        self._conf = conf
        self._namespaces = namespaces
        self._places: dict[str, _Place] = {}
        self._ports: dict[str, dict[str, Identity]] = {}
        """network id → {address: who has it}, of the ports on this host"""
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._wake_end, self._woken_end = socket.socketpair()
        self._woken_end.setblocking(False)
        self._selector.register(self._woken_end, selectors.EVENT_READ, None)
        self._busy: collections.Counter[tuple[int, str]] = collections.Counter()
        """connections that are being answered, by (place, source)"""
        self._reading: dict[socket.socket, float] = {}
        """connections whose request has not arrived whole, and until when it may"""
        self._pool: Pool | None = None
        self._stopping = False
        self._ask = Asking(conf)
        verify: dict[str, Any] = {"ca_certs": conf[GROUP].cafile} if conf[GROUP].cafile else {}
        self._http = urllib3.PoolManager(maxsize=_THREADS, retries=False, **verify)

    def start(self) -> None:
        if not self._conf[signing.GROUP].shared_secret:
            LOG.warning("[metadata] shared_secret is not set: guests get no metadata from this host")
        self._pool = Pool("metadata", _THREADS)
        self._thread = threading.Thread(target=self._accept, daemon=True, name="metadata-accept")
        self._thread.start()

    def close(self) -> None:
        self._stopping = True
        self._wake()
        for name in list(self._places):
            self.forget(name)
        if self._pool is not None:
            self._thread.join(5)
            self._pool.shutdown(wait=False)

    # -- what is served ------------------------------------------------------------

    def serve_network(self, namespace: str, device: str, network_id: str, ports: Iterable[Port]) -> None:
        """Answer the ports of a network in its DHCP namespace. :raises OSError: the addresses are not there."""
        known: dict[str, Identity] = {}
        for port in ports:
            if port.device_id:
                who = (port.device_id, port.project_id)
                known.update({each.ip_address: who for each in port.addresses})
                known[link_local(port.mac_address)] = who
        self._ports[network_id] = known
        self._listen(namespace, device, lambda address: self._ports.get(network_id, {}).get(address))

    def serve_router(self, namespace: str, router: Router) -> None:
        """Answer guests that take their router for the way to the metadata: they may be on other hosts."""
        legs = [
            (ipaddress.ip_network(f"{each.ip_address}/{each.prefix_length}", strict=False), leg.network_id)
            for leg in router.interfaces
            for each in leg.addresses
        ]

        def find(address: str) -> Identity | None:
            source = ipaddress.ip_address(address)
            for network, network_id in legs:
                if source.version == network.version and source in network:
                    return self._ask.who(network_id, address)
            return None

        self._listen(namespace, None, find)

    def _listen(self, namespace: str, device: str | None, find: Finder) -> None:
        inode = self._namespaces.path(namespace).stat().st_ino
        place = self._places.get(namespace)
        if place is not None and place.inode == inode:
            place.find = find
            return
        self.forget(namespace)
        with self._namespaces.entered(namespace):
            sockets = [_listener(socket.AF_INET, (METADATA_IPV4, _PORT))]
            if device is not None and Path("/proc/sys/net/ipv6").exists():
                scope = socket.if_nametoindex(device)
                sockets.append(_listener(socket.AF_INET6, (METADATA_IPV6, _PORT, 0, scope)))
        place = _Place(sockets, inode, find)
        with self._lock:
            self._places[namespace] = place
            for each in sockets:
                self._selector.register(each, selectors.EVENT_READ, place)
        self._wake()

    def forget(self, namespace: str) -> None:
        """Serve a namespace no more."""
        with self._lock:
            place = self._places.pop(namespace, None)
            for each in place.sockets if place else ():
                with contextlib.suppress(KeyError, ValueError):
                    self._selector.unregister(each)
                each.close()

    def serves(self, namespace: str) -> bool:
        return namespace in self._places

    # -- answering -------------------------------------------------------------------

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._wake_end.send(b"x")

    def _accept(self) -> None:
        while not self._stopping:
            events = self._selector.select(timeout=1 if self._reading else 30)
            self._end_late_ones()
            for key, _events in events:
                if key.data is None:
                    with contextlib.suppress(OSError):
                        self._woken_end.recv(4096)
                    continue
                listener: Any = key.fileobj
                try:
                    connection, address = listener.accept()
                except OSError:
                    continue  # it was closed meanwhile, or the guest went away
                self._admit(connection, address, key.data)

    def _admit(self, connection: socket.socket, address: Any, place: _Place) -> None:
        guest = (id(place), str(address[0]))
        with self._lock:
            admitted = self._pool is not None and self._busy[guest] < _PER_GUEST
            if admitted:
                self._busy[guest] += 1
                self._reading[connection] = time.monotonic() + _PATIENCE_S
        if admitted and self._pool is not None:
            self._pool.spawn(self._serve, connection, address, place, guest)
        else:
            connection.close()

    def _end_late_ones(self) -> None:
        """A request that trickles in would keep a thread for ever: the time between two bytes alone is no bound."""
        now = time.monotonic()
        with self._lock:
            late = [each for each, until in self._reading.items() if until < now]
            for each in late:
                del self._reading[each]
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def arrived(self, connection: socket.socket) -> None:
        """The request is here whole."""
        with self._lock:
            self._reading.pop(connection, None)

    def _serve(self, connection: socket.socket, address: Any, place: _Place, guest: tuple[int, str]) -> None:
        try:
            with connection:
                connection.settimeout(_PATIENCE_S)
                with contextlib.suppress(OSError):
                    _Handler(connection, address, self, place)
        finally:
            with self._lock:
                self._reading.pop(connection, None)
                self._busy[guest] -= 1
                if self._busy[guest] <= 0:
                    del self._busy[guest]

    def forward(
        self, place: _Place, source: str, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        """The service's answer: status, headers, body."""
        secret = self._conf[signing.GROUP].shared_secret
        try:
            who = place.find(source) if secret else None
        except Unavailable as error:
            LOG.warning("%s: %s", error.message, error.cause)
            return 503, {}, b"503 Service Unavailable\n"
        if who is None:
            return 404, {}, b"404 Not Found\n"
        server_id, project_id = who
        sent = {
            **{name: headers[name] for name in _PASSED_ON if headers.get(name)},
            "X-Forwarded-For": source,
            "X-Instance-ID": server_id,
            "X-Tenant-ID": project_id,
            "X-Instance-ID-Signature": signing.signature(secret, server_id),
        }
        try:
            answer = self._http.request(
                method,
                self._conf[GROUP].url.rstrip("/") + path,
                headers=sent,
                body=body or None,
                timeout=self._conf[GROUP].timeout_s,
                redirect=False,
            )
        except urllib3.exceptions.HTTPError as error:
            LOG.warning("the metadata service at %s does not answer: %s", self._conf[GROUP].url, error)
            return 503, {}, b"503 Service Unavailable\n"
        kept = {name: value for name, value in answer.headers.items() if name.lower() == "content-type"}
        return answer.status, kept, answer.data


class _Handler(http.server.BaseHTTPRequestHandler):
    """One request of a guest; the connection ends with it."""

    def __init__(self, connection: socket.socket, address: Any, metadata: Metadata, place: _Place) -> None:
        self._metadata = metadata
        self._place = place
        super().__init__(connection, address, None)  # type: ignore[arg-type]

    def _answer(self) -> None:
        length = self.headers.get("Content-Length") or "0"
        # at most twelve digits: Python refuses to read very long numbers, and a guest shall cause no traceback
        plain = len(length) <= 12 and length.isascii() and length.isdecimal()
        if not plain or int(length) > _BODY_BYTES:
            # a connection that is closed with unread bytes is reset, and the answer may be lost with it
            self.rfile.read(min(int(length), _DRAINED_BYTES) if plain else 0)
            self._send(413, {}, b"413 Too Large\n")
            return
        body = self.rfile.read(int(length))
        self._metadata.arrived(self.connection)
        source = str(self.client_address[0]).partition("%")[0]
        if not self.path.startswith("/"):
            self._send(400, {}, b"400 Bad Request\n")
            return
        found = self._metadata.forward(
            self._place, source, self.command, self.path, dict(self.headers.items()), body
        )
        self._send(*found)

    do_GET = do_HEAD = do_POST = do_PUT = _answer  # noqa: N815 - the library's names

    def _send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        LOG.debug("metadata: %s: %s", self.client_address[0], format % args)

    def version_string(self) -> str:
        return "haneul"


class Asking:
    """Who has an address, asked of the Network API and remembered for a short while; its failures are not."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf
        self._adapter: Any = None
        self._known: dict[tuple[str, str], tuple[float, Identity | None]] = {}
        self._lock = threading.Lock()

    def who(self, network_id: str, address: str) -> Identity | None:
        """:raises Unavailable: the Network API can't say."""
        key, now = (network_id, address), time.monotonic()
        with self._lock:
            known = self._known.get(key)
            if known is not None and known[0] > now:
                return known[1]
            if len(self._known) > 10_000:
                self._known.clear()
            if self._adapter is None:
                self._adapter = clients.service_adapter(self._conf, "network")
        found = self._found(network_id, address)
        with self._lock:
            self._known[key] = (now + _REMEMBERED_S, found)
        return found

    def _found(self, network_id: str, address: str) -> Identity | None:
        query = {"network_id": network_id, "fixed_ips": f"ip_address={address}"}
        try:
            answer = self._adapter.get("/v2.0/ports", params=query, raise_exc=False)
            if answer.status_code != 200:
                raise Unavailable(
                    f"the network service could not say who has {address}", cause=answer.status_code
                )
            ports = answer.json().get("ports", [])
        except (keystone_exceptions.ClientException, ValueError) as error:
            raise Unavailable(f"the network service could not say who has {address}", cause=error) from error
        for port in ports:
            if port.get("device_id"):
                return port["device_id"], port.get("project_id") or port.get("tenant_id") or ""
        return None


def _listener(family: int, address: Any) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(64)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def link_local(mac: str) -> str:
    """The address that an interface gives itself (RFC 4862, from its MAC)."""
    octets = bytearray.fromhex(mac.replace(":", ""))
    octets[0] ^= 2
    suffix = bytes(octets[:3]) + b"\xff\xfe" + bytes(octets[3:])
    return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + suffix))
