"""Two real hosts, real guests, real packets: what ``doc/networking.md`` promises, seen from the guests.

Guests a (on h1) and b (on h2) share a VXLAN network behind a router; c, another project's, has the
same address as a. All are reached by ssh from outside, by floating IP, with a key from the metadata service.
"""

from __future__ import annotations

import base64
import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli import settings
from tests.lab import namespaces
from tests.lab.hosts import HOSTS, OUTSIDE, TwoHosts, wait_for
from tests.lab.namespaces import entered

pytestmark = [
    pytest.mark.libvirt,
    pytest.mark.stack,
    pytest.mark.rabbitmq,
    pytest.mark.xdist_group("libvirt"),
    pytest.mark.timeout(900),
]
CIDR = "10.50.0.0/24"
USER_DATA = f"""#!/bin/sh
until ping -c 1 -w 2 {OUTSIDE}; do sleep 1; done
echo OUTSIDE-REACHED > /dev/console
"""
OPEN: dict[str, dict[str, Any]] = {
    "ssh": {"protocol": "tcp", "port_range_min": 22, "port_range_max": 22},
    "ping": {"protocol": "icmp"},
}


class World:
    """The two hosts, and an administrator's and a user's view of the cloud."""

    def __init__(self, hosts: TwoHosts, key: Path) -> None:
        self.hosts = hosts
        self.key = key
        self.admin = hosts.connect()
        self.demo = hosts.connect(f"{settings.CLOUD}-demo")
        self.public: Any = None
        self.image: Any = None
        self.flavor: Any = None

    def prepare(self, image: Path) -> None:
        """A flavor, an image, an external network."""
        admin = self.admin
        self.flavor = admin.compute.create_flavor(name="tiny", ram=128, vcpus=1, disk=1)
        self.image = admin.image.create_image(
            "tiny", filename=str(image), container_format="bare", disk_format="qcow2", visibility="public"
        )
        self.public = admin.network.create_network(
            name="public",
            is_router_external=True,
            provider_network_type="flat",
            provider_physical_network="public",
        )
        admin.network.create_subnet(
            network_id=self.public.id,
            ip_version=4,
            cidr="203.0.113.0/24",
            gateway_ip=OUTSIDE,
            allocation_pools=[{"start": "203.0.113.100", "end": "203.0.113.200"}],
            is_dhcp_enabled=False,
        )

    def tenant(self, connection: Any) -> dict[str, Any]:
        """A network behind a router, ssh and ping let in, a key."""
        network = connection.network.create_network(name="net")
        subnet = connection.network.create_subnet(network_id=network.id, ip_version=4, cidr=CIDR)
        router = connection.network.create_router(
            name="router", external_gateway_info={"network_id": self.public.id}
        )
        connection.network.add_interface_to_router(router, subnet_id=subnet.id)
        project = connection.current_project_id
        group = next(iter(connection.network.security_groups(name="default", project_id=project)))
        rules = {
            name: connection.network.create_security_group_rule(
                security_group_id=group.id, direction="ingress", ethertype="IPv4", **what
            )
            for name, what in OPEN.items()
        }
        connection.compute.create_keypair(name="key", public_key=Path(f"{self.key}.pub").read_text())
        return {"network": network, "subnet": subnet, "router": router, "group": group, "rules": rules}

    def boot(self, connection: Any, name: str, host: str | None, network: Any, address: str) -> Any:
        """A server with a fixed address, on a host if one is named; returned ACTIVE."""
        connection.compute.default_microversion = "2.74"
        server = connection.compute.create_server(
            name=name,
            flavor_id=self.flavor.id,
            image_id=self.image.id,
            key_name="key",
            networks=[{"uuid": network.id, "fixed_ip": address}],
            user_data=base64.b64encode(USER_DATA.encode()).decode(),
            **({"host": host} if host else {}),
        )
        return connection.compute.wait_for_server(server, wait=120, interval=0.3)

    def console(self, server: Any) -> str:
        output = self.admin.compute.get_server_console_output(server.id)["output"]
        return str(output or "")

    def wait_ready(self, server: Any) -> None:
        wait_for(lambda: "GUEST-READY" in self.console(server), f"guest {server.name} is ready", 300)

    def port_of(self, connection: Any, server: Any) -> Any:
        return next(iter(connection.network.ports(device_id=server.id)))

    def floating_ip(self, connection: Any, server: Any) -> str:
        port = self.port_of(connection, server)
        made = connection.network.create_ip(floating_network_id=self.public.id, port_id=port.id)
        wait_for(lambda: connection.network.get_ip(made.id).status == "ACTIVE", "floating IP is ACTIVE")
        return str(made.floating_ip_address)

    # -- in the guests ---------------------------------------------------------

    def ssh_command(self, address: str, *command: str) -> list[str]:
        return [
            "ip", "netns", "exec", self.hosts.spaces["outside"], "ssh", "-i", str(self.key), "-T",
            "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
            "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-o", "ServerAliveInterval=3",
            "-o", "ServerAliveCountMax=3", f"root@{address}", *command,
        ]  # fmt: skip

    def ssh(self, address: str, *command: str, timeout: float = 30) -> str:
        """The output of a command in a guest.

        :raises subprocess.SubprocessError: it can't be reached, or the command failed.
        """
        done = subprocess.run(
            self.ssh_command(address, *command), capture_output=True, text=True, timeout=timeout, check=True
        )
        return done.stdout

    def reached(self, address: str, *command: str) -> bool:
        try:
            self.ssh(address, *command, timeout=8)
        except subprocess.SubprocessError:
            return False
        return True


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, rabbitmq_server: Any, tiny: Path) -> Iterator[World]:
    why = namespaces.missing()
    if why:
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("key")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")], check=True)
    vhost = f"twohosts{time.monotonic_ns()}"
    hosts = TwoHosts(rabbitmq_server.create_vhost(vhost))
    try:
        hosts.start()
        with entered(hosts.spaces["control"]):
            world = World(hosts, folder / "key")
            world.prepare(tiny)
            wait_for(
                lambda: (
                    {agent.host for agent in world.admin.network.agents() if agent.is_alive} >= set(HOSTS)
                ),
                "network agents are alive",
            )
            wait_for(
                lambda: len([each for each in world.admin.compute.hypervisors(details=True)
                             if each.state == "up"]) == 2,
                "hypervisors are up",
                120,
            )  # fmt: skip
            yield world
    finally:
        hosts.close()
        rabbitmq_server.drop_vhost(vhost)


