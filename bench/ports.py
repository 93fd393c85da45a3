#!/usr/bin/env python3
"""How long ports on one host take to turn ACTIVE, and whether the cost of one grows with their number.

    python bench/ports.py --ports 2000 --step 200
    python bench/ports.py --database mariadb

The Network API, a conductor and a network agent with the simulated driver, in one process without
Keystone: what is measured is everything but the devices themselves. All ports are in one
network and in the default security group, whose rule names itself as remote: so
every port changes what every other's rules let through.

For each step: ports per second from the first POST (50 ports each) until the last is ACTIVE; CPU
milliseconds per port; the time from the POST of one more port to its ACTIVE, median of 10, and the CPU
milliseconds that each of these ten took, asking the database every 5 ms included.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import pathlib
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import sqlalchemy as sa  # noqa: E402

from db.network_base import TABLES  # noqa: E402
from tests.api.network.conftest import ADMIN, SERVICE  # noqa: E402
from tests.lab import leftovers, servers  # noqa: E402
from tests.network.plane import Plane  # noqa: E402

BULK = 50
ports = TABLES["ports"]


@contextlib.contextmanager
def database(kind: str, folder: pathlib.Path) -> Iterator[str]:
    """The URL of an empty database; a server is started for it and ended."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/ports.sqlite"
        return
    folder.chmod(0o755)  # servers that refuse root must reach theirs
    server = servers.STARTERS[kind](folder / kind)
    try:
        yield server.create_database("ports")
    finally:
        server.stop()


class Bench:
    """One network on one host."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        plane.api.put("/quotas/p1", {"quota": {"port": -1}}, as_=ADMIN)
        self.network = plane.api.network()["id"]
        plane.api.subnet(self.network, "10.0.0.0/16")

    def create(self, number: int) -> list[str]:
        """Their ids."""
        made = []
        for start in range(0, number, BULK):
            bodies = [
                {
                    "network_id": self.network,
                    "project_id": "p1",
                    "device_owner": "compute:nova",
                    "device_id": str(uuid.uuid4()),
                    "binding:host_id": "h1",
                }
                for _ in range(min(BULK, number - start))
            ]
            found = self.plane.api.post("/ports", {"ports": bodies}, as_=SERVICE)["ports"]
            made += [each["id"] for each in found]
        return made

    def active(self) -> int:
        statement = sa.select(sa.func.count()).where(
            ports.c.status == "ACTIVE", ports.c.device_owner == "compute:nova"
        )
        with self.plane.services.databases.global_.read() as connection:
            return int(connection.execute(statement).scalar_one())

    def wait(self, number: int) -> None:
        deadline = time.monotonic() + 300
        while self.active() < number:
            if time.monotonic() > deadline:
                sys.exit(f"only {self.active()} of {number} ports are ACTIVE after five minutes")
            time.sleep(0.05)

    def one(self) -> float:
        """Seconds from the POST of one port to its ACTIVE."""
        began = time.monotonic()
        (identifier,) = self.create(1)
        statement = sa.select(ports.c.status).where(ports.c.id == identifier)
        while True:
            with self.plane.services.databases.global_.read() as connection:
                if connection.execute(statement).scalar_one() == "ACTIVE":
                    return time.monotonic() - began
            time.sleep(0.005)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ports", type=int, default=2000, help="ports in the end (default 2000)")
    parser.add_argument("--step", type=int, default=200, help="ports per step (default 200)")
    parser.add_argument("--database", choices=["sqlite", "mariadb", "postgresql"], default="sqlite")
    options = parser.parse_args()
    leftovers.clear_up_when_ended()
    logging.disable(logging.INFO)
    with (
        tempfile.TemporaryDirectory() as folder,
        database(options.database, pathlib.Path(folder)) as url,
    ):
        plane = Plane(url, "h1", **{"conductor_networks.interval_s": 20})
        bench = Bench(plane)
        print(f"{options.database}, load average {os.getloadavg()[0]:.1f}", flush=True)
        print(
            f"{'ports':>6} {'seconds':>8} {'ports/s':>8} {'CPU ms per port':>16} {'one more, ms':>13} {'its CPU, ms':>11}"
        )
        try:
            for _ in range(0, options.ports, options.step):
                before, began, cpu = bench.active(), time.monotonic(), time.process_time()
                bench.create(options.step)
                bench.wait(before + options.step)
                took, spent = time.monotonic() - began, time.process_time() - cpu
                cpu = time.process_time()
                more = statistics.median(bench.one() for _ in range(10)) * 1000
                alone = (time.process_time() - cpu) / 10 * 1000
                print(
                    f"{before + options.step:6} {took:8.2f} {options.step / took:8.0f}"
                    f" {spent / options.step * 1000:16.1f} {more:13.0f} {alone:11.0f}",
                    flush=True,
                )
        finally:
            plane.stop()


if __name__ == "__main__":
    main()
