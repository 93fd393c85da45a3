"""TLS for the embedded web server.

cheroot shakes hands in the thread that accepts connections: a client that connects and
says nothing would keep everybody else out.  Here the thread that answers the request
does it, within a bounded time.
"""

from __future__ import annotations

import logging
import socket
import ssl
from typing import Any

from cheroot.ssl.builtin import BuiltinSSLAdapter

from core.errors import Unavailable

LOG = logging.getLogger(__name__)
HANDSHAKE_S = 10.0
_PLAIN = b"This server speaks HTTPS only on this port.\n"
_REFUSAL = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_PLAIN), _PLAIN)
)


class Adapter(BuiltinSSLAdapter):
    """TLS 1.2 or later with a certificate (and what it is signed with) and its key.

    :raises Unavailable: the files can't be read or don't fit each other.
    """

    def __init__(self, certificate: str, key: str | None) -> None:
        try:
            super().__init__(certificate, key)
        except (OSError, ssl.SSLError) as error:
            files = certificate if key is None else f"{certificate} and {key}"
            raise Unavailable(f"TLS can't be served with {files}: {error}", cause=error) from error
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2

    def wrap(self, sock: socket.socket) -> tuple[ssl.SSLSocket, dict[str, Any]]:
        wrapped = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        return wrapped, {"wsgi.url_scheme": "https", "HTTPS": "on"}


def shake_hands(connection: ssl.SSLSocket, timeout_s: float) -> bool:
    """Before the first request of a connection. False: there is nobody to talk to."""
    connection.settimeout(HANDSHAKE_S)
    try:
        connection.do_handshake()
    except ssl.SSLError as error:
        if "http request" in str(error).lower():
            # past TLS, on the socket below it: the client could not read anything else
            socket.socket.sendall(connection, _REFUSAL)
        LOG.info("no TLS with a client: %s", error)
        return False
    except OSError as error:
        LOG.info("no TLS with a client: %s", error)
        return False
    connection.settimeout(timeout_s)
    return True
