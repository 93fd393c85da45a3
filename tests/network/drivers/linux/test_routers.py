"""Routers: guests behind them, an outside world in front, packets with the addresses that they should bear."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lifecycle.host_network import Changed, Network, Port, PortForwarding, Router
from network.drivers.linux.routers import namespace_of
from tests.network.drivers.linux import edges, lab
from tests.network.drivers.linux.edges import (
    OPEN,
    OUTSIDE,
    OUTSIDE6,
    Call,
    door,
    edge_host,
    floating,
    gateways,
    guest_port,
    make_router,
    make_subnet,
    seen_as,
    seen_as_udp,
    served,
)  # fmt: skip
from tests.network.drivers.linux.lab import eventually, make_network, needs_lab

pytestmark = needs_lab
GATEWAY, FLOATING, OTHER = "203.0.113.10", "203.0.113.50", "203.0.113.51"


@pytest.fixture
def outer() -> Iterator[edges.Outside]:
    with edges.outside() as made:
        yield made


@pytest.fixture
def underlay(outer: edges.Outside) -> Iterator[lab.Underlay]:
    with lab.underlay() as made:
        yield made


@dataclasses.dataclass
class World:
    """A host with a network behind a router, and guests .11 and .12 on it."""

    outer: edges.Outside
    underlay: lab.Underlay
    host: lab.Host
    network: Network
    router: Router
    ports: list[Port]
    guests: list[lab.Guest]

    def change(self, **fields: Any) -> Any:
        """The router gets other attributes; what the driver says of it."""
        self.router = dataclasses.replace(self.router, **fields)
        return self.host.apply(self.host.put(self.router))


@pytest.fixture
def world(underlay: lab.Underlay, outer: edges.Outside) -> World:
    host = edge_host(underlay, outer, "a")
    network = served(make_network(1001), make_subnet("10.0.0.0/24"))
    ports = [guest_port(network, number) for number in (11, 12)]
    router = make_router(outer.gateway(10), gateways(network))
    host.put(network, outer.network, router, OPEN, *ports)
    applied = host.apply()
    assert applied.routers == {router.id: "ACTIVE"}
    made = World(outer, underlay, host, network, router, ports, [])
    for port in ports:
        guest = underlay.guest(host, port)
        guest.run("ip", "route", "add", "default", "via", "10.0.0.1")
        made.guests.append(guest)
    return made


def test_guests_go_out_with_the_routers_address(world: World) -> None:
    assert world.guests[0].reaches(OUTSIDE)
    with door(world.outer, 8000):
        assert seen_as(world.guests[0], OUTSIDE, 8000) == GATEWAY
        assert seen_as(world.guests[1], OUTSIDE, 8000) == GATEWAY
        # without SNAT it is the guest's own, and the outside has to know the way back
        world.change(enable_snat=False)
        world.outer.run("ip", "route", "add", "10.0.0.0/24", "via", GATEWAY)
        assert seen_as(world.guests[0], OUTSIDE, 8000) == "10.0.0.11"
        world.change(enable_snat=True)
        assert seen_as(world.guests[0], OUTSIDE, 8000) == GATEWAY


def test_a_floating_ip_leads_in_and_out(world: World) -> None:
    ip = floating(50, "10.0.0.11")
    applied = world.change(floating_ips=(ip,))
    assert applied.floating_ips == {ip.id: "ACTIVE"}
    with door(world.guests[0], 8000), door(world.outer, 8000):
        # the guest sees who comes, not the router
        assert seen_as(world.outer, FLOATING, 8000) == OUTSIDE
        assert seen_as(world.guests[0], OUTSIDE, 8000) == FLOATING
        assert seen_as(world.guests[1], OUTSIDE, 8000) == GATEWAY
    assert eventually(lambda: world.outer.run("ping", "-c1", "-W1", FLOATING, check=False).returncode == 0)


def test_neighbours_reach_each_other_by_floating_ip(world: World) -> None:
    world.change(floating_ips=(floating(50, "10.0.0.11"), floating(51, "10.0.0.12")))
    with door(world.guests[0], 8000):
        assert seen_as(world.guests[1], FLOATING, 8000) == OTHER
        # and itself
        assert seen_as(world.guests[0], FLOATING, 8000) is not None
        # who has none comes with the router's
        world.change(floating_ips=(floating(50, "10.0.0.11"),))
        assert seen_as(world.guests[1], FLOATING, 8000) == GATEWAY
        # by the fixed address they see each other as they are
        assert seen_as(world.guests[1], "10.0.0.11", 8000) == "10.0.0.12"


def test_a_floating_ip_that_goes_takes_its_connections_along(world: World) -> None:
    world.change(floating_ips=(floating(50, "10.0.0.11"),))
    with door(world.guests[0], 8000), door(world.guests[1], 8000), door(world.outer, 8000):
        inward, outward = Call(world.outer, FLOATING, 8000), Call(world.guests[0], OUTSIDE, 8000)
        assert inward.says() and outward.says()
        bystander = Call(world.guests[1], OUTSIDE, 8000)
        # it moves to another guest: connections to the first one must not go on
        world.change(floating_ips=(floating(50, "10.0.0.12"),))
        assert not inward.says()
        assert not outward.says()
        assert bystander.says()
        moved = Call(world.outer, FLOATING, 8000)
        assert moved.says()
        world.change(floating_ips=())
        assert not moved.says()
        assert seen_as(world.outer, FLOATING, 8000) is None
        assert bystander.says()
        for each in (inward, outward, bystander, moved):
            each.close()


def forwarding(outer_port: int, inner_port: int, count: int = 1, **fields: Any) -> PortForwarding:
    return PortForwarding(
        **{
            "id": f"forwarding-{outer_port}",
            "floating_ip_address": FLOATING,
            "protocol": "tcp",
            "external_port": outer_port,
            "external_port_last": outer_port + count - 1,
            "internal_ip_address": "10.0.0.11",
            "internal_port": inner_port,
            "internal_port_last": inner_port + count - 1,
            **fields,
        }
    )


def test_ports_are_forwarded_alone_and_in_ranges(world: World) -> None:
    world.change(
        port_forwardings=(
            forwarding(2222, 22),
            forwarding(3000, 8000, 10),
            forwarding(4000, 4000, 10, internal_ip_address="10.0.0.12"),
            forwarding(5353, 53, protocol="udp"),
        )
    )
    one, two = world.guests
    with door(one, 22), door(one, 8009), door(two, 4003), door(one, 53, udp=True), door(one, 8010):
        assert seen_as(world.outer, FLOATING, 2222) == OUTSIDE
        assert seen_as(world.outer, FLOATING, 3009) == OUTSIDE
        assert seen_as(world.outer, FLOATING, 4003) == OUTSIDE
        assert seen_as_udp(world.outer, FLOATING, 5353) == OUTSIDE
        assert seen_as(world.outer, FLOATING, 3010) is None
        # a neighbour takes the same way
        assert seen_as(two, FLOATING, 2222) is not None
        call = Call(world.outer, FLOATING, 2222)
        kept = Call(world.outer, FLOATING, 4003)
        world.change(port_forwardings=world.router.port_forwardings[1:])
        assert not call.says()
        assert kept.says()
        assert seen_as(world.outer, FLOATING, 2222) is None
        call.close()
        kept.close()


def test_an_agent_that_starts_again_drops_no_connection(world: World) -> None:
    world.change(floating_ips=(floating(50, "10.0.0.11"),))
    with door(world.guests[0], 8000), door(world.outer, 8000):
        calls = [
            Call(world.outer, FLOATING, 8000),
            Call(world.guests[0], OUTSIDE, 8000),
            Call(world.guests[1], OUTSIDE, 8000),
        ]
        world.host.stop()
        assert all(call.says("while it is gone") for call in calls)
        assert seen_as(world.outer, FLOATING, 8000) == OUTSIDE
        world.host.start()
        world.host.apply()
        assert all(call.says("after it came back") for call in calls)
        world.host.apply()
        assert all(call.says("again") for call in calls)
        for call in calls:
            call.close()


def test_what_was_changed_by_hand_is_mended(world: World) -> None:
    world.change(floating_ips=(floating(50, "10.0.0.11"),))
    assert world.host.driver is not None
    spaces = world.host.driver.namespaces
    name = namespace_of(world.router.id)
    assert world.router.gateway is not None
    leg = f"qg-{world.router.gateway.port_id[:11]}"
    spaces.run(name, ["ip", "address", "flush", "dev", leg])
    spaces.run(name, ["ip", "address", "add", "198.51.100.9/24", "dev", leg])
    spaces.run(name, ["nft", "flush", "ruleset"])
    spaces.run(name, ["sysctl", "-qw", "net.ipv4.ip_forward=0"])
    world.host.apply()
    with door(world.guests[0], 8000), door(world.outer, 8000):
        assert seen_as(world.outer, FLOATING, 8000) == OUTSIDE
        assert seen_as(world.guests[1], OUTSIDE, 8000) == GATEWAY
    assert "198.51.100.9" not in spaces.run(name, ["ip", "address"])


def test_a_router_moves_to_another_host(world: World) -> None:
    """Neighbours outside and inside have learnt the old place; they find the new one at once."""
    world.change(floating_ips=(floating(50, "10.0.0.11"),))
    second = edge_host(world.underlay, world.outer, "b")
    first = world.host
    with door(world.guests[0], 8000), door(world.outer, 8000):
        assert seen_as(world.outer, FLOATING, 8000) == OUTSIDE
        first.apply(first.put(dataclasses.replace(world.network, peers=(second.tunnel_address,))))
        first.apply(first.drop(world.router))
        assert seen_as(world.outer, FLOATING, 8000) is None
        second.put(dataclasses.replace(world.network, peers=(first.tunnel_address,), dhcp=None))
        second.put(world.outer.network, world.router)
        assert second.apply().routers == {world.router.id: "ACTIVE"}
        assert eventually(lambda: seen_as(world.outer, FLOATING, 8000) == OUTSIDE)
        assert eventually(lambda: seen_as(world.guests[1], OUTSIDE, 8000) == GATEWAY)


def test_down_is_down_and_gone_leaves_nothing(world: World) -> None:
    assert world.guests[0].reaches(OUTSIDE)
    ip = floating(50, "10.0.0.11")
    world.change(floating_ips=(ip,))
    applied = world.change(admin_state_up=False)
    assert applied.routers == {world.router.id: "DOWN"}
    assert applied.floating_ips[ip.id] != "ACTIVE"
    assert not world.guests[0].pings(OUTSIDE)
    world.change(admin_state_up=True)
    assert world.guests[0].reaches(OUTSIDE)
    world.host.apply(world.host.drop(world.router))
    assert not world.guests[0].pings(OUTSIDE)
    assert world.host.driver is not None
    assert not world.host.driver.namespaces.exists(namespace_of(world.router.id))
    devices = world.host.run("ls", "/sys/class/net").stdout.split()
    assert not [name for name in devices if name.startswith(("nr", "ng"))]
    assert not (world.host.folder / "network" / "routers" / world.router.id).exists()


def test_a_router_that_an_agent_does_not_know_goes(world: World) -> None:
    world.host.stop()
    world.host.state.routers.clear()
    world.host.start()
    world.host.apply()
    assert world.host.driver is not None
    assert not world.host.driver.namespaces.exists(namespace_of(world.router.id))
    assert not world.guests[0].pings(OUTSIDE)


def test_two_networks_and_a_route_of_the_routers_own(world: World) -> None:
    second = served(make_network(1002), make_subnet("10.1.0.0/24"))
    port = guest_port(second, 11, port_security_enabled=False)
    world.host.apply(world.host.put(second, port))
    world.change(interfaces=(*world.router.interfaces, gateways(second)))
    far = world.underlay.guest(world.host, port)
    far.run("ip", "route", "add", "default", "via", "10.1.0.1")
    with door(far, 8000):
        # between its networks a router changes no address
        assert seen_as(world.guests[0], "10.1.0.11", 8000) == "10.0.0.11"
        far.run("ip", "address", "add", "192.168.77.1/32", "dev", "lo")
        assert seen_as(world.guests[0], "192.168.77.1", 8000) is None
        world.change(routes=({"destination": "192.168.77.0/24", "nexthop": "10.1.0.11"},))
        assert seen_as(world.guests[0], "192.168.77.1", 8000) == "10.0.0.11"
        world.change(routes=())
        assert seen_as(world.guests[0], "192.168.77.1", 8000) is None
    world.change(interfaces=world.router.interfaces[:1])
    assert not world.guests[0].pings("10.1.0.11")


def test_an_interface_gets_other_addresses(world: World) -> None:
    """The kernel drops addresses that are secondary to one that goes."""
    guest, subnet = world.guests[0], world.network.subnets[0]
    (leg,) = world.router.interfaces

    def move(*numbers: int) -> None:
        addresses = tuple(edges.address_in(subnet, number) for number in numbers)
        world.change(interfaces=(dataclasses.replace(leg, addresses=addresses),))

    assert guest.reaches("10.0.0.1")
    move(1, 253, 254)
    assert all(guest.pings(f"10.0.0.{number}") for number in (1, 253, 254))
    move(254)
    assert guest.pings("10.0.0.254")
    assert not guest.pings("10.0.0.1") and not guest.pings("10.0.0.253")
    move(1)
    assert guest.pings("10.0.0.1")
    assert not guest.pings("10.0.0.254")


def test_a_gateway_is_set_changed_and_cleared(world: World) -> None:
    with door(world.outer, 8000):
        world.change(gateway=None)
        assert seen_as(world.guests[0], OUTSIDE, 8000) is None
        assert world.guests[0].pings("10.0.0.1")
        world.change(gateway=world.outer.gateway(20))
        assert seen_as(world.guests[0], OUTSIDE, 8000) == "203.0.113.20"


def test_tenants_with_the_same_addresses_have_routers_of_their_own(world: World) -> None:
    network = served(make_network(1002), make_subnet("10.0.0.0/24"))
    port = guest_port(network, 11)
    router = make_router(
        world.outer.gateway(20), gateways(network), floating_ips=(floating(51, "10.0.0.11"),)
    )
    world.host.apply(world.host.put(network, port, router))
    world.change(floating_ips=(floating(50, "10.0.0.11"),))
    guest = world.underlay.guest(world.host, port)
    guest.run("ip", "route", "add", "default", "via", "10.0.0.1")
    with door(world.guests[0], 8000), door(guest, 8001), door(world.outer, 8000):
        assert seen_as(guest, OUTSIDE, 8000) == OTHER
        assert seen_as(world.guests[0], OUTSIDE, 8000) == FLOATING
        assert seen_as(world.outer, OTHER, 8001) == OUTSIDE
        assert seen_as(world.outer, OTHER, 8000) is None
        # from one tenant to the other: by floating IP
        assert seen_as(guest, FLOATING, 8000) == OTHER


def test_ipv6_is_routed_and_never_translated(underlay: lab.Underlay, outer: edges.Outside) -> None:
    if not Path("/proc/sys/net/ipv6").exists():
        pytest.skip("the kernel has no IPv6")
    host = edge_host(underlay, outer, "a")
    mode = {"ipv6_address_mode": "slaac", "ipv6_ra_mode": "slaac"}
    network = served(make_network(1001), make_subnet("2001:db8:1::/64", **mode))
    port = guest_port(network, 0)
    router = make_router(outer.gateway(10), gateways(network))
    host.put(network, outer.network, router, OPEN, port)
    host.apply()
    guest = underlay.guest(host, port, addresses=False)
    # no DHCP, no address by hand: the router's advertisement says it all
    own = port.addresses[0].ip_address
    assert eventually(lambda: own in guest.run("ip", "-6", "address").stdout, 20)
    outer.run("ip", "-6", "route", "add", "2001:db8:1::/64", "via", "2001:db8:ffff::a")
    with door(outer, 8000), door(guest, 8000):
        assert eventually(lambda: seen_as(guest, OUTSIDE6, 8000) == own, 10)
        assert seen_as(outer, own, 8000) == OUTSIDE6
    hops = trace_of(host, port.id)
    (found,) = [hop for hop in hops if hop["hop"] == "router"]
    assert all(hop["ok"] for hop in hops)
    assert hops[0]["detail"]["addresses"] == [own]
    assert found["detail"]["addresses"] == ["2001:db8:1::1"]
    os.kill(found["detail"]["radvd"], signal.SIGKILL)
    assert eventually(lambda: [hop["hop"] for hop in trace_of(host, port.id) if not hop["ok"]] == ["router"])
    host.apply()
    assert all(hop["ok"] for hop in trace_of(host, port.id))


def test_one_router_that_cannot_be_made_does_not_keep_the_others(world: World) -> None:
    lost = make_router(None, edges.leg(make_network(4000), edges.address_in(world.network.subnets[0], 1)))
    world.host.put(lost)
    applied = world.host.apply(Changed(everything=True), errors=True)
    assert applied.routers == {world.router.id: "ACTIVE", lost.id: "ERROR"}
    assert lost.id in applied.errors[0]
    world.host.drop(lost)
    world.host.apply()


def test_trace_shows_router_and_nat(world: World) -> None:
    world.change(floating_ips=(floating(50, "10.0.0.11"),))
    assert world.host.driver is not None
    hops = world.host.inside(world.host.driver.trace, world.host.state, world.ports[0].id)  # type: ignore[misc]
    by_kind = {hop["hop"]: hop for hop in hops}
    assert by_kind["router"]["name"] == namespace_of(world.router.id)
    assert by_kind["router"]["ok"] and by_kind["nat"]["ok"]
    assert by_kind["nat"]["detail"]["floating_ips"] == {"10.0.0.11": FLOATING}
    assert by_kind["dhcp"]["ok"]


def test_trace_shows_what_of_a_router_is_broken(world: World) -> None:
    def good() -> dict[str, bool]:
        assert world.host.driver is not None
        hops = world.host.inside(world.host.driver.trace, world.host.state, world.ports[0].id)  # type: ignore[misc]
        return {hop["hop"]: hop["ok"] for hop in hops if hop["hop"] in ("router", "nat")}

    assert world.host.driver is not None
    spaces = world.host.driver.namespaces
    name = namespace_of(world.router.id)
    assert good() == {"router": True, "nat": True}
    spaces.run(name, ["nft", "delete", "table", "inet", "haneul"])
    assert good() == {"router": True, "nat": False}
    spaces.run(name, ["ip", "link", "set", f"qr-{world.router.interfaces[0].port_id[:11]}", "down"])
    assert good() == {"router": False, "nat": False}
    world.host.apply()
    assert good() == {"router": True, "nat": True}
    assert world.router.gateway is not None
    spaces.run(name, ["ip", "link", "set", f"qg-{world.router.gateway.port_id[:11]}", "down"])
    assert good() == {"router": True, "nat": False}


def trace_of(host: lab.Host, port_id: str) -> list[dict[str, Any]]:
    assert host.inside is not None and host.driver is not None
    found: list[dict[str, Any]] = host.inside(host.driver.trace, host.state, port_id)
    return found


def test_trace_of_a_routers_own_ports(world: World) -> None:
    """An inner leg leads to the tunnel, the gateway to the uplink; a leg that is unplugged is seen."""
    world.change(floating_ips=(floating(50, "10.0.0.11"),))
    inner, gateway = world.router.interfaces[0], world.router.gateway
    assert gateway is not None
    hops = trace_of(world.host, inner.port_id)
    assert [hop["hop"] for hop in hops] == ["router", "nat", "bridge", "tunnel"]
    assert all(hop["ok"] for hop in hops)
    assert hops[0]["detail"]["addresses"] == ["10.0.0.1"]
    assert hops[1]["detail"]["floating_ips"] == {"10.0.0.11": FLOATING}
    hops = trace_of(world.host, gateway.port_id)
    assert [hop["hop"] for hop in hops] == ["nat", "bridge", "uplink"]
    assert all(hop["ok"] for hop in hops)
    assert hops[2]["name"] == edges.WIRE
    for leg, kind, name in ((inner, "router", "nr"), (gateway, "nat", "ng")):
        world.host.run("ip", "link", "set", f"{name}{leg.port_id[:11]}", "nomaster")
        assert [hop["hop"] for hop in trace_of(world.host, leg.port_id) if not hop["ok"]] == [kind]
    world.host.apply()
    assert all(hop["ok"] for leg in (inner, gateway) for hop in trace_of(world.host, leg.port_id))
