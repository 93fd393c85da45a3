"""``openstack aggregate image list AGGREGATE``: which hosts have fetched what ``aggregate cache image`` ordered."""

from __future__ import annotations

import argparse
from typing import Any

from osc_lib import exceptions
from osc_lib.command import command

_COLUMNS = ("Image", "Name", "Host", "State", "Error", "Finished At")


class ListAggregateImages(command.Lister):
    """Show which hosts of an aggregate have fetched the images that were ordered for it.

    Images are ordered with "openstack aggregate cache image".
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("aggregate", metavar="<aggregate>", help="Aggregate (name or ID)")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        compute: Any = self.app.client_manager.compute  # type: ignore[attr-defined]  # a plugin's attribute
        aggregate = compute.find_aggregate(parsed_args.aggregate, ignore_missing=False)
        answer = compute.get(f"/haneul/aggregates/{aggregate.id}/images")
        if answer.status_code != 200:
            raise exceptions.CommandError(f"the compute API answered {answer.status_code}: {answer.text}")
        keys = ("image_id", "image_name", "host", "state", "error", "finished_at")
        return _COLUMNS, [tuple(row[key] or "" for key in keys) for row in answer.json()["images"]]
