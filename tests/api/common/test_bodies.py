"""Bodies on the wire: chunked ones are read right and bounded, unwanted ones are drained or cut off."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from cheroot import wsgi
from hypothesis import given
from hypothesis import strategies as st

from api.common import bodies


def chunked(parts: list[bytes]) -> bytes:
    return (
        b"".join(b"%x;ext=1\r\n%s\r\n" % (len(part), part) for part in parts if part) + b"0\r\nX: y\r\n\r\n"
    )


@given(st.lists(st.binary(max_size=50), max_size=8), st.integers(1, 70))
def test_whatever_the_chunks_the_body_is_the_same(parts: list[bytes], size: int) -> None:
    stream = io.BytesIO(chunked(parts) + b"GET / next request")
    body, got = bodies.ChunkedBody(stream), b""
    while piece := body.read(size):
        assert len(piece) == min(size, len(b"".join(parts)) - len(got))
        got += piece
    assert got == b"".join(parts)
    assert body.closed and body.read(5) == b""
    assert stream.read() == b"GET / next request"


@pytest.mark.parametrize(
    "wire",
    [
        b"",
        b"zz\r\nabc\r\n",
        b"-5\r\nabc\r\n",
        b"+5\r\nabcde\r\n0\r\n\r\n",
        b"5\r\nabc",
        b"3\r\nabcdef\r\n0\r\n\r\n",
        b"5" * 5000,
        b"ffffffffffffffffff\r\nabc",
    ],
)
def test_malformed_chunks_are_an_error(wire: bytes) -> None:
    with pytest.raises(bodies.MalformedBody):
        bodies.ChunkedBody(io.BytesIO(wire)).read()


def test_the_size_of_a_chunk_does_not_size_our_memory() -> None:
    class Counting(io.BytesIO):
        largest = 0

        def read(self, size: int | None = -1, /) -> bytes:
            self.largest = max(self.largest, size or 0)
            return super().read(size)

    stream = Counting(b"ffffffffff\r\n" + b"x" * 1000)
    with pytest.raises(bodies.MalformedBody):
        bodies.ChunkedBody(stream).read(5000)
    assert stream.largest <= 5000


@pytest.fixture
def serve() -> Iterator[Callable[[wsgi.Server], int]]:
    started: list[tuple[wsgi.Server, threading.Thread]] = []

    def start(server: wsgi.Server) -> int:
        server.gateway = bodies.Gateway
        server.ConnectionClass = bodies.Connection
        server.prepare()
        thread = threading.Thread(target=server.serve, daemon=True)
        thread.start()
        started.append((server, thread))
        return int(server.bind_addr[1])

    yield start
    for server, thread in started:
        server.stop()
        thread.join(10)


def ignoring(environ: dict, start_response: Callable) -> list[bytes]:
    start_response("403 Forbidden", [("Content-Length", "2")])
    return [b"no"]


def exchange(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while data := connection.recv(65536):
            answer += data
        return answer


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_an_unread_body_does_not_become_the_next_request(
    serve: Callable[[wsgi.Server], int], framing: str
) -> None:
    port = serve(wsgi.Server(("127.0.0.1", 0), ignoring))
    data = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n" * 5000
    if framing == "length":
        request = b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(data), data)
    else:
        request = b"PUT /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked([data])
    answer = exchange(port, request + b"GET /second HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.count(b"HTTP/1.1 403") == 2


def test_a_rest_that_is_too_long_ends_the_connection(
    serve: Callable[[wsgi.Server], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies.drain, "__defaults__", (1000,))
    port = serve(wsgi.Server(("127.0.0.1", 0), ignoring))
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(
            b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * 70000
        )
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 403") and b"Connection: close" in answer


def who(environ: dict, start_response: Callable) -> list[bytes]:
    """Answers with the worker's name; 204 without a body at /empty."""
    if environ["PATH_INFO"] == "/empty":
        start_response("204 No Content", [])
        return []
    name = threading.current_thread().name.encode()
    start_response("200 OK", [("Content-Length", str(len(name)))])
    return [name]


def ask(connection: socket.socket, path: str = "/") -> bytes:
    """One request on a connection that is kept; the answer as the first packet brings it."""
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return connection.recv(65536)


def test_an_answer_is_one_packet_and_an_empty_one_is_sent(serve: Callable[[wsgi.Server], int]) -> None:
    port = serve(wsgi.Server(("127.0.0.1", 0), who))
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        head, _, body = ask(connection).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200") and b"Thread" in body
        assert ask(connection, "/empty").startswith(b"HTTP/1.1 204")
        assert ask(connection).startswith(b"HTTP/1.1 200")


def test_who_asks_again_at_once_keeps_the_worker(
    serve: Callable[[wsgi.Server], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "_LINGER_MS", 20_000)
    port = serve(wsgi.Server(("127.0.0.1", 0), who, numthreads=4))
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        assert len({ask(connection).partition(b"\r\n\r\n")[2] for _ in range(20)}) == 1


def test_clients_that_keep_their_connection_do_not_keep_others_out(
    serve: Callable[[wsgi.Server], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "_LINGER_MS", 20_000)
    server = wsgi.Server(("127.0.0.1", 0), who, numthreads=3, max=3)
    server.keep_alive_conn_limit = 100
    port = serve(server)
    connections = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(12)]
    try:
        for _ in range(3):
            assert all(ask(connection).startswith(b"HTTP/1.1 200") for connection in connections)
    finally:
        for connection in connections:
            connection.close()
