"""VLAN networks on a kernel with 802.1Q: two hosts on one trunk, real packets, a switch that knows the tags.

``test_vlans.py`` runs this: here if this machine's kernel has VLANs, else in a kernel guest. Both
networks have the same addresses, so only the tag tells them apart.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from lifecycle.host_network import Network, Port
from network.drivers.linux.bridges import bridge_name
from tests.network.drivers.linux import lab
from tests.network.drivers.linux.lab import ALLOW_OUT, Rule, make_group, make_network, make_port

pytestmark = [lab.needs_lab, pytest.mark.skipif(not lab.has_vlans(), reason="the kernel has no 802.1Q")]

MTU = 1500
VLANS = (100, 200)
ADDRESSES = ("10.0.0.11", "10.0.0.12")
OPEN = make_group(*ALLOW_OUT, Rule("ingress", "IPv4"), Rule("ingress", "IPv6"))


@dataclasses.dataclass
class Trunk:
    """Host 0 and 1, with a guest of each VLAN on each."""

    underlay: lab.Underlay
    hosts: tuple[lab.Host, lab.Host]
    networks: dict[int, Network]
    ports: dict[tuple[int, int], Port]
    guests: dict[tuple[int, int], lab.Guest]

    def carry(self, vlan_id: int, carried: bool) -> None:
        """The switch lets a tag through, or drops frames that bear it."""
        for number in (1, 2):
            word = "add" if carried else "del"
            self.underlay.switch.run("bridge", "vlan", word, "dev", f"p{number}", "vid", str(vlan_id))

    def trace(self, vlan_id: int, host: int) -> list[dict[str, Any]]:
        where = self.hosts[host]
        assert where.inside is not None
        assert where.driver is not None
        return where.inside(where.driver.trace, where.state, self.ports[vlan_id, host].id)


@pytest.fixture(scope="module")
def trunk() -> Iterator[Trunk]:
    with lab.underlay() as underlay:
        a, b = (underlay.host(hint, physical_interfaces=["physnet1:ul0"]) for hint in "ab")
        networks, ports, guests = {}, {}, {}
        for vlan_id in VLANS:
            network = make_network(vlan_id, network_type="vlan", physical_network="physnet1", mtu=MTU)
            networks[vlan_id] = network
            for number, host in enumerate((a, b)):
                addresses = (f"{ADDRESSES[number]}/24", f"2001:db8::{number + 11}/64")
                port = make_port(network, *addresses, security_group_ids=(OPEN.id,))
                ports[vlan_id, number] = port
                host.put(network, port, OPEN)
        for host in (a, b):
            assert set(host.apply().ports.values()) == {"ACTIVE"}
        for (vlan_id, number), port in ports.items():
            guests[vlan_id, number] = underlay.guest((a, b)[number], port, mtu=MTU)
        made = Trunk(underlay, (a, b), networks, ports, guests)
        underlay.switch.run("ip", "link", "set", "br0", "type", "bridge", "vlan_filtering", "1")
        for vlan_id in VLANS:
            made.carry(vlan_id, True)
        yield made


def test_guests_of_a_vlan_reach_each_other(trunk: Trunk) -> None:
    for vlan_id in VLANS:
        assert trunk.guests[vlan_id, 0].reaches(ADDRESSES[1])
        assert trunk.guests[vlan_id, 0].reaches("2001:db8::12")
        assert trunk.guests[vlan_id, 1].reaches(ADDRESSES[0])
    driver = trunk.hosts[0].driver
    assert driver is not None
    assert driver.configurations()["interface_mappings"] == {"physnet1": "ul0"}


def test_vlans_share_a_trunk_and_keep_apart(trunk: Trunk) -> None:
    """A guest that only one VLAN has; and the switch, which reads the tags, tells the two networks apart."""
    b = trunk.hosts[1]
    lonely = make_port(trunk.networks[200], "10.0.0.13/24", security_group_ids=(OPEN.id,))
    b.apply(b.put(lonely))
    guest = trunk.underlay.guest(b, lonely, mtu=MTU)
    assert trunk.guests[200, 0].reaches("10.0.0.13")
    assert guest.reaches(ADDRESSES[0])
    assert not trunk.guests[100, 0].pings("10.0.0.13", count=3)
    assert not trunk.guests[100, 1].pings("10.0.0.13", count=3)
    trunk.carry(200, False)
    assert trunk.guests[100, 0].reaches(ADDRESSES[1])
    assert not trunk.guests[200, 0].pings(ADDRESSES[1], count=3)
    trunk.carry(200, True)
    assert trunk.guests[200, 0].reaches(ADDRESSES[1])


def test_the_largest_packet_of_the_network_goes_through_whole(trunk: Trunk) -> None:
    guest = trunk.guests[100, 0]

    def sent(size: int) -> subprocess.CompletedProcess[str]:
        return guest.run("ping", "-c1", "-W2", "-Mdo", "-s", str(size - 28), ADDRESSES[1], check=False)

    assert guest.reaches(ADDRESSES[1])
    assert sent(MTU).returncode == 0
    assert sent(MTU + 1).returncode != 0
    for device in (trunk.ports[100, 0].device, bridge_name(trunk.networks[100].id)):
        (link,) = json.loads(trunk.hosts[0].run("ip", "-j", "link", "show", device).stdout)
        assert link["mtu"] == MTU


def test_an_agent_that_starts_again_drops_no_connection_and_repairs(trunk: Trunk) -> None:
    a = trunk.hosts[0]
    flow = lab.Flow.open(trunk.guests[100, 0], trunk.guests[100, 1], ADDRESSES[1], 7000)
    other = lab.Flow.open(trunk.guests[200, 0], trunk.guests[200, 1], ADDRESSES[1], 7000)
    before = json.loads(a.run("ip", "-j", "link", "show", "ul0.100").stdout)
    a.stop()
    assert flow.passes()
    # while the agent is away somebody removes a device, unplugs another, and adds one that looks like ours
    a.run("ip", "link", "delete", "ul0.200")
    a.run("ip", "link", "set", trunk.ports[200, 0].device, "nomaster")
    a.run("ip", "link", "add", "link", "ul0", "name", "ul0.77", "type", "vlan", "id", "77")
    assert not other.passes(patience=0.5)
    a.start()
    a.apply()
    assert flow.passes() and flow.passes(back=True)
    assert json.loads(a.run("ip", "-j", "link", "show", "ul0.100").stdout) == before
    assert other.passes(patience=10) and other.passes(back=True)
    a.run("ip", "link", "delete", "ul0.77")  # a stranger's: it stayed
    flow.close()
    other.close()


def test_trace_shows_the_uplink(trunk: Trunk) -> None:
    a = trunk.hosts[0]
    assert trunk.guests[100, 0].reaches(ADDRESSES[1])
    hops = trunk.trace(100, 0)
    assert all(hop["ok"] for hop in hops)
    assert hops[-1] == {
        "hop": "uplink",
        "name": "ul0.100",
        "ok": True,
        "detail": {"segmentation_id": 100, "physical_network": "physnet1"},
    }
    a.run("ip", "link", "set", "ul0.100", "nomaster")
    assert [hop["hop"] for hop in trunk.trace(100, 0) if not hop["ok"]] == ["uplink"]
    a.run("ip", "link", "delete", "ul0.100")
    assert trunk.trace(100, 0)[-1]["detail"] == {"reason": "is not there"}
    assert all(hop["ok"] for hop in trunk.trace(200, 0))
    a.apply()
    assert all(hop["ok"] for hop in trunk.trace(100, 0))
    assert trunk.guests[100, 0].reaches(ADDRESSES[1])


def test_a_vlan_device_goes_with_its_network(trunk: Trunk) -> None:
    a = trunk.hosts[0]

    def tags() -> dict[str, int]:
        found = json.loads(a.run("ip", "-j", "-d", "link", "show", "type", "vlan").stdout)
        return {each["ifname"]: each["linkinfo"]["info_data"]["id"] for each in found if each}

    network = make_network(300, network_type="vlan", physical_network="physnet1")
    a.apply(a.put(network))
    assert tags() == {"ul0.100": 100, "ul0.200": 200, "ul0.300": 300}
    a.apply(a.drop(network))
    assert tags() == {"ul0.100": 100, "ul0.200": 200}
    assert trunk.guests[100, 0].reaches(ADDRESSES[1])
