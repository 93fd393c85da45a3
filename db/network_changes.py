"""Who writes to the Network API's tables leaves a note of what it was; after the commit the notes are rung.

``with collecting() as changes:`` around a transaction gathers what the functions of ``db/`` note on
the way, so that no operation has to think of it: inserting, changing and deleting rows pass
``db.network_base``, which calls the three functions at the end of this module. What is about to
be deleted is looked up first, as afterwards nobody could tell where it was.

Notes of a transaction that was rolled back or tried again are superfluous, never wrong:
a ring only asks to look.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import sqlalchemy as sa

from core.network_changes import NetworkChanges
from db.global_schema import global_metadata

TABLES = global_metadata.tables
ports = TABLES["ports"]
bindings = TABLES["port_bindings"]
members = TABLES["port_security_groups"]
routers = TABLES["routers"]
rules = TABLES["security_group_rules"]
floating_ips = TABLES["floating_ips"]
subnets = TABLES["subnets"]
placements = TABLES["dhcp_placements"]

_ROUTER_OWNERS = ("network:router_interface", "network:router_gateway")
_SILENT = {"name", "description", "project_id", "is_default"}
"""Columns that mean nothing on a host."""
_ADDRESSING = {"allowed_address_pairs", "mac_address"}
_current: contextvars.ContextVar[NetworkChanges | None] = contextvars.ContextVar("changes", default=None)


@contextlib.contextmanager
def collecting() -> Iterator[NetworkChanges]:
    """Gather what is noted in this thread inside the block."""
    changes = NetworkChanges()
    token = _current.set(changes)
    try:
        yield changes
    finally:
        _current.reset(token)


def note(**kinds: Iterable[str | None]) -> None:
    """``note(ports=[id], routers=[id])``; see ``NetworkChanges`` for the kinds. None: nothing."""
    changes = _current.get()
    if changes is not None:
        for kind, ids in kinds.items():
            getattr(changes, kind).update(each for each in ids if each)


def note_elsewhere(host: str, **kinds: Iterable[str]) -> None:
    """These are not on ``host`` any more ("" is no host)."""
    changes = _current.get()
    if changes is not None and host:
        for kind, ids in kinds.items():
            getattr(changes.at(host), kind).update(ids)


def note_left(connection: sa.Connection, port_id: str, *where: sa.ColumnElement[bool]) -> None:
    """The port leaves the hosts of those of its bindings that ``where`` names; call it before it does."""
    changes = _current.get()
    if changes is None:
        return
    statement = (
        sa.select(bindings.c.host, ports.c.network_id)
        .join(ports, ports.c.id == bindings.c.port_id)
        .where(bindings.c.port_id == port_id, *where)
    )
    for host, network_id in connection.execute(statement):
        changes.at(host).ports.add(port_id)
        changes.at(host).networks.add(network_id)


def note_members(connection: sa.Connection, port_id: str) -> None:
    """The groups that the port is in now will have other members."""
    if _current.get() is not None:
        statement = sa.select(members.c.security_group_id).where(members.c.port_id == port_id)
        note_groups(port_id, connection.execute(statement).scalars())


def note_groups(port_id: str, group_ids: Iterable[str]) -> None:
    """The port becomes a member of these groups, or is none any more."""
    changes = _current.get()
    if changes is not None:
        for group_id in group_ids:
            changes.members.setdefault(group_id, set()).add(port_id)


def note_floating_ips(connection: sa.Connection, *where: sa.ColumnElement[bool]) -> None:
    """Floating IPs leave, or get, a port and router; call it before the first and after the second."""
    changes = _current.get()
    if changes is None:
        return
    statement = sa.select(floating_ips.c.id, floating_ips.c.router_id, floating_ips.c.port_id).where(*where)
    for floating_ip_id, router_id, port_id in connection.execute(statement):
        note(floating_ips=[floating_ip_id], routers=[router_id], shown=[port_id])


# -- called by db.network_base -------------------------------------------------------


def inserted(table: sa.Table, row: Mapping[str, Any]) -> None:
    """A row was inserted."""
    if table is ports:
        note(ports=[row["id"]], created=[row["id"]])
        _note_own(row)
    elif table is subnets:
        note(networks=[row["network_id"]])
    elif table.name in ("routers", "floating_ips"):
        note(**{table.name: [row["id"]]})


def changed(table: sa.Table, identifier: str, values: Mapping[str, Any]) -> None:
    """A row was changed; no values: something that belongs to it was."""
    if values and set(values) <= _SILENT:
        return
    kind = "groups" if table.name == "security_groups" else table.name
    if kind in ("networks", "subnets", "ports", "routers", "floating_ips", "qos_policies", "address_groups",
                "groups"):  # fmt: skip
        note(**{kind: [identifier]})
    if table is ports and _ADDRESSING.intersection(values):
        note(addressed=[identifier])


def deleting(connection: sa.Connection, table: sa.Table, identifier: str) -> None:
    """A row is about to be deleted."""
    changes = _current.get()
    if changes is None:
        return
    if table is ports:
        found = connection.execute(sa.select(ports).where(ports.c.id == identifier)).mappings().first()
        if found is not None:
            row = dict(found)
            note_left(connection, identifier)
            note_members(connection, identifier)
            _note_own(row)
            if row["device_owner"].startswith("compute:"):
                changes.servers.add(("network-vif-deleted", row["device_id"], identifier))
    elif table.name == "networks":
        # (where its ports were is noted with them)
        statement = sa.select(placements.c.host).where(placements.c.network_id == identifier)
        for host in connection.execute(statement).scalars():
            changes.at(host).networks.add(identifier)
    elif table is routers:
        host = connection.execute(sa.select(routers.c.host).where(routers.c.id == identifier)).scalar()
        if host:
            changes.at(host).routers.add(identifier)
    elif table is subnets:
        statement = sa.select(subnets.c.network_id).where(subnets.c.id == identifier)
        note(networks=connection.execute(statement).scalars())
    elif table is floating_ips:
        note_floating_ips(connection, floating_ips.c.id == identifier)
    elif table.name == "security_groups":
        # rules that name it go with it
        naming = sa.select(rules.c.security_group_id).where(rules.c.remote_group_id == identifier).distinct()
        note(groups=connection.execute(naming).scalars())


def _note_own(port: Mapping[str, Any]) -> None:
    """A port of haneul's own comes or goes: it matters to its network, and to the router whose leg it is."""
    owner = port.get("device_owner") or ""
    if owner == "network:dhcp":
        note(networks=[port["network_id"]])
    elif owner in _ROUTER_OWNERS:
        note(networks=[port["network_id"]], routers=[port["device_id"]])
