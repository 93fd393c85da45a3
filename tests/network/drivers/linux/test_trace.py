"""The path of a port: what is there, what is not, and what the rules have counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from core.errors import NotFound
from network.drivers.linux.bridges import bridge_name
from tests.network.drivers.linux import lab
from tests.network.drivers.linux.lab import ALLOW_OUT, Rule, make_group, make_network, make_port

pytestmark = lab.needs_lab


@pytest.fixture
def underlay() -> Iterator[lab.Underlay]:
    with lab.underlay() as made:
        yield made


def path(host: lab.Host, port_id: str) -> list[dict[str, Any]]:
    assert host.inside is not None
    assert host.driver is not None
    return host.inside(host.driver.trace, host.state, port_id)


def counted(hops: list[dict[str, Any]], what: str) -> dict[str, int]:
    (hop,) = [each for each in hops if each["detail"].get("what") == what]
    return {each["rule"]: each["packets"] for each in hop["detail"]["counters"]}


def test_a_path_with_what_its_rules_have_counted(underlay: lab.Underlay) -> None:
    host = underlay.host("a")
    group = make_group(*ALLOW_OUT, Rule("ingress", "IPv4", "icmp"))
    network = make_network(1001, peers=("172.31.0.9",))
    ports = [
        make_port(network, ip, security_group_ids=(group.id,)) for ip in ("10.0.0.11/24", "10.0.0.12/24")
    ]
    host.put(network, group, *ports)
    host.apply()
    one, two = (underlay.guest(host, port) for port in ports)
    assert one.reaches("10.0.0.12")
    with two.listen("10.0.0.12", 22):
        assert not one.connects("10.0.0.12", 22)
    hops = path(host, ports[1].id)
    assert [hop["hop"] for hop in hops] == [
        "tap",
        "rules",
        "rules",
        "rules",
        "rules",
        "rules",
        "bridge",
        "tunnel",
    ]
    assert all(hop["ok"] for hop in hops)
    assert hops[-1]["detail"]["peers"] == ["172.31.0.9"]
    assert counted(hops, "ingress")["refused"] >= 1
    assert counted(hops, "ingress of a group")["IPv4 icmp"] >= 1
    assert counted(hops, "anti-spoofing")["foreign MAC"] == 0


def test_what_is_broken_is_not_ok(underlay: lab.Underlay) -> None:
    host = underlay.host("a")
    network = make_network(1001, peers=("172.31.0.9",))
    port = make_port(network, "10.0.0.11/24")
    host.put(network, port)
    host.apply()
    host.run("ip", "link", "set", port.device, "nomaster")
    host.run("nft", "delete", "table", "bridge", "haneul")
    host.run("bridge", "fdb", "del", "00:00:00:00:00:00", "dev", "vx1001", "dst", "172.31.0.9")
    host.run("ip", "link", "set", bridge_name(network.id), "down")
    hops = path(host, port.id)
    good = {hop["name"]: hop["ok"] for hop in hops}
    assert good == {
        port.device: False,
        f"bridge s-{port.id}": False,
        f"inet o-{port.id}": True,
        f"inet i-{port.id}": True,
        bridge_name(network.id): False,
        "vx1001": False,
    }
    host.apply(host.put(dataclasses.replace(port, port_security_enabled=False)))
    host.apply()
    hops = path(host, port.id)
    assert all(hop["ok"] for hop in hops)
    assert hops[1]["detail"] == {"reason": "port security is off"}
    with pytest.raises(NotFound):
        path(host, "nowhere")
