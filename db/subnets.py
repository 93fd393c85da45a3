"""Subnets: overlap within a network, use by ports, deletion (global database)."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exc

from db import network_base as base
from db import network_changes
from db import networks as db_networks
from db.network_base import SHARED, TABLES, Viewer
from db.network_errors import conflict, invalid_input

subnets = TABLES["subnets"]
networks = TABLES["networks"]
ports = TABLES["ports"]
ip_allocations = TABLES["ip_allocations"]
SLAAC_MODES = ("slaac", "dhcpv6-stateless")


def is_auto(subnet: Mapping[str, Any]) -> bool:
    """Do hosts make their own addresses (EUI-64) on it?"""
    return subnet["ipv6_address_mode"] in SLAAC_MODES


def _visible(viewer: Viewer) -> base.Condition:
    return base.granted(db_networks.RBAC, subnets.c.network_id, viewer, SHARED)


def _expand(connection: sa.Connection, rows: Sequence[dict[str, Any]], viewer: Viewer) -> None:
    found = connection.execute(
        sa.select(networks.c.id, networks.c.external).where(
            networks.c.id.in_({row["network_id"] for row in rows})
        )
    )
    external = dict(found.tuples().all())
    for row in rows:
        row["segment_id"] = None
        row["router:external"] = external.get(row["network_id"], False)


def _external_filter(values: Sequence[str], _viewer: Viewer) -> base.Condition:
    wanted = [base.truth(value) for value in values]
    return sa.exists().where(networks.c.id == subnets.c.network_id, networks.c.external.in_(wanted))


MODEL = base.Model(
    name="subnet",
    noun="Subnet",
    not_found_type="SubnetNotFound",
    table=subnets,
    columns=base.columns_of(subnets),
    filters={
        "shared": base.shared_filter(db_networks.RBAC, subnets.c.network_id),
        "router:external": _external_filter,
    },
    expand=_expand,
    visible=_visible,
)


def of_network(connection: sa.Connection, network_id: str) -> list[dict[str, Any]]:
    """All subnets of a network, oldest first."""
    statement = sa.select(subnets).where(subnets.c.network_id == network_id)
    statement = statement.order_by(subnets.c.created_at, subnets.c.id)
    return [dict(row) for row in connection.execute(statement).mappings()]


def check_overlap(cidr: str, others: Sequence[Mapping[str, Any]], network_id: str) -> None:
    """:raises BadRequest: the network has a subnet with some of these addresses."""
    new = ipaddress.ip_network(cidr)
    for other in others:
        if new.overlaps(ipaddress.ip_network(other["cidr"])):
            raise invalid_input(
                f"Requested subnet with cidr: {cidr} for network: {network_id} overlaps with another"
                f" subnet {other['cidr']} ({other['id']})"
            )


def create(connection: sa.Connection, values: Mapping[str, Any]) -> str:
    """Insert; the network's subnets are looked at under its lock, so that no two overlap."""
    db_networks.lock(connection, values["network_id"])
    check_overlap(values["cidr"], of_network(connection, values["network_id"]), values["network_id"])
    return base.insert(connection, subnets, values)


def check_gateway_free(connection: sa.Connection, subnet: Mapping[str, Any]) -> None:
    """:raises Conflict: a router answers at the present gateway address."""
    statement = (
        sa.select(ports.c.id)
        .join(ip_allocations, ip_allocations.c.port_id == ports.c.id)
        .where(
            ip_allocations.c.subnet_id == subnet["id"],
            ip_allocations.c.ip_address == (subnet["gateway_ip"] or ""),
            ports.c.device_owner.like("network:router_interface%"),
        )
    )
    if (port_id := connection.execute(statement.limit(1)).scalar()) is not None:
        raise conflict(
            "GatewayIpInUse",
            f"Current gateway ip {subnet['gateway_ip']} already in use by port {port_id}. Unable to update.",
        )


def delete(connection: sa.Connection, subnet: Mapping[str, Any]) -> None:
    """The subnet, and the addresses that it does not need asking for (haneul's own, SLAAC).

    :raises Conflict: ports have addresses in it.
    """
    db_networks.lock(connection, subnet["network_id"])
    using = (
        sa.select(ports.c.id)
        .join(ip_allocations, ip_allocations.c.port_id == ports.c.id)
        .where(ip_allocations.c.subnet_id == subnet["id"])
    )
    if is_auto(subnet):
        blocking = using.where(ports.c.device_owner.like("network:router%"))
    else:
        blocking = using.where(ports.c.device_owner.not_in(db_networks.AUTO_DELETED))
    if found := list(connection.execute(blocking.limit(5)).scalars()):
        raise _in_use(subnet["id"], found)
    holders = list(connection.execute(using).scalars())
    network_changes.note(ports=holders, addressed=holders)
    try:
        connection.execute(ip_allocations.delete().where(ip_allocations.c.subnet_id == subnet["id"]))
        base.delete(connection, subnets, subnet["id"])
    except db_exc.DBReferenceError as error:
        raise _in_use(subnet["id"], []) from error


def _in_use(subnet_id: str, port_ids: Sequence[str]) -> Exception:
    some = f" These ports are there: {', '.join(port_ids)}." if port_ids else ""
    return conflict(
        "SubnetInUse",
        f"Unable to complete operation on subnet {subnet_id}: One or more ports have an IP allocation"
        f" from this subnet.{some}",
    )
