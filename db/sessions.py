"""Databases: one engine for the global database and one per cell.

``Databases`` is made once per process and passed around.  ``db.read()`` gives a
connection for reading; ``db.write()`` a transaction.  On SQLite a write
transaction begins as such (BEGIN IMMEDIATE), so it never has to upgrade a read
lock and fail half-way; WAL lets readers go on meanwhile.  On servers reading
needs no transaction at all: connections commit by themselves, ``write`` begins,
and so a read costs one round trip instead of two.

Errors come out as oslo.db's (DBDuplicateEntry, DBDeadlock, DBConnectionError);
``retrying`` runs a whole transaction function again after a deadlock or a
stale generation.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import importlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import sqlalchemy as sa
from oslo_config import cfg
from oslo_db import exception as db_exc
from oslo_db.sqlalchemy import exc_filters

from core.errors import StaleGeneration, Unavailable

OPTS = [
    cfg.StrOpt(
        "connection",
        secret=True,
        help="Global database, an SQLAlchemy URL: sqlite:///…, mysql://…, postgresql+psycopg://…. mysql:// takes"
        " mysqlclient, a driver in C, if it is installed (twice as fast), and PyMySQL otherwise.",
    ),
    cfg.StrOpt("cell_connection", secret=True, help="Database of the first cell, used when it is created."),
    cfg.IntOpt(
        "max_pool_size", default=10, min=1, help="Connections per database that a process keeps open."
    ),
    cfg.IntOpt("max_overflow", default=30, min=0, help="Connections beyond max_pool_size under load."),
]
GROUP = "database"
_PLACEMENTS = 50_000
"""Servers whose cell a process remembers: some 10 MB."""

P = ParamSpec("P")
T = TypeVar("T")


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [(GROUP, OPTS)]


def _with_driver(url: sa.URL) -> sa.URL:
    """``mysql://`` names no driver: mysqlclient, which is compiled, if it is there; else PyMySQL."""
    if url.drivername not in ("mysql", "mariadb"):
        return url
    try:
        # importing tells more than looking for it: the C library may have gone since it was built
        importlib.import_module("MySQLdb")
    except ImportError:
        return url.set(drivername="mysql+pymysql")
    return url.set(drivername="mysql+mysqldb")


def _conversions() -> dict[int, Any]:
    """mysqlclient's, but moments read in C: a page of servers has a thousand of them."""
    from MySQLdb.constants import FIELD_TYPE
    from MySQLdb.converters import conversions

    moments = (FIELD_TYPE.DATETIME, FIELD_TYPE.TIMESTAMP)
    return {**conversions, **dict.fromkeys(moments, datetime.datetime.fromisoformat)}


def make_engine(url: str, pool_size: int = 10, max_overflow: int = 30) -> sa.Engine:
    """An engine with oslo.db's exceptions and our SQLite and MariaDB settings."""
    parsed = _with_driver(sa.make_url(url))
    options: dict[str, Any] = {"pool_pre_ping": False}
    if parsed.get_backend_name() == "sqlite":
        if parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        options.update(
            connect_args={"timeout": 30, "check_same_thread": False},
            pool_size=pool_size,
            max_overflow=max_overflow,
            poolclass=sa.pool.QueuePool,
        )
    else:
        options.update(pool_size=pool_size, max_overflow=max_overflow, pool_recycle=3600)
        if parsed.get_backend_name() in ("mysql", "mariadb"):
            parsed = parsed.update_query_dict({"charset": "utf8mb4"})
        if parsed.drivername == "mysql+mysqldb":
            options["connect_args"] = {"conv": _conversions()}
    engine = sa.create_engine(parsed, **options)
    if engine.dialect.name == "sqlite":
        _configure_sqlite(engine)
    else:
        _configure_server(engine)
    exc_filters.register_engine(engine)
    return engine


