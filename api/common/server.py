"""The embedded web server: one API as a role.

cheroot serves with a bounded pool of threads; several processes may share the
port (SO_REUSEPORT) when ``workers`` asks for them.  uWSGI or gunicorn can serve
the same applications through ``api.wsgi`` instead.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from cheroot import wsgi
from oslo_config import cfg

from api.common import bodies, tls
from api.common.auth import WsgiApp
from core.errors import Unavailable
from lifecycle.roles import Role

LOG = logging.getLogger(__name__)
_KEPT_CONNECTIONS = 1000


def server_opts(port: int) -> list[cfg.Opt]:
    """Options of an API's group."""
    return [
        cfg.HostAddressOpt("listen", default="127.0.0.1", help="Address to listen on."),
        cfg.PortOpt("port", default=port, help="Port to listen on."),
        cfg.IntOpt("threads", default=16, min=1, max=512, help="Threads that answer requests."),
        cfg.IntOpt(
            "workers",
            default=1,
            min=1,
            max=128,
            help="More than 1: other processes that serve this API may listen on the same port "
            "(SO_REUSEPORT); start as many.",
        ),
        cfg.StrOpt("ssl_certificate", help="Certificate file, with the chain behind it: serve TLS."),
        cfg.StrOpt("ssl_key", help="The certificate's key file (default: it stands in the same file)."),
    ]


class ApiRole(Role):
    """Serves one WSGI application from when ``start`` returns until ``stop``."""

    def __init__(
        self, name: str, conf: cfg.ConfigOpts, group: str, make_app: Callable[[cfg.ConfigOpts], WsgiApp]
    ) -> None:
        self.name = name
        self._conf = conf
        self._group = group
        self._make_app = make_app
        self._server: wsgi.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        application = self._make_app(self._conf)  # registers the group's options
        options = self._conf[self._group]
        self._server = wsgi.Server(
            (options.listen, options.port),
            application,
            numthreads=options.threads,
            max=options.threads,
            server_name="haneul",
            request_queue_size=1024,
            timeout=60,
            reuse_port=options.workers > 1,
        )
        self._server.max_request_body_size = 0
        # cheroot's 10: the eleventh client would have to connect anew for every request
        self._server.keep_alive_conn_limit = _KEPT_CONNECTIONS
        self._server.gateway = bodies.Gateway
        self._server.ConnectionClass = bodies.Connection
        if options.ssl_certificate:
            self._server.ssl_adapter = tls.Adapter(options.ssl_certificate, options.ssl_key)
        try:
            self._server.prepare()
        except OSError as error:
            raise Unavailable(
                f"{self.name} can't listen on {options.listen}:{options.port}: {error}", cause=error
            ) from error
        self._thread = threading.Thread(target=self._server.serve, name=self.name, daemon=True)
        self._thread.start()
        LOG.info("%s listens on %s:%s", self.name, options.listen, options.port)

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
        if self._thread is not None:
            self._thread.join(10)
