"""Ports: rows with addresses, security groups and bindings (global database)."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exc

from core.errors import NotFound
from db import addresses, network_changes
from db import network_base as base
from db.network_base import TABLES, Viewer
from db.network_errors import bad_request, conflict, not_found
from db.routing import GATEWAY, INTERFACE

ports = TABLES["ports"]
networks = TABLES["networks"]
subnets = TABLES["subnets"]
ip_allocations = TABLES["ip_allocations"]
port_bindings = TABLES["port_bindings"]
port_security_groups = TABLES["port_security_groups"]
security_groups = TABLES["security_groups"]
routers = TABLES["routers"]
UNBOUND = {"vif_type": "unbound", "vif_details": {}}
WIRED = {"vif_type": "bridge", "vif_details": {}}
DISTRIBUTED = {"vif_type": "distributed", "vif_details": {}}
DHCP = "network:dhcp"
_MAC_ATTEMPTS = 16


def _expand(connection: sa.Connection, rows: Sequence[dict[str, Any]], viewer: Viewer) -> None:
    by_id = {row["id"]: row for row in rows}
    for row in rows:
        row.update(fixed_ips=[], security_groups=[], binding=UNBOUND, network_dns_domain="")
    ids = list(by_id)
    for port_id, subnet_id, address, domain in connection.execute(
        sa.select(
            ip_allocations.c.port_id,
            ip_allocations.c.subnet_id,
            ip_allocations.c.ip_address,
            networks.c.dns_domain,
        )
        .join(ports, ports.c.id == ip_allocations.c.port_id)
        .join(networks, networks.c.id == ports.c.network_id)
        .where(ip_allocations.c.port_id.in_(ids))
        .order_by(ip_allocations.c.position, ip_allocations.c.ip_address)
    ):
        by_id[port_id]["fixed_ips"].append({"subnet_id": subnet_id, "ip_address": address})
        by_id[port_id]["network_dns_domain"] = domain
    for port_id, group_id in connection.execute(
        sa.select(port_security_groups)
        .where(port_security_groups.c.port_id.in_(ids))
        .order_by(port_security_groups.c.security_group_id)
    ):
        by_id[port_id]["security_groups"].append(group_id)
    for binding in connection.execute(
        sa.select(port_bindings).where(port_bindings.c.port_id.in_(ids), port_bindings.c.status == "ACTIVE")
    ).mappings():
        by_id[binding["port_id"]]["binding"] = dict(binding)
    _expand_own(connection, rows)


def _expand_own(connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> None:
    """haneul's own ports have no bindings: a router's legs are where it is, a DHCP port on all hosts."""
    legs = [row for row in rows if row["device_owner"] in (INTERFACE, GATEWAY)]
    hosts: dict[str, str] = {}
    if legs:
        ids = {row["device_id"] for row in legs}
        found = sa.select(routers.c.id, routers.c.host).where(routers.c.id.in_(ids), routers.c.host != "")
        hosts = dict(connection.execute(found).tuples().all())
    for row in legs:
        if row["device_id"] in hosts:
            row.update(binding_host=hosts[row["device_id"]], binding=WIRED)
    for row in rows:
        if row["device_owner"] == DHCP and row["binding"] is UNBOUND:
            row["binding"] = DISTRIBUTED


def _host_filter(values: Sequence[str], _viewer: Viewer) -> base.Condition:
    leg = sa.and_(
        ports.c.device_owner.in_([INTERFACE, GATEWAY]),
        sa.exists().where(routers.c.id == ports.c.device_id, base.matches(routers.c.host, values)),
    )
    bound = sa.and_(
        base.matches(ports.c.binding_host, values), ports.c.device_owner.not_in([INTERFACE, GATEWAY])
    )
    return sa.or_(bound, leg)


def _fixed_ips_filter(values: Sequence[str], _viewer: Viewer) -> base.Condition:
    """``ip_address=A``, ``subnet_id=S``, ``ip_address_substr=T``: one address that fits them all."""
    wanted: dict[str, list[str]] = {}
    for value in values:
        for part in value.split(","):
            key, _, text = part.partition("=")
            wanted.setdefault(key, []).append(text)
    conditions: list[base.Condition] = [ip_allocations.c.port_id == ports.c.id]
    for key, texts in wanted.items():
        if key == "ip_address_substr":
            conditions.append(
                base.either(ip_allocations.c.ip_address.contains(text, autoescape=True) for text in texts)
            )
        elif key in ("ip_address", "subnet_id"):
            conditions.append(ip_allocations.c[key].in_(texts))
        else:
            raise bad_request("InvalidInput", f"fixed_ips can't be filtered by {key!r}.")
    return sa.exists().where(*conditions)


def _group_filter(values: Sequence[str], _viewer: Viewer) -> base.Condition:
    return sa.exists().where(
        port_security_groups.c.port_id == ports.c.id,
        port_security_groups.c.security_group_id.in_(list(values)),
    )


def _vif_type_filter(values: Sequence[str], _viewer: Viewer) -> base.Condition:
    active = [port_bindings.c.port_id == ports.c.id, port_bindings.c.status == "ACTIVE"]
    found: base.Condition = sa.exists().where(*active, port_bindings.c.vif_type.in_(list(values)))
    return sa.or_(found, sa.not_(sa.exists().where(*active))) if "unbound" in values else found


def in_own_network(viewer: Viewer) -> base.Condition:
    """Who owns a network sees the ports in it."""
    return sa.exists().where(networks.c.id == ports.c.network_id, networks.c.project_id == viewer.project_id)


MODEL = base.Model(
    name="port",
    noun="Port",
    not_found_type="PortNotFound",
    table=ports,
    columns={
        **base.columns_of(ports, "vnic_type", "binding_host", "binding_profile"),
        "binding:host_id": ports.c.binding_host,
        "binding:vnic_type": ports.c.vnic_type,
    },
    filters={
        "fixed_ips": _fixed_ips_filter,
        "security_groups": _group_filter,
        "binding:host_id": _host_filter,
        "binding:vif_type": _vif_type_filter,
    },
    expand=_expand,
    visible=in_own_network,
)


def create(
    connection: sa.Connection,
    values: Mapping[str, Any],
    network_subnets: Sequence[Mapping[str, Any]],
    fixed_ips: Sequence[Mapping[str, Any]] | None,
    security_group_ids: Iterable[str],
    base_mac: str,
) -> str:
    """Insert a port with its addresses and groups.

    ``values["mac_address"]`` None: a new one is made.
    :raises Conflict: MAC or address taken, no address left. :raises BadRequest: impossible addresses.
    """
    row = dict(values)
    identifier, mac = _insert(connection, row, base_mac)
    addresses.allocate(
        connection, identifier, row["network_id"], network_subnets, mac, row["device_owner"], fixed_ips
    )
    set_groups(connection, identifier, security_group_ids)
    return identifier


def _insert(connection: sa.Connection, row: dict[str, Any], base_mac: str) -> tuple[str, str]:
    wanted = row.pop("mac_address", None)
    for _ in range(_MAC_ATTEMPTS):
        mac = wanted or new_mac(base_mac)
        try:
            with connection.begin_nested():
                return base.insert(connection, ports, {**row, "mac_address": mac}), mac
        except db_exc.DBDuplicateEntry as error:
            if wanted is not None:
                raise mac_in_use(row["network_id"], mac) from error
        except db_exc.DBReferenceError as error:
            # the network went away since it was looked at
            raise not_found("NetworkNotFound", "Network", row["network_id"]) from error
    raise conflict(
        "MacAddressGenerationFailure", f"Unable to generate unique mac on network {row['network_id']}."
    )


def mac_in_use(network_id: str, mac: str) -> Exception:
    return conflict(
        "MacAddressInUse",
        f"Unable to complete operation for network {network_id}. The mac address {mac} is in use.",
    )


def new_mac(base_mac: str) -> str:
    """``base_mac`` (fa:16:3e:00:00:00; zero octets from the fourth on are filled at random)."""
    octets = base_mac.lower().split(":")
    fixed = 4 if octets[3] != "00" else 3
    return ":".join(octets[:fixed] + [f"{random.randrange(256):02x}" for _ in range(6 - fixed)])


def set_groups(connection: sa.Connection, port_id: str, group_ids: Iterable[str]) -> None:
    """The port's security groups, checked by the caller to exist for the asker."""
    network_changes.note(ports=[port_id], shown=[port_id])
    network_changes.note_members(connection, port_id)
    connection.execute(port_security_groups.delete().where(port_security_groups.c.port_id == port_id))
    rows = [{"port_id": port_id, "security_group_id": each} for each in dict.fromkeys(group_ids)]
    if not rows:
        return
    network_changes.note_groups(port_id, [row["security_group_id"] for row in rows])
    try:
        with connection.begin_nested():
            connection.execute(port_security_groups.insert(), rows)
    except db_exc.DBReferenceError as error:
        raise NotFound(
            "A security group of the port was deleted meanwhile.", code="network.SecurityGroupNotFound"
        ) from error


