"""A conductor's networks: what it tells agents, what it believes of them, where it puts routers."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from conductor import host_networks
from conductor.compute_events import ComputeEvents, Event
from core.network_changes import NetworkChanges
from db import network_agents, network_concerns, network_reports, router_placement
from db.network_base import TABLES
from db.sessions import Database, make_engine
from db.types import now
from lifecycle.host_network import Changed
from tests.api.network.conftest import ADMIN, MEMBER
from tests.db.statements import statements
from tests.network.plane import Compute, Plane, wait_for

FLAT = {"provider:network_type": "flat", "provider:physical_network": "public", "router:external": True}


def external(plane: Plane) -> dict[str, Any]:
    network = plane.api.network(as_=ADMIN, **FLAT)
    plane.api.subnet(network["id"], "203.0.113.0/24", as_=ADMIN, enable_dhcp=False)
    return network


def router(plane: Plane, gateway: str | None = None, **values: Any) -> dict[str, Any]:
    if gateway:
        values["external_gateway_info"] = {"network_id": gateway}
    return dict(plane.api.post("/routers", {"router": values}, as_=MEMBER)["router"])


def host_of(plane: Plane, router_id: str) -> str:
    table = TABLES["routers"]
    with plane.services.databases.global_.read() as connection:
        return str(connection.execute(sa.select(table.c.host).where(table.c.id == router_id)).scalar_one())


def row(plane: Plane, table: str, identifier: str) -> dict[str, Any]:
    found = sa.select(TABLES[table]).where(TABLES[table].c.id == identifier)
    with plane.services.databases.global_.read() as connection:
        return dict(connection.execute(found).mappings().one())


def count(plane: Plane, changed: Changed) -> int:
    """Statements that the state of h1 takes, as far as ``changed`` goes."""
    with alone(plane) as database, statements(database.engine) as seen, database.read() as connection:
        host_networks.state(connection, "h1", changed)
    return len(seen)


@contextlib.contextmanager
def alone(plane: Plane) -> Iterator[Database]:
    """The database through an engine that nobody else uses."""
    database = Database(make_engine(plane.conf.database.connection))
    yield database
    database.dispose()


@pytest.fixture
def routed(plane: Plane) -> dict[str, Any]:
    """A network with a server on h1, behind a router with a gateway."""
    outside = external(plane)
    network = plane.api.network()
    subnet = plane.api.subnet(network["id"])
    made = router(plane, outside["id"])
    plane.api.put(f"/routers/{made['id']}/add_router_interface", {"subnet_id": subnet["id"]})
    port = plane.bound(network["id"], "h1")
    plane.wait_active(port["id"])
    return {"outside": outside["id"], "network": network["id"], "router": made["id"], "port": port["id"]}


def test_the_state_takes_as_many_statements_for_many_ports_as_for_few(
    plane: Plane, routed: dict[str, Any]
) -> None:
    few, one = count(plane, Changed(everything=True)), count(plane, Changed(ports={routed["port"]}))
    assert few <= 25 and one <= 5
    policy = plane.api.post("/qos/policies", {"policy": {"name": "slow", "shared": True}}, as_=ADMIN)[
        "policy"
    ]["id"]
    limit = {"bandwidth_limit_rule": {"max_kbps": 1000}}
    plane.api.post(f"/qos/policies/{policy}/bandwidth_limit_rules", limit, as_=ADMIN)
    more = [routed["port"]]
    for number in range(6):
        network = plane.api.network()["id"]
        plane.api.subnet(network, f"10.{number}.0.0/24")
        group = plane.api.post("/security-groups", {"security_group": {"name": f"g{number}"}})
        groups = [group["security_group"]["id"]]
        more += [plane.bound(network, "h1", security_groups=groups)["id"] for _ in range(3)]
        plane.api.put(f"/ports/{more[-1]}", {"port": {"qos_policy_id": policy}}, as_=ADMIN)
    # one more than before: there are bandwidth limits now
    assert count(plane, Changed(everything=True)) <= few + 1
    assert count(plane, Changed(ports=set(more))) <= one + 1


def test_whom_a_change_concerns_takes_few_statements(plane: Plane) -> None:
    network = plane.api.network()["id"]
    ports = [plane.bound(network, "h1")["id"] for _ in range(3)]

    def needed(changes: NetworkChanges, known: network_concerns.Known) -> int:
        with alone(plane) as database, statements(database.engine) as seen, database.read() as connection:
            network_concerns.concerns(connection, changes, known)
        return len(seen)

    known = network_concerns.Known()
    first = needed(NetworkChanges(ports={ports[0]}), known)
    assert needed(NetworkChanges(ports={ports[1]}), known) < first  # its network is known to be there
    assert needed(NetworkChanges(ports=set(ports)), network_concerns.Known()) == first


def test_a_host_is_told_about_itself_only(plane: Plane, routed: dict[str, Any]) -> None:
    everything = Changed(ports={routed["port"]}, networks={routed["network"]}, routers={routed["router"]})
    with plane.services.databases.global_.read() as connection:
        found = host_networks.state(connection, "stranger", everything)
    assert not found.ports and not found.networks and not found.routers


def test_a_report_of_a_host_that_the_port_has_left(plane: Plane) -> None:
    network = plane.api.network()["id"]
    port = plane.bound(network, "h1")
    plane.wait_active(port["id"])
    plane.hosts["h2"].stop()
    plane.api.put(f"/ports/{port['id']}", {"port": {"binding:host_id": "h2"}}, as_=ADMIN)
    networks = plane.conductors[0].networks
    networks.report("h1", {"ports": {port["id"]: "ACTIVE"}})
    assert plane.port(port["id"])["status"] == "DOWN"
    networks.report("h2", {"ports": {port["id"]: "ACTIVE"}})
    assert plane.port(port["id"])["status"] == "ACTIVE"
    plane.hosts["h2"].start()


def test_reports_write_only_what_differs(plane: Plane) -> None:
    network = plane.api.network()["id"]
    port = plane.bound(network, "h1")
    plane.wait_active(port["id"])
    before = plane.port(port["id"])["revision_number"]
    database = plane.services.databases.global_
    with database.write() as connection:
        assert network_reports.set_ports(connection, "h1", {port["id"]: "ACTIVE"}) == []
        assert network_reports.set_ports(connection, "h1", {port["id"]: "NONSENSE"}) == []
    assert plane.port(port["id"])["revision_number"] == before


def test_a_port_that_goes_down_is_told_to_compute(plane: Plane) -> None:
    network = plane.api.network()["id"]
    port = plane.bound(network, "h1")
    plane.wait_active(port["id"])
    plane.api.put(f"/ports/{port['id']}", {"port": {"admin_state_up": False}})
    wait_for(lambda: plane.port(port["id"])["status"] == "DOWN", "the port is down")
    event = ("network-vif-unplugged", port["device_id"], port["id"])
    wait_for(lambda: event in plane.compute.events, "Compute is told")


def test_compute_is_told_of_other_addresses_and_floating_ips(plane: Plane, routed: dict[str, Any]) -> None:
    port = plane.port(routed["port"])
    changed = ("network-changed", port["device_id"], port["id"])
    assert changed not in plane.compute.events  # who made the port knows its addresses
    body = {"floatingip": {"floating_network_id": routed["outside"], "port_id": port["id"]}}
    made = plane.api.post("/floatingips", body)["floatingip"]
    wait_for(lambda: plane.compute.events.count(changed) == 1, "associated")
    plane.api.put(f"/floatingips/{made['id']}", {"floatingip": {"port_id": None}})
    wait_for(lambda: plane.compute.events.count(changed) == 2, "disassociated")
    plane.api.put(f"/ports/{port['id']}", {"port": {"fixed_ips": [{"ip_address": "10.0.0.77"}]}}, as_=ADMIN)
    wait_for(lambda: plane.compute.events.count(changed) == 3, "another address")
    plane.api.put(f"/ports/{port['id']}", {"port": {"security_groups": []}})
    wait_for(lambda: plane.compute.events.count(changed) == 4, "other groups")


def test_events_wait_for_a_compute_that_is_away(plane: Plane) -> None:
    compute = Compute()
    compute.failures = 2
    events = ComputeEvents(plane.conf, compute)  # type: ignore[arg-type]
    events.start()
    events.send([Event("network-changed", "s1", "p1"), Event("network-changed", "s1", "p1")])
    wait_for(lambda: compute.events == [("network-changed", "s1", "p1")], "told once, at the third try")
    assert compute.calls == 3
    events.stop()


# -- routers -----------------------------------------------------------------------


def test_a_router_gets_a_host_and_its_ports_turn_active(plane: Plane, routed: dict[str, Any]) -> None:
    host = wait_for(lambda: host_of(plane, routed["router"]), "the router has a host")
    wait_for(lambda: routed["router"] in plane.hosts[host].driver.routers, "its namespace is there")
    legs = plane.api.get(f"/ports?device_id={routed['router']}", as_=ADMIN)["ports"]
    assert len(legs) == 2
    plane.wait_active(*(leg["id"] for leg in legs))
    state = plane.hosts[host].agent.state
    assert {routed["network"], routed["outside"]} <= set(state.networks)
    body = {"floatingip": {"floating_network_id": routed["outside"], "port_id": routed["port"]}}
    made = plane.api.post("/floatingips", body)["floatingip"]
    assert made["status"] == "DOWN"
    path = f"/floatingips/{made['id']}"
    wait_for(lambda: plane.api.get(path)["floatingip"]["status"] == "ACTIVE", "it works")
    assert state.routers[routed["router"]].floating_ips[0].floating_ip_address == made["floating_ip_address"]
    plane.api.put(path, {"floatingip": {"port_id": None}})
    wait_for(lambda: not state.routers[routed["router"]].floating_ips, "it leads nowhere")
    assert plane.api.get(path)["floatingip"]["status"] == "DOWN"


def test_the_router_s_host_is_one_of_its_networks_hosts(plane: Plane, routed: dict[str, Any]) -> None:
    """The server is on h1; wherever the router is, both flood to one another."""
    host = wait_for(lambda: host_of(plane, routed["router"]), "the router has a host")
    other = "h2" if host == "h1" else "h1"
    port = plane.bound(routed["network"], other)
    plane.wait_active(port["id"])
    address = plane.hosts[host].driver.configurations()["tunneling_ip"]
    state = plane.hosts[other].agent.state
    wait_for(lambda: address in state.networks[routed["network"]].peers, "floods to the router")


def test_a_deleted_router_leaves_its_host(plane: Plane) -> None:
    made = router(plane, external(plane)["id"])
    host = wait_for(lambda: host_of(plane, made["id"]), "the router has a host")
    driver = plane.hosts[host].driver
    wait_for(lambda: made["id"] in driver.routers, "it is there")
    plane.api.delete(f"/routers/{made['id']}")
    wait_for(lambda: made["id"] not in driver.routers, "it is gone")
    wait_for(lambda: not plane.hosts[host].agent.state.networks, "its networks as well")


def test_routers_are_spread(plane: Plane) -> None:
    outside = external(plane)["id"]
    made = [router(plane, outside)["id"] for _ in range(4)]
    hosts = [wait_for(lambda each=each: host_of(plane, each), "placed") for each in made]
    assert sorted(hosts) == ["h1", "h1", "h2", "h2"]


def test_a_router_without_legs_needs_no_host(plane: Plane) -> None:
    made = router(plane)["id"]
    with plane.services.databases.global_.write() as connection:
        assert router_placement.place(connection, 75, [made]) == {}


def test_routers_go_where_their_external_network_is(plane: Plane) -> None:
    plane.hosts["h1"].stop()
    plane.hosts["h1"].driver.physical_networks = ["elsewhere"]
    plane.hosts["h1"].start()

    def told() -> bool:
        agents = plane.api.get("/agents?host=h1", as_=ADMIN)["agents"]
        return all("elsewhere" in agent["configurations"]["interface_mappings"] for agent in agents)

    wait_for(told, "told")
    outside = external(plane)["id"]
    made = [router(plane, outside)["id"] for _ in range(3)]
    hosts = {wait_for(lambda each=each: host_of(plane, each), "placed") for each in made}
    assert hosts == {"h2"}


def test_a_router_leaves_a_dead_host_once(plane: Plane) -> None:
    made = router(plane, external(plane)["id"])["id"]
    old = wait_for(lambda: host_of(plane, made), "the router has a host")
    new = "h2" if old == "h1" else "h1"
    plane.hosts[old].stop()
    table = network_agents.agents
    with plane.services.databases.global_.write() as connection:
        long_ago = now() - datetime.timedelta(hours=1)
        connection.execute(table.update().where(table.c.host == old).values(heartbeat_timestamp=long_ago))
    wait_for(lambda: host_of(plane, made) == new, "moved")
    wait_for(lambda: made in plane.hosts[new].driver.routers, "its namespace is there")
    # back again: it is told that the router lives elsewhere
    plane.hosts[old].start()
    wait_for(lambda: made not in plane.hosts[old].driver.routers, "gone from the old host")
    assert host_of(plane, made) == new


# -- DHCP -----------------------------------------------------------------------------


def dhcp_ports(plane: Plane, network_id: str) -> list[dict[str, Any]]:
    found = plane.api.get(f"/ports?network_id={network_id}&device_owner=network:dhcp", as_=ADMIN)
    return list(found["ports"])


def test_the_dhcp_port_follows_the_subnets(plane: Plane) -> None:
    network = plane.api.network()["id"]
    assert dhcp_ports(plane, network) == []
    first = plane.api.subnet(network)["id"]
    (port,) = wait_for(lambda: dhcp_ports(plane, network), "made")
    assert port["status"] == "ACTIVE" and port["name"] == "" and port["project_id"] == "p1"
    assert port["device_id"].startswith("dhcp") and port["device_id"].endswith(network)
    assert [each["subnet_id"] for each in port["fixed_ips"]] == [first]
    second = plane.api.subnet(network, "fd00::/64")["id"]

    def subnets() -> set[str]:
        return {each["subnet_id"] for port in dhcp_ports(plane, network) for each in port["fixed_ips"]}

    wait_for(lambda: subnets() == {first, second}, "an address of each")
    plane.api.put(f"/subnets/{first}", {"subnet": {"enable_dhcp": False}})
    wait_for(lambda: subnets() == {second}, "no DHCP, no address")
    bound = plane.bound(network, "h1")
    plane.wait_active(bound["id"])
    state = plane.hosts["h1"].agent.state
    assert state.networks[network].dhcp.port_id == port["id"]  # type: ignore[union-attr]
    plane.api.delete(f"/ports/{bound['id']}")
    plane.api.delete(f"/subnets/{second}")
    wait_for(lambda: not dhcp_ports(plane, network), "no subnet needs it")
    plane.api.subnet(network, "10.9.0.0/24")
    wait_for(lambda: dhcp_ports(plane, network), "made again")
    plane.api.delete(f"/networks/{network}")


def test_a_dhcp_port_that_was_deleted_comes_back(plane: Plane) -> None:
    network = plane.api.network()["id"]
    plane.api.subnet(network)
    (port,) = wait_for(lambda: dhcp_ports(plane, network), "made")
    plane.api.delete(f"/ports/{port['id']}", as_=ADMIN)
    wait_for(lambda: dhcp_ports(plane, network), "made again")
