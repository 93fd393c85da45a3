"""Networks: rows, sharing, what is external, deletion (global database)."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exc

from db import network_base as base
from db.network_base import EVERYONE, EXTERNAL, SHARED, TABLES, Viewer
from db.network_errors import conflict, invalid_input
from db.segments import Segments

networks = TABLES["networks"]
subnets = TABLES["subnets"]
ports = TABLES["ports"]
routers = TABLES["routers"]
RBAC = "network"
AUTO_DELETED = ("network:dhcp", "network:floatingip_agent_gateway", "network:routed")
"""Owners of ports that don't keep a network or a subnet from being deleted."""
_DEFAULT_MTU = 0


def _expand(connection: sa.Connection, rows: Sequence[dict[str, Any]], viewer: Viewer) -> None:
    base.add_shared(connection, rows, viewer, RBAC)
    ids = {row["id"]: row for row in rows}
    for row in rows:
        row.update(subnets=[], ipv4_address_scope=None, ipv6_address_scope=None)
    pools = TABLES["subnet_pools"]
    found = connection.execute(
        sa.select(subnets.c.id, subnets.c.network_id, subnets.c.ip_version, pools.c.address_scope_id)
        .outerjoin(pools, pools.c.id == subnets.c.subnetpool_id)
        .where(subnets.c.network_id.in_(list(ids)))
        .order_by(subnets.c.created_at, subnets.c.id)
    )
    for subnet_id, network_id, ip_version, scope in found:
        ids[network_id]["subnets"].append(subnet_id)
        if scope is not None:
            ids[network_id][f"ipv{ip_version}_address_scope"] = scope
    _add_zones(connection, rows)


