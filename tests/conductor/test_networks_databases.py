"""Several conductors at the same time, on all three databases: one port per network, one host per router."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from conductor import host_networks
from core.network_changes import NetworkChanges
from db import dhcp_ports, network_agents, network_concerns, network_reports, router_placement
from db.network_base import TABLES
from db.sessions import retrying
from lifecycle.host_network import Changed
from tests.api.network.conftest import ADMIN, SERVICE
from tests.network.plane import Conductor, Plane, wait_for

BASE_MAC = "fa:16:3e:00:00:00"


def together(number: int, function: Callable[[int], Any]) -> list[Any]:
    """What ``number`` threads that start at once return, or raise."""
    barrier = threading.Barrier(number)
    results: list[Any] = [None] * number

    def run(index: int) -> None:
        barrier.wait()
        try:
            results[index] = function(index)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            results[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.fixture
def plane(database_url: str) -> Iterator[Plane]:
    """No hosts, and no conductor: the test is the conductors."""
    made = Plane(database_url)
    made.conductors.pop().stop()
    yield made
    made.stop()


def add_agents(plane: Plane, *hosts: str) -> None:
    with plane.services.databases.global_.write() as connection:
        for host in hosts:
            for kind in (network_agents.L2_AGENT, network_agents.L3_AGENT, network_agents.DHCP_AGENT):
                configurations = {"interface_mappings": {}, "tunneling_ip": f"192.0.2.{host[1:]}"}
                values = {"agent_type": kind, "binary": "b", "host": host, "configurations": configurations}
                network_agents.report(connection, {**values, "cell_id": 1})


def test_one_dhcp_port_however_many_make_it(plane: Plane) -> None:
    database = plane.services.databases.global_
    networks = [plane.api.network()["id"] for _ in range(3)]
    subnets = [plane.api.subnet(network)["id"] for network in networks]

    @retrying
    def settle(index: int) -> None:
        with database.write() as connection:
            dhcp_ports.settle(connection, networks[index % 3], BASE_MAC)

    assert together(9, settle) == [None] * 9
    for network, subnet in zip(networks, subnets, strict=True):
        (port,) = plane.api.get(f"/ports?network_id={network}", as_=ADMIN)["ports"]
        assert port["id"] == dhcp_ports.port_id_of(network)
        assert [each["subnet_id"] for each in port["fixed_ips"]] == [subnet]
    with database.read() as connection:
        assert dhcp_ports.unsettled(connection) == set()


def test_subnets_and_networks_go_while_their_dhcp_port_is_made(plane: Plane) -> None:
    database = plane.services.databases.global_
    networks = [plane.api.network()["id"] for _ in range(4)]
    subnets = [plane.api.subnet(network)["id"] for network in networks]

    @retrying
    def settle(network: str) -> None:
        with database.write() as connection:
            dhcp_ports.settle(connection, network, BASE_MAC)

    def run(index: int) -> Any:
        network = networks[index // 2]
        if index % 2:
            return settle(network)
        path = f"/subnets/{subnets[index // 2]}" if index < 4 else f"/networks/{network}"
        return plane.api.delete(path, status=204)

    assert not [each for each in together(8, run) if isinstance(each, Exception)]
    for network in networks[:2]:
        settle(network)
        assert plane.api.get(f"/ports?network_id={network}", as_=ADMIN)["ports"] == []


def test_a_router_is_placed_once(plane: Plane) -> None:
    add_agents(plane, "h1", "h2", "h3")
    network = plane.api.network(as_=ADMIN, **{"router:external": True})["id"]
    plane.api.subnet(network, "203.0.113.0/24", as_=ADMIN, enable_dhcp=False)
    gateway = {"external_gateway_info": {"network_id": network}}
    made = [plane.api.post("/routers", {"router": gateway})["router"]["id"] for _ in range(6)]
    database = plane.services.databases.global_

    @retrying
    def place(_index: int) -> dict[str, str]:
        with database.write() as connection:
            return router_placement.place(connection, 75)

    results = together(4, place)
    wins = [router for result in results for router in result]
    assert sorted(wins) == sorted(made), "each was placed by one"
    table = TABLES["routers"]
    with database.read() as connection:
        rows = connection.execute(sa.select(table.c.id, table.c.host)).tuples().all()
    placed = {router: host for result in results for router, host in result.items()}
    assert dict(rows) == placed


def test_agents_are_known_once_however_many_hear_them(plane: Plane) -> None:
    database = plane.services.databases.global_

    @retrying
    def report(_index: int) -> str:
        with database.write() as connection:
            return network_agents.report(
                connection, {"agent_type": network_agents.L2_AGENT, "binary": "b", "host": "h1"}
            )

    assert len(set(together(6, report))) == 1
    assert len(plane.api.get("/agents", as_=ADMIN)["agents"]) == 1


def test_state_reports_and_concerns(plane: Plane) -> None:
    """The statements themselves, as all databases understand them."""
    add_agents(plane, "h1", "h2")
    api, database = plane.api, plane.services.databases.global_
    network = api.network()["id"]
    subnet = api.subnet(network)["id"]
    outside, _ = api.external()
    gateway = {"external_gateway_info": {"network_id": outside["id"]}}
    router = api.post("/routers", {"router": gateway})["router"]["id"]
    api.put(f"/routers/{router}/add_router_interface", {"subnet_id": subnet})
    first, second = (plane.bound(network, host) for host in ("h1", "h2"))
    (group,) = first["security_groups"]
    pairs = {"port": {"allowed_address_pairs": [{"ip_address": "192.0.2.99"}]}}
    api.put(f"/ports/{second['id']}", pairs, as_=SERVICE)
    body = {"floatingip": {"floating_network_id": outside["id"], "port_id": first["id"]}}
    floating_ip = api.post("/floatingips", body)["floatingip"]["id"]
    with database.write() as connection:
        dhcp_ports.settle(connection, network, BASE_MAC)
        (host,) = router_placement.place(connection, 75).values()
    with database.read() as connection:
        state = host_networks.state(connection, host, Changed(everything=True))
        mine = first if host == "h1" else second
        part = host_networks.state(
            connection, host, Changed(ports={mine["id"]}, groups={group}, named={group})
        )
        one = host_networks.state(connection, host, Changed(members={group: {second["id"], "gone"}}))
    assert set(state.ports) == {mine["id"]} and set(state.routers) == {router}
    assert set(state.networks) == {network, outside["id"]}
    assert len(state.networks[network].peers) == 1
    assert state.networks[network].dhcp is not None
    assert [each.id for each in state.routers[router].floating_ips] == [floating_ip]
    expected = {port["fixed_ips"][0]["ip_address"] for port in (first, second)} | {"192.0.2.99"}
    assert set(state.members[group]) == expected
    assert part.ports == state.ports and part.groups == state.groups and not part.networks
    assert part.members == state.members
    assert set(one.members[group]) == {second["fixed_ips"][0]["ip_address"], "192.0.2.99"}
    assert not one.ports and not one.groups
    with database.read() as connection:
        concerned = network_concerns.concerns(
            connection, NetworkChanges(addressed={first["id"]}), network_concerns.Known()
        )
    assert set(concerned) == {"h1", "h2"} and concerned["h2"].members == {group: {first["id"]}}
    with database.write() as connection:
        turned = network_reports.set_ports(connection, "h1", {first["id"]: "ACTIVE", second["id"]: "ACTIVE"})
        network_reports.set_routers(connection, host, {router: "ACTIVE"})
        network_reports.set_floating_ips(connection, host, {floating_ip: "ACTIVE"})
    assert [port.id for port in turned] == [first["id"]]
    assert api.get(f"/floatingips/{floating_ip}")["floatingip"]["status"] == "ACTIVE"
    legs = api.get(f"/ports?device_id={router}", as_=ADMIN)["ports"]
    assert {leg["status"] for leg in legs} == {"ACTIVE"}


def test_two_conductors_of_a_cell(database_url: str) -> None:
    """Both hear every change and all reports come to one of them: ports turn, one DHCP port, one place."""
    plane = Plane(database_url, "h1", "h2")
    plane.conductors.append(Conductor(plane))
    try:
        network = plane.api.network()["id"]
        plane.api.subnet(network)
        ports = [plane.bound(network, "h1")["id"] for _ in range(5)]
        plane.wait_active(*ports)
        found = wait_for(
            lambda: plane.api.get(f"/ports?network_id={network}&device_owner=network:dhcp", as_=ADMIN)[
                "ports"
            ],
            "the DHCP port",
        )
        assert len(found) == 1
        # one of them goes; the other carries on
        plane.conductors.pop(0).stop()
        later = plane.bound(network, "h2")["id"]
        plane.wait_active(later)
    finally:
        plane.stop()


def test_over_a_broker(tmp_path: Path, rabbitmq_url: str) -> None:
    """Rings fan out to all conductors, and each agent hears its own."""
    plane = Plane(f"sqlite:///{tmp_path}/global.sqlite", "h1", "h2", transport=rabbitmq_url)
    plane.conductors.append(Conductor(plane))
    try:
        network = plane.api.network()["id"]
        plane.api.subnet(network)
        ports = [plane.bound(network, host)["id"] for host in ("h1", "h2")]
        plane.wait_active(*ports)
        assert [set(plane.hosts[host].driver.ports) for host in ("h1", "h2")] == [{each} for each in ports]
        trace = plane.api.get(f"/ports/{ports[0]}/trace", as_=ADMIN)["trace"]
        assert trace["hops"][0]["ok"]
        plane.api.delete(f"/ports/{ports[0]}")
        wait_for(lambda: not plane.hosts["h1"].driver.ports, "unplugged")
    finally:
        plane.stop()
