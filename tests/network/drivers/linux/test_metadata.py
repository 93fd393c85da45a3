"""Metadata from the guest to the service: the real proxy and the real service, on a host that is a namespace."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import webtest
from keystoneauth1.exceptions import ConnectFailure

from api.common.server import ApiRole
from api.compute.app import make_app as make_compute_app
from api.metadata.app import make_app
from api.metadata.services import GROUP, MetadataServices
from api.network.app import make_app as make_network_app
from api.network.services import NetworkServices
from core import config
from core.metadata import signature
from lifecycle.host_network import Network, Port
from network.drivers.linux import metadata
from tests.api.compute.conftest import Api, make_services
from tests.api.compute.server_tools import boot, make_flavor, place
from tests.api.identity import authenticate
from tests.api.network.conftest import ADMIN, Bells
from tests.api.network.conftest import Api as NetworkApi
from tests.network.drivers.linux import lab
from tests.network.drivers.linux.edges import (
    OPEN,
    configure,
    gateways,
    guest_port,
    lease,
    make_router,
    make_subnet,
    served,
)  # fmt: skip
from tests.network.drivers.linux.lab import Inside, eventually, make_network, needs_lab

pytestmark = needs_lab
SECRET = "between proxy and service"
IPV4, IPV6 = "169.254.169.254", "fe80::a9fe:a9fe%eth0"
META_DATA = "/openstack/latest/meta_data.json"


class Adapter:
    """What keystoneauth's adapter looks like to the proxy, with the real Network API behind it."""

    def __init__(self, services: NetworkServices) -> None:
        self._app = webtest.TestApp(make_network_app(services.conf, services, authenticate))
        self.asked = 0
        self.failure: Exception | None = None

    def get(self, path: str, *, params: dict[str, str], raise_exc: bool) -> Any:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        answer = self._app.get(path, params=params, headers={"X-Auth-Token": ADMIN}, expect_errors=True)
        return Answer(answer.status_code, answer.json)


class Answer:
    def __init__(self, status_code: int, body: Any) -> None:
        self.status_code = status_code
        self.json = lambda: body


@dataclasses.dataclass
class World:
    """A host with the metadata service in it, and servers whose ports are on the host."""

    underlay: lab.Underlay
    host: lab.Host
    compute: Api
    network_api: NetworkApi
    adapter: Adapter
    services: MetadataServices
    database: Any

    def start(self) -> None:
        """The host's driver speaks to this service, and to this Network API."""
        assert self.host.driver is not None
        conf = self.host.driver.conf
        conf.set_override("shared_secret", SECRET, group="metadata")
        self.host.driver.metadata._ask._adapter = self.adapter

    def server(self, name: str) -> str:
        server_id = boot(self.compute, name=name)
        place(self.database, server_id)
        return server_id

    def guest(self, port: Port) -> lab.Guest:
        return self.underlay.guest(self.host, port)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        compute = make_services(tmp_path)
        stack.callback(compute.close)
        api = Api(webtest.TestApp(make_compute_app(compute.conf, compute, authenticate)))
        make_flavor(api)
        network = NetworkServices(compute.conf)
        network.doorbells.close()
        network.doorbells = Bells()  # type: ignore[assignment]
        stack.callback(network.close)
        network_app = webtest.TestApp(make_network_app(network.conf, network, authenticate))
        services = MetadataServices(compute.conf)
        stack.callback(services.close)
        config.override(compute.conf, "metadata.shared_secret", SECRET)
        underlay = stack.enter_context(lab.underlay())
        host = underlay.host("a")
        inside = Inside(host.name)
        stack.callback(inside.close)
        role = ServedInside(services)
        inside(role.start)
        stack.callback(lambda: inside(role.stop))
        made = World(underlay, host, api, NetworkApi(network_app), Adapter(network), services, compute)
        made.start()
        yield made


class ServedInside:
    """The service's role as it is, in the namespace of the thread that starts it."""

    def __init__(self, services: MetadataServices) -> None:
        self._role = ApiRole("metadata-api", services.conf, GROUP, lambda conf: make_app(conf, services))
        self.start, self.stop = self._role.start, self._role.stop


def fetch(
    guest: lab.Guest,
    path: str = META_DATA,
    address: str = IPV4,
    *,
    method: str = "GET",
    body: bytes | None = None,
    **headers: str,
) -> tuple[int, bytes]:
    """(status, body) of a request out of a guest. :raises OSError: nobody answers."""

    def ask() -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(address, 80, timeout=5)
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body=body, headers=sent)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    inside = Inside(guest.name)
    try:
        return inside(ask)
    finally:
        inside.close()


