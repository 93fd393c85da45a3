"""Bandwidth limits of ports: a token bucket on the way to the guest, and one on an IFB for what the guest sends.

A tap's queue holds what goes to the guest (the port's ingress). What the guest sends arrives at the tap, where
there is no queue; it is led through an IFB device of the port's own, which has one. Queueing, unlike policing, lets TCP
find its speed; and policing isn't in every kernel. Excess waits up to 50 ms, then it is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from lifecycle.host_network import Bandwidth, Port
from network.drivers.linux.netlink import Link, Links, alias_of

KIND = "ifb"
ROOT = 0xFFFFFFFF
HANDLE = 0x10000
INGRESS = 0xFFFF0000
PATIENCE_S = 0.05
SMALLEST_BURST = 15_000
"""bytes: some full frames, or nothing would ever pass"""


def ifb_name(port_id: str) -> str:
    return f"ifb{port_id[:11]}"


def bucket(limit: Bandwidth) -> dict[str, int]:
    """rate and burst in bytes (per second), limit of the queue in bytes. No burst given: 80% of a second, as upstream has it."""
    rate = limit.max_kbps * 1000 // 8
    burst = max((limit.max_burst_kbps or limit.max_kbps * 8 // 10) * 1000 // 8, SMALLEST_BURST)
    return {"rate": rate, "burst": burst, "limit": int(rate * PATIENCE_S) + burst}


class Limits:
    """The bandwidth limits of this network namespace's devices."""

    def __init__(self, links: Links) -> None:
        self.links = links

    def ensure(self, port: Port) -> None:
        """The port's limits and no others; its tap must be there."""
        wanted = {each.direction: each for each in port.bandwidth if each.max_kbps > 0}
        tap = self.links.need(port.device)
        self.shape(tap, wanted.get("ingress"))
        if "egress" in wanted:
            self._redirect(port, tap, wanted["egress"])
        else:
            self._no_redirect(port.id, tap)

    def remove(self, port_id: str) -> None:
        """After the tap is gone: what stood beside it."""
        link = self.links.get(ifb_name(port_id))
        if link is not None and link.is_ours(KIND, port_id):
            self.links.delete(link.name)

    def remove_strangers(self, wanted: Iterable[str]) -> None:
        """Remove haneul's IFB devices of ports that aren't ``wanted``."""
        keep = set(wanted)
        for port_id, link in self.links.ours(KIND).items():
            if port_id not in keep:
                self.links.delete(link.name)

    def shape(self, link: Link, limit: Bandwidth | None) -> None:
        """What is sent to a device is no faster than this; None: as fast as it can."""
        if limit is None and link.queue != "tbf":
            return
        present = self._qdisc(link, ROOT)
        if limit is None:
            if present is not None and present.get("TCA_KIND") == "tbf" and present["handle"] == HANDLE:
                with self.links.route(f"bandwidth of {link.name}") as route:
                    route.tc("del", None, link.index, HANDLE, parent=ROOT)
            return
        wanted = bucket(limit)
        if present is not None and present.get("TCA_KIND") == "tbf":
            parameters = present.get("TCA_OPTIONS").get("TCA_TBF_PARMS")
            if (parameters["rate"], parameters["limit"]) == (wanted["rate"], wanted["limit"]):
                return
        with self.links.route(f"bandwidth of {link.name}") as route:
            route.tc("replace", "tbf", link.index, HANDLE, **wanted)

    def _qdisc(self, link: Link, parent: int) -> Any:
        with self.links.route(f"queues of {link.name}") as route:
            for each in route.get_qdiscs(index=link.index):
                if each["parent"] == parent or (parent == INGRESS and each["handle"] == INGRESS):
                    return each
        return None

    def _redirect(self, port: Port, tap: Link, limit: Bandwidth) -> None:
        name = ifb_name(port.id)
        ifb = self.links.get(name)
        if ifb is None:
            ifb = self.links.add(name, "ifb")
        if ifb.alias is None:
            self.links.change(ifb, ifalias=alias_of(KIND, port.id))
        if not ifb.up:
            self.links.change(ifb, state="up")
        self.shape(ifb, limit)
        if self._qdisc(tap, INGRESS) is not None:
            if self._target(tap) == ifb.index:
                return
            self._no_ingress(tap)
        with self.links.route(f"bandwidth of what {port.device} sends") as route:
            route.tc("add", "ingress", tap.index)
            action = {"kind": "mirred", "direction": "egress", "action": "redirect", "ifindex": ifb.index}
            route.tc(
                "add-filter",
                "u32",
                tap.index,
                parent=INGRESS,
                prio=1,
                protocol=3,  # ETH_P_ALL
                target=HANDLE,
                keys=["0x0/0x0+0"],
                action=action,
            )

    def _target(self, tap: Link) -> int | None:
        """Index of the device that what arrives at the tap is led to."""
        with self.links.route(f"filters of {tap.name}") as route:
            for each in route.get_filters(index=tap.index, parent=INGRESS):
                options = each.get("TCA_OPTIONS")
                action = options.get("TCA_U32_ACT") if options else None
                first = action.get("TCA_ACT_PRIO_1") if action else None
                parameters = first.get("TCA_ACT_OPTIONS").get("TCA_MIRRED_PARMS") if first else None
                if parameters:
                    return int(parameters["ifindex"])
        return None

    def _no_redirect(self, port_id: str, tap: Link) -> None:
        ifb = self.links.get(ifb_name(port_id))
        if ifb is None or not ifb.is_ours(KIND, port_id):
            return
        if self._qdisc(tap, INGRESS) is not None:
            self._no_ingress(tap)
        self.links.delete(ifb.name)

    def _no_ingress(self, tap: Link) -> None:
        with self.links.route(f"bandwidth of what {tap.name} sends") as route:
            try:
                route.tc("del", "ingress", tap.index, INGRESS, parent=0xFFFFFFF1)
            except NetlinkError as error:
                if error.code != 2:  # ENOENT: gone already
                    raise
