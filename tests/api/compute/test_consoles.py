"""Consoles: the URLs that the API gives, and the proxy behind them, against a played VNC server."""

from __future__ import annotations

import contextlib
import socket
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import oslo_messaging
import pytest
import requests

from api.compute.console_proxy import ConsoleProxy
from api.compute.services import ComputeServices
from core import config
from core.errors import Conflict, Unsupported
from db import console_tokens
from tests.api.compute.conftest import ADMIN, OTHER, READER, Api
from tests.api.compute.server_tools import boot, make_flavor, place
from tests.lab.processes import free_port
from tests.lab.websockets import WebSocketClient

GREETING = b"RFB 003.008\n"


class Screen:
    """A VNC server: greets, and gives back what it hears."""

    def __init__(self) -> None:
        self.heard = b""
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _address = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._speak, args=(client,), daemon=True).start()

    def _speak(self, client: socket.socket) -> None:
        with client:
            client.sendall(GREETING)
            with contextlib.suppress(ConnectionError):
                while data := client.recv(4096):
                    self.heard += data
                    client.sendall(data)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class Hosts:
    """What the hosts of a cell answer; stands in for ``AgentClient``."""

    def __init__(self) -> None:
        self.port = 1
        self.failure: Exception | None = None

    def vnc(self, context: Any, host: str, server_id: str) -> dict[str, Any]:
        if self.failure is not None:
            raise self.failure
        return {"host": "127.0.0.1", "port": self.port}


@pytest.fixture
def hosts(services: ComputeServices, monkeypatch: pytest.MonkeyPatch) -> Hosts:
    made = Hosts()
    monkeypatch.setattr(services.doorbells, "agent", lambda _cell_id: made)
    return made


@pytest.fixture
def server_id(api: Api, services: ComputeServices, hosts: Hosts) -> str:
    make_flavor(api)
    made = boot(api)
    place(services, made)
    return made


def opened(api: Api, server_id: str, **options: Any) -> Any:
    body = {"remote_console": {"protocol": "vnc", "type": "novnc"}}
    options.setdefault("version", "2.6")
    return api.post(f"/servers/{server_id}/remote-consoles", body, **options)


def token_of(url: str) -> str:
    (path,) = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)["path"]
    return path.removeprefix("?token=")


def test_the_url_carries_a_token_that_leads_to_the_screen(api: Api, hosts: Hosts, server_id: str) -> None:
    hosts.port = 5907
    console = opened(api, server_id, status=200).json["remote_console"]
    assert (console["protocol"], console["type"]) == ("vnc", "novnc")
    assert console["url"].startswith("http://127.0.0.1:6080/vnc_lite.html?path=%3Ftoken%3D")
    path = f"/os-console-auth-tokens/{token_of(console['url'])}"
    assert api.get(path, as_=ADMIN, version="2.31").json == {
        "console": {
            "instance_uuid": server_id,
            "host": "127.0.0.1",
            "port": 5907,
            "internal_access_path": None,
        }
    }
    assert api.get(path, as_="service@services", version="2.31").json["console"]["port"] == 5907
    api.get(path, as_=ADMIN, version="2.30", status=401)
    api.get(path, version="2.31", status=403)
    unknown = api.get(f"/os-console-auth-tokens/{server_id}", as_=ADMIN, version="2.31", status=404)
    assert unknown.json["itemNotFound"]["message"] == "Token not found"


def test_older_clients_use_actions(api: Api, server_id: str) -> None:
    path = f"/servers/{server_id}/action"
    console = api.post(path, {"os-getVNCConsole": {"type": "novnc"}}).json["console"]
    assert console["type"] == "novnc"
    assert token_of(console["url"])
    api.post(path, {"os-getVNCConsole": {"type": "novnc"}}, version="2.6", status=404)
    opened(api, server_id, version="2.5", status=404)


@pytest.mark.parametrize(
    ("protocol", "kind", "version"),
    [
        ("vnc", "xvpvnc", "2.6"),
        ("spice", "spice-html5", "2.6"),
        ("serial", "serial", "2.6"),
        ("mks", "webmks", "2.8"),
    ],
)
def test_kinds_that_there_are_not(api: Api, server_id: str, protocol: str, kind: str, version: str) -> None:
    body = {"remote_console": {"protocol": protocol, "type": kind}}
    path = f"/servers/{server_id}/remote-consoles"
    answer = api.post(path, body, version=version, status=400).json["badRequest"]
    assert answer["message"] == f"Unavailable console type {kind}."
    wrong = {"remote_console": {"protocol": "vnc", "type": "window"}}
    assert "type" in api.post(path, wrong, version=version, status=400).json["badRequest"]["message"]


def test_mks_only_from_2_8(api: Api, server_id: str) -> None:
    body = {"remote_console": {"protocol": "mks", "type": "webmks"}}
    answer = api.post(f"/servers/{server_id}/remote-consoles", body, version="2.7", status=400)
    assert "webmks" in answer.json["badRequest"]["message"] or "mks" in answer.json["badRequest"]["message"]


