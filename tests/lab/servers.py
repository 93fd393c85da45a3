"""Private MariaDB, PostgreSQL, RabbitMQ and memcached servers for tests and benchmarks.

Each ``start_…`` takes an empty folder (reachable by the server's own user),
starts one server on free loopback ports with all its data in that folder and
returns a small object: ``url(...)`` for clients, ``stop()`` to end it.  The
objects are plain data (``to_dict``), so another process may use and stop what
one has started.  No pytest in here.

The databases are tuned for short lives on small machines: nothing is synced to
disk unless ``durable`` asks for what a production server does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.lab import processes
from tests.lab.processes import NotStarted, free_port

HOST = "127.0.0.1"
POSTGRESQL_FOLDERS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin")
RABBITMQ_FOLDERS = ("/usr/lib/rabbitmq/bin", "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin")

# Debian's package for each kind of server, and the program that shows that it is there
PROGRAMS = {
    "mariadb": ("mariadbd", "mariadb-server", ()),
    "postgresql": ("postgres", "postgresql", POSTGRESQL_FOLDERS),
    "rabbitmq": ("rabbitmq-server", "rabbitmq-server", RABBITMQ_FOLDERS),
    "memcached": ("memcached", "memcached", ()),
}


def missing(kind: str) -> str | None:
    """Why a kind of server can't be started here, in one line; None if it can."""
    program, package, folders = PROGRAMS[kind]
    if processes.find_program(program, *folders):
        return None
    return f"{program} is not installed (Debian: apt-get install {package})"


def _program(kind: str) -> Path:
    program, _package, folders = PROGRAMS[kind]
    found = processes.find_program(program, *folders)
    if found is None:
        raise NotStarted(str(missing(kind)))
    return found


@dataclasses.dataclass
class Server:
    """A server that runs: plain data, so that it can be handed to another process."""

    kind: str
    folder: str
    port: int
    password: str
    pids: list[int]
    """processes that lead a session each; the first is the server itself"""
    user: str = "haneul"

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Server:
        return KINDS[data["kind"]](**data)

    def url(self, database: str = "") -> str:
        """The URL that clients use: SQLAlchemy's, oslo.messaging's or host:port."""
        return f"{HOST}:{self.port}"

    def stop(self) -> None:
        """End the server's processes: by the pids that were started, only while they are still ours."""
        for pid in self.pids:
            if self.folder in processes.command_line(pid) or self.folder in _environment(pid):
                processes.stop_group(pid)


