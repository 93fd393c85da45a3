"""What a subnet may look like: addresses, gateway, pools, IPv6 modes; no database here.

Rules and names of errors are upstream's (API reference, "Subnets").
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

from db.network_errors import bad_request, conflict, invalid_input

Net = ipaddress.IPv4Network | ipaddress.IPv6Network
Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
MAX_DNS, MAX_ROUTES = 5, 20
SLAAC_MODES = ("slaac", "dhcpv6-stateless")


def network_of(cidr: str) -> Net:
    """:raises BadRequest: no CIDR, or one with bits beyond its prefix."""
    try:
        found = ipaddress.ip_network(cidr, strict=False)
    except ValueError:
        raise bad_request(
            "HTTPBadRequest", f"Invalid input for cidr. Reason: '{cidr}' is not a valid IP subnet."
        ) from None
    if "/" not in cidr or ipaddress.ip_interface(cidr).ip != found.network_address:
        raise bad_request(
            "HTTPBadRequest",
            f"Invalid input for cidr. Reason: '{cidr}' isn't a recognized IP subnet cidr, '{found}' is"
            " recommended.",
        )
    return found


def check_version(cidr: Net, ip_version: int) -> None:
    if cidr.version != ip_version:
        raise invalid_input(f"cidr '{cidr}' does not match the ip_version '{ip_version}'")
    if cidr.prefixlen == 0:
        raise invalid_input(f"0 is not allowed as CIDR prefix length: {cidr}")
    if cidr.is_multicast or cidr.is_loopback or cidr.is_link_local and cidr.version == 6:
        raise invalid_input(f"{cidr} can't be a subnet: it has another meaning in every network")


def check_modes(row: Mapping[str, Any], cidr: Net) -> None:
    """The IPv6 modes against version, DHCP and prefix."""
    ra_mode, address_mode = row.get("ipv6_ra_mode"), row.get("ipv6_address_mode")
    given = [mode for mode in (ra_mode, address_mode) if mode]
    if not given:
        return
    if row["ip_version"] == 4:
        raise invalid_input("ipv6_ra_mode and ipv6_address_mode are not valid when ip_version is 4")
    if not row["enable_dhcp"]:
        raise invalid_input(
            "ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is set to False"
        )
    if len(given) == 2 and ra_mode != address_mode:
        raise invalid_input(
            f"ipv6_ra_mode set to '{ra_mode}' with ipv6_address_mode set to '{address_mode}' is not valid."
            " If both attributes are set, they must be the same value"
        )
    if any(mode in SLAAC_MODES for mode in given) and cidr.prefixlen != 64:
        raise invalid_input(
            f"Invalid CIDR {cidr} for IPv6 address mode. OpenStack uses the EUI-64 address format,"
            " which requires the prefix to be /64"
        )


def default_gateway(cidr: Net) -> str:
    """The first address; of a subnet with one address, that one."""
    return str(cidr[1] if cidr.num_addresses > 1 else cidr[0])


def check_gateway(cidr: Net, gateway: str) -> None:
    """It need not be inside; inside it must be an address that a host can have."""
    address = ipaddress.ip_address(gateway)
    if address.version != cidr.version:
        raise invalid_input(f"gateway_ip '{gateway}' does not match the ip_version '{cidr.version}'")
    if address not in cidr:
        return
    narrow = cidr.prefixlen >= cidr.max_prefixlen - 1
    if not narrow and (
        address == cidr.network_address or (cidr.version == 4 and address == cidr.broadcast_address)
    ):
        raise invalid_input("Gateway is not valid on subnet")


def _usable(cidr: Net) -> tuple[int, int]:
    first, last = int(cidr.network_address), int(cidr.broadcast_address)
    if cidr.prefixlen >= cidr.max_prefixlen - 1:
        return first, last
    return first + 1, last - 1 if cidr.version == 4 else last


def default_pools(cidr: Net, gateway: str | None) -> list[dict[str, str]]:
    """All usable addresses but the gateway's."""
    first, last = _usable(cidr)
    kind: type[Ip] = type(cidr.network_address)
    spans = [(first, last)]
    # (a gateway may be outside)
    if gateway is not None and (address := ipaddress.ip_address(gateway)) in cidr:
        spans = [(first, int(address) - 1), (int(address) + 1, last)]
    return [{"start": str(kind(start)), "end": str(kind(end))} for start, end in spans if start <= end]


