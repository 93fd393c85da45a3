"""Which hosts a change of the Network API concerns, and what on them (global database).

A port concerns its hosts; a network all hosts that it is on, as they flood to one another; a
security group those with its ports, and, when its members change, those where a rule names it;
a router its host. The number of statements doesn't depend on how much has changed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection

import sqlalchemy as sa

from core.network_changes import Changed, NetworkChanges
from db.network_base import TABLES
from db.network_hosts import PLUGGED, hosts_of
from db.routing import GATEWAY, INTERFACE
from db.rows import select_in

ports = TABLES["ports"]
bindings = TABLES["port_bindings"]
networks = TABLES["networks"]
subnets = TABLES["subnets"]
members = TABLES["port_security_groups"]
rules = TABLES["security_group_rules"]
routers = TABLES["routers"]
floating_ips = TABLES["floating_ips"]
_ROUTER_OWNERS = (INTERFACE, GATEWAY)
_BOUND = sa.and_(ports.c.binding_host != "", ports.c.device_owner.not_like("network:%"))

Concerns = dict[str, Changed]
"""host → what it should look at"""
Pair = tuple[str, str]
"""(network, host): the network is on the host"""


class Known:
    """On which hosts each network was when they were last told of one another.

    A port that comes to a host where its network is already concerns no other host: so
    two thousand ports on one host don't ring its neighbours two thousand times. Kept in
    memory; after a start each pair is announced once more, which is harmless.
    """

    def __init__(self) -> None:
        self.naming = Naming()
        self._pairs: set[Pair] = set()
        self._lock = threading.Lock()

    def new(self, pairs: Collection[Pair]) -> set[str]:
        """Note the pairs; the networks that are on a host where they were not."""
        with self._lock:
            fresh = set(pairs) - self._pairs
            self._pairs |= fresh
        return {network_id for network_id, _ in fresh}

    def gone(self, pairs: Collection[Pair]) -> None:
        with self._lock:
            self._pairs.difference_update(pairs)


class Naming:
    """On which hosts a rule names a security group.

    To read that takes longer the more ports have such rules, and each port that comes or goes asks
    for it. So it is remembered for as long as it takes an agent to look at everything by itself. What may add
    a host is noted in between; a host too many is rung for nothing.
    """

    LIFE_S = 30.0

    def __init__(self) -> None:
        self._hosts: dict[str, set[str]] = {}
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()

    def known(self, group_ids: Collection[str]) -> dict[str, set[str]]:
        """Of those that needn't be read."""
        now = time.monotonic()
        with self._lock:
            return {each: set(self._hosts[each]) for each in group_ids if self._until.get(each, 0) > now}

    def put(self, found: dict[str, set[str]]) -> None:
        until = time.monotonic() + self.LIFE_S
        with self._lock:
            for group_id, hosts in found.items():
                self._hosts[group_id] = set(hosts)
                self._until[group_id] = until

    def also(self, group_id: str, host: str) -> None:
        with self._lock:
            if group_id in self._hosts:
                self._hosts[group_id].add(host)

    def forget(self, group_ids: Collection[str]) -> None:
        with self._lock:
            for each in group_ids:
                self._until.pop(each, None)
                self._hosts.pop(each, None)


def concerns(connection: sa.Connection, changes: NetworkChanges, known: Known) -> Concerns:
    """What each host has to look at."""
    result: Concerns = {}
    for host, gone in changes.hosts.items():
        result.setdefault(host, Changed()).add(gone)
    wanted = _expanded(connection, changes)
    pairs = _ports(connection, wanted, result)
    pairs |= _routers(connection, wanted.routers, result)
    _note_naming(connection, wanted, known.naming)
    _groups(connection, wanted, known.naming, result)
    _networks(connection, wanted, changes, known, pairs, result)
    return result


def networks_of(connection: sa.Connection, subnet_ids: Collection[str]) -> set[str]:
    """The networks of subnets."""
    statement = sa.select(subnets.c.network_id)
    return {row["network_id"] for row in select_in(connection, statement, subnets.c.id, subnet_ids)}


def networks_of_unbound(connection: sa.Connection, port_ids: Collection[str]) -> set[str]:
    """The networks of those ports that are on no host, except haneul's own."""
    statement = sa.select(ports.c.network_id).where(
        ports.c.binding_host == "", ports.c.device_owner.not_like("network:%")
    )
    return {row["network_id"] for row in select_in(connection, statement, ports.c.id, port_ids)}


def _expanded(connection: sa.Connection, changes: NetworkChanges) -> NetworkChanges:
    """With what the changed things belong to, or are used by."""
    wanted = NetworkChanges()
    wanted.add(changes)
    wanted.networks |= networks_of(connection, changes.subnets)
    wanted.groups.update(
        row["security_group_id"]
        for row in select_in(
            connection,
            sa.select(rules.c.security_group_id),
            rules.c.remote_address_group_id,
            changes.address_groups,
        )
    )
    if changes.qos_policies:
        for table, kind in ((ports, "ports"), (routers, "routers"), (floating_ips, "floating_ips")):
            found = select_in(connection, sa.select(table.c.id), table.c.qos_policy_id, changes.qos_policies)
            getattr(wanted, kind).update(row["id"] for row in found)
        in_networks = sa.select(ports.c.id).join(networks, networks.c.id == ports.c.network_id).where(_BOUND)
        found = select_in(connection, in_networks, networks.c.qos_policy_id, changes.qos_policies)
        wanted.ports.update(row["id"] for row in found)
    wanted.routers.update(
        row["router_id"]
        for row in select_in(
            connection, sa.select(floating_ips.c.router_id), floating_ips.c.id, wanted.floating_ips
        )
        if row["router_id"]
    )
    return wanted