def who(guest: lab.Guest, address: str = IPV4, **headers: str) -> str | None:
    """The server that a guest is told it is; None if it is told nothing."""
    try:
        status, body = fetch(guest, address=address, **headers)
    except OSError:
        return None
    return str(json.loads(body)["uuid"]) if status == 200 else None


def own_port(network: Network, number: int, server_id: str, **fields: Any) -> Port:
    return guest_port(network, number, device_id=server_id, project_id="p1", **fields)


def test_each_guest_is_told_about_itself_from_its_lease_on(world: World, tmp_path: Path) -> None:
    network = served(make_network(1001), make_subnet("10.0.0.0/24", gateway_ip=None))
    servers = [world.server("one"), world.server("two")]
    ports = [own_port(network, 11 + number, server) for number, server in enumerate(servers)]
    world.host.put(network, OPEN, *ports)
    world.host.apply()
    guests = [world.underlay.guest(world.host, port, addresses=False) for port in ports]
    for guest, server in zip(guests, servers, strict=True):
        configure(guest, lease(guest, tmp_path))
        assert who(guest) == server
    # another tenant's network with the same addresses
    other = served(make_network(1002), make_subnet("10.0.0.0/24", gateway_ip=None))
    third = world.server("three")
    world.host.apply(world.host.put(other, own_port(other, 11, third)))
    guest = world.underlay.guest(world.host, world.host.state.ports_of(other.id)[0], addresses=False)
    configure(guest, lease(guest, tmp_path))
    assert who(guest) == third
    assert who(guests[0]) == servers[0]


@pytest.fixture
def pair(world: World) -> tuple[list[str], list[lab.Guest]]:
    """Two servers on a network, their guests with a route to the metadata."""
    network = served(make_network(1001), make_subnet("10.0.0.0/24"))
    servers = [world.server("one"), world.server("two")]
    ports = [
        own_port(network, 11 + number, server, port_security_enabled=False)
        for number, server in enumerate(servers)
    ]
    world.host.put(network, OPEN, *ports)
    world.host.apply()
    guests = [world.guest(port) for port in ports]
    for guest in guests:
        guest.run("ip", "route", "add", f"{IPV4}/32", "via", "10.0.0.2")
    return servers, guests


def test_what_a_guest_says_about_itself_is_not_believed(
    world: World, pair: tuple[list[str], list[lab.Guest]]
) -> None:
    servers, guests = pair
    forged = {
        "X_Instance_ID": servers[1],
        "X_Tenant_ID": "p1",
        "X_Instance_ID_Signature": signature(SECRET, servers[1]),
        "X_Forwarded_For": "10.0.0.12",
        "X_Metadata_Provider": "10.0.0.12",
        "Forwarded": "for=10.0.0.12",
    }
    assert who(guests[0], **forged) == servers[0]
    # who takes an address that no port has is nobody
    guests[0].run("ip", "address", "flush", "dev", "eth0")
    guests[0].run("ip", "address", "add", "10.0.0.99/24", "dev", "eth0")
    guests[0].run("ip", "route", "replace", f"{IPV4}/32", "via", "10.0.0.2")
    assert fetch(guests[0], **forged)[0] == 404


def test_paths_bodies_and_errors_pass(world: World, pair: tuple[list[str], list[lab.Guest]]) -> None:
    servers, (guest, _other) = pair
    assert fetch(guest, "/latest/meta-data/hostname") == (200, b"one")
    assert fetch(guest, "/latest/meta-data/nothing")[0] == 404
    password = "/openstack/latest/password"
    assert fetch(guest, password, method="POST", body=b"c2VjcmV0")[0] == 200
    assert fetch(guest, password) == (200, b"c2VjcmV0")
    assert fetch(guest, password, method="POST", body=b"again")[0] == 409
    assert world.compute.get(f"/servers/{servers[0]}/os-server-password").json == {"password": "c2VjcmV0"}
    assert fetch(guest, password, method="POST", body=b"x" * 70_000)[0] == 413
    for length in ("9" * 5000, "\xb2", "-1", "x"):
        assert fetch(guest, Content_Length=length)[0] == 413
    assert fetch(guest, "http://192.0.2.1/elsewhere")[0] == 400


def test_by_ipv6_link_local(world: World) -> None:
    if not Path("/proc/sys/net/ipv6").exists():
        pytest.skip("the kernel has no IPv6")
    subnet = make_subnet("2001:db8:1::/64", ipv6_address_mode="dhcpv6-stateful", ipv6_ra_mode=None)
    network = served(make_network(1001), subnet)
    server = world.server("six")
    port = own_port(network, 11, server)
    world.host.put(network, OPEN, port)
    world.host.apply()
    guest = world.guest(port)
    assert eventually(lambda: who(guest, IPV6) == server, 10)


