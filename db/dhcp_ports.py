"""The port of a network's DHCP and metadata server: one, with an address of each subnet that has DHCP.

The server runs on every host that the network is on, with the same addresses, so the port is
bound to none. Its id follows from the network's, and so the primary key decides when several
conductors make it at the same time. The network's row is held meanwhile, as those do who
create and delete its subnets.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from core.errors import Conflict, NotFound
from db import addresses
from db import network_base as base
from db import networks as db_networks
from db import ports as db_ports
from db import subnets as db_subnets
from db.network_base import TABLES
from db.rows import rows_of, select_in

ports = TABLES["ports"]
subnets = TABLES["subnets"]
allocations = TABLES["ip_allocations"]
OWNER = "network:dhcp"
_IDS = uuid.UUID("8f0b5c6e-6d0f-4a54-9d8a-9a3d6b1f7c55")
_EVERYWHERE = uuid.uuid5(uuid.NAMESPACE_DNS, "haneul")
"""Upstream's device ids of DHCP ports name the agent's host in this place."""


def port_id_of(network_id: str) -> str:
    """The id of a network's DHCP port."""
    return str(uuid.uuid5(_IDS, network_id))


def device_id_of(network_id: str) -> str:
    return f"dhcp{_EVERYWHERE}-{network_id}"


def unsettled(connection: sa.Connection, network_ids: Collection[str] | None = None) -> set[str]:
    """Networks (``network_ids``: of these) whose DHCP port is not as their subnets want it."""
    holding = sa.exists().where(
        allocations.c.subnet_id == subnets.c.id,
        ports.c.id == allocations.c.port_id,
        ports.c.device_owner == OWNER,
    )
    lacking = sa.select(subnets.c.network_id).where(
        sa.or_(
            sa.and_(subnets.c.enable_dhcp.is_(True), sa.not_(holding)),
            # of a subnet whose hosts make their own addresses the port has one anyway
            sa.and_(subnets.c.enable_dhcp.is_(False), holding, subnets.c.ipv6_address_mode.is_(None)),
        )
    )
    served = sa.exists().where(subnets.c.network_id == ports.c.network_id, subnets.c.enable_dhcp.is_(True))
    idle = sa.select(ports.c.network_id).where(ports.c.device_owner == OWNER, sa.not_(served))
    result: set[str] = set()
    for statement, column in ((lacking, subnets.c.network_id), (idle, ports.c.network_id)):
        if network_ids is None:
            result.update(connection.execute(statement).scalars())
        else:
            result.update(row["network_id"] for row in select_in(connection, statement, column, network_ids))
    return result


def settle(connection: sa.Connection, network_id: str, base_mac: str) -> None:
    """Make, change or delete the port, as the subnets are now. A network that is gone needs none."""
    try:
        network = base.find(connection, db_networks.MODEL, network_id, base.GOD, lock=True)
    except NotFound:
        return
    mine = db_subnets.of_network(connection, network_id)
    wanted = [{"subnet_id": subnet["id"]} for subnet in mine if subnet["enable_dhcp"]]
    statement = sa.select(ports).where(ports.c.network_id == network_id, ports.c.device_owner == OWNER)
    port = next(iter(rows_of(connection, statement.order_by(ports.c.created_at))), None)
    if port is None and wanted:
        _create(connection, network, mine, wanted, base_mac)
    elif port is not None and not wanted:
        base.delete(connection, ports, port["id"])
    elif port is not None:
        addresses.reallocate(connection, port, mine, wanted, port["mac_address"])


def _create(
    connection: sa.Connection,
    network: base.Row,
    network_subnets: Sequence[dict[str, Any]],
    fixed_ips: Sequence[dict[str, Any]],
    base_mac: str,
) -> None:
    identifier = port_id_of(network["id"])
    octets = uuid.UUID(identifier).bytes
    prefix = base_mac.lower().split(":")
    fixed = 4 if prefix[3] != "00" else 3
    mac = ":".join([*prefix[:fixed], *(f"{octet:02x}" for octet in octets[: 6 - fixed])])
    values = {
        "id": identifier,
        "project_id": network["project_id"],
        "network_id": network["id"],
        "mac_address": mac,
        "device_id": device_id_of(network["id"]),
        "device_owner": OWNER,
        "port_security_enabled": False,
        # it serves wherever its network is: there is no host whose agent could say so
        "status": "ACTIVE",
    }
    try:
        db_ports.create(connection, values, network_subnets, fixed_ips, (), base_mac)
    except Conflict:
        taken = sa.select(ports.c.id).where(ports.c.id == identifier)
        if connection.execute(taken).first() is None:
            # not made by somebody else: a guest has this MAC, or a subnet is full
            values.pop("mac_address")
            db_ports.create(connection, values, network_subnets, fixed_ips, (), base_mac)
