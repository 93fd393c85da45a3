"""pytest fixtures on the servers of ``tests.lab.servers``: one server of a kind per run, a database per test.

The run's folder is named by HANEUL_LAB_FOLDER, which pytest-xdist's workers
inherit.  The first test that needs a kind of server starts it under a file
lock and records it there; the others, in whichever worker, use it.  The main
process stops what is recorded when the run ends; the next run stops what a
killed one has left.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import processes, servers

ENVIRONMENT = "HANEUL_LAB_FOLDER"
PREFIX = "haneul-lab-"
NEEDED = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    """In the main process: make the run's folder, after clearing up behind runs that were killed."""
    if hasattr(config, "workerinput") or os.environ.get(ENVIRONMENT):
        return
    for old in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        pid = old.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdigit() and not processes.alive(int(pid)):
            servers.stop_recorded(old)
            shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    folder.chmod(0o755)  # servers that refuse root must reach their folders
    os.environ[ENVIRONMENT] = str(folder)
    config.stash[NEEDED] = True


def pytest_unconfigure(config: pytest.Config) -> None:
    if config.stash.get(NEEDED, False):
        folder = Path(os.environ.pop(ENVIRONMENT))
        servers.stop_recorded(folder)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def shared_server(kind: str) -> Any:
    """The run's server of this kind, started if it is the first time; skips with the reason if it can't be."""
    reason = servers.missing(kind)
    if reason:
        pytest.skip(reason)
    folder = Path(os.environ[ENVIRONMENT])
    record = folder / f"{kind}.json"
    with _locked(folder / f"{kind}.lock"):
        if not record.exists():
            server = servers.STARTERS[kind](folder / kind)
            record.write_text(json.dumps(server.to_dict()))
        return servers.Server.from_dict(json.loads(record.read_text()))


@pytest.fixture(scope="session")
def mariadb_server() -> servers.MariaDB:
    return shared_server("mariadb")  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def postgresql_server() -> servers.PostgreSQL:
    return shared_server("postgresql")  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def rabbitmq_server() -> servers.RabbitMQ:
    return shared_server("rabbitmq")  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def memcached_server() -> servers.Memcached:
    return shared_server("memcached")  # type: ignore[no-any-return]


def _database(server: Any) -> Iterator[str]:
    name = f"t{uuid.uuid4().hex}"
    yield server.create_database(name)
    server.drop_database(name)


@pytest.fixture
def mariadb_url(mariadb_server: servers.MariaDB) -> Iterator[str]:
    """An empty MariaDB database of this test's own."""
    yield from _database(mariadb_server)


@pytest.fixture
def postgresql_url(postgresql_server: servers.PostgreSQL) -> Iterator[str]:
    """An empty PostgreSQL database of this test's own."""
    yield from _database(postgresql_server)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/test.sqlite"


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("mariadb", marks=pytest.mark.mariadb),
        pytest.param("postgresql", marks=pytest.mark.postgresql),
    ]
)
def database_url(request: pytest.FixtureRequest) -> str:
    """An empty database, once on each of the three kinds."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def two_database_urls(
    request: pytest.FixtureRequest, database_url: str, tmp_path: Path
) -> Iterator[list[str]]:
    """Two empty databases of the same kind (global and a cell)."""
    kind = database_url.partition(":")[0].partition("+")[0]
    if kind == "sqlite":
        yield [database_url, f"sqlite:///{tmp_path}/second.sqlite"]
        return
    server = request.getfixturevalue({"mysql": "mariadb_server", "postgresql": "postgresql_server"}[kind])
    for second in _database(server):
        yield [database_url, second]


@pytest.fixture
def rabbitmq_url(rabbitmq_server: servers.RabbitMQ) -> Iterator[str]:
    """The transport_url of an empty virtual host of this test's own."""
    name = f"t{uuid.uuid4().hex}"
    yield rabbitmq_server.create_vhost(name)
    rabbitmq_server.drop_vhost(name)
