"""Show the end of the logs, or follow them."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from cli.state import StateFolder
from core.errors import NotFound

EXAMPLES = """\
examples:
  haneul logs                 the last lines of every log
  haneul logs -f haneul       follow the log of the services
  haneul logs identity -n 200
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="one log: haneul, identity, …")
    parser.add_argument("-n", "--lines", type=int, default=20, help="lines from the end (default 20)")
    parser.add_argument("-f", "--follow", action="store_true", help="go on as the log grows")


def run(options: argparse.Namespace) -> int:
    folder = StateFolder(options.state) / "log"
    files = sorted(folder.glob(f"{options.name or '*'}.log"))
    if not files:
        raise NotFound(f"there is no log {options.name or ''} in {folder}".replace("  ", " "))
    for file in files:
        if len(files) > 1:
            print(f"==> {file}")
        for line in last_lines(file, options.lines):
            print(line)
    while options.follow:
        _follow(files)
    return 0


def last_lines(file: Path, count: int) -> list[str]:
    """The last lines of a file, reading at most 1 MiB of it."""
    with file.open("rb") as handle:
        handle.seek(max(0, file.stat().st_size - (1 << 20)))
        return handle.read().decode(errors="replace").splitlines()[-count:] if count > 0 else []


def _follow(files: list[Path]) -> None:
    handles = [file.open(errors="replace") for file in files]
    for handle in handles:
        handle.seek(0, 2)
    while all(file.exists() for file in files):
        lines = [line for handle in handles for line in handle]
        for line in lines:
            print(line, end="", flush=True)
        if not lines:
            time.sleep(0.2)
