"""URLs of imports: what passes the lists, and that names and redirects lead nowhere else."""

from __future__ import annotations

import http.server
import ipaddress
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from oslo_config import cfg

from core import config
from core.errors import BadRequest, DriverError
from image import fetch
from image.fetch import Fetcher

DATA = b"data" * 1000


class Handler(http.server.BaseHTTPRequestHandler):
    data = DATA

    def do_GET(self) -> None:
        answers: dict[str, tuple[int, dict[str, str], bytes]] = {
            "/data": (200, {"Content-Length": str(len(self.data))}, self.data),
            "/short": (200, {"Content-Length": str(len(DATA) + 1)}, DATA),
            "/moved": (302, {"Location": "/data"}, b""),
            "/round": (302, {"Location": "/round"}, b""),
            "/inside": (302, {"Location": "http://169.254.169.254/data"}, b""),
            "/file": (302, {"Location": "file:///etc/passwd"}, b""),
        }
        status, headers, body = answers.get(self.path, (404, {}, b""))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


def make(**options: Any) -> Fetcher:
    conf = cfg.ConfigOpts()
    conf([])
    fetcher = Fetcher(conf)
    for name, value in options.items():
        config.override(conf, f"import_filtering.{name}", value)
    return fetcher


def read(fetcher: Fetcher, url: str) -> bytes:
    with fetcher.open(url) as chunks:
        return b"".join(chunks)


def here(port: int) -> Fetcher:
    return make(allowed_networks=["127.0.0.0/8"], allowed_ports=[str(port), "80"])


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/x",
        "file:///etc/passwd",
        "http://",
        "http://example.org:22/",
        "http://user:secret@example.org/",
        "http://example.org/\r\nHost: other",
        "http://example.org:99999/",
        "http://[::1/",
        "nothing",
    ],
)
def test_what_no_list_lets_pass(url: str) -> None:
    with pytest.raises(BadRequest):
        make().check(url)


def test_lists() -> None:
    make().check("https://example.org/x")
    only = make(allowed_hosts=["example.org"], disallowed_hosts=["example.org"], allowed_schemes=["https"])
    only.check("https://EXAMPLE.org/x")
    for url in ("http://example.org/x", "https://example.com/x"):
        with pytest.raises(BadRequest):
            only.check(url)
    not_those = make(disallowed_hosts=["bad.example"], allowed_ports=[], disallowed_ports=["25"])
    not_those.check("http://good.example:8080/")
    for url in ("http://bad.example/", "http://bad.example./", "http://good.example:25/"):
        with pytest.raises(BadRequest):
            not_those.check(url)


def test_data_and_redirects(port: int) -> None:
    fetcher, base = here(port), f"http://127.0.0.1:{port}"
    assert read(fetcher, f"{base}/data") == DATA
    assert read(fetcher, f"{base}/moved") == DATA
    for path in ("/short", "/round", "/absent"):
        with pytest.raises(DriverError):
            read(fetcher, base + path)
    for path in ("/inside", "/file"):
        with pytest.raises(BadRequest):
            read(fetcher, base + path)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "224.0.0.1",
        "::1",
        "fe80::1%lo",
        "fd00::1",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "64:ff9b::10.0.0.1",
        "2002:7f00:1::",
    ],
)
def test_a_name_that_means_something_inside(address: str, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    public = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", port))
    inside = (family, socket.SOCK_STREAM, 6, "", (address, port))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: [public, inside])
    with pytest.raises(BadRequest, match="may not come from"):
        read(make(allowed_ports=[str(port)]), f"http://example.org:{port}/data")


@pytest.mark.parametrize(
    ("address", "networks", "passes"),
    [
        ("64:ff9b::93.184.216.34", [], True),
        ("2606:2800:220:1::1", [], True),
        ("2002:a00:1::", [], False),
        ("2002:a00:1::", ["2002::/16"], True),
        ("::1", ["::1/128"], True),
        ("::ffff:10.0.0.1", ["10.0.0.0/8"], True),
        ("10.0.0.1", ["10.1.0.0/16"], False),
    ],
)
def test_addresses_that_wrap_others(address: str, networks: list[str], passes: bool) -> None:
    found = [ipaddress.ip_network(text) for text in networks]
    assert fetch._passes(address, found) is passes
