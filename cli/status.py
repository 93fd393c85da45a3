"""What runs, where it answers, how much memory it takes."""

from __future__ import annotations

import argparse
import json
from typing import Any

from cli import processes, settings
from cli.down import DAEMON
from cli.state import StateFolder
from core.errors import Unavailable

EXAMPLES = """\
examples:
  haneul status
  haneul status --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")


def run(options: argparse.Namespace) -> int:
    """Exit status 0: all runs; 3: something does not."""
    state = StateFolder(options.state)
    if not state.exists():
        raise Unavailable(f"there is no cloud in {state.path}: 'haneul up' makes one")
    report = collect(state)
    if options.json:
        print(json.dumps(report, indent=1))
    else:
        show(report)
    fine = report["pid"] and all(what == "running" for what in report["roles"].values())
    return 0 if fine else 3


def collect(state: StateFolder) -> dict[str, Any]:
    """pid, roles, addresses and memory (MiB) of the cloud in a state folder."""
    addresses = settings.Addresses(state)
    pid = state.pid(DAEMON)
    return {
        "state": str(state.path),
        "pid": pid,
        "roles": state.read_json("run/roles.json") if pid else {},
        "addresses": {
            "identity": addresses.auth_url,
            **{kind: addresses.url(group, path) for _n, kind, group, path, _t in settings.CATALOG},
        },
        "memory_mib": {name: round(size) for name, size in processes.memory(pid).items()} if pid else {},
    }


def show(report: dict[str, Any]) -> None:
    print(f"state folder  {report['state']}")
    print(f"services      {'running, pid ' + str(report['pid']) if report['pid'] else 'stopped'}")
    for name, what in report["roles"].items():
        print(f"  {name:18}{what}")
    for name, url in report["addresses"].items():
        print(f"{name:16}{url}")
    memory: dict[str, float] = report["memory_mib"]
    if memory:
        parts = ", ".join(f"{name} {size}" for name, size in memory.items())
        print(f"memory        {sum(memory.values())} MiB ({parts})")
