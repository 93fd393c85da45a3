"""Make the databases, bring them to this version, or check that they are.

The global database is named by [database]connection; the cells stand in it.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cli import arguments
from cli.state import StateFolder
from core.errors import BadRequest, Unavailable

LOG = logging.getLogger(__name__)
EXAMPLES = """\
examples:
  haneul db upgrade                     make or upgrade the global database and every cell's
  haneul db check                       exit status 1 if an upgrade is due
  haneul db upgrade --config-file /etc/haneul.conf
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action", choices=["upgrade", "check"], help="upgrade: make or upgrade; check: only look"
    )
    arguments.add_config_file(parser)


def run(options: argparse.Namespace) -> int:
    files = options.config_files or [StateFolder(options.state).config_file]
    with said_in_one_line():
        return _run(options.action, open_databases(files))


def _run(action: str, databases: Any) -> int:
    try:
        if action == "upgrade":
            upgrade_all(databases, print)
            return 0
        due = differences(databases)
        for line in due:
            print(line)
        print(advice(due) if due else "the databases fit this version")
        return 1 if due else 0
    finally:
        databases.dispose()


@contextlib.contextmanager
def said_in_one_line() -> Iterator[None]:
    """What is wrong with a database's URL or with the way to it.

    :raises BadRequest: no URL, or of a kind that is not there. :raises Unavailable: nobody answers.
    """
    import sqlalchemy as sa
    from oslo_db import exception as db_exc

    try:
        yield
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError) as error:
        raise BadRequest(f"the database's URL can't be used: {error}", cause=error) from error
    except db_exc.DBConnectionError as error:
        words = str(error.inner_exception or error).splitlines()[0]
        raise Unavailable(f"the database does not answer: {words}", cause=error) from error


def make_role(conf: Any) -> Any:
    """A role that upgrades the databases when it starts and has nothing to stop.

    ``haneul up`` has it between identity, which takes seconds to come up in its
    own process, and the roles that need the tables.
    """
    from db.sessions import Databases
    from lifecycle.roles import Role

    class Upgrade(Role):
        name = "databases"

        def start(self) -> None:
            databases = Databases(conf)
            try:
                upgrade_all(databases, LOG.info)
            finally:
                databases.dispose()

        def stop(self) -> None:
            """Done already."""

    return Upgrade()


def open_databases(files: list[Path]) -> Any:
    """:raises Unavailable: a configuration file is missing."""
    from core import config
    from db.sessions import Databases

    for file in files:
        if not file.exists():
            raise Unavailable(
                f"there is no configuration {file}: 'haneul up' writes one, or use --config-file"
            )
    return Databases(config.load(files))


def upgrade_all(databases: Any, say: Callable[[str], None]) -> None:
    """The global database, its first cell if one is configured, and every cell's database."""
    from db import cells, migrate

    migrate.upgrade(databases.global_.engine, "global")
    cells.ensure_first(databases.global_, databases._conf.database.cell_connection)
    say("global database")
    for row in databases.cell_rows(refresh=True):
        migrate.upgrade(databases.cell(row["id"]).engine, "cell")
        say(f"database of cell {row['name']}")


def advice(due: list[str]) -> str:
    """What to do about ``differences``."""
    from db import migrate

    if any(line.endswith(migrate.IS_TO_BE_RUN) for line in due):
        return "an upgrade is due: haneul db upgrade"
    return "an upgrade does not mend this: use the version of haneul that made these tables"


def differences(databases: Any) -> list[str]:
    """Every way in which the databases differ from what this version needs, one line each."""
    from db import migrate

    found = [f"global: {line}" for line in migrate.differences(databases.global_.engine, "global")]
    if found:
        return found  # the table of cells may be missing
    for row in databases.cell_rows(refresh=True):
        engine = databases.cell(row["id"]).engine
        found += [f"cell {row['name']}: {line}" for line in migrate.differences(engine, "cell")]
    return found
