"""The embedded Keystone's SQLite: requests that read and then write wait for each other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