def _add_zones(connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Where a network is served: with a DHCP port, wherever there is a DHCP agent. None: the default zone."""
    served = set(
        connection.execute(
            sa.select(ports.c.network_id).where(
                ports.c.network_id.in_([row["id"] for row in rows]), ports.c.device_owner == AUTO_DELETED[0]
            )
        ).scalars()
    )
    zones: list[str | None] = []
    if served:
        agents = TABLES["network_agents"]
        statement = sa.select(agents.c.availability_zone).where(agents.c.agent_type == "DHCP agent")
        zones = list(connection.execute(statement.distinct()).scalars())
    for row in rows:
        row["zones"] = zones if row["id"] in served else []


def _subnet_filter(values: Sequence[str], _viewer: Viewer) -> base.Condition:
    return sa.exists().where(subnets.c.network_id == networks.c.id, subnets.c.id.in_(list(values)))


def readable(viewer: Viewer) -> base.Condition:
    """Shared with the viewer, or external for it."""
    return base.granted(RBAC, networks.c.id, viewer, SHARED, EXTERNAL)


MODEL = base.Model(
    name="network",
    noun="Network",
    not_found_type="NetworkNotFound",
    table=networks,
    columns={
        **base.columns_of(networks, "external", "network_type", "physical_network", "segmentation_id"),
        "router:external": networks.c.external,
        "provider:network_type": networks.c.network_type,
        "provider:physical_network": networks.c.physical_network,
        "provider:segmentation_id": networks.c.segmentation_id,
    },
    filters={"shared": base.shared_filter(RBAC, networks.c.id), "subnets": _subnet_filter},
    expand=_expand,
    visible=readable,
    rbac_type=RBAC,
)


def create(connection: sa.Connection, segments: Segments, values: Mapping[str, Any]) -> str:
    """Insert a network with its segment; ``shared`` and ``external`` make RBAC policies.

    :raises BadRequest: no such segment, or an MTU that does not fit. :raises Conflict: taken.
    """
    row = dict(values)
    shared = row.pop("shared", False)
    wanted = [row.pop(key, None) for key in ("network_type", "physical_network", "segmentation_id")]
    mtu = row.pop("mtu", _DEFAULT_MTU)
    identifier = str(uuid.uuid4())
    # the row first: the segment points at it
    base.insert(connection, networks, {**row, "id": identifier, "network_type": "", "mtu": 0})
    kind, physical, number = segments.take(connection, identifier, *wanted)
    connection.execute(
        networks.update()
        .where(networks.c.id == identifier)
        .values(
            network_type=kind,
            physical_network=physical,
            segmentation_id=number,
            mtu=_checked_mtu(segments, kind, mtu),
        )
    )
    for action, asked in ((SHARED, shared), (EXTERNAL, row.get("external"))):
        if asked:
            set_rbac(connection, identifier, row["project_id"], action, present=True)
    return identifier


def _checked_mtu(segments: Segments, kind: str, mtu: int) -> int:
    largest = segments.largest_mtu(kind)
    if mtu > largest:
        raise invalid_input(f"Requested MTU is too big, maximum is {largest}")
    return mtu or largest


def set_rbac(
    connection: sa.Connection, network_id: str, project_id: str, action: str, *, present: bool
) -> None:
    """The policy that an attribute (shared, router:external) stands for."""
    policies = base.rbac_policies
    connection.execute(
        policies.delete().where(
            policies.c.object_id == network_id,
            policies.c.object_type == RBAC,
            policies.c.action == action,
            policies.c.target_project == EVERYONE,
        )
    )
    if present:
        connection.execute(
            policies.insert().values(
                id=str(uuid.uuid4()),
                project_id=project_id,
                object_type=RBAC,
                object_id=network_id,
                action=action,
                target_project=EVERYONE,
            )
        )


def check_unshared(connection: sa.Connection, network: Mapping[str, Any], target: str = EVERYONE) -> None:
    """May sharing with ``target`` end? :raises Conflict: others have ports or subnets there."""
    policies = base.rbac_policies
    remaining = list(
        connection.execute(
            sa.select(policies.c.target_project).where(
                policies.c.object_id == network["id"],
                policies.c.object_type == RBAC,
                policies.c.action == SHARED,
                policies.c.target_project != target,
            )
        ).scalars()
    )
    if EVERYONE in remaining:
        return
    for table in (ports, subnets):
        others = sa.select(table.c.id).where(
            table.c.network_id == network["id"],
            table.c.project_id.not_in([network["project_id"], "", *remaining]),
        )
        if target != EVERYONE:
            others = others.where(table.c.project_id == target)
        if table is ports:
            others = others.where(table.c.device_owner.not_like("network:%"))
        if connection.execute(others.limit(1)).first() is not None:
            raise conflict(
                "InvalidSharedSetting",
                f"Unable to reconfigure sharing settings for network {network['id']}."
                " Multiple tenants are using it.",
            )


def update(
    connection: sa.Connection,
    segments: Segments,
    network: Mapping[str, Any],
    values: Mapping[str, Any],
    revision: int | None = None,
) -> None:
    """:raises Conflict: what shall no longer be shared or external is in use as such."""
    row = dict(values)
    if "shared" in row:
        shared = row.pop("shared")
        if not shared:
            check_unshared(connection, network)
        set_rbac(connection, network["id"], network["project_id"], SHARED, present=shared)
    if "external" in row and row["external"] != network["external"]:
        if not row["external"]:
            _check_not_gateway(connection, network["id"])
        set_rbac(connection, network["id"], network["project_id"], EXTERNAL, present=row["external"])
    if "mtu" in row:
        row["mtu"] = _checked_mtu(segments, network["network_type"], row["mtu"])
    base.change(connection, networks, network["id"], row, revision)


def _check_not_gateway(connection: sa.Connection, network_id: str) -> None:
    used = sa.select(routers.c.id).where(routers.c.gateway_network_id == network_id).limit(1)
    if connection.execute(used).first() is not None:
        raise conflict(
            "ExternalNetworkInUse",
            f"External network {network_id} cannot be updated to be made non-external,"
            " since it has existing gateway ports.",
        )


def delete(connection: sa.Connection, network_id: str) -> None:
    """The network with its subnets and haneul's own ports in it.

    :raises Conflict: it has other ports, however late they came.
    """
    lock(connection, network_id)
    in_use = connection.execute(
        sa.select(ports.c.id).where(
            ports.c.network_id == network_id, ports.c.device_owner.not_in(AUTO_DELETED)
        )
    ).scalars()
    if found := list(in_use):
        raise _in_use(network_id, found)
    try:
        connection.execute(ports.delete().where(ports.c.network_id == network_id))
        for subnet_id in connection.execute(
            sa.select(subnets.c.id).where(subnets.c.network_id == network_id)
        ).scalars():
            base.delete(connection, subnets, subnet_id)
        base.delete(connection, networks, network_id)
    except db_exc.DBReferenceError as error:
        raise _in_use(network_id, []) from error


def _in_use(network_id: str, port_ids: Sequence[str]) -> Exception:
    some = f" These ports are there: {', '.join(port_ids[:5])}." if port_ids else ""
    return conflict(
        "NetworkInUse",
        f"Unable to complete operation on network {network_id}."
        f" There are one or more ports still in use on the network.{some}",
    )


def lock(connection: sa.Connection, network_id: str) -> dict[str, Any]:
    """Let changes of a network's subnets follow one another. :raises NotFound:"""
    connection.execute(
        networks.update()
        .where(networks.c.id == network_id)
        .values(revision_number=networks.c.revision_number + 1)
    )
    return base.find(connection, MODEL, network_id, base.GOD)