@pytest.fixture(scope="module")
def net(world: World) -> dict[str, Any]:
    return world.tenant(world.admin)


@pytest.fixture(scope="module")
def pair(world: World, net: dict[str, Any]) -> dict[str, Any]:
    """Guests a on h1 and b on h2, ready, and a's floating IP."""
    made = {
        name: world.boot(world.admin, name, host, net["network"], address)
        for name, host, address in (("a", "h1", "10.50.0.11"), ("b", "h2", "10.50.0.12"))
    }
    for server in made.values():
        world.wait_ready(server)
    return {**made, "floating": world.floating_ip(world.admin, made["a"])}


def test_guests_get_a_lease_and_metadata_of_their_own(world: World, pair: dict[str, Any]) -> None:
    for name, address in (("a", "10.50.0.11"), ("b", "10.50.0.12")):
        text = world.console(pair[name])
        assert f"GUEST-DHCP eth0 {address}/" in text
        assert f"GUEST-META source=http uuid={pair[name].id}" in text


def test_ssh_by_floating_ip_with_the_key_from_metadata(world: World, pair: dict[str, Any]) -> None:
    assert world.ssh(pair["floating"], "hostname").strip() == "a"


def test_guests_on_two_hosts_ping_each_other(world: World, pair: dict[str, Any]) -> None:
    assert "0% packet loss" in world.ssh(pair["floating"], "ping", "-c", "3", "-w", "10", "10.50.0.12")


def test_guests_reach_the_outside_through_snat(world: World, pair: dict[str, Any]) -> None:
    """With a floating IP (a) and without (b, whose user data says so on its console)."""
    assert "0% packet loss" in world.ssh(pair["floating"], "ping", "-c", "2", "-w", "10", OUTSIDE)
    wait_for(lambda: "OUTSIDE-REACHED" in world.console(pair["b"]), "b reaches the outside", 120)


def test_tenants_with_the_same_addresses_do_not_meet(world: World, pair: dict[str, Any]) -> None:
    other = world.tenant(world.demo)
    server = world.boot(world.demo, "c", None, other["network"], "10.50.0.11")
    world.wait_ready(server)
    address = world.floating_ip(world.demo, server)
    assert world.ssh(address, "hostname").strip() == "c"
    assert world.ssh(pair["floating"], "hostname").strip() == "a"
    # b's address exists only in the other tenant's network
    assert not world.reached(address, "ping", "-c", "2", "-w", "4", "10.50.0.12")
    assert world.reached(pair["floating"], "ping", "-c", "2", "-w", "4", "10.50.0.12")


