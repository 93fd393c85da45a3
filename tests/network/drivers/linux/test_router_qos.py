"""Bandwidth limits of gateways and floating IPs, measured as ratios."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

import pytest

from lifecycle.host_network import Bandwidth, Router
from network.drivers.linux.router_qos import classes
from network.drivers.linux.routers import leg_names, namespace_of
from tests.network.drivers.linux import edges, lab
from tests.network.drivers.linux.edges import (
    OPEN,
    OUTSIDE,
    edge_host,
    floating,
    gateways,
    guest_port,
    make_router,
    make_subnet,
    served,
)
from tests.network.drivers.linux.lab import Flow, make_network

SLOW = (Bandwidth("egress", 2000, 200), Bandwidth("ingress", 2000, 200))
FAST = (Bandwidth("egress", 8000, 200), Bandwidth("ingress", 8000, 200))


@pytest.fixture
def outer() -> Iterator[edges.Outside]:
    with edges.outside() as made:
        yield made


@pytest.fixture
def underlay(outer: edges.Outside) -> Iterator[lab.Underlay]:
    with lab.underlay() as made:
        yield made


def test_each_address_has_a_class_of_its_own() -> None:
    many = {f"203.0.{n // 200}.{n % 200 + 1}": SLOW[0] for n in range(2000)}
    made = classes(FAST[0], many)
    assert len(made) == 2001
    assert made[1][0] == ""
    assert {address for address, _limit in made.values()} == {"", *many}
    assert classes(None, {}) == {}


@lab.needs_lab
def test_floating_ips_and_the_gateway_have_limits_of_their_own(
    underlay: lab.Underlay, outer: edges.Outside
) -> None:
    host = edge_host(underlay, outer, "a")
    network = served(make_network(1001), make_subnet("10.0.0.0/24"))
    ports = [guest_port(network, number) for number in (11, 12)]
    router = make_router(outer.gateway(10), gateways(network), floating_ips=(floating(50, "10.0.0.11"),))
    limited = dataclasses.replace(
        router, bandwidth=FAST, floating_ips=(dataclasses.replace(router.floating_ips[0], bandwidth=SLOW),)
    )
    host.put(network, outer.network, limited, OPEN, *ports)
    host.apply()
    flows = []
    for port in ports:
        guest = underlay.guest(host, port)
        guest.run("ip", "route", "add", "default", "via", "10.0.0.1")
        assert guest.reaches(OUTSIDE)
        flows.append(Flow.open(guest, outer, OUTSIDE, 8000))
    for back in (False, True):
        slow, fast = (flow.rate(3, back=back) for flow in flows)
        assert 2.5 < fast / slow < 6, back

    def queue(some: Router) -> list[str]:
        gateway = some.gateway
        assert gateway is not None
        device, inner = leg_names(gateway.port_id, gateway=True)
        path = str(host.folder / "netns" / namespace_of(some.id))
        there = host.run("nsenter", f"--net={path}", "tc", "class", "show", "dev", inner).stdout
        here = host.run("tc", "class", "show", "dev", device).stdout
        return [each for text in (here, there) for each in re.findall("class htb ([0-9a-f:]+)", text)]

    before = queue(limited)
    assert len(before) == 4
    host.run("tc", "qdisc", "del", "dev", leg_names(router.gateway.port_id, gateway=True)[0], "root")  # type: ignore[union-attr]
    host.apply()
    assert queue(limited) == before
    host.apply(host.put(router))
    assert queue(router) == []
    assert flows[0].rate(1) > 2 * fast
