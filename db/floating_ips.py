"""Floating IPs and single forwarded ports of them (global database)."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exc

from db import network_base as base
from db import network_changes
from db.network_base import TABLES
from db.network_errors import bad_request, conflict, not_found
from db.routing import floating_ips, interfaces, ip_allocations, port_forwardings, routers

ports = TABLES["ports"]
subnets = TABLES["subnets"]


def _expand(connection: sa.Connection, rows: Sequence[dict[str, Any]], _viewer: base.Viewer) -> None:
    by_id = {row["id"]: row for row in rows}
    port_ids = {row["port_id"] for row in rows if row["port_id"]}
    for row in rows:
        row.update(port_forwardings=[], port_details=None)
    if port_ids:
        found = connection.execute(sa.select(ports).where(ports.c.id.in_(port_ids))).mappings()
        details = {
            port["id"]: {
                key: port[key]
                for key in (
                    "name", "network_id", "mac_address", "admin_state_up", "status", "device_id",
                    "device_owner",
                )
            }
            for port in found
        }  # fmt: skip
        for row in rows:
            row["port_details"] = details.get(row["port_id"])
    statement = sa.select(port_forwardings).where(port_forwardings.c.floatingip_id.in_(list(by_id)))
    for each in connection.execute(statement).mappings():
        shown = forwarding_view(dict(each))
        shown.pop("id")
        by_id[each["floatingip_id"]]["port_forwardings"].append(shown)


MODEL = base.Model(
    name="floatingip",
    noun="Floating IP",
    not_found_type="FloatingIPNotFound",
    table=floating_ips,
    columns=base.columns_of(floating_ips),
    expand=_expand,
)


def bad(message: str) -> Exception:
    return bad_request("BadRequest", f"Bad floatingip request: {message}.")


def router_for(
    connection: sa.Connection, floating_network_id: str, port: Mapping[str, Any], subnet_id: str
) -> str:
    """The router between a port's subnet and an external network. :raises NotFound: there is none."""
    statement = (
        sa.select(routers.c.id)
        .join(interfaces, interfaces.c.router_id == routers.c.id)
        .join(subnets, subnets.c.id == interfaces.c.subnet_id)
        .join(ip_allocations, ip_allocations.c.port_id == interfaces.c.port_id)
        .where(
            interfaces.c.subnet_id == subnet_id,
            ip_allocations.c.subnet_id == subnet_id,
            routers.c.gateway_network_id == floating_network_id,
        )
        # of several the one that the subnet's hosts use as their gateway
        .order_by(sa.case((ip_allocations.c.ip_address == subnets.c.gateway_ip, 0), else_=1), routers.c.id)
        .limit(1)
    )
    found = connection.execute(statement).scalar()
    if found is None:
        raise not_found(
            "ExternalGatewayForFloatingIPNotFound",
            f"External network {floating_network_id} is not reachable from subnet {subnet_id}. Therefore,"
            f" cannot associate Port {port['id']} with a Floating IP: the external gateway",
            floating_network_id,
        )
    return str(found)


def fixed_address(connection: sa.Connection, port: Mapping[str, Any], wanted: str | None) -> tuple[str, str]:
    """(subnet id, IPv4 address) of a port that a floating IP leads to. :raises BadRequest:"""
    statement = (
        sa.select(ip_allocations.c.subnet_id, ip_allocations.c.ip_address)
        .join(subnets, subnets.c.id == ip_allocations.c.subnet_id)
        .where(ip_allocations.c.port_id == port["id"], subnets.c.ip_version == 4)
        .order_by(ip_allocations.c.position)
    )
    found = [(subnet_id, address) for subnet_id, address in connection.execute(statement)]
    if wanted is not None:
        for subnet_id, address in found:
            if address == wanted:
                return subnet_id, address
        raise bad(f"Port {port['id']} does not have fixed ip address {wanted}")
    if not found:
        raise bad(f"Cannot add floating IP to port {port['id']} that has no fixed IPv4 addresses")
    if len(found) > 1:
        raise bad(
            f"Port {port['id']} has multiple fixed IPv4 addresses. Must provide a specific IPv4 address"
            " when assigning a floating IP"
        )
    return found[0]


