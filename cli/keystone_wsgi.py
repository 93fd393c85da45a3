"""The embedded Keystone: the real package, one process, served by cheroot.

``python -m cli.keystone_wsgi --config-file F --stamp S --host H --port P`` is
started by ``cli.identity``.  Standard input brings one line of JSON: what must
exist in Keystone (``cli.plan.Plan``, passwords included).  Unless the stamp
says that this version of Keystone holds this plan, the database is filled
(``cli.keystone_setup``); then it serves.  After that line standard input is
the leash: when the parent goes away, the pipe closes and this process ends.

Memory and time: pysaml2 alone costs a second of start and 40 MB for schemas
that only a SAML identity provider needs, so those modules load when used.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cli import keystone_cache
from core import backend

LAZY_MODULES = ("keystone.federation.idp",)


def defer_imports() -> None:
    """Let rarely used modules load at first use."""
    for name in LAZY_MODULES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            continue  # a Keystone without it: nothing to defer
        loader = importlib.util.LazyLoader(spec.loader)
        spec.loader = loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        loader.exec_module(module)
        # set on its package, too: "from package import module" else asks the module's spec, which loads it
        package, _, attribute = name.rpartition(".")
        setattr(sys.modules[package], attribute, module)


def tune_sqlite(synchronous: str, cascades: bool = False) -> None:
    """WAL, how hard to sync, and transactions that can't fail half-way, on every SQLite connection.

    oslo.db begins every transaction as one for reading.  When it comes to write
    after another has written, SQLite refuses at once ("database is locked"), however
    long it may wait: what two requests at a time make of each other.  Begun as one
    for writing, the second waits instead.

    ``cascades``: rows that refer to a deleted one go with it, as on other databases
    (Keystone relies on it; its migrations do not bear it).
    """
    import sqlite3

    import sqlalchemy as sa

    @sa.event.listens_for(sa.engine.Engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            cursor = connection.cursor()
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute(f"PRAGMA synchronous={synchronous}")
            cursor.execute("PRAGMA busy_timeout=30000")
            if cascades:
                cursor.execute("PRAGMA foreign_keys=ON")
            cursor.close()

    @sa.event.listens_for(sa.engine.Engine, "before_cursor_execute", retval=True)
    def on_execute(
        connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool
    ) -> tuple[str, Any]:
        if statement == "BEGIN" and connection.dialect.name == "sqlite":
            statement = "BEGIN IMMEDIATE"
        return statement, parameters


class TokenPerThread:
    """Keeps apart what Keystone's middleware keeps in one place for all threads.

    ``AuthContextMiddleware`` (one object per process) puts the request's token into
    ``self.token`` and reads it a moment later: with threads, a request could be judged
    by the token of another.  As a descriptor of the class this gives each thread its own.
    """

    def __init__(self) -> None:
        self._local = threading.local()

    def __get__(self, _owner: Any, _kind: type | None = None) -> Any:
        return getattr(self._local, "token", None)

    def __set__(self, _owner: Any, token: Any) -> None:
        self._local.token = token

    def forget_between_requests(self, application: Callable[..., Any]) -> Callable[..., Any]:
        """The application, each request of which starts without the last one's token."""

        def wrapped(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
            self._local.token = None
            return application(environ, start_response)

        return wrapped


def in_copy(work: Callable[[], None]) -> None:
    """Run ``work`` in a forked copy of this process and wait for it.

    Keystone's registry of managers can be filled once per process, and bootstrap
    fills it; a fork also gives back the memory that the migrations took.

    :raises SystemExit: the copy failed; its traceback is on standard error.
    """
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:  # noqa: BLE001 - the copy must not go on into its parent's code
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    if os.waitpid(pid, 0)[1] != 0:
        raise SystemExit("identity: the set-up of Keystone's database failed")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Serve an embedded Keystone.")
    parser.add_argument("--config-file", action="append", required=True, dest="config_files")
    parser.add_argument("--stamp", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5000)
    parser.add_argument("--threads", type=int, default=8)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    warnings.filterwarnings("ignore")
    sys.argv[1:] = []  # keystone reads it, too
    plan = sys.stdin.readline()

    def leash() -> None:
        while sys.stdin.read(4096):
            continue
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=leash, name="leash", daemon=True).start()
    backend.select("threading")  # otherwise oslo.service imports eventlet: 0.3 s and 10 MB
    defer_imports()
    import keystone.server
    from cheroot import wsgi
    from keystone.server.flask import core

    version = importlib.metadata.version("keystone")
    stamp = f"{version} {hashlib.sha256(plan.encode()).hexdigest()}"
    if not options.stamp.exists() or options.stamp.read_text() != stamp:

        def fill() -> None:
            keystone_cache.register()
            tune_sqlite("OFF")  # nothing is lost: without the stamp the next start does it again
            keystone.server.configure(config_files=options.config_files)
            from cli import keystone_setup

            keystone_setup.fill(json.loads(plan))

        in_copy(fill)
        options.stamp.write_text(stamp)
    tune_sqlite("NORMAL", cascades=True)
    keystone_cache.register()
    app = core.initialize_application(name="public", config_files=options.config_files)
    from keystone.server.flask.request_processing.middleware import auth_context

    tokens = TokenPerThread()
    auth_context.AuthContextMiddleware.token = tokens
    app = tokens.forget_between_requests(app)
    server = wsgi.Server(
        (options.host, options.port),
        app,
        numthreads=options.threads,
        request_queue_size=128,
        server_name="identity",
    )

    def stop() -> None:
        # it answers connections a moment before it is "ready"; until then cheroot takes stop for done
        while not server.ready:
            time.sleep(0.05)
        server.stop()

    def end(_signal: int, _frame: Any) -> None:
        # in a thread: cheroot's stop waits for the loop that this signal interrupts
        threading.Thread(target=stop, name="stop", daemon=True).start()

    signal.signal(signal.SIGTERM, end)
    server.start()


if __name__ == "__main__":
    main()