@pytest.fixture
def slaac(world: World, net: dict[str, Any], pair: dict[str, Any]) -> Iterator[dict[str, str]]:
    """An IPv6 subnet comes to the network of running guests; the addresses that their ports have of it."""
    network = world.admin.network
    subnet = network.create_subnet(
        network_id=net["network"].id,
        ip_version=6,
        cidr="2001:db8:50::/64",
        ipv6_address_mode="slaac",
        ipv6_ra_mode="slaac",
    )
    network.add_interface_to_router(net["router"], subnet_id=subnet.id)

    def addresses(name: str) -> list[str]:
        port = world.port_of(world.admin, pair[name])
        return [each["ip_address"] for each in port.fixed_ips if each["subnet_id"] == subnet.id]

    yield {name: addresses(name)[0] for name in "ab"}
    network.remove_interface_from_router(net["router"], subnet_id=subnet.id)
    network.delete_subnet(subnet)


def test_slaac_and_metadata_by_ipv6(world: World, pair: dict[str, Any], slaac: dict[str, str]) -> None:
    """The router's advertisement tells a guest its address; its group lets the other in at that address."""
    floating = pair["floating"]
    wait_for(lambda: slaac["a"] in world.ssh(floating, "ip", "-6", "address"), "a has its address", 60)
    wait_for(
        lambda: world.reached(floating, "ping", "-6", "-c", "1", "-w", "4", slaac["b"]),
        "a reaches b on the other host",
        60,
    )
    request = "printf 'GET /openstack/latest/meta_data.json HTTP/1.0\\r\\n\\r\\n'"
    answer = world.ssh(floating, f"{request} | timeout 10 nc fe80::a9fe:a9fe%eth0 80")
    assert pair["a"].id in answer


@contextlib.contextmanager
def ticking(world: World, address: str) -> Iterator[subprocess.Popen[str]]:
    """An ssh session whose far end writes a line each half second."""
    process = subprocess.Popen(
        world.ssh_command(address, "while :; do echo tick; sleep 0.5; done"),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "tick\n"
        yield process
    finally:
        process.kill()
        process.wait()


def test_an_agent_that_is_killed_and_started_drops_no_connection(world: World, pair: dict[str, Any]) -> None:
    with ticking(world, pair["floating"]) as session:
        for host in HOSTS:
            world.hosts.kill(host)
        for _ in range(4):
            assert session.stdout is not None and session.stdout.readline() == "tick\n"
        for host in HOSTS:
            world.hosts.start_agents(host)
        for _ in range(30):
            assert session.stdout is not None and session.stdout.readline() == "tick\n"
        assert session.poll() is None
    assert world.ssh(pair["floating"], "hostname").strip() == "a"


def test_a_rule_that_is_taken_away_ends_the_running_flow(
    world: World, net: dict[str, Any], pair: dict[str, Any]
) -> None:
    network = world.admin.network
    with ticking(world, pair["floating"]) as session:
        network.delete_security_group_rule(net["rules"]["ssh"])
        # ssh's own keep-alive finds out that the other side has fallen silent
        assert session.wait(timeout=40) != 0
    assert not world.reached(pair["floating"], "true")
    network.create_security_group_rule(
        security_group_id=net["group"].id, direction="ingress", ethertype="IPv4", **OPEN["ssh"]
    )
    wait_for(lambda: world.reached(pair["floating"], "true"), "ssh works again", 120)


def test_a_deleted_server_leaves_no_device(world: World, net: dict[str, Any], pair: dict[str, Any]) -> None:
    server = world.boot(world.admin, "short", "h2", net["network"], "10.50.0.77")
    port = world.port_of(world.admin, server)
    tap = f"tap{port.id[:11]}"
    space = world.hosts.spaces["h2"]
    assert tap in world.hosts.lab.run(space, "ip", "-br", "link").stdout
    world.admin.compute.delete_server(server)
    world.admin.compute.wait_for_delete(server, wait=60)
    wait_for(
        lambda: tap not in world.hosts.lab.run(space, "ip", "-br", "link").stdout, "the tap is gone", 120
    )
    assert world.admin.network.find_port(port.id) is None
