"""Request bodies on the wire: cheroot's, but bounded in memory.

cheroot reads what a handler left of a body in one piece before it answers, and a
chunk of a chunked body in one piece as long as the client says: either would let
anyone who can connect fill the memory.  Here both are read in small pieces, and a
rest that is too long ends the connection instead.
"""

from __future__ import annotations

import select
import ssl
from typing import Any, Protocol

from cheroot import server, wsgi

from api.common import tls

PIECE = 1 << 16
MAX_DRAINED = 256 << 20
"""Bytes of an unwanted body that are read, so that the client gets to see the answer."""
_MAX_LINE = 4096
_LINGER_MS = 10
_IDLE = 2
"""Workers that must be idle for one to wait for its client's next request."""


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...
    def readline(self, size: int, /) -> bytes: ...


class MalformedBody(OSError):
    """The body is not chunked as RFC 9112 says, or the client went away."""


class ChunkedBody:
    """Reads a chunked body: ``read(size)`` gives at most ``size`` bytes, b"" at the end."""

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream
        self._left = 0
        self.closed = False

    def read(self, size: int | None = None, /) -> bytes:
        """Up to ``size`` bytes, fewer only at the end; without ``size`` all there is."""
        parts: list[bytes] = []
        wanted = size
        while wanted is None or wanted > 0:
            piece = self._piece(PIECE * 16 if wanted is None else wanted)
            if not piece:
                break
            parts.append(piece)
            if wanted is not None:
                wanted -= len(piece)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _piece(self, size: int) -> bytes:
        if self.closed:
            return b""
        if self._left == 0 and not self._begin_chunk():
            return b""
        data = self._stream.read(min(size, self._left))
        if not data:
            raise MalformedBody("The connection ended within a chunk.")
        self._left -= len(data)
        if self._left == 0 and self._line():
            raise MalformedBody("A chunk is longer than it says.")
        return data

    def _begin_chunk(self) -> bool:
        text = self._line().split(b";", 1)[0].strip()
        if not text or len(text) > 16 or not all(byte in b"0123456789abcdefABCDEF" for byte in text):
            raise MalformedBody("The size of a chunk is no hexadecimal number.")
        self._left = int(text, 16)
        if self._left:
            return True
        while self._line():
            pass  # trailers mean nothing to us
        self.closed = True
        return False

    def _line(self) -> bytes:
        line = self._stream.readline(_MAX_LINE)
        if not line.endswith(b"\n"):
            raise MalformedBody("The connection ended between chunks, or a line is too long.")
        return line.rstrip(b"\r\n")


def drain(body: Any, limit: int = MAX_DRAINED) -> bool:
    """Read what is left of a body and forget it. False: the connection can't be used again."""
    while limit > 0:
        try:
            piece = body.read(PIECE)
        except (OSError, ValueError):
            return False
        if not piece:
            # a body of known length that ended early: the client is gone
            return not getattr(body, "remaining", 0)
        limit -= len(piece)
    return False


class Gateway(wsgi.Gateway_10):
    """WSGI over bodies that stay bounded."""

    def get_environ(self) -> dict[str, Any]:  # type: ignore[override]
        if self.req.chunked_read:
            self.req.rfile = ChunkedBody(self.req.conn.rfile)
        environ: dict[str, Any] = super().get_environ()
        return environ


class _Writer:
    """A connection's way out: headers wait for the first piece of the body, so that one packet takes both."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._held = b""
        self.holding = False

    def write(self, data: bytes) -> None:
        if self.holding:
            self._held += data
        else:
            held, self._held = self._held, b""
            self._stream.write(held + data if held else data)

    def release(self) -> None:
        """Send what no body came for."""
        if self._held:
            self.write(b"")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Request(server.HTTPRequest):
    """Drains the body in pieces before cheroot would in one."""

    def send_headers(self) -> None:
        if not self.close_connection and not drain(self.rfile):
            self.close_connection = True
        self.conn.wfile.holding = True
        try:
            super().send_headers()
        finally:
            self.conn.wfile.holding = False

    def respond(self) -> None:
        try:
            super().respond()
        finally:
            self.conn.wfile.release()


class Connection(server.HTTPConnection):
    """Makes our requests; over TLS it shakes hands first. Waits a moment for the next request.

    cheroot hands every connection back to the thread that watches all of them, and that
    to a worker again: two changes of threads per request, each of which may wait for the
    interpreter's lock.  A client that asks again at once is served by the same worker, as
    long as others are idle.
    """

    RequestHandlerClass = Request
    _greeted = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.wfile: Any = _Writer(self.wfile)
        # eventlet takes poll away; there, threads are light and nothing is won by lingering
        self._poll = select.poll() if hasattr(select, "poll") else None
        if self._poll is not None:
            self._poll.register(self.socket.fileno(), select.POLLIN)

    def communicate(self) -> bool:
        encrypted = isinstance(self.socket, ssl.SSLSocket)
        if encrypted and not self._greeted:
            if not tls.shake_hands(self.socket, self.server.timeout):
                return False
            self._greeted = True
        while super().communicate():
            # (what TLS has decrypted already does not show in the socket)
            if encrypted or self._poll is None or self.server.requests.idle < _IDLE:
                return True
            if not self.rfile.has_data() and not self._poll.poll(_LINGER_MS):
                return True
        return False
