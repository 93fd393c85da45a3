"""Subnet pools and address scopes: handing prefixes to subnets without overlap."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from db import network_base as base
from db.network_base import TABLES
from db.network_errors import bad_request, conflict
from db.rows import rows_of

pools = TABLES["subnet_pools"]
scopes = TABLES["address_scopes"]
subnets = TABLES["subnets"]
RBAC, SCOPE_RBAC = "subnetpool", "address_scope"
Net = ipaddress.IPv4Network | ipaddress.IPv6Network


def _expand(connection: sa.Connection, rows: Sequence[dict[str, Any]], viewer: base.Viewer) -> None:
    base.add_shared(connection, rows, viewer, RBAC)


def _expand_scopes(connection: sa.Connection, rows: Sequence[dict[str, Any]], viewer: base.Viewer) -> None:
    base.add_shared(connection, rows, viewer, SCOPE_RBAC)


MODEL = base.Model(
    name="subnetpool",
    noun="Subnet pool",
    not_found_type="SubnetPoolNotFound",
    table=pools,
    columns=base.columns_of(pools),
    filters={"shared": base.shared_filter(RBAC, pools.c.id)},
    expand=_expand,
    rbac_type=RBAC,
)
SCOPE_MODEL = base.Model(
    name="address_scope",
    noun="Address scope",
    not_found_type="AddressScopeNotFound",
    table=scopes,
    columns=base.columns_of(scopes),
    filters={"shared": base.shared_filter(SCOPE_RBAC, scopes.c.id)},
    expand=_expand_scopes,
    rbac_type=SCOPE_RBAC,
    tagged=False,
)


def default(connection: sa.Connection, ip_version: int) -> str | None:
    """The id of the default pool of an IP version."""
    statement = sa.select(pools.c.id).where(pools.c.is_default.is_(True), pools.c.ip_version == ip_version)
    return connection.execute(statement.limit(1)).scalar()


def compact(prefixes: Sequence[str]) -> list[str]:
    """Sorted, adjacent ones merged, as upstream keeps them."""
    return [str(each) for each in ipaddress.collapse_addresses(ipaddress.ip_network(p) for p in prefixes)]  # type: ignore[type-var]


def used(connection: sa.Connection, pool_id: str) -> list[tuple[Net, str]]:
    """(prefix, project) of the pool's subnets."""
    rows = connection.execute(
        sa.select(subnets.c.cidr, subnets.c.project_id).where(subnets.c.subnetpool_id == pool_id)
    )
    return [(ipaddress.ip_network(cidr), project_id) for cidr, project_id in rows]


def allocate(
    connection: sa.Connection,
    pool: Mapping[str, Any],
    project_id: str,
    prefixlen: int | None,
    cidr: str | None,
) -> str:
    """A prefix of the pool that no subnet has: ``cidr``, or any of ``prefixlen``.

    The pool's row is changed first, so that allocations follow one another.
    :raises BadRequest: of a length that the pool does not give. :raises Conflict: none is left.
    """
    base.change(connection, pools, pool["id"], {})
    length = ipaddress.ip_network(cidr).prefixlen if cidr else (prefixlen or pool["default_prefixlen"])
    if length < pool["min_prefixlen"]:
        raise bad_request(
            "MinPrefixSubnetAllocationError",
            f"Unable to allocate subnet with prefix length {length}, minimum allowed prefix is"
            f" {pool['min_prefixlen']}.",
        )
    if length > pool["max_prefixlen"]:
        raise bad_request(
            "MaxPrefixSubnetAllocationError",
            f"Unable to allocate subnet with prefix length {length}, maximum allowed prefix is"
            f" {pool['max_prefixlen']}.",
        )
    taken = used(connection, pool["id"])
    _check_quota(pool, taken, project_id, length)
    prefixes = [ipaddress.ip_network(prefix) for prefix in pool["prefixes"]]
    if cidr:
        wanted = ipaddress.ip_network(cidr)
        inside = any(wanted.version == each.version and wanted.subnet_of(each) for each in prefixes)  # type: ignore[arg-type]
        if inside and not any(wanted.overlaps(other) for other, _ in taken):
            return cidr
        raise conflict(
            "SubnetAllocationError",
            "Failed to allocate subnet: Cannot allocate requested subnet from the available set of prefixes.",
        )
    for prefix in prefixes:
        if (found := _first_free(prefix, length, [other for other, _ in taken])) is not None:
            return str(found)
    raise conflict(
        "SubnetAllocationError",
        f"Failed to allocate subnet: Insufficient prefix space to allocate subnet size /{length}.",
    )