def test_who_may(api: Api, services: ComputeServices, server_id: str) -> None:
    opened(api, server_id, as_=OTHER, status=404)
    opened(api, server_id, as_=READER, status=403)
    config.override(services.conf, "vnc.enabled", False)
    assert "novnc" in opened(api, server_id, status=400).json["badRequest"]["message"]


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (oslo_messaging.RemoteError("Conflict", "no screen now"), 409),
        (oslo_messaging.RemoteError("NotFound", "no guest"), 409),
        (oslo_messaging.RemoteError("Unsupported", "a simulated guest has no screen"), 400),
        (oslo_messaging.MessagingTimeout(), 503),
        (Conflict("no screen now"), 409),
        (Unsupported("a simulated guest has no screen"), 400),
    ],
)
def test_hosts_that_give_no_screen(
    api: Api, hosts: Hosts, server_id: str, failure: Exception, status: int
) -> None:
    hosts.failure = failure
    (fault,) = opened(api, server_id, status=status).json.values()
    assert fault["code"] == status and fault["message"]


# -- the proxy ---------------------------------------------------------------


@pytest.fixture
def screen() -> Iterator[Screen]:
    made = Screen()
    yield made
    made.close()


@pytest.fixture
def proxy(
    services: ComputeServices, hosts: Hosts, screen: Screen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """host:port of a proxy with a page; the hosts lead to the screen."""
    web = tmp_path / "novnc"
    (web / "core").mkdir(parents=True)
    (web / "core" / "rfb.js").write_text("// RFB")
    hosts.port, port = screen.port, free_port()
    config.override(services.conf, "vnc.novncproxy_port", port)
    config.override(services.conf, "vnc.web", str(web))
    role = ConsoleProxy(services.conf)
    monkeypatch.setattr(role._doorbells, "agent", lambda _cell_id: hosts)
    role.start()
    yield f"127.0.0.1:{port}"
    role.stop()


def connected(proxy: str, token: str) -> WebSocketClient:
    return WebSocketClient(proxy, f"/?token={token}")


def status_of(proxy: str, token: str, **headers: str) -> int:
    """What the proxy says to who asks for a websocket and does not get it."""
    asked = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", **headers}
    asked["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    answer = requests.get(f"http://{proxy}/?token={token}", headers=asked, timeout=30)
    assert answer.status_code == 101 or answer.content == b"", "a client would take it for a frame"
    return answer.status_code


def test_a_browser_speaks_with_the_screen(api: Api, proxy: str, screen: Screen, server_id: str) -> None:
    token = token_of(opened(api, server_id).json["remote_console"]["url"])
    for _ in range(2):  # a page may be loaded again
        client = connected(proxy, token)
        assert client.recv() == GREETING
        client.send(b"hello")
        assert client.recv() == b"hello"
        client.close()
    assert screen.heard == b"hellohello"


def test_each_browser_has_its_own_screen(
    api: Api, services: ComputeServices, proxy: str, screen: Screen, hosts: Hosts, server_id: str
) -> None:
    """The host is asked anew for each: a port may be another guest's by now."""
    token = token_of(opened(api, server_id).json["remote_console"]["url"])
    other = Screen()
    first = connected(proxy, token)
    assert first.recv() == GREETING
    hosts.port = other.port
    second = connected(proxy, token)
    assert second.recv() == GREETING
    first.send(b"one")
    second.send(b"two")
    assert (first.recv(), second.recv()) == (b"one", b"two")
    assert (screen.heard, other.heard) == (b"one", b"two")
    for each in (first, second):
        each.close()
    other.close()


def test_without_a_token_that_counts_there_is_nothing(
    api: Api, services: ComputeServices, proxy: str, hosts: Hosts, screen: Screen, server_id: str
) -> None:
    assert status_of(proxy, "") == 404
    assert status_of(proxy, server_id) == 404
    with services.databases.global_.write() as connection:
        expired = console_tokens.issue(connection, server_id, "novnc", "127.0.0.1", screen.port, -1)
    assert status_of(proxy, expired) == 404
    token = token_of(opened(api, server_id).json["remote_console"]["url"])
    hosts.failure = oslo_messaging.RemoteError("Conflict", "it does not run")
    assert status_of(proxy, token) == 409
    hosts.failure = None
    hosts.port = free_port()
    assert status_of(proxy, token) == 503
    assert screen.heard == b""


def test_pages_of_strangers_open_nothing(
    api: Api, services: ComputeServices, proxy: str, server_id: str
) -> None:
    token = token_of(opened(api, server_id).json["remote_console"]["url"])
    assert status_of(proxy, token, Origin="http://evil.example") == 403
    assert status_of(proxy, token, Origin=f"http://{proxy}") == 101


def test_novncs_files_are_served_and_no_others(proxy: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    assert requests.get(f"http://{proxy}/core/rfb.js", timeout=30).text == "// RFB"
    assert requests.get(f"http://{proxy}/core/", timeout=30).status_code == 404
    with socket.create_connection(tuple(proxy.split(":")), 30) as plain:  # type: ignore[arg-type]
        plain.sendall(b"GET /../secret HTTP/1.0\r\n\r\n")
        assert b" 404 " in plain.recv(4096)


def test_tokens_are_not_logged_and_not_stored(
    api: Api, services: ComputeServices, proxy: str, server_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    token = token_of(opened(api, server_id).json["remote_console"]["url"])
    client = connected(proxy, token)
    client.recv()
    client.close()
    assert token not in caplog.text
    with services.databases.global_.read() as connection:
        rows = connection.execute(console_tokens.console_tokens.select()).all()
    assert rows and token not in str(rows)