def _environment(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return ""


class MariaDB(Server):
    def url(self, database: str = "") -> str:
        return f"mysql://{self.user}:{self.password}@{HOST}:{self.port}/{database}?charset=utf8mb4"

    def _execute(self, statement: str) -> None:
        import pymysql

        connection = pymysql.connect(host=HOST, port=self.port, user=self.user, password=self.password)
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
        finally:
            connection.close()

    def create_database(self, name: str) -> str:
        """Make an empty database; returns its URL."""
        self._execute(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")
        return self.url(name)

    def drop_database(self, name: str) -> None:
        self._execute(f"DROP DATABASE IF EXISTS `{name}`")


class PostgreSQL(Server):
    def url(self, database: str = "") -> str:
        return f"postgresql+psycopg://{self.user}:{self.password}@{HOST}:{self.port}/{database or 'postgres'}"

    def _execute(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(
            host=HOST,
            port=self.port,
            user=self.user,
            password=self.password,
            dbname="postgres",
            autocommit=True,
        ) as connection:
            connection.execute(statement.encode())

    def create_database(self, name: str) -> str:
        """Make an empty database; returns its URL."""
        self._execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def drop_database(self, name: str) -> None:
        self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


class RabbitMQ(Server):
    def url(self, database: str = "") -> str:
        """The transport_url of a virtual host ("" is the default one)."""
        return f"rabbit://{self.user}:{self.password}@{HOST}:{self.port}/{database}"

    def environment(self) -> dict[str, str]:
        return json.loads((Path(self.folder) / "environment.json").read_text())  # type: ignore[no-any-return]

    def control(self, *arguments: str) -> None:
        """rabbitmqctl on this node."""
        program = processes.find_program("rabbitmqctl", *RABBITMQ_FOLDERS)
        if program is None:
            raise NotStarted("rabbitmqctl is not installed")
        folder = Path(self.folder)
        processes.run(
            [program, *arguments],
            log=folder / "rabbitmqctl.log",
            user=processes.unprivileged("rabbitmq"),
            environment=self.environment(),
            folder=folder,
        )

    def create_vhost(self, name: str) -> str:
        """Make a virtual host of its own for a test; returns its transport_url.

        One call of rabbitmqctl, because each costs a second of an Erlang VM's start.
        """
        self.control(
            "eval",
            f'rabbit_vhost:add(<<"{name}">>, <<"lab">>), rabbit_auth_backend_internal:set_permissions('
            f'<<"{self.user}">>, <<"{name}">>, <<".*">>, <<".*">>, <<".*">>, <<"lab">>).',
        )
        return self.url(name)

    def drop_vhost(self, name: str) -> None:
        self.control("eval", f'rabbit_vhost:delete(<<"{name}">>, <<"lab">>).')


class Memcached(Server):
    """url() is host:port."""


KINDS: dict[str, type[Server]] = {
    "mariadb": MariaDB,
    "postgresql": PostgreSQL,
    "rabbitmq": RabbitMQ,
    "memcached": Memcached,
}


def _install_mariadb(folder: Path, user: str | None, log: Path) -> Path:
    """MariaDB's own tables in a new data folder."""
    install = processes.find_program("mariadb-install-db")
    if install is None:
        raise NotStarted("mariadb-install-db is not installed")
    data = folder / "data"
    data.mkdir(parents=True)
    processes.give(folder, user)
    options = ["--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal"]
    processes.run([install, *options, "--skip-test-db"], log=log, user=user, folder=folder)
    return data


def start_mariadb(
    folder: Path, *, durable: bool = False, buffer_pool_mib: int = 64, flags: Sequence[str] = ()
) -> MariaDB:
    """MariaDB in ``folder``. ``durable``: as a production server, except that the log is flushed each second."""
    program = _program("mariadb")
    user = processes.unprivileged("mysql")
    log = folder / "mariadb.log"
    data = _install_mariadb(folder, user, log)
    port, password = free_port(), secrets.token_hex(12)
    setup = folder / "setup.sql"
    setup.write_text(
        f"CREATE USER 'haneul'@'%' IDENTIFIED BY '{password}';\n"
        "GRANT ALL ON *.* TO 'haneul'@'%' WITH GRANT OPTION;\n"
    )
    processes.give(setup, user)
    setup.chmod(0o600)
    relaxed = ["--innodb-flush-log-at-trx-commit=0", "--skip-innodb-doublewrite", "--sync-binlog=0"]
    process = processes.start(
        [
            program,
            "--no-defaults",
            f"--datadir={data}",
            f"--socket={folder / 'mariadb.sock'}",
            f"--pid-file={folder / 'mariadb.pid'}",
            f"--port={port}",
            f"--bind-address={HOST}",
            f"--init-file={setup}",
            "--skip-name-resolve",
            "--skip-log-bin",
            "--performance-schema=OFF",
            "--max-connections=600",
            f"--innodb-buffer-pool-size={buffer_pool_mib}M",
            "--innodb-log-file-size=48M",
            "--character-set-server=utf8mb4",
            *(["--innodb-flush-log-at-trx-commit=2"] if durable else relaxed),
            *flags,
        ],
        log=log,
        user=user,
        folder=folder,
    )
    server = MariaDB("mariadb", str(folder), port, password, [process.pid])

    def ready() -> bool:
        if not processes.listens(port):
            return False
        with contextlib.suppress(Exception):  # any refusal means: not ready yet; wait_for bounds it
            server._execute("SELECT 1")
            return True
        return False

    processes.wait_for(ready, process, log, "MariaDB")
    return server


def start_postgresql(
    folder: Path, *, durable: bool = False, more: Mapping[str, str] | None = None
) -> PostgreSQL:
    """PostgreSQL in ``folder``; not ``durable``: without fsync. ``more``: settings of the server."""
    program = _program("postgresql")
    user = processes.unprivileged("postgres")
    data, log = folder / "data", folder / "postgresql.log"
    folder.mkdir(parents=True, exist_ok=True)
    processes.give(folder, user)
    port, password = free_port(), secrets.token_hex(12)
    secret = folder / "password"
    secret.write_text(password)
    secret.chmod(0o600)
    processes.give(secret, user)
    processes.run(
        [
            program.parent / "initdb",
            "--pgdata",
            data,
            "--username=haneul",
            f"--pwfile={secret}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ],
        log=log,
        user=user,
        folder=folder,
    )
    settings = {
        "listen_addresses": HOST,
        "unix_socket_directories": str(folder),
        "max_connections": "300",
        "shared_buffers": "64MB",
        "fsync": "on" if durable else "off",
        "synchronous_commit": "off",
        "full_page_writes": "on" if durable else "off",
        **(more or {}),
    }
    flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    process = processes.start(
        [program, "-D", data, "-p", str(port), *flags], log=log, user=user, folder=folder
    )
    server = PostgreSQL("postgresql", str(folder), port, password, [process.pid])

    def ready() -> bool:
        if not processes.listens(port):
            return False
        with contextlib.suppress(Exception):  # any refusal means: not ready yet; wait_for bounds it
            server._execute("SELECT 1")
            return True
        return False

    processes.wait_for(ready, process, log, "PostgreSQL")
    return server


def start_rabbitmq(folder: Path, configuration: str = "") -> RabbitMQ:
    """RabbitMQ in ``folder``, with a port mapper (epmd) of its own, so that it meets no other node."""
    if processes.find_program("epmd", "/usr/lib/erlang/erts-*/bin") is None:
        raise NotStarted("epmd is not installed (Debian: apt-get install erlang-base)")
    user = processes.unprivileged("rabbitmq")
    for name in ("mnesia", "log", "home"):
        (folder / name).mkdir(parents=True)
    port, mapper, distribution, password = free_port(), free_port(), free_port(), secrets.token_hex(12)
    (folder / "rabbitmq.conf").write_text(
        f"listeners.tcp.default = {HOST}:{port}\n"
        "default_user = haneul\n"
        f"default_pass = {password}\n"
        "loopback_users = none\n"
        "log.console = false\n"
        "log.file.level = warning\n"
        "vm_memory_high_watermark.absolute = 512MB\n"
        "disk_free_limit.absolute = 50MB\n" + configuration
    )
    (folder / "enabled_plugins").write_text("[].\n")
    environment = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "LANG": "C.UTF-8",
        "HOME": str(folder / "home"),
        "RABBITMQ_NODENAME": f"lab{port}@localhost",
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "no-environment-file"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "no-advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_PID_FILE": str(folder / "rabbitmq.pid"),
        "RABBITMQ_DIST_PORT": str(distribution),
        # few schedulers: an idle broker otherwise keeps every core's thread spinning for a while
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
        "ERL_EPMD_PORT": str(mapper),
        "ERL_EPMD_ADDRESS": HOST,
    }
    (folder / "environment.json").write_text(json.dumps(environment))
    processes.give(folder, user)
    return _launch_rabbitmq(folder, port, password)


def start_rabbitmq_again(stopped: RabbitMQ) -> RabbitMQ:
    """A broker that was stopped, with its data and at its port."""
    return _launch_rabbitmq(Path(stopped.folder), stopped.port, stopped.password)


def _launch_rabbitmq(folder: Path, port: int, password: str) -> RabbitMQ:
    program, user = _program("rabbitmq"), processes.unprivileged("rabbitmq")
    environment = json.loads((folder / "environment.json").read_text())
    epmd = str(processes.find_program("epmd", "/usr/lib/erlang/erts-*/bin"))
    mapper = environment["ERL_EPMD_PORT"]
    log = folder / "rabbitmq.log"
    port_mapper = processes.start(
        [epmd, "-address", HOST, "-port", mapper],
        log=log,
        user=user,
        environment=environment,
        folder=folder,
    )
    try:
        process = processes.start([program], log=log, user=user, environment=environment, folder=folder)
        server = RabbitMQ("rabbitmq", str(folder), port, password, [process.pid, port_mapper.pid])
        processes.wait_for(lambda: _amqp_answers(port), process, log, "RabbitMQ")
    except BaseException:
        processes.stop_group(port_mapper.pid)
        raise
    return server


def _amqp_answers(port: int) -> bool:
    """Whether a broker answers a protocol header (it listens a little before it accepts logins)."""
    import socket

    try:
        with socket.create_connection((HOST, port), timeout=2) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(1) == b"\x01"
    except OSError:
        return False


def start_memcached(folder: Path) -> Memcached:
    program = _program("memcached")
    folder.mkdir(parents=True, exist_ok=True)
    user = processes.unprivileged("nobody")
    port, log = free_port(), folder / "memcached.log"
    process = processes.start(
        [program, "-l", HOST, "-p", str(port), "-m", "32", "-P", str(folder / "memcached.pid")],
        log=log,
        user=user,
    )
    processes.wait_for(lambda: processes.listens(port), process, log, "memcached")
    return Memcached("memcached", str(folder), port, "", [process.pid])


STARTERS = {
    "mariadb": start_mariadb,
    "postgresql": start_postgresql,
    "rabbitmq": start_rabbitmq,
    "memcached": start_memcached,
}


def stop_recorded(folder: Path) -> None:
    """Stop every server recorded in ``folder``/*.json (by whichever process)."""
    for record in folder.glob("*.json"):
        with contextlib.suppress(json.JSONDecodeError, KeyError):
            Server.from_dict(json.loads(record.read_text())).stop()
        record.unlink(missing_ok=True)


__all__ = ["KINDS", "STARTERS", "NotStarted", "Server", "missing", "stop_recorded"]
