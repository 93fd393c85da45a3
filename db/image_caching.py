"""Orders to hosts to have images ready before a server needs them: one intent per host and image (cells).

They belong to the host (``resource_id`` is its hypervisor's UUID), so a host fetches one after the
other.  Of each host and image only the newest order is kept: it is the record of how far that is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from core.context import RequestContext
from core.intents import UNFINISHED
from db import intents as db_intents
from db import scatter
from db.cell_schema import hypervisors, intents
from db.sessions import Database, Databases, retrying

KIND = "host.cache_image"
Row = dict[str, Any]
_UNFINISHED = {state.value for state in UNFINISHED}


def order(
    databases: Databases, hosts: Sequence[str], images: Sequence[Mapping[str, Any]], context: RequestContext
) -> dict[int, list[str]]:
    """Write what is not on its way already; returns {cell id: ids of the new intents}.

    ``images``: each as ``compute.drivers.base.GuestImage`` has it. Five statements per cell.
    Cells that are down are left out, as their hosts can't be reached.
    """
    found, _ = scatter.gather(databases, lambda connection: _uuids(connection, hosts))
    return {int(cell.cell_id or 0): _order(cell, uuids, images, context) for cell, uuids in found if uuids}


@retrying
def _order(
    cell: Database, uuids: Mapping[str, str], images: Sequence[Mapping[str, Any]], context: RequestContext
) -> list[str]:
    with cell.write() as connection:
        known = _of_hosts(connection, uuids)
        on_the_way = {_pair(row) for row in known if row["state"] in _UNFINISHED}
        new = [
            db_intents.row(KIND, "host", uuid, context, {"image": dict(image)}, target=host, exclusive=False)
            for image in images
            for uuid, host in uuids.items()
            if (uuid, image["id"]) not in on_the_way
        ]
        pairs = {_pair(row) for row in new}
        outdated = [row["id"] for row in known if _pair(row) in pairs]
        if outdated:
            connection.execute(sa.delete(intents).where(intents.c.id.in_(outdated)))
        if new:
            db_intents.insert(connection, intents, new)
    return [row["id"] for row in new]


def progress(databases: Databases, hosts: Sequence[str]) -> list[Row]:
    """The newest order of each of these hosts and each image, oldest first. Two statements per cell."""
    found, _ = scatter.gather(databases, lambda connection: _of_hosts(connection, _uuids(connection, hosts)))
    rows = {_pair(row): row for _, listed in found for row in listed}
    return sorted(rows.values(), key=lambda row: (row["created_at"], row["target"], row["id"]))


def _uuids(connection: sa.Connection, hosts: Sequence[str]) -> dict[str, str]:
    """{hypervisor's UUID: host}"""
    statement = sa.select(hypervisors.c.uuid, hypervisors.c.host).where(hypervisors.c.host.in_(list(hosts)))
    return {row.uuid: row.host for row in connection.execute(statement)}


def _of_hosts(connection: sa.Connection, uuids: Mapping[str, str]) -> list[Row]:
    statement = (
        sa.select(intents)
        .where(intents.c.resource_id.in_(list(uuids)), intents.c.kind == KIND)
        .order_by(intents.c.created_at, intents.c.id)
    )
    return [dict(row) for row in connection.execute(statement).mappings()]


def _pair(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["resource_id"], row["arguments"]["image"]["id"]