def onboard(connection: sa.Connection, pool: Mapping[str, Any], network_id: str) -> list[dict[str, Any]]:
    """Make a network's subnets (of the pool's IP version) the pool's; which they are.

    Whoever calls makes the pool's prefixes hold them. :raises BadRequest: one overlaps a subnet of the pool.
    """
    base.change(connection, pools, pool["id"], {})
    taken = used(connection, pool["id"])
    mine = sa.select(subnets).where(
        subnets.c.network_id == network_id, subnets.c.ip_version == pool["ip_version"]
    )
    found = rows_of(connection, mine.order_by(subnets.c.id))
    for subnet in found:
        if any(ipaddress.ip_network(subnet["cidr"]).overlaps(other) for other, _ in taken):
            raise bad_request(
                "IllegalSubnetPoolUpdate",
                f"Illegal subnetpool update : Onboarding subnet {subnet['id']}: {subnet['cidr']} conflicts with"
                f" allocated prefixes in subnet pool {pool['id']}.",
            )
        base.change(connection, subnets, subnet["id"], {"subnetpool_id": pool["id"]})
    return found


def _check_quota(
    pool: Mapping[str, Any], taken: Sequence[tuple[Net, str]], project_id: str, length: int
) -> None:
    """default_quota counts addresses (IPv4) or /64s (IPv6) per project."""
    if pool["default_quota"] is None:
        return
    unit = 32 if pool["ip_version"] == 4 else 64

    def weight(prefix: int) -> int:
        return 1 << max(unit - prefix, 0)

    mine = sum(weight(net.prefixlen) for net, owner in taken if owner == project_id)
    if mine + weight(length) > pool["default_quota"]:
        raise conflict("SubnetPoolQuotaExceeded", "Per-tenant subnet pool prefix quota exceeded.")


def _first_free(prefix: Net, length: int, taken: Sequence[Net]) -> Net | None:
    """The lowest free network of this length: hops over what is taken instead of trying each."""
    if length < prefix.prefixlen:
        return None
    size = 1 << (prefix.max_prefixlen - length)
    spans = sorted(
        (int(each.network_address), int(each.broadcast_address))
        for each in taken
        if each.version == prefix.version and each.overlaps(prefix)
    )
    start = int(prefix.network_address)
    for first, last in spans:
        if start + size - 1 < first:
            break
        if last >= start:
            start = -(-(last + 1) // size) * size
    if start + size - 1 > int(prefix.broadcast_address):
        return None
    return type(prefix)((start, length))


def check_scope(
    connection: sa.Connection, pool: Mapping[str, Any], prefixes: Sequence[str], scope_id: str | None
) -> None:
    """Pools of one address scope must not overlap. :raises Conflict:"""
    if scope_id is None:
        return
    others = connection.execute(
        sa.select(pools.c.id, pools.c.prefixes).where(
            pools.c.address_scope_id == scope_id, pools.c.id != pool.get("id", "")
        )
    )
    mine = [ipaddress.ip_network(prefix) for prefix in prefixes]
    for other_id, theirs in others:
        if any(one.overlaps(ipaddress.ip_network(prefix)) for one in mine for prefix in theirs):
            raise conflict(
                "AddressScopePrefixConflict",
                f"Failed to associate address scope: subnetpools within an address scope must have unique"
                f" prefixes; {other_id} has some of these.",
            )


def in_use(connection: sa.Connection, pool_id: str) -> bool:
    statement = sa.select(subnets.c.id).where(subnets.c.subnetpool_id == pool_id).limit(1)
    return connection.execute(statement).first() is not None
