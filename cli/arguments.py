"""What the parsers of several subcommands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps examples as written."""


def add_config_file(parser: argparse.ArgumentParser) -> None:
    """``--config-file``, as ``options.config_files``: None or a list of paths."""
    parser.add_argument(
        "--config-file",
        type=Path,
        action="append",
        dest="config_files",
        help="configuration (default: haneul.conf in the state folder); may be repeated",
    )


def add_action(actions: Any, name: str, text: str, examples: str) -> argparse.ArgumentParser:
    """A subcommand of a subcommand, with its own help and examples."""
    parser: argparse.ArgumentParser = actions.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=examples,
        formatter_class=Formatter,
    )
    return parser
