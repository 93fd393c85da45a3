"""What one host's data plane has to look like, read from the Network API's tables.

``state`` answers an agent's question: everything of its host, or the things that it
names. The number of statements doesn't depend on how many they are (for each
kind of thing one, per 5,000 ids), and what a question costs depends on what it names,
not on how much there is: a port among thousands is asked for alone.

An agent is told about its own host only: a port that is not bound there, a network that
is not on it, a router that lives elsewhere are not in the answer, whoever asks.
Routers are in ``conductor.host_routers``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import sqlalchemy as sa

from conductor import host_routers
from conductor.host_parts import addresses_of, bandwidths
from db import dhcp_placement
from db import network_base as base
from db.network_base import TABLES
from db.network_hosts import PLUGGED, hosts_of, tunnel_addresses
from db.rows import rows_of, select_in
from lifecycle import host_network
from lifecycle.host_network import (
    Address,
    Bandwidth,
    Changed,
    Dhcp,
    HostNetwork,
    Members,
    Network,
    Port,
    Subnet,
)

ports = TABLES["ports"]
bindings = TABLES["port_bindings"]
networks = TABLES["networks"]
subnets = TABLES["subnets"]
allocations = TABLES["ip_allocations"]
members = TABLES["port_security_groups"]
groups = TABLES["security_groups"]
rules = TABLES["security_group_rules"]
address_groups = TABLES["address_groups"]
agents = TABLES["network_agents"]
routers = TABLES["routers"]

DHCP_OWNER = "network:dhcp"


def state(connection: sa.Connection, host: str, changed: Changed) -> HostNetwork:
    """The desired state of ``host``, as far as ``changed`` asks."""
    everything = changed.everything
    found = HostNetwork()
    port_rows = _ports(connection, host, None if everything else changed.ports)
    found.routers = host_routers.of_host(connection, host, None if everything else changed.routers)
    asked = set(changed.networks)
    if everything:
        asked = {row["network_id"] for row in port_rows}
        asked.update(each for router in found.routers.values() for each in host_routers.networks_of(router))
        asked |= dhcp_placement.all_placed_on(connection, host)
    network_rows = _on_host(connection, host, asked)
    memberships = _memberships(connection, [row["id"] for row in port_rows])
    addresses = addresses_of(connection, [row["id"] for row in port_rows])
    limits = bandwidths(connection, {row["policy_id"] for row in port_rows if row["policy_id"]})
    for row in port_rows:
        found.ports[row["id"]] = _port(row, addresses, memberships, limits)
    found.networks = _networks(connection, host, network_rows)
    used = {each for some in memberships.values() for each in some}
    found.groups = _groups(connection, used if everything else changed.groups)
    if everything:
        named = {
            rule.remote_group_id
            for group in found.groups.values()
            for rule in group.rules
            if rule.remote_group_id
        }
        found.members = _members_of(connection, named)
    elif changed.named or changed.members:
        named = _named_here(connection, host, changed.named | changed.members.keys())
        found.members = _members_of(connection, named & changed.named)
        parts = {each: ids for each, ids in changed.members.items() if each in named - changed.named}
        found.members.update(_parts_of(connection, parts))
    return found


# -- ports ------------------------------------------------------------------------


def _ports(connection: sa.Connection, host: str, ids: Collection[str] | None) -> list[dict[str, Any]]:
    """Ports on the host (one that is on its way here included), with their QoS policy."""
    statement = (
        sa.select(
            ports,
            # a port's own policy, else its network's
            sa.func.coalesce(ports.c.qos_policy_id, networks.c.qos_policy_id).label("policy_id"),
        )
        .join(bindings, bindings.c.port_id == ports.c.id)
        .join(networks, networks.c.id == ports.c.network_id)
        .where(bindings.c.host == host, PLUGGED)
    )
    if ids is None:
        return rows_of(connection, statement)
    return list(select_in(connection, statement, ports.c.id, ids))


def _memberships(connection: sa.Connection, port_ids: Collection[str]) -> dict[str, list[str]]:
    result: dict[str, list[str]] = {}
    statement = sa.select(members).order_by(members.c.security_group_id)
    for row in select_in(connection, statement, members.c.port_id, port_ids):
        result.setdefault(row["port_id"], []).append(row["security_group_id"])
    return result


def _port(
    row: Mapping[str, Any],
    addresses: Mapping[str, tuple[Address, ...]],
    memberships: Mapping[str, list[str]],
    limits: Mapping[str, tuple[Bandwidth, ...]],
) -> Port:
    return Port(
        id=row["id"],
        network_id=row["network_id"],
        project_id=row["project_id"],
        mac_address=row["mac_address"],
        admin_state_up=row["admin_state_up"],
        device_id=row["device_id"],
        device_owner=row["device_owner"],
        addresses=addresses.get(row["id"], ()),
        port_security_enabled=row["port_security_enabled"],
        security_group_ids=tuple(memberships.get(row["id"], ())),
        allowed_address_pairs=tuple(
            {**pair, "mac_address": pair["mac_address"] or row["mac_address"]}
            for pair in row["allowed_address_pairs"]
        ),
        extra_dhcp_opts=tuple(row["extra_dhcp_opts"]),
        dns_name=row["dns_name"],
        bandwidth=limits.get(row["policy_id"] or "", ()),
    )


# -- networks ---------------------------------------------------------------------


def _on_host(connection: sa.Connection, host: str, network_ids: Collection[str]) -> dict[str, set[str]]:
    """Of these networks those on ``host``: id → all hosts that they are on."""
    found = hosts_of(connection, network_ids)
    return {network_id: hosts for network_id, hosts in found.items() if host in hosts}


def _networks(connection: sa.Connection, host: str, on_host: Mapping[str, set[str]]) -> dict[str, Network]:
    mine: dict[str, list[Subnet]] = {network_id: [] for network_id in on_host}
    in_order = sa.select(subnets).order_by(subnets.c.created_at, subnets.c.id)
    for row in select_in(connection, in_order, subnets.c.network_id, on_host):
        mine[row["network_id"]].append(Subnet.from_dict({**row, "host_routes": tuple(row["host_routes"])}))
    dhcp = _dhcp(connection, on_host)
    for network_id, where in dhcp_placement.forbidden(connection, on_host):
        if where == host:
            dhcp.pop(network_id, None)
    placed = dhcp_placement.placed_on(connection, host, on_host)
    tunnels = tunnel_addresses(connection, set().union(*on_host.values()) - {host})
    result = {}
    for row in select_in(connection, sa.select(networks), networks.c.id, on_host):
        peers = (tunnels[other] for other in on_host[row["id"]] if other in tunnels)
        result[row["id"]] = Network(
            id=row["id"],
            project_id=row["project_id"],
            admin_state_up=row["admin_state_up"],
            mtu=row["mtu"],
            network_type=row["network_type"],
            physical_network=row["physical_network"],
            segmentation_id=row["segmentation_id"],
            dns_domain=row["dns_domain"],
            external=row["external"],
            subnets=tuple(mine[row["id"]]),
            dhcp=dhcp.get(row["id"]),
            placed=row["id"] in placed,
            peers=tuple(sorted(peers)) if row["network_type"] == "vxlan" else (),
        )
    return result


def _dhcp(connection: sa.Connection, network_ids: Collection[str]) -> dict[str, Dhcp]:
    statement = sa.select(ports.c.id, ports.c.network_id, ports.c.mac_address).where(
        ports.c.device_owner == DHCP_OWNER
    )
    rows = list(select_in(connection, statement, ports.c.network_id, network_ids))
    addresses = addresses_of(connection, [row["id"] for row in rows])
    return {
        row["network_id"]: Dhcp(row["id"], row["mac_address"], addresses[row["id"]])
        for row in rows
        if row["id"] in addresses
    }


# -- security groups ----------------------------------------------------------------


def _groups(connection: sa.Connection, asked: Collection[str]) -> dict[str, host_network.SecurityGroup]:
    """The rules of groups."""
    rule_rows = _rules(connection, asked)
    lists = {row["remote_address_group_id"] for row in rule_rows if row["remote_address_group_id"]}
    resolved = {
        row["id"]: tuple(row["addresses"])
        for row in select_in(connection, sa.select(address_groups), address_groups.c.id, lists)
    }
    by_group: dict[str, list[host_network.Rule]] = {}
    for row in rule_rows:
        rule = host_network.Rule.from_dict(
            {**row, "remote_addresses": resolved.get(row["remote_address_group_id"], ())}
        )
        by_group.setdefault(row["security_group_id"], []).append(rule)
    return {
        row["id"]: host_network.SecurityGroup(
            id=row["id"],
            stateful=row["stateful"],
            rules=tuple(by_group.get(row["id"], ())),
        )
        for row in select_in(connection, sa.select(groups), groups.c.id, asked)
    }


def _rules(connection: sa.Connection, group_ids: Collection[str]) -> list[dict[str, Any]]:
    statement = sa.select(rules).order_by(rules.c.created_at, rules.c.id)
    return list(select_in(connection, statement, rules.c.security_group_id, group_ids))


def naming_here(group_id: sa.ColumnElement[Any], host: sa.ColumnElement[Any] | str) -> base.Condition:
    """Does a port on ``host`` have a group with a rule that names this one as remote?"""
    return sa.exists().where(
        rules.c.remote_group_id == group_id,
        members.c.security_group_id == rules.c.security_group_id,
        bindings.c.port_id == members.c.port_id,
        bindings.c.host == host,
    )


def _named_here(connection: sa.Connection, host: str, group_ids: Collection[str]) -> set[str]:
    statement = sa.select(groups.c.id).where(naming_here(groups.c.id, host))
    return {row["id"] for row in select_in(connection, statement, groups.c.id, group_ids)}


def _members_of(connection: sa.Connection, group_ids: Collection[Any]) -> dict[str, Members]:
    """All members of groups."""
    found: dict[str, dict[str, list[str]]] = {group_id: {} for group_id in group_ids}
    for row in _addresses_of_members(connection, members.c.security_group_id, group_ids):
        found[row["security_group_id"]].setdefault(row["port_id"], []).append(row["ip_address"])
    return {group_id: Members(some) for group_id, some in found.items()}


def _parts_of(connection: sa.Connection, parts: Mapping[str, Collection[str]]) -> dict[str, Members]:
    """Of groups these ports, as far as they are members."""
    found: dict[str, dict[str, list[str]]] = {group_id: {} for group_id in parts}
    port_ids = {port_id for some in parts.values() for port_id in some}
    for row in _addresses_of_members(connection, members.c.port_id, port_ids):
        if row["port_id"] in parts.get(row["security_group_id"], ()):
            found[row["security_group_id"]].setdefault(row["port_id"], []).append(row["ip_address"])
    return {group_id: Members(some) for group_id, some in found.items()}


def _addresses_of_members(
    connection: sa.Connection, column: sa.ColumnElement[Any], ids: Collection[str]
) -> Iterator[dict[str, Any]]:
    """{"security_group_id", "port_id", "ip_address"}: what ports have, and what they may use besides."""
    which = (members.c.security_group_id, members.c.port_id)
    own = sa.select(*which, allocations.c.ip_address).join(
        allocations, allocations.c.port_id == members.c.port_id
    )
    yield from select_in(connection, own, column, ids)
    pairs = (
        sa.select(*which, ports.c.allowed_address_pairs)
        .join(ports, ports.c.id == members.c.port_id)
        .where(ports.c.allowed_address_pairs != [])
    )
    for row in select_in(connection, pairs, column, ids):
        for pair in row["allowed_address_pairs"]:
            yield {**row, "ip_address": pair["ip_address"]}