def associate(
    connection: sa.Connection, floating_ip_id: str, port_id: str, address: str, router_id: str
) -> None:
    """:raises Conflict: the address has a floating IP."""
    mine = floating_ips.c.id == floating_ip_id
    network_changes.note_floating_ips(connection, mine)
    try:
        with connection.begin_nested():
            connection.execute(
                floating_ips.update()
                .where(floating_ips.c.id == floating_ip_id)
                # until its router's agent says otherwise, it does not work
                .values(port_id=port_id, fixed_ip_address=address, router_id=router_id, status="DOWN")
            )
    except db_exc.DBDuplicateEntry as error:
        raise conflict(
            "FloatingIPPortAlreadyAssociated",
            f"Cannot associate floating IP {floating_ip_id} with port {port_id} using fixed IP {address},"
            " as that fixed IP already has a floating IP.",
        ) from error
    network_changes.note_floating_ips(connection, mine)


def disassociate(connection: sa.Connection, floating_ip_id: str) -> None:
    network_changes.note_floating_ips(connection, floating_ips.c.id == floating_ip_id)
    connection.execute(
        floating_ips.update()
        .where(floating_ips.c.id == floating_ip_id)
        .values(port_id=None, fixed_ip_address=None, router_id=None, status="DOWN")
    )


def delete(connection: sa.Connection, row: Mapping[str, Any]) -> None:
    """With what is forwarded and its port on the external network."""
    connection.execute(port_forwardings.delete().where(port_forwardings.c.floatingip_id == row["id"]))
    base.delete(connection, floating_ips, row["id"])
    base.delete(connection, ports, row["floating_port_id"])


# -- port forwarding ---------------------------------------------------------------


def forwarding_view(row: Mapping[str, Any]) -> dict[str, Any]:
    """As shown: single ports and ranges."""
    external = f"{row['external_port']}:{row['external_port_last']}"
    internal = f"{row['internal_port']}:{row['internal_port_last']}"
    result = {
        "id": row["id"],
        "protocol": row["protocol"],
        "internal_ip_address": row["internal_ip_address"],
        "internal_port_id": row["internal_port_id"],
        "description": row["description"],
        "external_port_range": external,
        "internal_port_range": internal,
    }
    if row["external_port"] == row["external_port_last"]:
        result.update(external_port=row["external_port"], internal_port=row["internal_port"])
    return result


def forwardings(connection: sa.Connection, floating_ip_id: str) -> list[dict[str, Any]]:
    statement = sa.select(port_forwardings).where(port_forwardings.c.floatingip_id == floating_ip_id)
    statement = statement.order_by(port_forwardings.c.external_port, port_forwardings.c.id)
    return [dict(row) for row in connection.execute(statement).mappings()]


def forwarding(connection: sa.Connection, floating_ip_id: str, identifier: str) -> dict[str, Any]:
    """:raises NotFound:"""
    for row in forwardings(connection, floating_ip_id):
        if row["id"] == identifier:
            return row
    raise not_found("PortForwardingNotFound", "Port Forwarding", identifier)


def set_forwarding(
    connection: sa.Connection,
    floating_ip: Mapping[str, Any],
    values: Mapping[str, Any],
    identifier: str | None,
) -> str:
    """Insert, or with ``identifier`` change; the caller holds the floating IP's row.

    :raises BadRequest: an external port would lead to two places (as upstream answers).
    """
    for other in forwardings(connection, floating_ip["id"]):
        if other["id"] == identifier or other["protocol"] != values["protocol"]:
            continue
        if (
            values["external_port"] <= other["external_port_last"]
            and other["external_port"] <= values["external_port_last"]
        ):
            raise bad_request(
                "BadRequest",
                "Bad port_forwarding request: A duplicate port forwarding entry with same attributes already"
                f" exists, conflicting values are {other['protocol']}"
                f" {other['external_port']}:{other['external_port_last']}.",
            )
    network_changes.note_floating_ips(connection, floating_ips.c.id == floating_ip["id"])
    if identifier is None:
        identifier = str(uuid.uuid4())
        connection.execute(
            port_forwardings.insert().values(**values, id=identifier, floatingip_id=floating_ip["id"])
        )
    else:
        connection.execute(
            port_forwardings.update().where(port_forwardings.c.id == identifier).values(**values)
        )
    return identifier


def delete_forwarding(connection: sa.Connection, identifier: str) -> None:
    holder = sa.select(port_forwardings.c.floatingip_id).where(port_forwardings.c.id == identifier)
    network_changes.note_floating_ips(connection, floating_ips.c.id.in_(holder))
    connection.execute(port_forwardings.delete().where(port_forwardings.c.id == identifier))


def set_router(connection: sa.Connection, floating_ip_id: str, router_id: str | None) -> None:
    """The router of a floating IP that forwards single ports."""
    network_changes.note_floating_ips(connection, floating_ips.c.id == floating_ip_id)
    base.change(connection, floating_ips, floating_ip_id, {"router_id": router_id, "status": "DOWN"})
