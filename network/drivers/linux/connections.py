"""Connections of a router whose translation is gone: they end now, not when they time out.

nftables decides about the first packet of a connection only; the kernel goes on translating those that it
knows. So what a router translated is kept beside it (``translations.json``), also for an agent that
starts again, and what is missing from the new set is looked for in the connection table.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import socket
from collections.abc import Iterable
from pathlib import Path

from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple, NFCTSocket

from lifecycle.host_network import Router
from network.drivers.linux.daemons import write
from network.drivers.linux.netlink import explained

_PROTOCOLS = {"tcp": 6, "udp": 17, "dccp": 33, "sctp": 132, "udplite": 136}


@dataclasses.dataclass(frozen=True)
class Translation:
    """An outer address that stands for an inner one. ``protocol`` 0: for all of it."""

    outer: str
    inner: str
    protocol: int = 0
    first_port: int = 0
    last_port: int = 0

    def covers(self, there: NFCTAttrTuple, back: NFCTAttrTuple) -> bool:
        """Is a connection (as its first sender and as its receiver see it) translated by this?"""
        if self.protocol:
            return bool(
                (there.proto, there.daddr, back.saddr) == (self.protocol, self.outer, self.inner)
                and there.dport is not None
                and self.first_port <= there.dport <= self.last_port
            )
        inward = there.daddr == self.outer and self.inner in ("", back.saddr)
        outward = back.daddr == self.outer and self.inner in ("", there.saddr)
        return bool(inward or outward)


def translations(router: Router) -> set[Translation]:
    """What a router translates. The gateway's address stands for everybody ("")."""
    found = {Translation(each.floating_ip_address, each.fixed_ip_address) for each in router.floating_ips}
    found |= {
        Translation(
            each.floating_ip_address,
            each.internal_ip_address,
            _PROTOCOLS.get(each.protocol.lower(), 0),
            each.external_port,
            each.external_port_last,
        )
        for each in router.port_forwardings
    }
    if router.gateway is not None:
        found |= {Translation(each.ip_address, "") for each in router.gateway.addresses}
    return found


class Translations:
    """Those that a router's namespace has had so far, in a file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def gone(self, wanted: set[Translation]) -> set[Translation]:
        """Known ones that are not wanted any more. A file that can't be understood knows none."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            known = {Translation(*entry) for entry in json.loads(self._file.read_text())}
            return known - wanted
        return set()

    def keep(self, wanted: set[Translation]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write(self._file, json.dumps(sorted(dataclasses.astuple(each) for each in wanted)))


def end(gone: Iterable[Translation]) -> int:
    """End the connections of these translations, in the namespace that this thread is in; how many they were."""
    gone = list(gone)
    ended = 0
    with explained("read the table of connections"), NFCTSocket() as table:
        for entry in list(table.dump()):
            there = NFCTAttrTuple.from_netlink(socket.AF_INET, entry.get_attr("CTA_TUPLE_ORIG"))
            back = NFCTAttrTuple.from_netlink(socket.AF_INET, entry.get_attr("CTA_TUPLE_REPLY"))
            if not any(each.covers(there, back) for each in gone):
                continue
            try:
                table.entry("del", tuple_orig=there)
                ended += 1
            except NetlinkError as error:
                if error.code != errno.ENOENT:  # it has ended by itself
                    raise
    return ended