def _configure_sqlite(engine: sa.Engine) -> None:
    @sa.event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # BEGIN is ours, see on_begin
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA busy_timeout=30000")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def on_begin(connection: sa.Connection) -> None:
        writing = connection.get_execution_options().get("haneul_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _configure_server(engine: sa.Engine) -> None:
    """Connections commit by themselves; transactions begin by BEGIN, except for ``read``."""

    @sa.event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        if engine.dialect.name == "postgresql":
            connection.autocommit = True
            return
        connection.autocommit(True)
        cursor = connection.cursor()
        # a consistent read sees what was committed before it: quota counts rely on it
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def on_begin(connection: sa.Connection) -> None:
        if not connection.get_execution_options().get("haneul_read"):
            if engine.dialect.driver == "mysqldb":
                _raw(connection.connection).__dict__["haneul_begun"] = True
            connection.exec_driver_sql("BEGIN")

    _rollback_only_when_begun(engine.dialect)


def _rollback_only_when_begun(dialect: Any) -> None:
    """The pool rolls back whatever comes home; after a read that is a round trip for nothing."""
    if dialect.driver == "pymysql":
        from pymysql.constants.SERVER_STATUS import SERVER_STATUS_IN_TRANS

        def do_rollback(connection: Any) -> None:
            # every answer of the server says whether a transaction is open: no need to ask
            if connection.server_status & SERVER_STATUS_IN_TRANS:
                connection.rollback()

        dialect.do_rollback = do_rollback
    elif dialect.driver == "mysqldb":
        # this driver keeps that to itself; but transactions begin in on_begin and nowhere else

        def do_commit_begun(connection: Any) -> None:
            connection.commit()
            _raw(connection).__dict__["haneul_begun"] = False

        def do_rollback_begun(connection: Any) -> None:
            if _raw(connection).__dict__.get("haneul_begun"):
                connection.rollback()
                _raw(connection).__dict__["haneul_begun"] = False

        dialect.do_commit, dialect.do_rollback = do_commit_begun, do_rollback_begun


def _raw(connection: Any) -> Any:
    """The driver's connection, out of the pool's wrapper if it comes in one."""
    return getattr(connection, "dbapi_connection", connection)


class Database:
    """One database, global or a cell's."""

    def __init__(self, engine: sa.Engine, name: str = "global", cell_id: int | None = None) -> None:
        self.engine = engine
        self._writer = engine.execution_options(haneul_write=True)
        self._reader = engine.execution_options(haneul_read=True)
        self.name = name
        self.cell_id = cell_id

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection for reading: one consistent view per statement at least."""
        with self._reader.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction: committed at the end, rolled back on an exception."""
        with self._writer.begin() as connection:
            yield connection

    def dispose(self) -> None:
        self.engine.dispose()


class Databases:
    """The global database and the cells that it names.

    Cells are re-read when an unknown one is asked for and at most every few
    seconds otherwise; a cell's engine is made when first used.
    """

    CELLS_MAX_AGE_S = 10.0

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        conf.register_opts(OPTS, group=GROUP)
        self._conf = conf
        if not conf.database.connection:
            raise Unavailable("[database]connection is not set: haneul does not know its global database")
        self.global_ = Database(self._engine(conf.database.connection))
        self._cells: dict[int, Database] = {}
        self._rows: dict[int, dict[str, Any]] = {}
        self.placements: dict[str, int] = {}
        """server id → cell id, of servers that somebody asked for: what is in a cell stays there"""
        self._read_at = 0.0
        self._lock = threading.Lock()

    def _engine(self, url: str) -> sa.Engine:
        return make_engine(url, self._conf.database.max_pool_size, self._conf.database.max_overflow)

    def cell_rows(self, refresh: bool = False) -> list[dict[str, Any]]:
        """Rows of the ``cells`` table, disabled ones included, by id."""
        from db.global_schema import cells

        with self._lock:
            if refresh or not self._rows or time.monotonic() - self._read_at > self.CELLS_MAX_AGE_S:
                with self.global_.read() as connection:
                    rows = connection.execute(sa.select(cells).order_by(cells.c.id)).mappings().all()
                self._rows = {row["id"]: dict(row) for row in rows}
                self._read_at = time.monotonic()
            return list(self._rows.values())

    def cell(self, cell_id: int | None) -> Database:
        """The database of a cell; None is the global one (what upstream calls cell0)."""
        if cell_id is None:
            return self.global_
        if cell_id not in self._cells:
            rows = {row["id"]: row for row in self.cell_rows()}
            if cell_id not in rows:
                rows = {row["id"]: row for row in self.cell_rows(refresh=True)}
            if cell_id not in rows:
                raise Unavailable(f"cell {cell_id} is not known")
            row = rows[cell_id]
            with self._lock:
                if cell_id not in self._cells:
                    engine = self._engine(row["database_connection"])
                    self._cells[cell_id] = Database(engine, row["name"], cell_id)
        return self._cells[cell_id]

    def cells(self) -> list[Database]:
        """The databases of all cells."""
        return [self.cell(row["id"]) for row in self.cell_rows()]

    def placed(self, server_id: str, cell_id: int | None) -> None:
        """Remember in ``placements`` that a server is in a cell."""
        if cell_id is not None:
            if len(self.placements) >= _PLACEMENTS:
                self.placements = {}
            self.placements[server_id] = cell_id

    def dispose(self) -> None:
        self.global_.dispose()
        for cell in self._cells.values():
            cell.dispose()


def retrying(function: Callable[P, T]) -> Callable[P, T]:
    """Run a whole transaction again after a deadlock, a lost race or a stale generation.

    Bounded (about two seconds); the last error goes out.
    """

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        delay = 0.005
        while True:
            try:
                return function(*args, **kwargs)
            except (db_exc.DBDeadlock, db_exc.RetryRequest, StaleGeneration):
                if delay > 0.7:
                    raise
                time.sleep(delay)
                delay *= 2

    return wrapper
