#!/usr/bin/env python3
"""How fast an image goes up and down over HTTP, against what hashing and the disk allow.

    python bench/image_transfer.py --mib 1024 --folder /var/tmp

starts the Image API in a process of its own (SQLite, a file store in ``--folder``,
tokens are not checked) and prints, in MB/s (10^6 bytes):

* sha512 and md5 of the same bytes, one after the other and at the same time;
* writing the same bytes to a new file in the folder, with fsync;
* upload (fsync included) and download of one image, best of ``--runs``.

"Allowed" is the slowest of what has to happen for an upload: sha512 and md5 in a thread
each, writing.  A download, which hashes nothing, is held against the same.  The CPU
seconds of the server per GB are printed, too: they say more on a busy machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable

import psutil

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

MIB = 1 << 20
TOKEN = "member@bench"


def best(runs: int, work: Callable[[], None]) -> float:
    """Seconds of the quickest of several runs."""
    times = []
    for _ in range(runs):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return min(times)


def make_file(path: pathlib.Path, mib: int) -> None:
    """Random bytes: nothing that a store could leave out."""
    with path.open("wb") as handle:
        for _ in range(mib):
            handle.write(os.urandom(MIB))


def hash_file(path: pathlib.Path, *algorithms: str) -> None:
    found = [hashlib.new(name) for name in algorithms]
    with path.open("rb", buffering=0) as handle:
        while data := handle.read(MIB):
            for each in found:
                each.update(data)


def hash_at_once(path: pathlib.Path) -> None:
    threads = [threading.Thread(target=hash_file, args=(path, name)) for name in ("md5", "sha512")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def copy(path: pathlib.Path, target: pathlib.Path) -> None:
    with path.open("rb", buffering=0) as source, target.open("wb", buffering=0) as handle:
        while data := source.read(MIB):
            handle.write(data)
        os.fsync(handle.fileno())
    target.unlink()


def read(path: pathlib.Path) -> None:
    with path.open("rb", buffering=0) as handle:
        while handle.read(MIB):
            pass


class Client:
    """Speaks HTTP with as little work of its own as possible."""

    def __init__(self, port: int) -> None:
        self.port = port

    def request(self, method: str, path: str, body: bytes | pathlib.Path = b"", kind: str = "json") -> bytes:
        """Returns the body; for a download, b"" when it was read."""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            size = body.stat().st_size if isinstance(body, pathlib.Path) else len(body)
            head = (
                f"{method} {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\nX-Auth-Token: {TOKEN}\r\n"
            )
            head += f"Content-Type: application/{kind}\r\nContent-Length: {size}\r\n\r\n"
            connection.sendall(head.encode())
            if isinstance(body, pathlib.Path):
                with body.open("rb") as handle:
                    connection.sendfile(handle)
            else:
                connection.sendall(body)
            return self._answer(connection)

    def _answer(self, connection: socket.socket) -> bytes:
        kept = bytearray()
        buffer = bytearray(MIB)
        total = 0
        while count := connection.recv_into(buffer):
            total += count
            if len(kept) < MIB:
                kept += buffer[:count]
        head, _, body = bytes(kept).partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 2"):
            raise SystemExit(kept[:500].decode(errors="replace"))
        return body

    def create(self) -> str:
        body = json.dumps({"disk_format": "raw", "container_format": "bare"}).encode()
        return str(json.loads(self.request("POST", "/v2/images", body))["id"])


def measure(
    client: Client, data: pathlib.Path, runs: int, server: psutil.Process
) -> tuple[float, float, float, float]:
    """Seconds of the quickest upload and download, and CPU seconds of the server for one of each."""

    def cpu() -> float:
        times = server.cpu_times()
        return float(times.user + times.system)

    image = ""
    ups, downs, cpu_ups, cpu_downs = [], [], [], []
    for _ in range(runs):
        if image:
            client.request("DELETE", f"/v2/images/{image}")
        image = client.create()
        for path, method, body, times, cpus in (
            (f"/v2/images/{image}/file", "PUT", data, ups, cpu_ups),
            (f"/v2/images/{image}/file", "GET", b"", downs, cpu_downs),
        ):
            begun, begun_cpu = time.perf_counter(), cpu()
            client.request(method, path, body, "octet-stream")  # type: ignore[arg-type]
            times.append(time.perf_counter() - begun)
            cpus.append(cpu() - begun_cpu)
    return min(ups), min(downs), min(cpu_ups), min(cpu_downs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir()))
    options = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="haneul-bench-", dir=options.folder))
    server = None
    try:
        data = folder / "data"
        make_file(data, options.mib)
        megabytes = options.mib * MIB / 1e6

        def say(what: str, seconds: float) -> float:
            print(f"{what:44} {megabytes / seconds:8.0f} MB/s", flush=True)
            return megabytes / seconds

        say("sha512, then md5", best(options.runs, lambda: hash_file(data, "md5", "sha512")))
        hashing = say("sha512 and md5 at the same time", best(options.runs, lambda: hash_at_once(data)))
        writing = say("write and fsync", best(options.runs, lambda: copy(data, folder / "copy")))
        reading = say("read", best(options.runs, lambda: read(data)))
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.api.image.serve", str(folder)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdout is not None
        client = Client(int(server.stdout.readline()))
        up, down, cpu_up, cpu_down = measure(client, data, options.runs, psutil.Process(server.pid))
        rate = say("upload", up)
        print(f"{'  of what hashing and the disk allow':44} {100 * rate / min(hashing, writing):8.0f} %")
        rate = say("download", down)
        print(f"{'  of the same':44} {100 * rate / min(hashing, writing, reading):8.0f} %")
        for what, seconds in (("upload", cpu_up), ("download", cpu_down)):
            print(f"{f'server CPU, {what}':44} {seconds / megabytes * 1000:8.2f} s/GB")
    finally:
        if server is not None:
            server.kill()
            server.wait()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
