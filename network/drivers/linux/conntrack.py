"""The kernel's table of connections, one zone per network: what is forgotten when a port loses an address.

The next port that gets the address must not inherit the answers to its predecessor's
connections. Rules that change need none of this (see ``rules.py``).
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple, NFCTSocket

from network.drivers.linux.netlink import explained

ENOENT = 2


def forget(zone: int, addresses: Iterable[str]) -> int:
    """Remove the zone's connections from and to these addresses; returns how many there were.

    The kernel picks them out by address (since 5.8); that it can do so by zone, too, is
    too new to be relied on.

    :raises DriverError: the kernel refused.
    """
    found = 0
    for address in addresses:
        family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
        with explained(f"forget the connections of {address}"):
            channel = NFCTSocket(nfgen_family=family)
            try:
                for side in ("saddr", "daddr"):
                    found += _forget(channel, family, zone, side, address)
            finally:
                channel.close()
    return found


def _forget(channel: Any, family: int, zone: int, side: str, address: str) -> int:
    wanted = NFCTAttrTuple(family=family, **{side: address})
    entries = [entry for entry in channel.dump(tuple_orig=wanted) if (entry.get("CTA_ZONE") or 0) == zone]
    count = 0
    for entry in entries:
        original = NFCTAttrTuple.from_netlink(family, entry.get("CTA_TUPLE_ORIG"))
        try:
            channel.entry("del", tuple_orig=original, zone=zone)
            count += 1
        except NetlinkError as error:
            if error.code != ENOENT:  # it has ended meanwhile
                raise
    return count
