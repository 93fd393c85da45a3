"""A router's address translation, as nftables rules of its namespace (``table inet haneul``).

Order matters as upstream's does: what comes from outside for a floating IP goes to its fixed address; what a
guest with a floating IP sends outside bears it; everybody else's bears the gateway's address.
A guest that speaks to a neighbour's floating IP (hairpin) is led back into the router and seen by the neighbour
with a floating or the gateway's address, so that the answer takes the same way.
"""

from __future__ import annotations

from typing import Any

from lifecycle.host_network import PortForwarding, Router
from network.drivers.linux.nft import Chain, Rule, Tables, Wanted

FROM_OUTSIDE = 0x2
"""mark of what came in by the gateway: in postrouting the kernel doesn't say any more"""


class RouterTables(Tables):
    """The tables of one router's namespace; to be used inside it."""

    families: tuple[str, ...] = ("inet",)


def _is(key: str, value: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": {"meta": {"key": key}}, "right": value}}


def _address(field: str, value: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": {"payload": {"protocol": "ip", "field": field}}, "right": value}}


def _translated(op: str) -> dict[str, Any]:
    """Was the packet's destination translated ("in"), or not ("!")?"""
    return {"match": {"op": op, "left": {"ct": {"key": "status"}}, "right": "dnat"}}


def _to(kind: str, address: str, port: Any = None) -> dict[str, Any]:
    to: dict[str, Any] = {"family": "ip", "addr": address}
    if port is not None:
        to["port"] = port
    return {kind: to}


def wanted(router: Router, gateway: str | None) -> Wanted:
    """The rules of a router; ``gateway``: the device that leads outside, None without one."""
    chains: dict[tuple[str, str], Chain | None] = {
        ("inet", "mark"): Chain(
            tuple([Rule("from outside", (_is("iifname", gateway), _mark()))] if gateway else ()),
            ("filter", "prerouting", -150),
        ),
        ("inet", "prerouting"): Chain(tuple(_destinations(router)), ("nat", "prerouting", -100)),
        ("inet", "postrouting"): Chain(
            tuple(_sources(router, gateway) if gateway else ()), ("nat", "postrouting", 100)
        ),
    }
    return Wanted(chains=chains, whole=True)


def _mark() -> dict[str, Any]:
    return {"mangle": {"key": {"meta": {"key": "mark"}}, "value": FROM_OUTSIDE}}


def _destinations(router: Router) -> list[Rule]:
    rules = [_forward(each) for each in router.port_forwardings]
    rules += [
        Rule(
            f"floating ip {each.id}",
            (
                _address("daddr", each.floating_ip_address),
                {"counter": None},
                _to("dnat", each.fixed_ip_address),
            ),
        )
        for each in router.floating_ips
    ]
    return rules


def _forward(each: PortForwarding) -> Rule:
    protocol = each.protocol.lower()
    port = {"payload": {"protocol": protocol, "field": "dport"}}
    first, last = each.external_port, each.external_port_last
    there = {
        "match": {"op": "==", "left": port, "right": {"range": [first, last]} if last > first else first}
    }
    target: Any = None
    if each.internal_port != first:
        pairs = zip(
            range(first, last + 1), range(each.internal_port, each.internal_port_last + 1), strict=False
        )
        target = (
            {"map": {"key": port, "data": {"set": [[outer, inner] for outer, inner in pairs]}}}
            if last > first
            else each.internal_port
        )
    return Rule(
        f"port forwarding {each.id}",
        (
            _address("daddr", each.floating_ip_address),
            there,
            {"counter": None},
            _to("dnat", each.internal_ip_address, target),
        ),
    )


def _sources(router: Router, gateway: str) -> list[Rule]:
    rules = [
        Rule(
            "between inner networks",
            (
                _is("mark", FROM_OUTSIDE, "!="),
                _is("oifname", gateway, "!="),
                _translated("!"),
                {"accept": None},
            ),
        )
    ]
    rules += [
        Rule(
            f"floating ip {each.id}",
            (
                _address("saddr", each.fixed_ip_address),
                _is("mark", FROM_OUTSIDE, "!="),
                {"counter": None},
                _to("snat", each.floating_ip_address),
            ),
        )
        for each in router.floating_ips
    ]
    outer = next(
        (
            each.ip_address
            for each in (router.gateway.addresses if router.gateway else ())
            if "." in each.ip_address
        ),
        None,
    )
    if outer is None:
        return rules
    rules.append(
        Rule(
            "hairpin",
            (
                _is("mark", FROM_OUTSIDE, "!="),
                _is("oifname", gateway, "!="),
                _translated("in"),
                _to("snat", outer),
            ),
        )
    )
    if router.enable_snat:
        rules.append(
            Rule(
                "snat",
                (_is("oifname", gateway), _is("mark", FROM_OUTSIDE, "!="), _is("nfproto", "ipv4"),
                 {"counter": None}, _to("snat", outer)),
            )
        )  # fmt: skip
    return rules
