"""The embedded Keystone's SQLite: requests that read and then write wait for each other."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from cli.keystone_wsgi import TokenPerThread

PROGRAM = """
import sys, threading
import sqlalchemy as sa
from oslo_db.sqlalchemy import enginefacade
from cli.keystone_wsgi import tune_sqlite

tune_sqlite("OFF")
facade = enginefacade.transaction_context()
facade.configure(connection=sys.argv[1])
engine = facade.writer.get_engine()
with engine.begin() as connection:
    connection.execute(sa.text("create table counted (n integer)"))
    connection.execute(sa.text("insert into counted values (0)"))
together = threading.Barrier(4)

def count():
    together.wait()
    for _ in range(25):
        with engine.begin() as connection:
            found = connection.execute(sa.text("select n from counted")).scalar()
            connection.execute(sa.text("update counted set n = :n"), {"n": found + 1})

threads = [threading.Thread(target=count) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
with engine.connect() as connection:
    print(connection.execute(sa.text("select n from counted")).scalar())
"""


def test_no_transaction_fails_half_way(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, f"sqlite:///{tmp_path}/x.sqlite"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "100", done.stderr[-2000:]


def test_a_request_is_never_judged_by_the_token_of_another() -> None:
    """Found with application credentials: one asker's request was refused for another's roles."""

    class Middleware:
        """Like Keystone's: one object, the request's token in an attribute."""

        token: object

    tokens = TokenPerThread()
    Middleware.token = tokens
    middleware, together, seen = Middleware(), threading.Barrier(2), {}

    def answer(environ: dict, start_response: object) -> list[bytes]:
        assert middleware.token is None, "what the thread's last request left"
        middleware.token = environ["token"]
        together.wait()
        seen[environ["token"]] = middleware.token
        return []

    application = tokens.forget_between_requests(answer)

    def ask(token: str) -> None:
        for number in range(3):
            application({"token": f"{token}{number}"}, None)

    threads = [threading.Thread(target=ask, args=(name,)) for name in ("one", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 6
    assert all(asked == found for asked, found in seen.items())
