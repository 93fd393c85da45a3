"""The path of a port's packets as the host really has it: tap, rules with their counters, bridge, way out."""

from __future__ import annotations

import contextlib
from typing import Any

from core.errors import DriverError
from lifecycle.host_network import HostNetwork, Network, Port
from network.drivers.linux.bridges import bridge_name
from network.drivers.linux.firewall import Firewall, guarded
from network.drivers.linux.netlink import Link, alias_of
from network.drivers.linux.networks import Networks
from network.drivers.linux.rules import chain_of

Hop = dict[str, Any]


def hop(kind: str, name: str, ok: bool, **detail: Any) -> Hop:
    return {"hop": kind, "name": name, "ok": ok, "detail": detail}


def local_path(networks: Networks, firewall: Firewall, state: HostNetwork, port: Port) -> list[Hop]:
    """tap, rules, bridge, and the tunnel or uplink if the network has one."""
    links = networks.links
    tap = links.get(port.device)
    bridge = links.get(bridge_name(port.network_id))
    return [
        _tap(port, tap, bridge),
        *_rules(firewall, port),
        *network_path(networks, state, port.network_id),
    ]


def network_path(networks: Networks, state: HostNetwork, network_id: str) -> list[Hop]:
    """A network's bridge, and its tunnel or uplink."""
    network = state.networks.get(network_id)
    bridge = networks.links.get(bridge_name(network_id))
    if network is None or bridge is None:
        return [hop("bridge", bridge_name(network_id), False, reason="is not there")]
    hops = [_bridge(networks, bridge, network)]
    outlet = networks.outlet(network)
    if outlet is not None:
        hops.append(_outlet(networks, network, outlet, bridge))
    return hops


def _tap(port: Port, tap: Link | None, bridge: Link | None) -> Hop:
    if tap is None:
        return hop("tap", port.device, False, reason="is not there")
    plugged = bridge is not None and tap.master == bridge.index
    return hop(
        "tap",
        port.device,
        tap.up and plugged and tap.alias == alias_of("port", port.id),
        up=tap.up,
        on_bridge=plugged,
        mtu=tap.mtu,
        port_mac=port.mac_address,
        addresses=[each.ip_address for each in port.addresses],
        bandwidth=[f"{each.direction} {each.max_kbps} kbit/s" for each in port.bandwidth],
    )


def _rules(firewall: Firewall, port: Port) -> list[Hop]:
    if not guarded(port):
        return [hop("rules", "none", True, reason="port security is off")]
    hops = []
    chains = [("bridge", "s", "anti-spoofing"), ("inet", "o", "egress"), ("inet", "i", "ingress")]
    chains += [("inet", "go", "egress of a group"), ("inet", "gi", "ingress of a group")]
    for family, kind, meaning in chains:
        owners = [port.id] if len(kind) == 1 else list(port.security_group_ids)
        for owner in owners:
            name = chain_of(kind, owner)
            counters: list[dict[str, Any]] | None = None
            with contextlib.suppress(DriverError):
                counters = firewall.tables.counters(family, name)
            detail = {"reason": "is not there"} if counters is None else {"counters": counters}
            hops.append(hop("rules", f"{family} {name}", counters is not None, what=meaning, **detail))
    return hops


def _bridge(networks: Networks, bridge: Link, network: Network) -> Hop:
    members = [link.name for link in networks.links.all() if link.master == bridge.index]
    seen = bridge.data.get("IFLA_BR_NF_CALL_IPTABLES") == 1
    return hop("bridge", bridge.name, bridge.up and seen, mtu=bridge.mtu, devices=len(members), filtered=seen)


def _outlet(networks: Networks, network: Network, name: str, bridge: Link) -> Hop:
    link = networks.links.get(name)
    kind = "tunnel" if network.network_type == "vxlan" else "uplink"
    if link is None:
        return hop(kind, name, False, reason="is not there")
    detail: dict[str, Any] = {"segmentation_id": network.segmentation_id}
    good = link.up and link.master == bridge.index
    if kind == "tunnel":
        peers = networks.tunnels.peers(name)
        detail.update(local=networks.tunnels.local, peers=peers)
        good = good and set(peers) == set(network.peers) - {networks.tunnels.local}
    else:
        detail["physical_network"] = network.physical_network
    return hop(kind, name, good, **detail)
