"""What routers and floating IPs mean for the ports that they use (global database)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from db import network_changes
from db.network_base import TABLES
from db.network_errors import conflict
from db.types import now

routers = TABLES["routers"]
interfaces = TABLES["router_interfaces"]
floating_ips = TABLES["floating_ips"]
port_forwardings = TABLES["port_forwardings"]
ip_allocations = TABLES["ip_allocations"]

INTERFACE = "network:router_interface"
GATEWAY = "network:router_gateway"
FLOATING = "network:floatingip"
_HELD = (INTERFACE, GATEWAY, FLOATING)


def _held_by(connection: sa.Connection, port_id: str) -> str | None:
    """Which router or floating IP a port serves."""
    for statement, what in (
        (sa.select(interfaces.c.router_id).where(interfaces.c.port_id == port_id), "router"),
        (sa.select(routers.c.id).where(routers.c.gateway_port_id == port_id), "router"),
        (sa.select(floating_ips.c.id).where(floating_ips.c.floating_port_id == port_id), "floating IP"),
    ):
        if (found := connection.execute(statement.limit(1)).scalar()) is not None:
            return f"{what} {found}"
    return None


def check_port_deletable(connection: sa.Connection, port: Mapping[str, Any]) -> None:
    """:raises Conflict: the port is a router's or a floating IP's own."""
    if port["device_owner"] not in _HELD:
        return
    if (holder := _held_by(connection, port["id"])) is not None:
        raise conflict(
            "ServicePortInUse",
            f"Port {port['id']} cannot be deleted directly via the port API: it has device owner"
            f" {port['device_owner']} ({holder}).",
        )


def check_device_change(connection: sa.Connection, port: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """:raises Conflict: a router's port would be given to something else."""
    changed = any(port[key] != new[key] for key in ("device_owner", "device_id"))
    if not changed or port["device_owner"] not in _HELD:
        return
    if (holder := _held_by(connection, port["id"])) is not None:
        raise conflict(
            "PortInUse",
            f"Unable to complete operation on port {port['id']} for network {port['network_id']}."
            f" Port already has an attached device {holder}.",
        )


def _loosen(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> None:
    network_changes.note_floating_ips(connection, condition)
    connection.execute(
        floating_ips.update()
        .where(condition)
        .values(
            port_id=None,
            fixed_ip_address=None,
            router_id=None,
            status="DOWN",
            updated_at=now(),
            revision_number=floating_ips.c.revision_number + 1,
        )
    )


def _end_forwardings(connection: sa.Connection, *where: sa.ColumnElement[bool]) -> None:
    holders = sa.select(port_forwardings.c.floatingip_id).where(*where)
    network_changes.note_floating_ips(connection, floating_ips.c.id.in_(holders))
    connection.execute(port_forwardings.delete().where(*where))


def release_port(connection: sa.Connection, port_id: str) -> None:
    """A port goes: floating IPs leave it, what is forwarded to it ends."""
    _loosen(connection, floating_ips.c.port_id == port_id)
    _end_forwardings(connection, port_forwardings.c.internal_port_id == port_id)


def addresses_changed(connection: sa.Connection, port: Mapping[str, Any]) -> None:
    """A port's addresses are others now: floating IPs of gone ones leave, its router's subnets follow."""
    mine = sa.select(ip_allocations.c.ip_address).where(ip_allocations.c.port_id == port["id"])
    _loosen(
        connection,
        sa.and_(floating_ips.c.port_id == port["id"], floating_ips.c.fixed_ip_address.not_in(mine)),
    )
    _end_forwardings(
        connection,
        port_forwardings.c.internal_port_id == port["id"],
        port_forwardings.c.internal_ip_address.not_in(mine),
    )
    if port["device_owner"] != INTERFACE:
        return
    statement = sa.select(ip_allocations.c.subnet_id).where(ip_allocations.c.port_id == port["id"])
    subnet_ids = set(connection.execute(statement).scalars())
    connection.execute(
        interfaces.delete().where(
            interfaces.c.port_id == port["id"], interfaces.c.subnet_id.not_in(list(subnet_ids))
        )
    )
    known = set(
        connection.execute(
            sa.select(interfaces.c.subnet_id).where(interfaces.c.router_id == port["device_id"])
        ).scalars()
    )
    for subnet_id in sorted(subnet_ids - known):
        connection.execute(
            interfaces.insert().values(router_id=port["device_id"], subnet_id=subnet_id, port_id=port["id"])
        )
