"""Look into the data plane: where a port's packets go on its host.

Asks the Network API as administrator; it asks the agent on the port's host, which reads what is
really there: devices, rules with their counters, tunnels, routers.
"""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from cli import arguments
from cli.state import StateFolder
from core.errors import DriverError, NotFound, Unavailable

TRACE_EXAMPLES = """\
examples:
  haneul network trace 5c0d0c9f-7a1e-4c55-9f0e-2f6b9b6c7a11
  haneul network trace web-port --json
"""
EXAMPLES = TRACE_EXAMPLES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="trace")
    trace = arguments.add_action(actions, "trace", "the path of a port's packets", TRACE_EXAMPLES)
    trace.add_argument("port", help="id or name of a port")
    trace.add_argument("--json", action="store_true", help="as JSON")


def run(options: argparse.Namespace) -> int:
    """0: all hops are as they should be; 1: one is not."""
    connection = _connect(StateFolder(options.state))
    port = connection.network.find_port(options.port)
    if port is None:
        raise NotFound(f"there is no port {options.port!r}")
    answer = connection.network.get(f"/ports/{port.id}/trace")
    if answer.status_code != 200:
        raise DriverError(answer.json()["NeutronError"]["message"])
    trace = answer.json()["trace"]
    if options.json:
        print(json.dumps(trace, indent=2))
    else:
        print("\n".join(lines_of(trace)))
    return 0 if all(hop["ok"] for hop in trace["hops"]) else 1


def _connect(state: StateFolder) -> Any:
    """As administrator of the cloud in the state folder, or as the environment (OS_…) says."""
    from cli import cloud

    if (state / "clouds.yaml").exists():
        return cloud.connect(state)
    if not any(name in os.environ for name in ("OS_AUTH_URL", "OS_CLOUD")):
        raise Unavailable(f"there is no cloud in {state.path}, and no OS_AUTH_URL or OS_CLOUD: whom to ask?")
    import openstack

    return openstack.connect()


def lines_of(trace: dict[str, Any]) -> list[str]:
    """One line per hop, its details below."""
    lines = [f"port {trace['port_id']} ({trace['status']}) on host {trace['host']}"]
    for number, hop in enumerate(trace["hops"], 1):
        lines.append(f"{number:3}  {'ok ' if hop['ok'] else 'BAD'}  {hop['hop']:7} {hop['name']}")
        lines += [f"            {line}" for line in _details(hop.get("detail") or {})]
    return lines


def _details(detail: dict[str, Any]) -> list[str]:
    lines = []
    for key, value in detail.items():
        if isinstance(value, list) and value and isinstance(value[0], dict | list):
            lines.append(f"{key}:")
            lines += [f"  {_plain(each)}" for each in value]
        else:
            lines.append(f"{key}: {_plain(value)}")
    return lines


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(each)}" for key, each in value.items())
    if isinstance(value, list):
        return " ".join(map(_plain, value)) or "none"
    return "none" if value is None or value == "" else str(value)
