"""Bandwidth limits of a router's gateway and of floating IPs.

Both ends of the gateway's leg have a queue: what goes outside waits on the inner one, where it bears the floating IP as its
source already, and what comes from outside waits on the outer one, where the floating IP is still its destination.
Each queue is an HTB with a class per floating IP that has a limit, and one for the rest if the gateway
has one. A floating IP's own limit counts instead of the gateway's.
"""

from __future__ import annotations

import ipaddress
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

from lifecycle.host_network import Bandwidth, Router
from network.drivers.linux.netlink import Link, Links
from network.drivers.linux.qos import HANDLE, ROOT, bucket

ETH_P_IP = 0x0800
SOURCE, DESTINATION = 12, 16
"""offsets in the IPv4 header"""
REST = 1


def limit_gateway(links: Links, outer: str, inside: Links, inner: str, router: Router) -> None:
    """``outer`` is looked for in ``links``, ``inner`` in ``inside``. Raises DriverError."""
    for where, device, direction, offset in (
        (inside, inner, "egress", SOURCE),
        (links, outer, "ingress", DESTINATION),
    ):
        by_address = {
            each.floating_ip_address: limit
            for each in router.floating_ips
            if (limit := _of(each.bandwidth, direction)) is not None
        }
        shape(where, where.need(device), _of(router.bandwidth, direction), by_address, offset)


def _of(limits: Iterable[Bandwidth], direction: str) -> Bandwidth | None:
    return next((each for each in limits if each.direction == direction and each.max_kbps > 0), None)


def classes(
    rest: Bandwidth | None, by_address: Mapping[str, Bandwidth]
) -> dict[int, tuple[str, dict[str, int]]]:
    """{minor number of a class: (its address, its bucket)}. The number follows from the address."""
    found: dict[int, tuple[str, dict[str, int]]] = {}
    if rest is not None:
        found[REST] = ("", bucket(rest))
    for address, limit in sorted(by_address.items()):
        number = zlib.crc32(address.encode()) % 0xFFF0 + 2
        while number in found:
            number = number % 0xFFF0 + 2
        found[number] = (address, bucket(limit))
    return found


def shape(
    links: Links, link: Link, rest: Bandwidth | None, by_address: Mapping[str, Bandwidth], offset: int
) -> None:
    """Make a device's queue hold these limits and no others; one that does is not touched."""
    wanted = classes(rest, by_address)
    if not wanted and link.queue != "htb":
        return
    with links.route(f"bandwidth of {link.name}") as route:
        present = _present(route, link)
        if present == {number: limit["rate"] for number, (_address, limit) in wanted.items()}:
            return
        if link.queue == "htb":
            route.tc("del", None, link.index, HANDLE, parent=ROOT)
        if not wanted:
            return
        route.tc("add", "htb", link.index, HANDLE, default=REST)
        for number, (address, limit) in wanted.items():
            burst = limit["burst"]
            route.tc(
                "add-class", "htb", link.index, HANDLE | number, parent=HANDLE,
                rate=limit["rate"], ceil=limit["rate"], burst=burst, cburst=burst,
            )  # fmt: skip
            if address:
                key = f"0x{int(ipaddress.IPv4Address(address)):08x}/0xffffffff+{offset}"
                route.tc(
                    "add-filter", "u32", link.index, parent=HANDLE, prio=1, protocol=ETH_P_IP,
                    target=HANDLE | number, keys=[key],
                )  # fmt: skip


def _present(route: Any, link: Link) -> dict[int, int]:
    """{minor number: bytes per second} of the classes that are reached: by a filter, or as the rest's."""
    if link.queue != "htb":
        return {}
    reached = {REST}
    for each in route.get_filters(index=link.index, parent=HANDLE):
        options = each.get("TCA_OPTIONS")
        if options is not None and options.get("TCA_U32_CLASSID"):
            reached.add(options.get("TCA_U32_CLASSID") & 0xFFFF)
    found = {}
    for each in route.get_classes(index=link.index):
        number = each["handle"] & 0xFFFF
        if each["handle"] >> 16 == HANDLE >> 16 and number in reached:
            found[number] = each.get("TCA_OPTIONS").get("TCA_HTB_PARMS")["rate"]
    return found
