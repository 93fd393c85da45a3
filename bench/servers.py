#!/usr/bin/env python3
"""How fast servers come, go and are read: plain HTTP, one token, connections kept open.

  bench/serve-simulated --hosts 8 && python bench/servers.py --clients 16 --servers 200

Speaks only the Compute API, so it runs on any OpenStack: with OS_AUTH_URL set (and no
--state) that cloud is asked; otherwise the deployment of bench/serve-simulated, for which
CPU seconds and SQL statements are shown too.  The load average stands beside the figures:
wall-clock times mean something on a quiet machine only.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import http.client
import json
import os
import re
import socket
import statistics
import sys
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

MICROVERSION = "2.96"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Figure:
    """What is measured; ``goal`` is a least value for rates, a largest one for times."""

    text: str
    goal: float | None = None
    rate: bool = False
    upstream: str = ""


# in the order of the report; {clients} as asked for
FIGURES = {
    "create_per_s": Figure("servers/s, {clients} clients create, until all ACTIVE", 60, True, "4.8 to 6.2"),
    "cpu_s_per_server": Figure("CPU seconds per server, database and broker left out", 0.05, False, "0.83"),
    "cpu_s_per_server_all": Figure("  with database and broker"),
    "post_alone_ms": Figure("POST, one client, p50, ms", 12, False, "46"),
    "post_alone_p95_ms": Figure("  p95"),
    "post_p50_ms": Figure("POST, {clients} clients, p50, ms", 12),
    "post_p95_ms": Figure("  p95"),
    "post_per_s": Figure("  POSTs/s", None, True),
    "active_alone_ms": Figure("POST to ACTIVE, one at a time, p50, ms", 60, False, "365"),
    "active_alone_best_ms": Figure("  the shortest"),
    "delete_per_s": Figure("deletions/s, {clients} clients, until all gone", 100, True, "8 to 11"),
    "cpu_s_per_delete": Figure("  CPU seconds per deletion"),
    "detail_300_alone_ms": Figure("GET /servers/detail of 300, alone, p50, ms", 40, False, "756"),
    "detail_300_per_s_8_clients": Figure("  per second, 8 clients", 50, True, "5"),
    "detail_300_cpu_ms": Figure("  CPU ms, database included"),
    "detail_300_selects": Figure("  SELECTs"),
    "show_alone_ms": Figure("GET /servers/ID, alone, p50, ms", 6, False, "31"),
    "show_per_s_8_clients": Figure("  per second, 8 clients", 600, True, "116"),
    "show_cpu_ms": Figure("  CPU ms, database included"),
    "show_selects": Figure("  SELECTs"),
    "loop_ms": Figure("a fixed Python loop, CPU ms, before and after: how fast the machine was"),
    "loop_after_ms": Figure("  after"),
}


def loop_ms() -> float:
    """CPU milliseconds of a fixed piece of Python: grows when others share the cores."""
    best = float("inf")
    for _ in range(5):
        began, things = time.thread_time(), {}
        for number in range(20_000):
            things[str(number)] = [number, (number, number)]
        best = min(best, (time.thread_time() - began) * 1000)
    return best


class Client:
    """One connection to the Compute API, kept open; not for several threads at once.

    It reads no more of HTTP than this API answers with: http.client takes as long to parse
    headers as a server takes for the request, on the machine that is to be measured.
    """

    def __init__(self, url: str, token: str) -> None:
        parts = urllib.parse.urlsplit(url)
        self._address = (str(parts.hostname), parts.port or 80)
        self._path = parts.path.rstrip("/")
        self._head = (
            f"Host: {parts.netloc}\r\nX-Auth-Token: {token}\r\n"
            f"OpenStack-API-Version: compute {MICROVERSION}\r\n"
        )
        self._connect()

    def _connect(self) -> None:
        self._socket = socket.create_connection(self._address, timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def call(self, method: str, path: str, body: Any = None, expected: Iterable[int] = (200,)) -> Any:
        """:raises SystemExit: an answer with another status."""
        content = json.dumps(body) if body is not None else ""
        kind = "Content-Type: application/json\r\n" if content else ""
        request = (
            f"{method} {self._path}{path} HTTP/1.1\r\n{self._head}{kind}"
            f"Content-Length: {len(content.encode())}\r\n\r\n{content}"
        ).encode()
        try:
            self._socket.sendall(request)
            status, answer = self._read()
        except ConnectionError:  # closed because nobody spoke for long: nothing was done
            self._connect()
            self._socket.sendall(request)
            status, answer = self._read()
        if status not in expected:
            raise SystemExit(f"{method} {path}: {status} {answer[:300]!r}")
        return orjson.loads(answer) if answer else None

    def _read(self) -> tuple[int, bytes]:
        head = b""
        while b"\r\n\r\n" not in head:
            head += self._receive()
        head, _, body = head.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        parts, left = [body], int(length[1]) - len(body) if length else 0
        while left > 0:
            parts.append(self._receive())
            left -= len(parts[-1])
        return int(head[9:12]), b"".join(parts)

    def _receive(self) -> bytes:
        data = self._socket.recv(1 << 18)
        if not data:
            raise ConnectionResetError
        return data


class Cloud:
    """Where the API is, the token, and what servers are made of."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.token, self.url, image_url = _authenticate(environment)
        client = self.client()
        name = environment.get("BENCH_FLAVOR", "m1.nano")
        flavors = {each["name"]: each["id"] for each in client.call("GET", "/flavors")["flavors"]}
        images = Client(image_url, self.token).call("GET", "/v2/images?limit=1")["images"]
        self.flavor, self.image = flavors[name], images[0]["id"]

    def client(self) -> Client:
        return Client(self.url, self.token)

    def body(self, name: str) -> dict[str, Any]:
        return {
            "server": {
                "name": name,
                "flavorRef": self.flavor,
                "imageRef": self.image,
                "networks": "none",
            }
        }


