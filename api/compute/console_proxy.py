"""The console proxy: from a browser's websocket to the screen of a server, for who has a token.

    browser ── websocket, ?token=… ── this ── TCP ── QEMU's VNC server on the host

The token says which server; where its screen is the proxy asks the server's host anew each
time.  Ports are given to other guests when one stops: what was true when the token was
issued could lead to somebody else's screen.
"""

from __future__ import annotations

import http.server
import logging
import socket
import socketserver
import threading
import urllib.parse
from pathlib import Path
from typing import Any

import oslo_messaging
from oslo_config import cfg
from websockify import websocketproxy

from api.compute import consoles
from api.compute.doorbells import Doorbells
from core import config
from core.context import admin_context
from core.errors import Conflict, HaneulError, Unavailable
from db import console_tokens, servers
from db.sessions import Databases
from lifecycle.roles import Role

LOG = logging.getLogger(__name__)
_CONNECT_S = 10.0


class Screens:
    """Finds the screen that a token leads to; safe to share between threads."""

    def __init__(self, databases: Databases, doorbells: Doorbells) -> None:
        self._databases = databases
        self._doorbells = doorbells

    def connect(self, token: str) -> socket.socket:
        """A connection to the server's VNC server.

        :raises NotFound: no such token or server. :raises Conflict: it has no screen now.
        :raises Unavailable: its host does not answer.
        """
        with self._databases.global_.read() as connection:
            server_id = console_tokens.find(connection, token)["server_id"]
        found = servers.find(self._databases, server_id)
        host = found.row["host"]
        if not host:
            raise Conflict(f"Instance {server_id} is not ready")
        agent = self._doorbells.agent(int(found.database.cell_id or 0))
        try:
            place = agent.vnc(admin_context(), host, server_id)
        except oslo_messaging.RemoteError as error:
            raise Conflict(f"Instance {server_id} has no screen now", cause=error) from error
        except (oslo_messaging.MessagingTimeout, oslo_messaging.MessageDeliveryFailure) as error:
            raise Unavailable("The host of the server does not answer now.", cause=error) from error
        try:
            return socket.create_connection((place["host"], int(place["port"])), _CONNECT_S)
        except OSError as error:
            raise Unavailable("The screen of the server does not answer now.", cause=error) from error


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """A thread per browser; the attributes are what websockify's handler reads."""

    daemon_threads = True
    token_plugin = auth_plugin = None
    target_host = target_port = None
    verbose = False
    heartbeat = 30

    def __init__(
        self, address: tuple[str, int], screens: Screens, web: Path | None, origins: list[str]
    ) -> None:
        self.screens = screens
        self.web = web
        self.origins = origins
        self.only_upgrade = web is None
        self.file_only = True
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        LOG.info("a console of %s ended", client_address[0], exc_info=True)


class _Handler(websocketproxy.ProxyRequestHandler):
    """One browser: noVNC's files, or a websocket."""

    timeout = 60
    server: _Server

    def log_message(self, format: str, *arguments: Any) -> None:
        """Without the path: it carries the token, which is a key."""

    def translate_path(self, path: str) -> str:
        self.directory = str(self.server.web)
        return str(super().translate_path(path))

    def handle_upgrade(self) -> None:
        try:
            if not self._comes_from_us():
                self._refuse(403, "Pages of this origin may not open consoles")
                return
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
            self._screen = self.server.screens.connect(query.get("token", [""])[0])
        except HaneulError as error:
            LOG.info("no console for %s: %s", self.client_address[0], error.message)
            self._refuse(error.http_status, error.message)
            return
        with self._screen:
            super().handle_upgrade()

    def _refuse(self, status: int, why: str) -> None:
        """Without a body: a client of websockets would take it for a frame."""
        self.send_response(status, why.encode("ascii", "replace").decode())
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()

    def _comes_from_us(self) -> bool:
        """Browsers say whose page opens the websocket; other programs say nothing."""
        origin = self.headers.get("Origin")
        if not origin:
            return True
        own = urllib.parse.urlsplit(f"//{self.headers.get('Host', '')}").hostname
        return urllib.parse.urlsplit(origin).hostname in (own, *self.server.origins)

    def validate_connection(self) -> None:
        """Done already; websockify's own way keeps the target on the server, which all threads share."""

    def new_websocket_client(self) -> None:
        self._screen.settimeout(None)
        LOG.info("a console is open for %s", self.client_address[0])
        self.do_proxy(self._screen)


class ConsoleProxy(Role):
    """Serves consoles from when ``start`` returns until ``stop``."""

    name = "novncproxy"

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        config.register(conf, consoles.list_opts())
        self._conf = conf
        self._databases = Databases(conf)
        self._doorbells = Doorbells(conf, self._databases)
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        options = self._conf.vnc
        web = Path(options.web)
        if not (web / "core" / "rfb.js").exists():
            LOG.info("there is no noVNC in %s: only websockets are served", web)
        address = (options.novncproxy_host, options.novncproxy_port)
        screens = Screens(self._databases, self._doorbells)
        try:
            self._server = _Server(
                address, screens, web if web.is_dir() else None, self._conf.console.allowed_origins
            )
        except OSError as error:
            raise Unavailable(
                f"the console proxy can't listen on {address[0]}:{address[1]}: {error}", cause=error
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name=self.name, daemon=True)
        self._thread.start()
        LOG.info("consoles are at %s:%s", *address)

    def stop(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join(10)
        self._doorbells.close()
        self._databases.dispose()


def make_role(conf: cfg.ConfigOpts) -> ConsoleProxy:
    return ConsoleProxy(conf)
