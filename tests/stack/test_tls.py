"""Databases and brokers behind TLS, as doc/operating.md says: certificates are asked for, and checked."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import kombu.exceptions
import oslo_messaging
import pytest
import sqlalchemy as sa
from oslo_db import exception as db_exc

from core import config
from core.context import admin_context
from core.messaging import Messaging
from db import migrate, sessions
from tests.crash.invariants import settle
from tests.lab import fixtures, processes, servers
from tests.lab.certificates import HOST, Authority
from tests.stack.cloud import Cloud, wait_for

PASSWORD = "of-the-secure-user"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Where servers that refuse to be root reach what they read."""
    made = Path(tempfile.mkdtemp(dir=os.environ[fixtures.ENVIRONMENT]))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder)


@pytest.fixture(scope="module")
def stranger(folder: Path) -> Authority:
    """Has signed nothing that counts here."""
    other = folder / "other"
    other.mkdir()
    return Authority(other)


def _skip_without(kind: str) -> None:
    reason = servers.missing(kind)
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="module")
def mariadb(folder: Path, authority: Authority) -> Iterator[servers.MariaDB]:
    """Its user ``secure`` may come in with a certificate only."""
    _skip_without("mariadb")
    certificate, key = authority.issue("mariadb")
    processes.give(key, processes.unprivileged("mysql"))
    flags = [f"--ssl-ca={authority.file}", f"--ssl-cert={certificate}", f"--ssl-key={key}"]
    server = servers.start_mariadb(folder / "mariadb", flags=flags)
    try:
        server._execute(f"CREATE USER 'secure'@'%' IDENTIFIED BY '{PASSWORD}' REQUIRE X509")
        server._execute("GRANT ALL ON *.* TO 'secure'@'%'")
        for name in ("secure_global", "secure_cell"):
            server.create_database(name)
        yield server
    finally:
        server.stop()


def mariadb_url(server: servers.MariaDB, database: str, **query: Path | str) -> str:
    url = sa.make_url(f"mysql+pymysql://secure@{HOST}:{server.port}/{database}")
    given = {name: str(value) for name, value in query.items()}
    return url.set(password=PASSWORD, query=given).render_as_string(hide_password=False)


@pytest.fixture(scope="module")
def postgresql(folder: Path, authority: Authority) -> Iterator[servers.PostgreSQL]:
    _skip_without("postgresql")
    certificate, key = authority.issue("postgresql")
    key.chmod(0o600)
    processes.give(key, processes.unprivileged("postgres"))
    settings = {"ssl": "on", "ssl_cert_file": str(certificate), "ssl_key_file": str(key)}
    server = servers.start_postgresql(folder / "postgresql", more=settings)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def broker(folder: Path, authority: Authority) -> Iterator[str]:
    """The transport_url of a RabbitMQ's port that asks clients for a certificate."""
    _skip_without("rabbitmq")
    certificate, key = authority.issue("rabbitmq")
    processes.give(key, processes.unprivileged("rabbitmq"))
    port = processes.free_port()
    server = servers.start_rabbitmq(
        folder / "rabbitmq",
        f"listeners.ssl.default = {HOST}:{port}\n"
        f"ssl_options.cacertfile = {authority.file}\n"
        f"ssl_options.certfile = {certificate}\n"
        f"ssl_options.keyfile = {key}\n"
        "ssl_options.verify = verify_peer\n"
        "ssl_options.fail_if_no_peer_cert = true\n",
    )
    wait_for(lambda: processes.listens(port), "RabbitMQ listens for TLS")
    yield server.url().replace(str(server.port), str(port))
    server.stop()


def broker_options(authority: Authority, certificate: Path, key: Path) -> dict[str, object]:
    return {
        "oslo_messaging_rabbit.ssl": True,
        "oslo_messaging_rabbit.ssl_ca_file": str(authority.file),
        "oslo_messaging_rabbit.ssl_cert_file": str(certificate),
        "oslo_messaging_rabbit.ssl_key_file": str(key),
    }


def test_a_server_boots_over_encrypted_databases_and_messages(
    mariadb: servers.MariaDB, broker: str, authority: Authority, tmp_path: Path
) -> None:
    certificate, key = authority.issue("client")
    tls = {"ssl_ca": authority.file, "ssl_cert": certificate, "ssl_key": key}
    cloud = Cloud(
        tmp_path,
        ["t1"],
        transport=broker,
        connection=mariadb_url(mariadb, "secure_global", **tls),
        cell_connection=mariadb_url(mariadb, "secure_cell", **tls),
        **broker_options(authority, certificate, key),
    )
    try:
        cloud.start()
        for database in (cloud.databases.global_, cloud.cell):
            with database.read() as connection:
                name, cipher = connection.execute(sa.text("SHOW SESSION STATUS LIKE 'Ssl_cipher'")).one()
                assert (name, bool(cipher)) == ("Ssl_cipher", True)
        server_id = cloud.create()
        cloud.wait_state(server_id, "active")
        cloud.act("server.delete", server_id)
        cloud.wait_state(server_id, "deleted")
        settle(cloud)
    finally:
        cloud.stop()


def test_mariadb_and_client_refuse_who_is_not_certified(
    mariadb: servers.MariaDB, authority: Authority, stranger: Authority
) -> None:
    certificate, key = authority.issue("client-2")
    good = {"ssl_ca": authority.file, "ssl_cert": certificate, "ssl_key": key}
    assert _reaches(mariadb_url(mariadb, "secure_cell", **good))
    assert not _reaches(mariadb_url(mariadb, "secure_cell")), "the server asks for a certificate"
    assert not _reaches(mariadb_url(mariadb, "secure_cell", **{**good, "ssl_ca": stranger.file}))


def _reaches(url: str) -> bool:
    engine = sessions.make_engine(url)
    try:
        with engine.connect() as connection:
            return connection.execute(sa.text("SELECT 1")).scalar_one() == 1
    except (db_exc.DBError, sa.exc.OperationalError):
        return False
    finally:
        engine.dispose()


def test_postgresql(postgresql: servers.PostgreSQL, authority: Authority, stranger: Authority) -> None:
    url = postgresql.create_database("secure")
    verified = f"{url}?sslmode=verify-full&sslrootcert={authority.file}"
    engine = sessions.make_engine(verified)
    try:
        migrate.upgrade(engine, "cell")
        with engine.connect() as connection:
            statement = sa.text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
            assert connection.execute(statement).scalar_one() is True
    finally:
        engine.dispose()
    assert not _reaches(f"{url}?sslmode=verify-full&sslrootcert={stranger.file}")


@pytest.mark.parametrize("wrong", ["authority", "certificate"])
def test_broker_and_client_refuse_who_is_not_certified(
    broker: str, authority: Authority, stranger: Authority, wrong: str
) -> None:
    options = broker_options(authority, *authority.issue("client-3"))
    other = broker_options(stranger, *stranger.issue("client"))
    keys = ["ssl_ca_file"] if wrong == "authority" else ["ssl_cert_file", "ssl_key_file"]
    for name in keys:
        options[f"oslo_messaging_rabbit.{name}"] = other[f"oslo_messaging_rabbit.{name}"]
    conf = config.load()
    Messaging(conf, broker).close()  # registers the options
    for name, value in options.items():
        config.override(conf, name, value)
    messaging = Messaging(conf, broker)
    try:
        client = messaging.client("nobody").prepare(retry=0)
        with pytest.raises((oslo_messaging.MessageDeliveryFailure, kombu.exceptions.OperationalError)):
            client.cast(admin_context(), "ring")
    finally:
        messaging.close()