def checked_pools(cidr: Net, pools: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """:raises BadRequest: out of bounds, backwards. :raises Conflict: overlapping."""
    first, last = _usable(cidr)
    spans: list[tuple[int, int, dict[str, str]]] = []
    for pool in pools:
        start, end = ipaddress.ip_address(pool["start"]), ipaddress.ip_address(pool["end"])
        shown = f"{start}-{end}"
        if start.version != cidr.version or end.version != cidr.version or end < start:  # type: ignore[operator]
            raise bad_request("InvalidAllocationPool", f"The allocation pool {shown} is not valid.")
        if int(start) < first or int(end) > last:
            raise bad_request(
                "OutOfBoundsAllocationPool",
                f"The allocation pool {shown} spans beyond the subnet cidr {cidr}.",
            )
        spans.append((int(start), int(end), {"start": str(start), "end": str(end)}))
    spans.sort(key=lambda span: span[0])
    for before, after in zip(spans, spans[1:], strict=False):
        if after[0] <= before[1]:
            raise conflict(
                "OverlappingAllocationPools",
                f"Found overlapping allocation pools: {before[2]} {after[2]} for subnet {cidr}.",
            )
    return [span[2] for span in spans]


def check_gateway_outside(pools: Sequence[Mapping[str, str]], gateway: str | None) -> None:
    """:raises Conflict: a pool would hand the gateway's address to a port."""
    if gateway is None:
        return
    address = int(ipaddress.ip_address(gateway))
    for pool in pools:
        start, end = ipaddress.ip_address(pool["start"]), ipaddress.ip_address(pool["end"])
        if int(start) <= address <= int(end) and start.version == ipaddress.ip_address(gateway).version:
            raise conflict(
                "GatewayConflictWithAllocationPools",
                f"Gateway ip {gateway} conflicts with allocation pool {start}-{end}.",
            )


def check_lists(row: Mapping[str, Any]) -> None:
    """DNS servers and host routes: how many, and of which version."""
    servers, routes = row.get("dns_nameservers") or [], row.get("host_routes") or []
    if len(servers) > MAX_DNS:
        raise bad_request(
            "DNSNameServersExhausted",
            f"Unable to complete operation. The number of DNS nameservers exceeds the limit {MAX_DNS}.",
        )
    if len(set(servers)) != len(servers):
        raise bad_request(
            "HTTPBadRequest", "Invalid input for dns_nameservers. Reason: Duplicate nameserver."
        )
    if len(routes) > MAX_ROUTES:
        raise bad_request(
            "HostRoutesExhausted",
            f"Unable to complete operation. The number of host routes exceeds the limit {MAX_ROUTES}.",
        )
    seen = set()
    for route in routes:
        destination = network_of(route["destination"])
        if destination.version != row["ip_version"] or (
            ipaddress.ip_address(route["nexthop"]).version != row["ip_version"]
        ):
            raise invalid_input(f"host route {route} does not match the ip_version '{row['ip_version']}'")
        if (key := (str(destination), route["nexthop"])) in seen:
            raise bad_request(
                "HTTPBadRequest", f"Invalid input for host_routes. Reason: Duplicate hostroute {route}."
            )
        seen.add(key)


def complete(row: dict[str, Any], cidr: Net, *, gateway_given: bool, pools_given: bool) -> dict[str, Any]:
    """A subnet's row with what was left out, checked as a whole."""
    check_version(cidr, row["ip_version"])
    check_modes(row, cidr)
    if row["enable_dhcp"] and cidr.version == 4 and cidr.prefixlen > 30:
        raise invalid_input(f"{cidr} is too small for DHCP: a prefix of at most 30 is needed")
    if not gateway_given:
        row["gateway_ip"] = default_gateway(cidr)
    if row["gateway_ip"] is not None:
        row["gateway_ip"] = str(ipaddress.ip_address(row["gateway_ip"]))
        check_gateway(cidr, row["gateway_ip"])
    if pools_given:
        row["allocation_pools"] = checked_pools(cidr, row["allocation_pools"])
        check_gateway_outside(row["allocation_pools"], row["gateway_ip"])
    else:
        row["allocation_pools"] = default_pools(cidr, row["gateway_ip"])
    check_lists(row)
    row["cidr"] = str(cidr)
    return row
