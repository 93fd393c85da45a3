"""Print the export lines with which the openstack command talks to this cloud."""

from __future__ import annotations

import argparse
import shlex

from cli import settings
from cli.state import StateFolder
from core.errors import Unavailable

EXAMPLES = """\
examples:
  eval $(haneul env)          be the administrator
  eval $(haneul env demo)     be the ordinary user 'demo'
  haneul env > admin-openrc
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "user", nargs="?", default="admin", choices=["admin", "demo"], help="who (default admin)"
    )


def run(options: argparse.Namespace) -> int:
    state = StateFolder(options.state)
    if not state.exists():
        raise Unavailable(f"there is no cloud in {state.path}: 'haneul up' makes one")
    values = settings.environment(state, settings.Addresses(state), options.user)
    for name, value in values.items():
        print(f"export {name}={shlex.quote(value)};")
    return 0