def test_without_a_secret_nobody_is_told_anything(
    world: World, pair: tuple[list[str], list[lab.Guest]]
) -> None:
    assert world.host.driver is not None
    world.host.driver.conf.set_override("shared_secret", "", group="metadata")
    assert fetch(pair[1][0])[0] >= 400
    world.host.driver.conf.set_override("shared_secret", "another", group="metadata")
    assert fetch(pair[1][0])[0] == 403


def test_a_service_that_does_not_answer_is_503(world: World, pair: tuple[list[str], list[lab.Guest]]) -> None:
    assert world.host.driver is not None
    world.host.driver.conf.set_override("url", "http://127.0.0.1:1", group="metadata_proxy")
    assert fetch(pair[1][0])[0] == 503


def test_an_agent_that_starts_again_serves_again(
    world: World, pair: tuple[list[str], list[lab.Guest]]
) -> None:
    servers, guests = pair
    world.host.stop()
    assert who(guests[0]) is None
    world.host.start()
    world.start()
    world.host.apply()
    assert who(guests[0]) == servers[0]
    # a port that goes is told nothing more, its neighbour still is
    world.host.apply(world.host.put(dataclasses.replace(guests[0].port, addresses=())))
    assert who(guests[0]) is None
    assert who(guests[1]) == servers[1]


def test_a_guest_that_only_knows_its_router_is_served_there(world: World) -> None:
    """No option 121: the packets go to the default gateway. Its host may not have the port; the Network API knows."""
    created = world.network_api.network()
    subnet = world.network_api.subnet(created["id"])
    server = world.server("cirros")
    api_port = world.network_api.port(
        created["id"], fixed_ips=[{"ip_address": "10.0.0.11"}], device_id=server
    )
    network = dataclasses.replace(make_network(1001), id=created["id"])
    network = dataclasses.replace(network, subnets=(make_subnet("10.0.0.0/24", id=subnet["id"]),), dhcp=None)
    port = dataclasses.replace(
        own_port(network, 11, server, port_security_enabled=False),
        id=api_port["id"],
        mac_address=api_port["mac_address"],
    )
    router = make_router(None, gateways(network))
    world.host.put(network, OPEN, port, router)
    world.host.apply()
    guest = world.guest(port)
    guest.run("ip", "route", "add", "default", "via", "10.0.0.1")
    world.adapter.failure = ConnectFailure("the network service is away")
    assert fetch(guest)[0] == 503
    world.adapter.failure = None
    assert who(guest) == server
    assert who(guest, X_Instance_ID=world.server("other")) == server
    # the answer is remembered for a while, the failure was not
    assert world.adapter.asked == 2
    # an address that nobody has
    guest.run("ip", "address", "add", "10.0.0.12/24", "dev", "eth0")
    guest.run("ip", "route", "replace", "default", "via", "10.0.0.1", "src", "10.0.0.12")
    assert fetch(guest)[0] == 404
    assert world.adapter.asked == 3


def test_idle_connections_of_one_guest_do_not_keep_others_out(
    world: World, pair: tuple[list[str], list[lab.Guest]]
) -> None:
    servers, guests = pair
    inside = Inside(guests[0].name)
    idle: list[socket.socket] = []
    try:
        for _ in range(60):
            with contextlib.suppress(OSError):
                idle.append(inside(socket.create_connection, (IPV4, 80), 2))
        for each in idle:
            with contextlib.suppress(OSError):
                each.send(b"GET / HT")
        assert who(guests[1]) == servers[1]
    finally:
        for each in idle:
            each.close()
        inside.close()
    assert eventually(lambda: who(guests[0]) == servers[0])


def test_a_request_that_trickles_in_is_ended(
    pair: tuple[list[str], list[lab.Guest]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "_PATIENCE_S", 1.0)
    _servers, guests = pair
    inside = Inside(guests[0].name)
    slow = inside(socket.create_connection, (IPV4, 80), 2)
    inside.close()

    def is_ended() -> bool:
        try:
            slow.send(b"X")  # well within the time that may lie between two bytes
            slow.settimeout(0.05)
            return slow.recv(1) == b""
        except TimeoutError:
            return False
        except OSError:
            return True

    assert eventually(is_ended, 10)
    slow.close()


def test_a_network_that_goes_is_served_no_more(world: World, pair: tuple[list[str], list[lab.Guest]]) -> None:
    assert world.host.driver is not None
    network = next(iter(world.host.state.networks.values()))
    name = f"hdhcp-{network.id}"
    assert world.host.driver.metadata.serves(name)
    world.host.apply(world.host.drop(network, *world.host.state.ports.values()))
    assert not world.host.driver.metadata.serves(name)
    assert list((world.host.folder / "netns").iterdir()) == []
