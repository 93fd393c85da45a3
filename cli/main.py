"""The ``haneul`` command.

Each subcommand is a module with ``add_arguments(parser)`` and ``run(options)``;
only the one that is asked for is imported, so that ``haneul env`` answers at
once and ``haneul serve`` can choose its backend before anything else is loaded.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cli.arguments import Formatter

COMMANDS = {
    "up": ("cli.up", "bring a cloud up on this machine, or go on where it was"),
    "down": ("cli.down", "stop the services (servers go on running)"),
    "status": ("cli.status", "what runs, and where"),
    "env": ("cli.env", "print the export lines for the openstack command"),
    "logs": ("cli.logs", "show or follow the logs"),
    "demo": ("cli.demo", "boot a server as an ordinary user and look at it"),
    "doctor": ("cli.doctor", "say what is missing or wrong, and how to mend it"),
    "serve": ("cli.serve", "run one role, or all, in the foreground"),
    "db": ("cli.database", "make or check the databases"),
    "cell": ("cli.cells", "list or create cells"),
    "keys": ("cli.keys", "the key file of the key manager: make, change, encrypt anew"),
    "network": ("cli.network", "show where a port's packets go"),
    "complete": ("cli.complete", "print a completion script for bash or zsh"),
}

EPILOG = """\
examples:
  haneul up                      a cloud on this machine, with a first server
  eval $(haneul env)             then: openstack server list
  haneul up --driver simulated   no hypervisor: servers are only played
  haneul status                  what runs
  haneul down                    stop it; haneul up goes on where it was

State lives in one folder: .haneul in the checkout, or HANEUL_STATE.
"""


def command_parser(name: str) -> argparse.ArgumentParser:
    """The parser of one subcommand; imports its module."""
    module: Any = importlib.import_module(COMMANDS[name][0])
    parser = argparse.ArgumentParser(
        prog=f"haneul {name}",
        description=module.__doc__.strip(),
        epilog=getattr(module, "EXAMPLES", None),
        formatter_class=Formatter,
    )
    parser.add_argument(
        "--state", type=Path, help="state folder (default: HANEUL_STATE, or .haneul in the checkout)"
    )
    module.add_arguments(parser)
    parser.set_defaults(run=module.run)
    return parser


def top_parser() -> argparse.ArgumentParser:
    lines = "\n".join(f"  {name:10}{text}" for name, (_module, text) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="haneul",
        description=f"An OpenStack-compatible cloud that comes up with one command.\n\ncommands:\n{lines}",
        epilog=EPILOG,
        formatter_class=Formatter,
        usage="haneul COMMAND [options]",
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.add_argument("command", nargs="?", choices=[*COMMANDS], metavar="COMMAND")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 1 for a failure said in one line, 2 for wrong use, 130 when interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in COMMANDS:
        options = top_parser().parse_args(arguments)
        if options.version:
            from importlib.metadata import version

            print(f"haneul {version('haneul')}")
            return 0
        top_parser().print_help()
        return 2
    if not sys.warnoptions:
        # libraries' words to their own authors (eventlet's, most of all) are not for who types haneul
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")
    options = command_parser(arguments[0]).parse_args(arguments[1:])
    from core.errors import HaneulError

    try:
        return int(options.run(options) or 0)
    except HaneulError as error:
        print(f"haneul {arguments[0]}: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # the reader (head, less) has gone; without this Python complains once more at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