def _authenticate(environment: Mapping[str, str]) -> tuple[str, str, str]:
    """(token, URL of compute, URL of image) by password."""
    domain = {"id": environment.get("OS_USER_DOMAIN_ID", "default")}
    user = {
        "name": environment["OS_USERNAME"],
        "password": environment["OS_PASSWORD"],
        "domain": domain,
    }
    scope = {"project": {"name": environment["OS_PROJECT_NAME"], "domain": domain}}
    identity = {"methods": ["password"], "password": {"user": user}}
    parts = urllib.parse.urlsplit(environment["OS_AUTH_URL"].rstrip("/"))
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)
    body = json.dumps({"auth": {"identity": identity, "scope": scope}})
    path = parts.path if parts.path.endswith("/v3") else f"{parts.path}/v3"
    connection.request("POST", f"{path}/auth/tokens", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    content = json.loads(response.read())
    if response.status != 201:
        raise SystemExit(f"no token: {response.status} {content}")
    urls = {
        service["type"]: endpoint["url"]
        for service in content["token"]["catalog"]
        for endpoint in service["endpoints"]
        if endpoint["interface"] == "public"
    }
    return str(response.headers["X-Subject-Token"]), urls["compute"], urls["image"]


@dataclasses.dataclass
class Timed:
    """Answers of several clients, and how long each took (seconds)."""

    answers: list[Any]
    seconds: list[float]
    wall_s: float

    @property
    def p50_ms(self) -> float:
        return statistics.median(self.seconds) * 1000

    @property
    def p95_ms(self) -> float:
        return sorted(self.seconds)[int(len(self.seconds) * 0.95)] * 1000

    @property
    def per_s(self) -> float:
        return len(self.seconds) / self.wall_s


def run_clients(cloud: Cloud, count: int, jobs: list[Any], work: Callable[[Client, Any], Any]) -> Timed:
    """``work(client, job)`` for every job, ``count`` at a time, each client with its own connection."""
    local, answers, seconds = threading.local(), [], []
    clients = [cloud.client() for _ in range(count)]

    def begin() -> None:
        local.client = clients.pop()

    def one(job: Any) -> tuple[Any, float]:
        started = time.perf_counter()
        answer = work(local.client, job)
        return answer, time.perf_counter() - started

    with concurrent.futures.ThreadPoolExecutor(count, initializer=begin) as pool:
        started = time.perf_counter()
        for answer, taken in pool.map(one, jobs):
            answers.append(answer)
            seconds.append(taken)
        wall_s = time.perf_counter() - started
    return Timed(answers, seconds, wall_s)


def wait_none(client: Client, query: str, pause_s: float, timeout_s: float = 300) -> None:
    """Until ``GET /servers?query`` lists nothing."""
    deadline = time.monotonic() + timeout_s
    while client.call("GET", f"/servers?limit=1&{query}")["servers"]:
        if time.monotonic() > deadline:
            raise SystemExit(f"servers with {query} are still there after {timeout_s:.0f} s")
        time.sleep(pause_s)


class Bench:
    """The measurements, in the order of the report."""

    def __init__(self, cloud: Cloud, clients: int, deployment: Any = None) -> None:
        self.cloud = cloud
        self.clients = clients
        self.deployment = deployment
        self.prefix = f"bench-{uuid.uuid4().hex[:8]}"
        self.figures: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    # -- writing -------------------------------------------------------------

    def create(self, count: int, measured: bool = True) -> list[str]:
        client, before = self.cloud.client(), self._cpu()
        started = time.perf_counter()
        names = [f"{self.prefix}-{number}" for number in range(count)]
        done = run_clients(self.cloud, self.clients, names, self._post)
        wait_none(client, f"status=BUILD&name={self.prefix}", 0.1)
        wall_s = time.perf_counter() - started
        ids = [answer["server"]["id"] for answer in done.answers]
        if client.call("GET", f"/servers?limit=1&status=ERROR&name={self.prefix}")["servers"]:
            raise SystemExit("some servers went to ERROR")
        if measured:
            self._account(before, count)
            self.figures.update(
                create_per_s=count / wall_s,
                post_per_s=done.per_s,
                post_p50_ms=done.p50_ms,
                post_p95_ms=done.p95_ms,
            )
        return ids

    def _post(self, client: Client, name: str) -> Any:
        return client.call("POST", "/servers", self.cloud.body(name), (202,))

    def create_alone(self, count: int) -> list[str]:
        client, ids, posts, actives = self.cloud.client(), [], [], []
        for number in range(count):
            started = time.perf_counter()
            answer = client.call("POST", "/servers", self.cloud.body(f"{self.prefix}-alone-{number}"), (202,))
            posts.append(time.perf_counter() - started)
            server_id = answer["server"]["id"]
            while (server := client.call("GET", f"/servers/{server_id}")["server"])["status"] == "BUILD":
                time.sleep(0.004)
            if server["status"] != "ACTIVE":
                raise SystemExit(f"server {server_id} is {server['status']}")
            actives.append(time.perf_counter() - started)
            ids.append(server_id)
        self.figures["post_alone_ms"] = statistics.median(posts) * 1000
        self.figures["post_alone_p95_ms"] = sorted(posts)[int(len(posts) * 0.95)] * 1000
        self.figures["active_alone_ms"] = statistics.median(actives) * 1000
        self.figures["active_alone_best_ms"] = min(actives) * 1000
        return ids

    def delete(self, ids: list[str], measured: bool = True) -> None:
        before, started = self._cpu(), time.perf_counter()
        done = run_clients(
            self.cloud,
            self.clients,
            ids,
            lambda client, each: client.call("DELETE", f"/servers/{each}", None, (204,)),
        )
        wait_none(self.cloud.client(), f"name={self.prefix}", 0.05)
        wall_s = time.perf_counter() - started
        if measured:
            self.figures.update(delete_per_s=len(ids) / wall_s, delete_p50_ms=done.p50_ms)
            if before:
                spent = {name: used - before.get(name, 0) for name, used in self._cpu().items()}
                own = sum(used for name, used in spent.items() if not name.startswith("server/"))
                self.figures["cpu_s_per_delete"] = own / len(ids)

    # -- reading -------------------------------------------------------------

    def read(self, ids: list[str], seconds: float) -> None:
        detail = f"/servers/detail?name={self.prefix}"
        self._read("detail_300", [detail], seconds, len(ids))
        self._read("show", [f"/servers/{each}" for each in ids], seconds)

    def _read(self, name: str, paths: list[str], seconds: float, rows: int | None = None) -> None:
        def get(client: Client, path: str) -> Any:
            answer = client.call("GET", path)
            if rows is not None and len(answer["servers"]) < rows:
                raise SystemExit(f"{path}: {len(answer['servers'])} servers, {rows} expected")
            return None

        warm = run_clients(self.cloud, 8, (paths * 8)[:8], get)
        count = max(int(seconds / statistics.median(warm.seconds) / 2), 10)
        alone = run_clients(self.cloud, 1, (paths * count)[:count], get)
        self.figures[f"{name}_alone_ms"] = alone.p50_ms
        before = self._cpu()
        count = max(int(alone.per_s * seconds), 50)
        many = run_clients(self.cloud, 8, (paths * count)[:count], get)
        self.figures[f"{name}_per_s_8_clients"] = many.per_s
        if before:
            spent = sum(self._cpu().values()) - sum(before.values())
            self.figures[f"{name}_cpu_ms"] = spent / count * 1000
        self._statements(name, paths[0], get)

    def _statements(self, name: str, path: str, get: Callable[[Client, str], Any]) -> None:
        """SELECTs of one request, from MariaDB's own counter."""
        counter = self.deployment.statement_counter() if self.deployment else None
        if counter is None:
            return
        client, times = self.cloud.client(), 20
        get(client, path)
        samples = []
        for _ in range(5):  # background work adds to some samples: the smallest is the request's own
            before = counter()
            for _ in range(times):
                get(client, path)
            samples.append((counter() - before) / times)
        self.figures[f"{name}_selects"] = min(samples)

    # -- CPU -----------------------------------------------------------------

    def _cpu(self) -> dict[str, float]:
        if self.deployment is None:
            return {}
        from bench.deployment import cpu_seconds

        return {name: cpu_seconds(pid) for name, pid in self.deployment.pids().items()}

    def _account(self, before: dict[str, float], count: int) -> None:
        after = self._cpu()
        self.cpu = {name: (after[name] - before[name]) / count for name in before if name in after}
        own = sum(used for name, used in self.cpu.items() if not name.startswith("server/"))
        if self.cpu:
            self.figures["cpu_s_per_server"] = own
            self.figures["cpu_s_per_server_all"] = sum(self.cpu.values())


def report(figures: Mapping[str, float], cpu: Mapping[str, float], clients: int) -> None:
    """Every figure beside its goal."""
    print(f"\n{'what':72} {'measured':>9} {'goal':>8} {'':8} upstream")
    for name, figure in FIGURES.items():
        if name not in figures:
            continue
        value, goal, verdict = figures[name], "", ""
        if figure.goal is not None:
            reached = value >= figure.goal if figure.rate else value <= figure.goal
            goal = f"{'>=' if figure.rate else '<='} {figure.goal:g}"
            verdict = "reached" if reached else "MISSED"
        shown = f"{value:9.3f}" if value < 1 else f"{value:9.1f}"
        text = figure.text.format(clients=clients)
        print(f"{text:72} {shown} {goal:>8} {verdict:8} {figure.upstream}".rstrip())
    if cpu:
        print("\nCPU milliseconds per created server:")
        for name, used in sorted(cpu.items(), key=lambda item: -item[1]):
            if used * 1000 >= 0.01:
                print(f"  {name:28} {used * 1000:8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--servers", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=5, help="how long each read is measured")
    parser.add_argument("--only", choices=["create", "read"], help="leave the rest out")
    parser.add_argument("--state", type=Path, help="state folder of bench/serve-simulated")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    deployment = None
    if options.state or "OS_AUTH_URL" not in os.environ:
        from bench import deployment as deployments

        deployment = deployments.load(options.state or deployments.DEFAULT_STATE)
    cloud = Cloud(deployment.environment() if deployment else os.environ)
    bench = Bench(cloud, options.clients, deployment)
    if deployment:
        print(deployment.describe())
    print(f"{os.cpu_count()} cores, load average before {os.getloadavg()[0]:.1f}")
    bench.figures["loop_ms"] = loop_ms()
    bench.delete(bench.create(options.clients * 2, measured=False), measured=False)  # warm
    ids = bench.create(options.servers)
    if options.only != "read":
        ids += bench.create_alone(40)
    if options.only != "create":
        ids += bench.create(max(300 - len(ids), 0), measured=False)
        bench.read(ids, options.seconds)
    bench.delete(ids)
    bench.figures["loop_after_ms"] = loop_ms()
    report(bench.figures, bench.cpu, options.clients)
    print(f"\nload average after {os.getloadavg()[0]:.1f}")
    if options.json:
        options.json.write_text(json.dumps({"figures": bench.figures, "cpu": bench.cpu}, indent=1) + "\n")


if __name__ == "__main__":
    main()
