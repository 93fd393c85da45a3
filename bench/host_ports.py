#!/usr/bin/env python3
"""How long the Linux data plane needs for many ports on one host: real devices, rules and DHCP. Needs root.

    python bench/host_ports.py                 200 ports in 4 networks
    python bench/host_ports.py --ports 400 --networks 10

Everything happens in a network namespace of its own. Half the ports have a second security group whose rule names
a remote group, so member sets change with every port. For each size: seconds until all ports are
ACTIVE from nothing; milliseconds for one more port and for its removal (median of 10); seconds of the
full comparison that an agent makes each minute and at its start, with nothing to be done.
What the control plane needs for the same is measured by bench/ports.py.
"""

from __future__ import annotations

import argparse
import ipaddress
import pathlib
import statistics
import sys
import time
import uuid

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from core import config  # noqa: E402
from lifecycle.host_network import (  # noqa: E402
    Address,
    Changed,
    Dhcp,
    HostNetwork,
    Members,
    Network,
    Port,
    Rule,
    SecurityGroup,
    Subnet,
)
from network.drivers.linux import options  # noqa: E402
from network.drivers.linux.driver import LinuxDriver  # noqa: E402
from tests.lab import leftovers, namespaces  # noqa: E402


class Bench:
    """One host's desired state, and the driver that makes it so."""

    def __init__(self, driver: LinuxDriver, networks: int) -> None:
        self.driver = driver
        self.state = HostNetwork()
        self.networks = [self._network(number) for number in range(networks)]
        for network in self.networks:
            self.state.networks[network.id] = network
        out = (Rule("egress", "IPv4"), Rule("egress", "IPv6"))
        members = str(uuid.uuid4())
        self.default = SecurityGroup(members, True, (*out, Rule("ingress", "IPv4", remote_group_id=members)))
        self.web = SecurityGroup(
            str(uuid.uuid4()),
            True,
            (*out, Rule("ingress", "IPv4", "tcp", 80, 80, remote_ip_prefix="0.0.0.0/0")),
        )
        self.state.groups = {each.id: each for each in (self.default, self.web)}
        self.state.members = {members: Members()}

    @staticmethod
    def _network(number: int) -> Network:
        subnet = str(uuid.uuid4())
        base = f"10.{number}.0"
        dhcp = Dhcp(str(uuid.uuid4()), f"fa:16:3e:ff:{number:02x}:02", (Address(f"{base}.2", subnet, 16),))
        return Network(
            id=str(uuid.uuid4()), project_id="p", admin_state_up=True, mtu=1450, network_type="vxlan",
            physical_network=None, segmentation_id=1000 + number, dhcp=dhcp,
            subnets=(Subnet(subnet, f"{base}.0/16", 4, f"{base}.1", True),),
        )  # fmt: skip

    def add(self) -> Port:
        """One more port, and the group of it that grows with it."""
        number = len(self.state.ports)
        network = self.networks[number % len(self.networks)]
        subnet = network.subnets[0]
        address = str(ipaddress.ip_network(subnet.cidr)[10 + number])
        identifier = str(uuid.uuid4())
        port = Port(
            id=identifier, network_id=network.id, project_id="p",
            mac_address=f"fa:16:3e:{number >> 16:02x}:{number >> 8 & 255:02x}:{number & 255:02x}",
            admin_state_up=True, device_id=str(uuid.uuid4()), device_owner="compute:nova",
            addresses=(Address(address, subnet.id, 16, subnet.gateway_ip),),
            security_group_ids=(self.default.id, self.web.id) if number % 2 else (self.default.id,),
        )  # fmt: skip
        self.state.ports[identifier] = port
        self.state.members[self.default.id].replace(identifier, [address])
        return port

    def remove(self, port: Port) -> None:
        del self.state.ports[port.id]
        self.state.members[self.default.id].replace(port.id, ())

    def apply(self, changed: Changed) -> float:
        """Seconds that it took. :raises SystemExit: something failed."""
        begun = time.perf_counter()
        applied = self.driver.apply(self.state, changed)
        took = time.perf_counter() - begun
        if applied.errors or set(applied.ports.values()) - {"ACTIVE"}:
            raise SystemExit(f"not all went well: {applied.errors[:3]}")
        return took

    def changed(self, port: Port) -> Changed:
        addresses = {each.ip_address for each in port.addresses}
        return Changed(ports={port.id}, addresses={self.default.id: addresses})


def measure(bench: Bench, ports: int) -> None:
    for _ in range(ports):
        bench.add()
    first = bench.apply(Changed(everything=True))
    added, removed = [], []
    for _ in range(10):
        port = bench.add()
        added.append(bench.apply(bench.changed(port)))
        bench.remove(port)
        removed.append(bench.apply(bench.changed(port)))
    again = bench.apply(Changed(everything=True))
    print(
        f"{ports:6} ports  all ACTIVE after {first:6.2f} s ({first / ports * 1000:5.1f} ms each)"
        f"  one more {statistics.median(added) * 1000:6.1f} ms  one less {statistics.median(removed) * 1000:6.1f} ms"
        f"  full comparison {again:5.2f} s",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ports", type=int, nargs="+", default=[50, 200], help="sizes to measure (50 200)")
    parser.add_argument("--networks", type=int, default=4)
    arguments = parser.parse_args()
    why = namespaces.missing()
    if why:
        raise SystemExit(why)
    leftovers.clear_up_when_ended()
    for ports in arguments.ports:
        lab = namespaces.Lab()
        folder = leftovers.make_folder("hh-bench-")
        space = lab.make("host")
        try:
            lab.bridge(space, "ul0", address="172.31.0.1/24")
            with namespaces.entered(space):
                conf = config.load(overrides={"state_path": str(folder)})
                config.register(conf, options.list_opts())
                config.override(conf, "network_linux.tunnel_address", "172.31.0.1")
                config.override(conf, "network_linux.netns_folder", str(folder / "netns"))
                driver = LinuxDriver(conf, "bench")
                driver.start()
                bench = Bench(driver, arguments.networks)
                measure(bench, ports)
                bench.state = HostNetwork()
                driver.apply(bench.state, Changed(everything=True))
                driver.close()
        finally:
            leftovers.remove(folder)
            lab.close()


if __name__ == "__main__":
    main()
