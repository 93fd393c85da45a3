"""Bandwidth limits, measured as a ratio of two rates on the same machine at the same time."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

import pytest

from lifecycle.host_network import Bandwidth
from network.drivers.linux.qos import bucket, ifb_name
from tests.network.drivers.linux import lab
from tests.network.drivers.linux.lab import ALLOW_OUT, Flow, Rule, make_group, make_network, make_port

OPEN = make_group(*ALLOW_OUT, Rule("ingress", "IPv4"))


@pytest.fixture
def underlay() -> Iterator[lab.Underlay]:
    with lab.underlay() as made:
        yield made


def test_a_limit_without_a_burst_gets_most_of_a_second() -> None:
    assert bucket(Bandwidth("egress", 8000)) == {"rate": 1_000_000, "burst": 800_000, "limit": 850_000}
    assert bucket(Bandwidth("egress", 8000, 800))["burst"] == 100_000
    assert bucket(Bandwidth("egress", 8, 1))["burst"] == 15_000


@lab.needs_lab
@pytest.mark.parametrize("direction", ["egress", "ingress"])
def test_rates_have_the_ratio_of_their_limits(underlay: lab.Underlay, direction: str) -> None:
    host = underlay.host("a")
    network = make_network(1001)
    speaker = make_port(network, "10.0.0.10/24", security_group_ids=(OPEN.id,))
    ports = [
        make_port(
            network,
            f"10.0.0.{number}/24",
            security_group_ids=(OPEN.id,),
            bandwidth=(Bandwidth(direction, kbps, 200),),
        )
        for number, kbps in ((11, 2000), (12, 8000))
    ]
    host.put(network, OPEN, speaker, *ports)
    host.apply()
    hub = underlay.guest(host, speaker)
    limited = [underlay.guest(host, port) for port in ports]
    assert all(hub.reaches(guest.port.addresses[0].ip_address) for guest in limited)
    flows = [Flow.open(hub, guest, guest.port.addresses[0].ip_address, 5000) for guest in limited]
    slow, fast = (flow.rate(3, back=direction == "egress") for flow in flows)
    assert 2.5 < fast / slow < 6
    assert slow < 2000 * 1000 / 8 * 1.6
    # the other direction is free
    assert flows[0].rate(1, back=direction != "egress") > 2 * fast


@lab.needs_lab
def test_limits_come_change_and_go(underlay: lab.Underlay) -> None:
    host = underlay.host("a")
    network = make_network(1001)
    port = make_port(
        network, "10.0.0.10/24", bandwidth=(Bandwidth("egress", 1000), Bandwidth("ingress", 2000))
    )

    def queues(device: str) -> list[tuple[str, int | None]]:
        found = json.loads(host.run("tc", "-j", "qdisc", "show", "dev", device).stdout)
        return [(each["kind"], each.get("options", {}).get("rate")) for each in found]

    host.put(network, port)
    host.apply()
    assert ("tbf", 2000 * 1000 // 8) in queues(port.device)
    assert ("tbf", 1000 * 1000 // 8) in queues(ifb_name(port.id))
    before = host.run("tc", "-d", "filter", "show", "dev", port.device, "ingress").stdout
    assert ifb_name(port.id) in before
    host.run("tc", "qdisc", "del", "dev", ifb_name(port.id), "root")
    host.apply()
    assert ("tbf", 1000 * 1000 // 8) in queues(ifb_name(port.id))
    assert host.run("tc", "-d", "filter", "show", "dev", port.device, "ingress").stdout == before
    host.apply(host.put(dataclasses.replace(port, bandwidth=(Bandwidth("egress", 3000),))))
    assert ("tbf", 3000 * 1000 // 8) in queues(ifb_name(port.id))
    assert "tbf" not in dict(queues(port.device))
    host.apply(host.put(dataclasses.replace(port, bandwidth=())))
    assert "ingress" not in dict(queues(port.device))
    assert ifb_name(port.id) not in host.run("ip", "link").stdout
    host.apply(host.put(port))
    host.apply(host.drop(port))
    assert ifb_name(port.id) not in host.run("ip", "link").stdout
