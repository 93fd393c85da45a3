"""``openstack server explain SERVER``: why a server is where it is, or nowhere."""

from __future__ import annotations

import argparse
from typing import Any

from osc_lib import exceptions
from osc_lib.command import command

_COLUMNS = ("Step", "Name", "Detail", "Hosts")


class ExplainServer(command.Lister):
    """Explain the scheduler's newest decision about a server.

    Which filter removed how many hosts and why, and, for administrators, which
    hosts these were and how the rest were scored.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("server", metavar="<server>", help="Server (name or ID)")
        parser.add_argument(
            "--attempt", type=int, help="An earlier attempt, counted from 1 (default: the newest)"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        compute: Any = self.app.client_manager.compute  # type: ignore[attr-defined]  # a plugin's attribute
        server = compute.find_server(parsed_args.server, ignore_missing=False)
        answer = compute.get(f"/haneul/servers/{server.id}/placement")
        if answer.status_code == 404:
            raise exceptions.CommandError(
                f"there is no decision about {parsed_args.server} yet, or no such server"
            )
        if answer.status_code != 200:
            raise exceptions.CommandError(f"the compute API answered {answer.status_code}: {answer.text}")
        placement = answer.json()["placement"]
        decisions = placement["decisions"]
        if parsed_args.attempt is not None:
            decisions = [one for one in decisions if one["attempt"] == parsed_args.attempt]
        if not decisions:
            raise exceptions.CommandError("there is no such decision")
        return _COLUMNS, rows_of(decisions[-1])


def rows_of(decision: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The decision as rows: what was removed, how the rest were scored, the choice."""
    rows: list[tuple[Any, ...]] = [("summary", "", decision["summary"], decision.get("hosts", ""))]
    for step in decision.get("filters", []):
        names = ", ".join(step.get("host_names", []))
        for reason in step["reasons"]:
            rows.append(("filter", step["name"], reason["reason"], reason["hosts"]))
        if names:
            rows.append(("", "", f"removed: {names}{' …' if step.get('truncated') else ''}", ""))
    for score in decision.get("scores", []):
        parts = ", ".join(
            f"{weigher['name']} {weigher['weight']:.3g}" for weigher in score.get("weighers", [])
        )
        rows.append(("score", score["host"], parts, f"{score['weight']:.4g}"))
    if decision.get("chosen"):
        rows.append(("chosen", decision["chosen"], "", ""))
    return rows
