"""``openstack volume explain VOLUME``: why a volume is where it is, or nowhere."""

from __future__ import annotations

import argparse
from typing import Any

from osc_lib import exceptions
from osc_lib.command import command

from cli.osc.servers import rows_of

_COLUMNS = ("Step", "Name", "Detail", "Pools")


class ExplainVolume(command.Lister):
    """Explain the scheduler's newest decision about a volume.

    Which filter removed how many pools and why, and, for administrators, which
    pools these were and how the rest were scored.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("volume", metavar="<volume>", help="Volume (name or ID)")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        connection: Any = self.app.client_manager.sdk_connection
        volume = connection.block_storage.find_volume(parsed_args.volume, ignore_missing=False)
        answer = connection.block_storage.get(f"/haneul/volumes/{volume.id}/placement")
        if answer.status_code != 200:
            raise exceptions.CommandError(
                f"the block storage API answered {answer.status_code}: {answer.text}"
            )
        decisions = answer.json()["placement"]["decisions"]
        if not decisions:
            raise exceptions.CommandError(f"there is no decision about {parsed_args.volume} yet")
        return _COLUMNS, rows_of(decisions[-1])
