"""IPAM under real concurrency: threads and processes, on all three databases."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from core.errors import Conflict
from db import network_base, networks, ports, security_groups, subnets
from db.addresses import eui64
from db.global_schema import global_metadata
from db.network_base import TABLES
from db.sessions import Database, make_engine, retrying

NETWORK, SUBNET = "11111111-0000-0000-0000-000000000001", "22222222-0000-0000-0000-000000000001"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(make_engine(database_url))
    global_metadata.create_all(made.engine)
    yield made
    made.dispose()


def seed(database: Database, cidr: str, start: str, end: str) -> None:
    """A network with one subnet."""
    with database.write() as connection:
        network_base.insert(
            connection, networks.networks, {"id": NETWORK, "mtu": 1450, "network_type": "vxlan"}
        )
        values = {
            "id": SUBNET,
            "network_id": NETWORK,
            "ip_version": 4,
            "cidr": cidr,
            "allocation_pools": [{"start": start, "end": end}],
        }
        subnets.create(connection, values)


def make_ports(database: Database, number: int, fixed_ips: Any = None) -> tuple[list[str], int]:
    """(addresses got, how often it was refused)."""
    got, refused = [], 0

    @retrying
    def one() -> str:
        with database.write() as connection:
            found = subnets.of_network(connection, NETWORK)
            values = {"project_id": "p", "network_id": NETWORK, "device_owner": ""}
            port_id = ports.create(connection, values, found, fixed_ips, (), "fa:16:3e:00:00:00")
            statement = sa.select(ports.ip_allocations.c.ip_address).where(
                ports.ip_allocations.c.port_id == port_id
            )
            return str(connection.execute(statement).scalar_one())

    for _ in range(number):
        try:
            got.append(one())
        except Conflict:
            refused += 1
    return got, refused


def in_process(url: str, number: int, threads: int, results: Any) -> None:
    database = Database(make_engine(url))
    found: list[tuple[list[str], int]] = []
    workers = [
        threading.Thread(target=lambda: found.append(make_ports(database, number))) for _ in range(threads)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    database.dispose()
    results.put(found)


def test_no_two_ports_share_an_address(database: Database, database_url: str) -> None:
    """3 processes with 3 threads each want 12 addresses each: 108, of a pool of 100."""
    seed(database, "10.0.0.0/24", "10.0.0.10", "10.0.0.109")
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=in_process, args=(database_url, 12, 3, results)) for _ in range(3)]
    for process in processes:
        process.start()
    outcomes = [outcome for _ in processes for outcome in results.get(timeout=200)]
    for process in processes:
        process.join()
    assert len(outcomes) == 9  # no thread ended in an error
    got = [address for addresses, _ in outcomes for address in addresses]
    refused = sum(count for _, count in outcomes)
    assert len(got) == len(set(got)) == 100 and refused == 8
    with database.read() as connection:
        rows = connection.execute(sa.select(ports.ip_allocations.c.ip_address)).scalars().all()
        assert sorted(rows) == sorted(got)
        # a refused port leaves nothing behind
        assert connection.execute(sa.select(sa.func.count()).select_from(ports.ports)).scalar() == 100


def race(database: Database, number: int, function: Callable[[], Any]) -> list[Any]:
    """The results, or exceptions, of ``number`` threads that start together."""
    barrier, results = threading.Barrier(number), []

    def run() -> None:
        barrier.wait()
        try:
            results.append(retrying(function)())
        except Conflict as error:
            results.append(error)

    workers = [threading.Thread(target=run) for _ in range(number)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == number
    return results


def test_one_of_many_gets_the_address_that_all_want(database: Database) -> None:
    seed(database, "10.0.0.0/16", "10.0.0.10", "10.0.255.200")
    results = race(database, 8, lambda: make_ports(database, 1, [{"ip_address": "10.0.3.3"}]))
    assert sorted(refused for _, refused in results) == [0] + [1] * 7


def test_one_default_group_is_made(database: Database) -> None:
    def ensure() -> str:
        with database.write() as connection:
            return security_groups.ensure_default(connection, "p1")

    assert len(set(race(database, 8, ensure))) == 1
    with database.read() as connection:
        rules = TABLES["security_group_rules"]
        assert connection.execute(sa.select(sa.func.count()).select_from(rules)).scalar() == 4


def test_overlapping_subnets_do_not_race(database: Database) -> None:
    seed(database, "10.0.0.0/24", "10.0.0.10", "10.0.0.20")

    def create() -> str:
        from core.errors import BadRequest

        try:
            with database.write() as connection:
                values = {"network_id": NETWORK, "ip_version": 4, "cidr": "10.1.0.0/24"}
                return subnets.create(connection, values)
        except BadRequest:
            return "refused"

    assert sorted(map(len, race(database, 6, create))) == [len("refused")] * 5 + [36]


@pytest.mark.parametrize(
    ("mac", "address"),
    [
        ("fa:16:3e:12:34:56", "2001:db8::f816:3eff:fe12:3456"),
        ("00:00:00:00:00:00", "2001:db8::200:ff:fe00:0"),
    ],
)
def test_eui64(mac: str, address: str) -> None:
    assert eui64("2001:db8::/64", mac) == address