def _ports(connection: sa.Connection, wanted: NetworkChanges, result: Concerns) -> set[Pair]:
    """Changed ports on their hosts; of haneul's own, what they serve is added to ``wanted``."""
    pairs = set()
    plugged = sa.select(ports.c.id, ports.c.network_id, bindings.c.host).join(
        bindings, bindings.c.port_id == ports.c.id
    )
    ids = wanted.ports | wanted.addressed
    for row in select_in(connection, plugged.where(PLUGGED), ports.c.id, ids):
        result.setdefault(row["host"], Changed()).ports.add(row["id"])
        pairs.add((row["network_id"], row["host"]))
    own = sa.select(ports.c.network_id, ports.c.device_owner, ports.c.device_id).where(
        ports.c.device_owner.like("network:%")
    )
    for row in select_in(connection, own, ports.c.id, ids):
        if row["device_owner"] in _ROUTER_OWNERS:
            wanted.routers.add(row["device_id"])
        else:
            wanted.networks.add(row["network_id"])
    return pairs


def _routers(connection: sa.Connection, router_ids: Collection[str], result: Concerns) -> set[Pair]:
    placed = sa.select(routers.c.id, routers.c.host).where(routers.c.host != "")
    hosts = {row["id"]: row["host"] for row in select_in(connection, placed, routers.c.id, router_ids)}
    for router_id, host in hosts.items():
        result.setdefault(host, Changed()).routers.add(router_id)
    legs = sa.select(ports.c.device_id, ports.c.network_id).where(ports.c.device_owner.in_(_ROUTER_OWNERS))
    return {
        (row["network_id"], hosts[row["device_id"]])
        for row in select_in(connection, legs, ports.c.device_id, hosts)
    }


def _note_naming(connection: sa.Connection, wanted: NetworkChanges, naming: Naming) -> None:
    """Where ports have come to, their groups' rules may name others; other rules may name other groups."""
    by_port = (
        sa.select(rules.c.remote_group_id, bindings.c.host)
        .join(members, members.c.security_group_id == rules.c.security_group_id)
        .join(bindings, bindings.c.port_id == members.c.port_id)
        .where(rules.c.remote_group_id.is_not(None))
    )
    for row in select_in(connection, by_port, members.c.port_id, wanted.ports | wanted.addressed):
        naming.also(row["remote_group_id"], row["host"])
    by_rule = sa.select(rules.c.remote_group_id).where(rules.c.remote_group_id.is_not(None))
    found = select_in(connection, by_rule, rules.c.security_group_id, wanted.groups)
    naming.forget({row["remote_group_id"] for row in found})


def _groups(connection: sa.Connection, wanted: NetworkChanges, naming: Naming, result: Concerns) -> None:
    """Groups with other rules where they have ports; other members where rules name their group."""
    having = (
        sa.select(members.c.security_group_id.label("group_id"), bindings.c.host)
        .join(bindings, bindings.c.port_id == members.c.port_id)
        .distinct()
    )
    for row in select_in(connection, having, members.c.security_group_id, wanted.groups):
        result.setdefault(row["host"], Changed()).groups.add(row["group_id"])
    changed = {group_id: set(port_ids) for group_id, port_ids in wanted.members.items()}
    mine = sa.select(members)
    for row in select_in(connection, mine, members.c.port_id, wanted.addressed):
        changed.setdefault(row["security_group_id"], set()).add(row["port_id"])
    for group_id, hosts in _hosts_naming(connection, changed, naming).items():
        for host in hosts:
            into = result.setdefault(host, Changed()).members
            into.setdefault(group_id, set()).update(changed[group_id])


def _hosts_naming(
    connection: sa.Connection, group_ids: Collection[str], naming: Naming
) -> dict[str, set[str]]:
    found = naming.known(group_ids)
    unknown: dict[str, set[str]] = {each: set() for each in group_ids if each not in found}
    statement = (
        sa.select(rules.c.remote_group_id.label("group_id"), bindings.c.host)
        .join(members, members.c.security_group_id == rules.c.security_group_id)
        .join(bindings, bindings.c.port_id == members.c.port_id)
        .distinct()
    )
    for row in select_in(connection, statement, rules.c.remote_group_id, unknown):
        unknown[row["group_id"]].add(row["host"])
    naming.put(unknown)
    return {**found, **unknown}


def _networks(
    connection: sa.Connection,
    wanted: NetworkChanges,
    changes: NetworkChanges,
    known: Known,
    pairs: Collection[Pair],
    result: Concerns,
) -> None:
    """Networks that changed, that came to a host, or that have left one: all their hosts are to know."""
    left = {(network_id, host) for host, gone in changes.hosts.items() for network_id in gone.networks}
    fresh = known.new(pairs)
    everywhere = hosts_of(connection, wanted.networks | fresh | {network_id for network_id, _ in left})
    really_left = {
        (network_id, host) for network_id, host in left if host not in everywhere.get(network_id, ())
    }
    known.gone(really_left)
    for network_id in wanted.networks | fresh | {network_id for network_id, _ in really_left}:
        for host in everywhere.get(network_id, ()):
            result.setdefault(host, Changed()).networks.add(network_id)
