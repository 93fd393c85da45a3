"""Segments of networks: VLAN tags, VXLAN ids and flat uplinks, handed out atomically.

A segment is taken by inserting its row: the primary key decides a race.  Which
numbers there are to take is configuration, so that a range may grow without any
row being written.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import sqlalchemy as sa
from oslo_config import cfg
from oslo_db import exception as db_exc

from db.network_base import TABLES
from db.network_errors import conflict, invalid_input

allocations = TABLES["segment_allocations"]
GROUP = "network"
FLAT, VLAN, VXLAN = "flat", "vlan", "vxlan"
TYPES = (FLAT, VLAN, VXLAN)
_TRIES = 16
OPTS = [
    cfg.ListOpt(
        "project_network_types",
        default=[VXLAN],
        help="Kinds of network that projects get, tried in order: vxlan, vlan.",
    ),
    cfg.ListOpt("vni_ranges", default=["1:16777215"], help="VXLAN ids for networks: first:last, …"),
    cfg.ListOpt(
        "vlan_ranges",
        default=[],
        help="VLAN tags for projects' networks, physical_network:first:last; a bare physical_network"
        " lets administrators name tags on it.",
    ),
    cfg.ListOpt(
        "flat_networks",
        default=["*"],
        help="Physical networks on which an administrator may make a flat network; *: any.",
    ),
    cfg.IntOpt("physical_mtu", default=1500, min=68, help="MTU of the network under everything, in bytes."),
    cfg.IntOpt(
        "overlay_overhead", default=50, min=0, help="Bytes that VXLAN adds (70 when hosts meet over IPv6)."
    ),
]


def _pair(text: str) -> range:
    first, _, last = text.partition(":")
    return range(int(first), int(last) + 1)


class Segments:
    """The configured ranges, and taking from them."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        conf.register_opts(OPTS, group=GROUP)
        self._options = conf[GROUP]

    def _vlans(self) -> dict[str, list[range]]:
        result: dict[str, list[range]] = {}
        for text in self._options.vlan_ranges:
            physical, _, bounds = text.partition(":")
            result.setdefault(physical, []).extend([_pair(bounds)] if bounds else [])
        return result

    def largest_mtu(self, network_type: str) -> int:
        """What fits into a packet of the network under it."""
        overhead = self._options.overlay_overhead if network_type == VXLAN else 0
        return int(self._options.physical_mtu) - int(overhead)

    def take(
        self,
        connection: sa.Connection,
        network_id: str,
        network_type: str | None,
        physical_network: str | None,
        segmentation_id: int | None,
    ) -> tuple[str, str | None, int | None]:
        """A segment for a network: (type, physical network, id). What is None is chosen.

        :raises BadRequest: there can be no such segment. :raises Conflict: taken, or none is left.
        """
        if network_type is None:
            if physical_network is not None or segmentation_id is not None:
                raise invalid_input("provider:network_type is needed with the other provider attributes")
            return self._any(connection, network_id)
        if network_type not in TYPES:
            raise invalid_input(
                f"network_type value '{network_type}' not supported: one of {', '.join(TYPES)}"
            )
        self._check(network_type, physical_network, segmentation_id)
        if network_type == FLAT or segmentation_id is not None:
            number = segmentation_id or 0
            if not self._insert(connection, network_id, network_type, physical_network, number):
                raise _taken(network_type, physical_network, number)
            return network_type, physical_network, segmentation_id
        return self._from_ranges(connection, network_id, network_type, physical_network)

    def _any(self, connection: sa.Connection, network_id: str) -> tuple[str, str | None, int | None]:
        for network_type in self._options.project_network_types:
            try:
                return self._from_ranges(connection, network_id, network_type, None)
            except _NoneLeft:
                continue
        raise conflict(
            "NoNetworkAvailable",
            "Unable to create the network. No tenant network is available for allocation.",
        )

    def _check(self, network_type: str, physical_network: str | None, number: int | None) -> None:
        if network_type == VXLAN:
            if physical_network is not None:
                raise invalid_input("provider:physical_network specified for VXLAN network")
            if number is not None and not 1 <= number < 2**24:
                raise invalid_input(f"segmentation_id {number} is out of range (1 to {2**24 - 1})")
            return
        if network_type == FLAT:
            if not physical_network:
                raise invalid_input("physical_network required for flat provider network")
            if number is not None:
                raise invalid_input("segmentation_id prohibited for flat provider network")
            known = self._options.flat_networks
            if "*" not in known and physical_network not in known:
                raise invalid_input(
                    f"physical_network '{physical_network}' unknown for flat provider network"
                )
            return
        if number is not None and not physical_network:
            raise invalid_input("segmentation_id requires physical_network for VLAN provider network")
        if physical_network and physical_network not in self._vlans():
            raise invalid_input(f"physical_network '{physical_network}' unknown for VLAN provider network")
        if number is not None and not 1 <= number <= 4094:
            raise invalid_input(f"segmentation_id out of range (1 to 4094) for VLAN: {number}")

    def _from_ranges(
        self, connection: sa.Connection, network_id: str, network_type: str, physical_network: str | None
    ) -> tuple[str, str | None, int | None]:
        if network_type == VXLAN:
            pools: dict[str | None, list[range]] = {None: [_pair(text) for text in self._options.vni_ranges]}
        else:
            pools = {
                name: ranges
                for name, ranges in self._vlans().items()
                if physical_network in (None, name) and ranges
            }
        for physical, ranges in pools.items():
            for number in self._candidates(connection, network_type, physical, ranges):
                if self._insert(connection, network_id, network_type, physical, number):
                    return network_type, physical, number
        raise _NoneLeft(f"Unable to create the network. No {network_type} segment is left.")

    def _candidates(
        self, connection: sa.Connection, network_type: str, physical: str | None, ranges: Sequence[range]
    ) -> list[int]:
        """Free numbers to try: random ones, so that concurrent creations rarely meet."""
        size = sum(len(numbers) for numbers in ranges)
        taken = sa.select(allocations.c.segmentation_id).where(
            allocations.c.network_type == network_type, allocations.c.physical_network == (physical or "")
        )
        if size > 4096:
            tried = {_nth(ranges, random.randrange(size)) for _ in range(_TRIES)}
            used = set(
                connection.execute(taken.where(allocations.c.segmentation_id.in_(list(tried)))).scalars()
            )
            if tried - used:
                return list(tried - used)
        used = set(connection.execute(taken).scalars())
        free: list[int] = []
        for numbers in ranges:  # all are full but a few: look at every one
            for number in numbers:
                if number not in used:
                    free.append(number)
                    if len(free) >= 4096:
                        break
        return random.sample(free, min(len(free), _TRIES))

    def _insert(
        self,
        connection: sa.Connection,
        network_id: str,
        network_type: str,
        physical: str | None,
        number: int,
    ) -> bool:
        try:
            with connection.begin_nested():
                connection.execute(
                    allocations.insert().values(
                        network_type=network_type,
                        physical_network=physical or "",
                        segmentation_id=number,
                        network_id=network_id,
                    )
                )
        except db_exc.DBDuplicateEntry:
            return False
        return True


class _NoneLeft(Exception):
    """A range has nothing free."""


def _nth(ranges: Sequence[range], index: int) -> int:
    for numbers in ranges:
        if index < len(numbers):
            return numbers[index]
        index -= len(numbers)
    raise IndexError(index)


def _taken(network_type: str, physical: str | None, number: int) -> Exception:
    if network_type == FLAT:
        return conflict(
            "FlatNetworkInUse",
            f"Unable to create the flat network. Physical network {physical} is in use.",
        )
    if network_type == VLAN:
        return conflict(
            "VlanIdInUse",
            f"Unable to create the network. The VLAN {number} on physical network {physical} is in use.",
        )
    return conflict("TunnelIdInUse", f"Unable to create the network. The tunnel ID {number} is in use.")
