"""Over a real connection: streams in constant memory, clients that go away, processes that are killed."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.errors import NotFound
from db import images
from db.image_filters import Asker
from image.data import ImageData
from tests.api.image.conftest import MEMBER, make_services

MIB = 1 << 20
TOKEN = {"X-Auth-Token": MEMBER}
BINARY = {**TOKEN, "Content-Type": "application/octet-stream"}


class Served:
    """A process with the API, and what is said to it."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.api.image.serve", str(folder), *options],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def call(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] = TOKEN, **options: Any
    ) -> tuple[int, bytes]:
        connection = self.connect()
        connection.request(method, path, body, headers, **options)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, data

    def image(self, **values: Any) -> str:
        body = json.dumps({"disk_format": "raw", "container_format": "bare", **values})
        _, data = self.call("POST", "/v2/images", body, {**TOKEN, "Content-Type": "application/json"})
        return str(json.loads(data)["id"])

    def show(self, image_id: str) -> dict[str, Any]:
        return dict(json.loads(self.call("GET", f"/v2/images/{image_id}")[1]))

    def files(self) -> list[Path]:
        return [path for path in (self.folder / "images").rglob("*") if path.is_file()]

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    started: list[Served] = []

    def start(*options: str) -> Served:
        started.append(Served(tmp_path, *options))
        return started[-1]

    yield start
    for served in started:
        served.stop()


def until(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it never came")


def zeros(count: int) -> Iterator[bytes]:
    block = bytes(MIB)
    for _ in range(count):
        yield block


def test_streams_in_constant_memory(serve: Callable[..., Served]) -> None:
    served = serve()
    image_id, count = served.image(), 512
    process = psutil.Process(served.process.pid)
    before = process.memory_info().rss
    # chunked: http.client sends an iterable so
    status, _ = served.call("PUT", f"/v2/images/{image_id}/file", zeros(count), BINARY, encode_chunked=True)
    assert status == 204
    peak = process.memory_info().rss
    connection = served.connect()
    connection.request("GET", f"/v2/images/{image_id}/file", headers=TOKEN)
    answer, digest, size = connection.getresponse(), hashlib.md5(), 0
    while data := answer.read(MIB):
        digest.update(data)
        size += len(data)
        if size % (64 * MIB) == 0:
            peak = max(peak, process.memory_info().rss)
    connection.close()
    shown = served.show(image_id)
    assert size == shown["size"] == count * MIB
    assert digest.hexdigest() == shown["checksum"]
    high_water = int(
        next(
            line.split()[1]
            for line in Path(f"/proc/{served.process.pid}/status").read_text().splitlines()
            if line.startswith("VmHWM")
        )
    )
    assert max(peak, high_water * 1024) - before < 80 * MIB


@pytest.mark.parametrize("size", [1, 70_000, 3 * MIB + 17])
@pytest.mark.parametrize("chunked", [True, False])
def test_bytes_are_the_same(serve: Callable[..., Served], size: int, chunked: bool) -> None:
    served, data = serve(), os.urandom(size)
    image_id = served.image()
    body: Any = (data[at : at + 9_999] for at in range(0, size, 9_999)) if chunked else data
    status, _ = served.call("PUT", f"/v2/images/{image_id}/file", body, BINARY, encode_chunked=chunked)
    assert status == 204
    assert served.call("GET", f"/v2/images/{image_id}/file") == (200, data)
    part = {**TOKEN, "Range": f"bytes={size // 2}-"}
    assert served.call("GET", f"/v2/images/{image_id}/file", headers=part) == (206, data[size // 2 :])


@pytest.mark.parametrize("framing", ["Content-Length: 9000000", "Transfer-Encoding: chunked"])
def test_a_client_that_goes_away_leaves_nothing(serve: Callable[..., Served], framing: str) -> None:
    served = serve()
    image_id = served.image()
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        head = f"PUT /v2/images/{image_id}/file HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {MEMBER}\r\n"
        head += f"Content-Type: application/octet-stream\r\n{framing}\r\n\r\n"
        size = f"{2 * MIB:x}\r\n".encode() if "chunked" in framing else b""
        connection.sendall(head.encode() + size + bytes(2 * MIB))
        until(lambda: served.show(image_id)["status"] == "saving")
    until(lambda: served.show(image_id)["status"] == "queued")
    until(lambda: served.files() == [])
    assert served.call("PUT", f"/v2/images/{image_id}/file", b"again", BINARY)[0] == 204


def test_a_client_that_is_refused_sees_why(serve: Callable[..., Served]) -> None:
    served = serve("image.image_size_cap=1000000")
    image_id = served.image()
    for headers in (BINARY, {**BINARY, "Transfer-Encoding": "chunked"}):
        chunked = "Transfer-Encoding" in headers
        body: Any = zeros(40) if chunked else bytes(40 * MIB)
        status, answer = served.call(
            "PUT", f"/v2/images/{image_id}/file", body, headers, encode_chunked=chunked
        )
        assert status == 413 and b"too large" in answer
    status, _ = served.call("PUT", "/v2/images/no-such-image/file", bytes(40 * MIB), BINARY)
    assert status == 404
    assert served.show(image_id)["status"] == "queued" and served.files() == []


def test_a_killed_process_leaves_what_the_janitor_ends(serve: Callable[..., Served], tmp_path: Path) -> None:
    served = serve("image.upload_lease=6")
    kept, image_id = served.image(), served.image()
    assert served.call("PUT", f"/v2/images/{kept}/file", b"kept", BINARY)[0] == 204
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        head = f"PUT /v2/images/{image_id}/file HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {MEMBER}\r\n"
        head += "Content-Type: application/octet-stream\r\nContent-Length: 900000000\r\n\r\n"
        connection.sendall(head.encode() + b"x" * 3 * MIB)
        until(lambda: len(served.files()) == 2)
        os.kill(served.process.pid, signal.SIGKILL)
        served.process.wait()
    assert len(served.files()) == 2

    services = make_services(tmp_path, f"sqlite:///{tmp_path}/global.sqlite")
    data = ImageData(services.conf, services.databases)
    until(lambda: data.sweep() > 0)
    assert len(served.files()) == 1
    with services.databases.global_.read() as connection_:
        found = images.get(connection_, image_id, Asker(None, is_admin=True))
        assert (found["status"], found["locations"]) == ("queued", [])
        with pytest.raises(NotFound):
            data.open(found)
        assert b"".join(data.open(images.get(connection_, kept, Asker(None, is_admin=True)))) == b"kept"
    services.close()
