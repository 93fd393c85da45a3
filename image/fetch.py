"""Data from the web for imports, without becoming a way into the networks of this deployment.

A URL is somebody's wish.  It must pass the lists of schemes, hosts and ports; and
whatever its host's name means today, the connection goes to an address that was
checked, so that a name which changes its meaning between check and use gains nothing.
Each redirect is checked like the first URL.  Proxies of the environment are not used.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from oslo_config import cfg

from core.errors import BadRequest, DriverError

GROUP = "import_filtering"
_CHUNK = 1 << 20
_REDIRECTS = 5
_EMBEDDING = [ipaddress.IPv6Network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "::/96")]
"""NAT64 and the old compatible addresses: their last 32 bits are an address of IPv4."""
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
OPTS: list[cfg.Opt] = [
    cfg.ListOpt("allowed_schemes", default=["http", "https"], help="Schemes of URLs: http, https."),
    cfg.ListOpt("disallowed_schemes", default=[], help="Refused if allowed_schemes is empty."),
    cfg.ListOpt("allowed_hosts", default=[], help="Hosts of URLs; if empty, all but disallowed_hosts."),
    cfg.ListOpt("disallowed_hosts", default=[], help="Refused if allowed_hosts is empty."),
    cfg.ListOpt("allowed_ports", default=["80", "443"], help="Ports; if empty, all but disallowed_ports."),
    cfg.ListOpt("disallowed_ports", default=[], help="Refused if allowed_ports is empty."),
    cfg.ListOpt(
        "allowed_networks",
        default=[],
        help="Networks (CIDR) that are not public and that data may come from all the same.",
    ),
    cfg.IntOpt("timeout_s", default=60, min=1, help="How long the other side may be silent."),
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [(GROUP, OPTS)]


class Fetcher:
    """Opens URLs that may be opened."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        conf.register_opts(OPTS, group=GROUP)
        self._options = conf[GROUP]

    @classmethod
    def of(cls, options: Any) -> Fetcher:
        """One with lists of its own: ``options`` has values for ``OPTS``."""
        made = cls.__new__(cls)
        made._options = options
        return made

    def check(self, url: str) -> SplitResult:
        """The URL in parts. :raises BadRequest: it does not pass the lists."""
        refused = BadRequest(f"URI for web-download does not pass filtering: {url}")
        try:
            parts = urlsplit(url)
            port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
        except ValueError as error:
            raise refused from error
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise refused
        if any(ord(character) <= 32 or ord(character) > 126 for character in url):
            raise refused
        options = self._options
        for value, allowed, disallowed in (
            (parts.scheme, options.allowed_schemes, options.disallowed_schemes),
            # a dot at the end names the same host
            (parts.hostname.rstrip("."), options.allowed_hosts, options.disallowed_hosts),
            (str(port), options.allowed_ports, options.disallowed_ports),
        ):
            if (value not in allowed) if allowed else (value in disallowed):
                raise refused
        return parts

    def _address(self, host: str, port: int) -> str:
        """An address of the host. :raises BadRequest: it has one that is not allowed."""
        try:
            found = {str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
        except OSError as error:
            raise DriverError(f"The host {host} is not known.", cause=error) from error
        networks = [ipaddress.ip_network(text, strict=False) for text in self._options.allowed_networks]
        for text in found:
            if not _passes(text, networks):
                raise BadRequest(f"The host {host} has an address that data may not come from.")
        return sorted(found)[0]

    @contextlib.contextmanager
    def open(self, url: str) -> Iterator[Iterator[bytes]]:
        """The bytes at ``url``. :raises BadRequest: it is not allowed. :raises DriverError: no answer."""
        for _ in range(_REDIRECTS + 1):
            connection = self._connect(self.check(url))
            try:
                response = self._ask(connection, url)
                if (place := response.getheader("Location")) and 300 <= response.status < 400:
                    url = urljoin(url, place)
                    continue
                if response.status != 200:
                    raise DriverError(f"The web server answered {response.status} instead of the data.")
                yield _chunks(response)
                return
            finally:
                connection.close()
        raise DriverError(f"The URL was redirected more than {_REDIRECTS} times.")

    def _connect(self, parts: SplitResult) -> http.client.HTTPConnection:
        assert parts.hostname is not None
        port = parts.port or (443 if parts.scheme == "https" else 80)
        address = self._address(parts.hostname, port)
        timeout = self._options.timeout_s
        connection = http.client.HTTPConnection(parts.hostname, port, timeout=timeout)
        try:
            sock = socket.create_connection((address, port), timeout)
            if parts.scheme == "https":
                sock = ssl.create_default_context().wrap_socket(sock, server_hostname=parts.hostname)
        except OSError as error:
            raise DriverError(f"{parts.hostname} can't be reached.", cause=error) from error
        connection.sock = sock  # it would look the name up again
        return connection

    def _ask(self, connection: http.client.HTTPConnection, url: str) -> http.client.HTTPResponse:
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            connection.request("GET", target, headers={"Accept-Encoding": "identity"})
            return connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise DriverError("The web server gave no answer.", cause=error) from error


def _passes(text: str, networks: list[Network]) -> bool:
    """Is the address public, or one of ``networks``; and so whatever it wraps?"""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if any(address in network for network in networks):
        return True
    return all(found.is_global and not found.is_multicast for found in (address, *_wrapped(address)))


def _wrapped(address: Address) -> list[Address]:
    """The addresses of IPv4 that a gateway may make of one of IPv6."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    found: list[Address] = [address.sixtofour] if address.sixtofour else []
    if address.teredo:
        found += address.teredo
    if any(address in network for network in _EMBEDDING):
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return found


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        while chunk := response.read(_CHUNK):
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise DriverError("The download broke off.", cause=error) from error
    if response.length:
        raise DriverError(f"The download broke off: {response.length} bytes are missing.")
