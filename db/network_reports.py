"""What agents say became of ports, routers and floating IPs, written where it is still true (global database).

A report may be late: the port has moved to another host, the router was placed
elsewhere. So every update names the host that reports, and changes only what differs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa

from db.network_base import TABLES
from db.routing import GATEWAY, INTERFACE
from db.rows import select_in
from db.types import now

ports = TABLES["ports"]
routers = TABLES["routers"]
floating_ips = TABLES["floating_ips"]
_SLICE = 1000
STATUSES = ("ACTIVE", "DOWN", "ERROR")


@dataclasses.dataclass(frozen=True)
class Turned:
    """A port whose status changed."""

    id: str
    network_id: str
    device_id: str
    device_owner: str
    status: str


def _by_status(statuses: Mapping[str, str]) -> dict[str, list[str]]:
    result: dict[str, list[str]] = {}
    for identifier, status in sorted(statuses.items()):
        if status in STATUSES:
            result.setdefault(status, []).append(identifier)
    return result


def _set(connection: sa.Connection, table: sa.Table, status: str, ids: Collection[str], *where: Any) -> int:
    """Set ``status`` where it is another; how many were changed."""
    done = 0
    wanted = sorted(ids)
    for start in range(0, len(wanted), _SLICE):
        done += connection.execute(
            table.update()
            .where(table.c.id.in_(wanted[start : start + _SLICE]), table.c.status != status, *where)
            .values(status=status, revision_number=table.c.revision_number + 1, updated_at=now())
        ).rowcount
    return done


def set_ports(connection: sa.Connection, host: str, statuses: Mapping[str, str]) -> list[Turned]:
    """Ports that are bound to ``host``; returns those that had another status."""
    turned: list[Turned] = []
    for status, ids in _by_status(statuses).items():
        here = (ports.c.binding_host == host, ports.c.status != status)
        columns = (ports.c.id, ports.c.network_id, ports.c.device_id, ports.c.device_owner)
        rows = list(select_in(connection, sa.select(*columns).where(*here), ports.c.id, ids))
        if rows and _set(
            connection, ports, status, [row["id"] for row in rows], ports.c.binding_host == host
        ):
            turned += [Turned(**row, status=status) for row in rows]
    return turned


def set_routers(connection: sa.Connection, host: str, statuses: Mapping[str, str]) -> None:
    """Routers that live on ``host``, and the ports that they have."""
    for status, ids in _by_status(statuses).items():
        mine = {
            row["id"]
            for row in select_in(
                connection, sa.select(routers.c.id).where(routers.c.host == host), routers.c.id, ids
            )
        }
        # a router that is switched off passes nothing on; to the API it is as ACTIVE as any, and so are
        # its legs, which are wired
        shown = "ERROR" if status == "ERROR" else "ACTIVE"
        _set(connection, routers, shown, mine, routers.c.host == host)
        legs = sa.select(ports.c.id).where(
            ports.c.device_owner.in_([INTERFACE, GATEWAY]), ports.c.status != shown
        )
        _set(
            connection,
            ports,
            shown,
            [row["id"] for row in select_in(connection, legs, ports.c.device_id, mine)],
        )
        # those that forward single ports have no port that the agent could report
        forwarding = sa.select(floating_ips.c.id).where(
            floating_ips.c.port_id.is_(None), floating_ips.c.status != status
        )
        found = select_in(connection, forwarding, floating_ips.c.router_id, mine)
        _set(connection, floating_ips, status, [row["id"] for row in found])


def set_floating_ips(connection: sa.Connection, host: str, statuses: Mapping[str, str]) -> None:
    """Floating IPs whose router lives on ``host``."""
    here = floating_ips.c.router_id.in_(sa.select(routers.c.id).where(routers.c.host == host))
    for status, ids in _by_status(statuses).items():
        _set(connection, floating_ips, status, ids, here)
