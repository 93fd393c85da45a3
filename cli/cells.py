"""List or create cells: parts of the cloud that fail alone, each with its database and broker."""

from __future__ import annotations

import argparse

import sqlalchemy as sa

from cli import arguments
from cli.database import open_databases, said_in_one_line
from cli.state import StateFolder

LIST_EXAMPLES = """\
examples:
  haneul cell list
  haneul cell --config-file /etc/haneul.conf list
"""
CREATE_EXAMPLES = """\
examples:
  haneul cell create cell2 --database mysql://haneul:SECRET@db2/haneul_cell2 \\
      --transport rabbit://haneul:SECRET@mq2/
"""
EXAMPLES = LIST_EXAMPLES + CREATE_EXAMPLES.removeprefix("examples:\n")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_config_file(parser)
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|create")
    arguments.add_action(actions, "list", "all cells", LIST_EXAMPLES)
    create = arguments.add_action(actions, "create", "add a cell and make its tables", CREATE_EXAMPLES)
    create.add_argument("name", help="what the cell is called")
    create.add_argument("--database", required=True, help="URL of the cell's database (empty or our tables)")
    create.add_argument("--transport", help="transport_url of the cell's broker (default: the global one)")


def run(options: argparse.Namespace) -> int:
    with said_in_one_line():
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    from db import cells, migrate
    from db.sessions import make_engine

    databases = open_databases(options.config_files or [StateFolder(options.state).config_file])
    try:
        if options.action == "create":
            engine = make_engine(options.database)
            migrate.upgrade(engine, "cell")
            engine.dispose()
            row = cells.create_cell(databases.global_, options.name, options.database, options.transport)
            print(f"cell {options.name} is there: {row['uuid']}")
            return 0
        for row in cells.list_cells(databases.global_):
            url = sa.make_url(row["database_connection"]).render_as_string(hide_password=True)
            state = "disabled" if row["disabled"] else "enabled"
            print(f"{row['id']:3} {row['name']:20} {state:9} {url}")
        return 0
    finally:
        databases.dispose()