def update(
    connection: sa.Connection, port: Mapping[str, Any], values: Mapping[str, Any], revision: int | None = None
) -> None:
    """Columns of a port. :raises Conflict: the MAC is another port's."""
    try:
        with connection.begin_nested():
            base.change(connection, ports, port["id"], values, revision)
    except db_exc.DBDuplicateEntry as error:
        raise mac_in_use(port["network_id"], str(values.get("mac_address"))) from error


def bind(connection: sa.Connection, port_id: str, host: str, values: Mapping[str, Any]) -> None:
    """Make ``host`` the port's only active binding; "" unbinds it."""
    replaced = sa.or_(port_bindings.c.status == "ACTIVE", port_bindings.c.host == host)
    network_changes.note(ports=[port_id])
    network_changes.note_left(connection, port_id, replaced, port_bindings.c.host != host)
    connection.execute(port_bindings.delete().where(port_bindings.c.port_id == port_id, replaced))
    if host:
        connection.execute(
            port_bindings.insert().values(**{**values, "port_id": port_id, "host": host, "status": "ACTIVE"})
        )


def bindings(connection: sa.Connection, port_id: str) -> list[dict[str, Any]]:
    statement = sa.select(port_bindings).where(port_bindings.c.port_id == port_id)
    return [dict(row) for row in connection.execute(statement.order_by(port_bindings.c.host)).mappings()]


