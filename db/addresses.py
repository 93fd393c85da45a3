"""IPAM: which port has which address.

An address is taken by inserting its row in ``ip_allocations``: the primary key
(subnet, address) decides every race, between threads, processes and machines.
The choice comes before: a random free address, so that concurrent requests rarely
want the same one; who loses looks again, a bounded number of times.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import random
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exc

from db import network_changes
from db.network_base import TABLES
from db.network_errors import bad_request, conflict, invalid_input
from db.rows import select_in
from db.subnets import is_auto

ip_allocations = TABLES["ip_allocations"]
_ATTEMPTS = 8
_SAMPLE = 32
_SMALL = 4096
"""A pool of up to so many addresses is looked at whole."""
MAX_FIXED_IPS = 20
ROUTER_OWNERS = (
    "network:router_interface",
    "network:router_gateway",
    "network:router_interface_distributed",
    "network:ha_router_replicated_interface",
    "network:router_centralized_snat",
)


class _Exhausted(Exception):
    """A subnet has no address left."""


@dataclasses.dataclass(frozen=True)
class Wish:
    """An address that a port is to get: any of ``subnet``, or exactly ``address``."""

    subnet: Mapping[str, Any]
    address: str | None = None


def eui64(cidr: str, mac: str) -> str:
    """The address that a host makes from its MAC in a /64."""
    octets = bytes.fromhex(mac.replace(":", ""))
    interface = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    prefix = int(ipaddress.IPv6Network(cidr).network_address)
    return str(ipaddress.IPv6Address(prefix | int.from_bytes(interface)))


def _spans(subnet: Mapping[str, Any]) -> list[tuple[int, int]]:
    return [
        (int(ipaddress.ip_address(pool["start"])), int(ipaddress.ip_address(pool["end"])))
        for pool in subnet["allocation_pools"]
    ]


def size(subnet: Mapping[str, Any]) -> int:
    """How many addresses its pools have."""
    return sum(end - start + 1 for start, end in _spans(subnet))


def _text(subnet: Mapping[str, Any], number: int) -> str:
    return str(ipaddress.IPv4Address(number) if subnet["ip_version"] == 4 else ipaddress.IPv6Address(number))


def _number_at(spans: Sequence[tuple[int, int]], index: int) -> int:
    for start, end in spans:
        if index <= end - start:
            return start + index
        index -= end - start + 1
    raise IndexError(index)


def _candidates(connection: sa.Connection, subnet: Mapping[str, Any]) -> list[str]:
    """Addresses that are free now, in random order. :raises _Exhausted:"""
    spans, total = _spans(subnet), size(subnet)
    taken = sa.select(ip_allocations.c.ip_address).where(ip_allocations.c.subnet_id == subnet["id"])
    if total > _SMALL:
        picked = {_text(subnet, _number_at(spans, random.randrange(total))) for _ in range(_SAMPLE)}
        used = set(connection.execute(taken.where(ip_allocations.c.ip_address.in_(list(picked)))).scalars())
        if picked - used:
            return list(picked - used)
    used = set(connection.execute(taken).scalars())
    free: list[str] = []
    for start, end in spans:  # nearly full: look at every one
        for number in range(start, end + 1):
            if (text := _text(subnet, number)) not in used:
                free.append(text)
                if len(free) >= _SMALL:
                    break
    if not free:
        raise _Exhausted
    random.shuffle(free)
    return free


def _insert(connection: sa.Connection, subnet_id: str, address: str, port_id: str, position: int) -> bool:
    try:
        with connection.begin_nested():
            connection.execute(
                ip_allocations.insert().values(
                    subnet_id=subnet_id, ip_address=address, port_id=port_id, position=position
                )
            )
    except db_exc.DBDuplicateEntry:
        return False
    return True


def _take_any(connection: sa.Connection, subnet: Mapping[str, Any], port_id: str, position: int) -> str:
    """:raises _Exhausted: nothing is left, or all that was tried was lost to others."""
    for _ in range(_ATTEMPTS):
        for address in _candidates(connection, subnet)[:_SAMPLE]:
            if _insert(connection, subnet["id"], address, port_id, position):
                return address
    raise _Exhausted


def take(
    connection: sa.Connection, wishes: Sequence[Wish], port_id: str, network_id: str, position: int = 0
) -> list[tuple[str, str]]:
    """Take what is wished for: [(subnet id, address), …].

    :raises Conflict: an address is another port's, or a subnet has none left.
    """
    result = []
    for offset, wish in enumerate(wishes):
        at = position + offset
        if wish.address is None:
            try:
                address = _take_any(connection, wish.subnet, port_id, at)
            except _Exhausted:
                raise exhausted(connection, network_id, [wish.subnet]) from None
        else:
            address = wish.address
            if not _insert(connection, wish.subnet["id"], address, port_id, at):
                raise already_allocated(address, wish.subnet["id"])
        result.append((wish.subnet["id"], address))
    return result


def take_from_one(
    connection: sa.Connection,
    subnets: Sequence[Mapping[str, Any]],
    port_id: str,
    network_id: str,
    position: int = 0,
) -> tuple[str, str]:
    """An address from the first of the subnets that has one. :raises Conflict: none has."""
    for subnet in subnets:
        try:
            return subnet["id"], _take_any(connection, subnet, port_id, position)
        except _Exhausted:
            continue
    raise exhausted(connection, network_id, subnets)


def already_allocated(address: str, subnet_id: str) -> Exception:
    return conflict(
        "IpAddressAlreadyAllocated", f"IP address {address} already allocated in subnet {subnet_id}"
    )


def exhausted(connection: sa.Connection, network_id: str, subnets: Sequence[Mapping[str, Any]]) -> Exception:
    """409, with what is left where."""
    used = counts(connection, [subnet["id"] for subnet in subnets])
    left = [
        f"subnet {subnet['id']} ({subnet['cidr']}): {max(size(subnet) - used.get(subnet['id'], 0), 0)}"
        f" of {size(subnet)} pool addresses are left"
        for subnet in subnets
    ]
    return conflict(
        "IpAddressGenerationFailure",
        f"No more IP addresses available on network {network_id}: {'; '.join(left)}.",
    )


def counts(connection: sa.Connection, subnet_ids: Sequence[str]) -> dict[str, int]:
    """Addresses in use by subnet."""
    subnet_id = ip_allocations.c.subnet_id
    statement = sa.select(subnet_id, sa.func.count().label("used")).group_by(subnet_id)
    return {row["subnet_id"]: row["used"] for row in select_in(connection, statement, subnet_id, subnet_ids)}


# -- what a port asks for ----------------------------------------------------------


def wishes_of(
    fixed_ips: Sequence[Mapping[str, Any]],
    subnets: Sequence[Mapping[str, Any]],
    network_id: str,
    mac: str,
    device_owner: str,
) -> list[Wish]:
    """Addresses that were asked for by subnet, address or both.

    :raises BadRequest: a subnet or an address that is none of the network's.
    """
    if len(fixed_ips) > MAX_FIXED_IPS:
        raise bad_request("InvalidInput", f"Exceeded maximum amount of fixed ips per port: {MAX_FIXED_IPS}.")
    by_id = {subnet["id"]: subnet for subnet in subnets}
    result: list[Wish] = []
    for asked in fixed_ips:
        wish = _wish(asked, by_id, network_id, mac, device_owner)
        if wish.address is not None and any(
            other.address == wish.address and other.subnet["id"] == wish.subnet["id"] for other in result
        ):
            raise invalid_input(f"Duplicate IP address '{wish.address}'")
        result.append(wish)
    return result


def _wish(
    asked: Mapping[str, Any],
    by_id: Mapping[str, Mapping[str, Any]],
    network_id: str,
    mac: str,
    device_owner: str,
) -> Wish:
    subnet_id, text = asked.get("subnet_id"), asked.get("ip_address")
    if subnet_id is None and text is None:
        raise invalid_input("IP allocation requires subnet_id or ip_address")
    router = device_owner in ROUTER_OWNERS
    if subnet_id is not None and subnet_id not in by_id:
        raise invalid_input(
            f"Failed to create port on network {network_id}, because fixed_ips included invalid subnet"
            f" {subnet_id}"
        )
    if text is None:
        subnet = by_id[str(subnet_id)]
        if is_auto(subnet) and not router:
            return Wish(subnet, eui64(subnet["cidr"], mac))
        return Wish(subnet)
    address = ipaddress.ip_address(text)
    candidates = [by_id[str(subnet_id)]] if subnet_id is not None else list(by_id.values())
    for subnet in candidates:
        cidr = ipaddress.ip_network(subnet["cidr"])
        if address not in cidr:
            continue
        if not _host_address(address, cidr):
            break
        if is_auto(subnet) and not router and str(address) != eui64(subnet["cidr"], mac):
            raise bad_request(
                "AllocationOnAutoAddressSubnet",
                f"IPv6 address {address} can not be directly assigned to a port on subnet {subnet['id']} as"
                " the subnet is configured for automatic addresses",
            )
        return Wish(subnet, str(address))
    if subnet_id is not None:
        raise bad_request(
            "InvalidIpForSubnet", f"IP address {text} is not a valid IP for the specified subnet."
        )
    raise bad_request(
        "InvalidIpForNetwork",
        f"IP address {text} is not a valid IP for any of the subnets on the specified network.",
    )


def _host_address(address: Any, cidr: Any) -> bool:
    if cidr.prefixlen >= cidr.max_prefixlen - 1:
        return True
    if address == cidr.network_address:
        return False
    return cidr.version == 6 or address != cidr.broadcast_address


def allocate(
    connection: sa.Connection,
    port_id: str,
    network_id: str,
    subnets: Sequence[Mapping[str, Any]],
    mac: str,
    device_owner: str,
    fixed_ips: Sequence[Mapping[str, Any]] | None,
) -> list[tuple[str, str]]:
    """A new port's addresses. Without ``fixed_ips``: one of each IP version, and what SLAAC makes.

    :raises BadRequest: what was asked for can't be. :raises Conflict: taken or exhausted.
    """
    router = device_owner in ROUTER_OWNERS
    result: list[tuple[str, str]] = []
    if fixed_ips is None:
        usable = [subnet for subnet in subnets if _serves(subnet, device_owner)]
        if subnets and not usable:
            raise conflict(
                "IpAddressGenerationFailureNoMatchingSubnet",
                f"No valid service subnet for the given device owner, network {network_id}.",
            )
        for version in (4, 6):
            some = [
                subnet
                for subnet in usable
                if subnet["ip_version"] == version and (router or not is_auto(subnet))
            ]
            if some:
                result.append(take_from_one(connection, some, port_id, network_id, len(result)))
    else:
        wishes = wishes_of(fixed_ips, subnets, network_id, mac, device_owner)
        result = take(connection, wishes, port_id, network_id)
    if not router:
        have = {subnet_id for subnet_id, _ in result}
        automatic = [
            Wish(subnet, eui64(subnet["cidr"], mac))
            for subnet in subnets
            if is_auto(subnet) and subnet["id"] not in have
        ]
        result += take(connection, automatic, port_id, network_id, len(result))
    return result


def _serves(subnet: Mapping[str, Any], device_owner: str) -> bool:
    """Service types of a subnet: prefixes of device owners; none: for all."""
    types = subnet["service_types"]
    return not types or any(device_owner.startswith(each) for each in types)


def reallocate(
    connection: sa.Connection,
    port: Mapping[str, Any],
    subnets: Sequence[Mapping[str, Any]],
    fixed_ips: Sequence[Mapping[str, Any]],
    mac: str,
) -> list[tuple[str, str]]:
    """Change a port's addresses to ``fixed_ips``: what stays is kept, the rest goes and comes."""
    rows = connection.execute(
        sa.select(ip_allocations.c.subnet_id, ip_allocations.c.ip_address)
        .where(ip_allocations.c.port_id == port["id"])
        .order_by(ip_allocations.c.position)
    )
    old = [(subnet_id, address) for subnet_id, address in rows]
    wishes = wishes_of(fixed_ips, subnets, port["network_id"], mac, port["device_owner"])
    keep = [pair for pair in old if any((wish.subnet["id"], wish.address) == pair for wish in wishes)]
    open_wishes: list[Wish] = []
    for wish in wishes:
        if wish.address is not None:
            if (wish.subnet["id"], wish.address) not in keep:
                open_wishes.append(wish)
            continue
        # "some address of that subnet": the one that the port has will do
        same = [pair for pair in old if pair[0] == wish.subnet["id"] and pair not in keep]
        if same:
            keep.append(same[0])
        else:
            open_wishes.append(wish)
    if port["device_owner"] not in ROUTER_OWNERS:
        # hosts have their SLAAC addresses whether or not they are asked for
        automatic = {subnet["id"] for subnet in subnets if is_auto(subnet)}
        keep += [pair for pair in old if pair[0] in automatic and pair not in keep]
    gone = [pair for pair in old if pair not in keep]
    if gone or open_wishes:
        network_changes.note(ports=[port["id"]], addressed=[port["id"]])
    for subnet_id, address in gone:
        connection.execute(
            ip_allocations.delete().where(
                ip_allocations.c.subnet_id == subnet_id,
                ip_allocations.c.ip_address == address,
                ip_allocations.c.port_id == port["id"],
            )
        )
    taken = take(connection, open_wishes, port["id"], port["network_id"], len(old))
    return keep + taken