def add_binding(connection: sa.Connection, port_id: str, values: Mapping[str, Any]) -> None:
    """A further, inactive binding. :raises Conflict: the port has one for that host."""
    network_changes.note(ports=[port_id])
    try:
        with connection.begin_nested():
            connection.execute(port_bindings.insert().values(port_id=port_id, **values))
    except db_exc.DBDuplicateEntry as error:
        raise conflict(
            "PortBindingAlreadyExists",
            f"Binding for port {port_id} on host {values['host']} already exists.",
        ) from error


def change_binding(connection: sa.Connection, port_id: str, host: str, values: Mapping[str, Any]) -> None:
    network_changes.note(ports=[port_id])
    connection.execute(
        port_bindings.update()
        .where(port_bindings.c.port_id == port_id, port_bindings.c.host == host)
        .values(**values)
    )


def delete_binding(connection: sa.Connection, port_id: str, host: str) -> None:
    network_changes.note_left(connection, port_id, port_bindings.c.host == host)
    connection.execute(
        port_bindings.delete().where(port_bindings.c.port_id == port_id, port_bindings.c.host == host)
    )


def delete(connection: sa.Connection, port_id: str) -> None:
    """The port with its addresses, groups and bindings; what points at it must be gone."""
    try:
        base.delete(connection, ports, port_id)
    except db_exc.DBReferenceError as error:
        raise conflict("PortInUse", f"Port {port_id} is still in use by a router or floating IP.") from error


def add_automatic_addresses(connection: sa.Connection, subnet: Mapping[str, Any]) -> None:
    """A new SLAAC subnet: the hosts in its network make addresses of it."""
    rows = connection.execute(
        sa.select(ports.c.id, ports.c.mac_address).where(
            ports.c.network_id == subnet["network_id"],
            ports.c.device_owner.not_in(addresses.ROUTER_OWNERS),
            ports.c.device_owner != "network:floatingip",
        )
    ).all()
    for port_id, mac in rows:
        wish = addresses.Wish(subnet, addresses.eui64(subnet["cidr"], mac))
        # behind the addresses that the port has
        addresses.take(connection, [wish], port_id, subnet["network_id"], addresses.MAX_FIXED_IPS)
        network_changes.note(ports=[port_id], addressed=[port_id])
