"""Servers with ports, from the intent to the Network API and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from db import cell_schema
from lifecycle.host_network import tap_name
from lifecycle.rpc import AgentClient
from tests.crash.invariants import settle
from tests.stack.cloud import CONTEXT, Cloud, wait_for
from tests.stack.networks import NetworkPlane


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    cloud = Cloud(tmp_path, ["h1", "h2"], vif_plugging_timeout=20)
    cloud.with_networks()
    cloud.start()
    yield cloud
    cloud.stop()


@pytest.fixture
def plane(cloud: Cloud) -> NetworkPlane:
    assert cloud.plane is not None
    return cloud.plane


def test_ports_are_made_bound_and_let_go(cloud: Cloud, plane: NetworkPlane) -> None:
    server_id = cloud.create()
    server = cloud.wait_state(server_id, "active")
    new, kept = server["network_info"]
    assert (new["label"], new["tag"], new["preserve_on_delete"], new["active"]) == ("net", "new", False, True)
    assert kept["preserve_on_delete"] and kept["port_id"] == server["networks"][1]["port_id"]
    for nic in (new, kept):
        port = plane.ports()[nic["port_id"]]
        assert (port["device_id"], port["device_owner"]) == (server_id, "compute:nova")
        assert port["binding:host_id"] == server["host"]
        assert port["project_id"] == CONTEXT.project_id
        assert nic["mac_address"] == port["mac_address"]
        assert nic["device"] == tap_name(port["id"])
        assert [each["address"] for each in nic["addresses"]] == [port["fixed_ips"][0]["ip_address"]]
        assert nic["subnets"][0]["cidr"] == plane.subnet["cidr"]
        assert nic["security_groups"] == ["default"]
    assert plane.used() == 2

    cloud.act("server.delete", server_id)
    assert cloud.wait_state(server_id, "deleted")["network_info"] == []
    (left,) = plane.ports().values()
    assert (left["id"], left["device_id"], left["device_owner"]) == (kept["port_id"], "", "")
    assert left["binding:vif_type"] == "unbound"


def test_a_host_without_a_network_agent_gets_no_server(cloud: Cloud, plane: NetworkPlane) -> None:
    """Binding fails there: the other host is tried, and the adopted port moves with the server."""
    with cloud.databases.global_.write() as connection:
        from db.network_agents import agents

        connection.execute(sa.delete(agents).where(agents.c.host == "h1"))
    for _ in range(3):
        server = cloud.wait_state(cloud.create(), "active")
        assert server["host"] == "h2"
        assert {nic["vif_type"] for nic in server["network_info"]} == {"bridge"}
    assert {port["binding:host_id"] for port in plane.ports().values()} == {"h2"}


def test_no_port_is_plugged_in_time(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path, ["h1", "h2"], vif_plugging_timeout=1)
    plane = cloud.with_networks()
    plane.plugs = False
    cloud.start()
    try:
        server_id = cloud.create()
        cloud.wait_state(server_id, "error")
        (intent,) = cloud.intents(server_id)
        assert set(intent["arguments"]["excluded_hosts"]) == {"h1", "h2"}, "each host was given a chance"
        assert {port["device_id"] for port in plane.ports().values()} == {""}, "nothing stays behind"
    finally:
        cloud.stop()


def test_a_lost_event_is_made_up_for(cloud: Cloud, plane: NetworkPlane) -> None:
    plane.tells = False
    cloud.wait_state(cloud.create(), "active")


def test_no_address_left(cloud: Cloud, plane: NetworkPlane) -> None:
    """Another host would not help: the server fails at once and says why."""
    request = {"network_id": plane.network["id"], "port_id": None, "fixed_ip": "10.0.0.77", "tag": None}
    first = cloud.wait_state(cloud.create(networks=[request]), "active")
    assert first["network_info"][0]["addresses"][0]["address"] == "10.0.0.77"
    second = cloud.create(networks=[request])
    server = cloud.wait_state(second, "error")
    assert "10.0.0.77" in server["fault"]["message"]
    (intent,) = cloud.intents(second)
    assert intent["arguments"].get("excluded_hosts", []) == []


def test_someone_elses_port_is_not_taken(cloud: Cloud, plane: NetworkPlane) -> None:
    foreign = plane.make_port(project_id="project-2")
    used = plane.make_port(device_id="something")
    for port_id in (foreign, used):
        request = {"network_id": plane.network["id"], "port_id": port_id, "fixed_ip": None, "tag": None}
        assert "ort" in cloud.wait_state(cloud.create(networks=[request]), "error")["fault"]["message"]
    assert plane.ports()[used]["device_id"] == "something"


def test_deleted_while_its_host_is_down(cloud: Cloud, plane: NetworkPlane) -> None:
    server_id = cloud.create()
    server = cloud.wait_state(server_id, "active")
    agent = next(agent for agent in cloud.roles[2].agents if agent.host == server["host"])
    agent.stop()
    with cloud.cell.write() as connection:
        connection.execute(
            sa.update(cell_schema.services)
            .where(cell_schema.services.c.host == server["host"])
            .values(forced_down=True)
        )
    cloud.delete(server_id)
    cloud.wait_state(server_id, "deleted")
    (left,) = plane.ports().values()
    assert left["id"] == server["networks"][1]["port_id"] and left["device_id"] == ""


def test_the_network_api_is_away_for_a_moment(cloud: Cloud, plane: NetworkPlane) -> None:
    plane._role.stop()
    server_id = cloud.create(networks=[])
    cloud.wait_state(server_id, "active")
    request = {"network_id": plane.network["id"], "port_id": None, "fixed_ip": None, "tag": None}
    server_id = cloud.create(networks=[request])
    wait_for(lambda: cloud.server(server_id)["task_state"] == "networking", "it makes ports")
    plane._role.start()
    cloud.wait_state(server_id, "active")
    cloud.delete(server_id)
    settle(cloud)
    assert plane.ports() == {}


def test_what_the_network_api_tells_is_written_down(cloud: Cloud, plane: NetworkPlane) -> None:
    server_id = cloud.create()
    server = cloud.wait_state(server_id, "active")
    agents, (first, second) = AgentClient(cloud.messaging), server["network_info"]
    changed = {"name": "network-changed", "server_uuid": server_id, "tag": first["port_id"]}
    plane.client.call("PUT", f"/networks/{plane.network['id']}", {"network": {"name": "renamed"}})
    plane.client.call("PUT", f"/ports/{first['port_id']}", {"port": {"security_groups": []}})
    agents.external_events(server["host"], [changed])

    def nics() -> list[dict[str, Any]]:
        return list(cloud.server(server_id)["network_info"])

    wait_for(lambda: [nic["label"] for nic in nics()] == ["renamed"] * 2, "the new name is known")
    assert [nic["security_groups"] for nic in nics()] == [[], ["default"]]
    assert [(nic["tag"], nic["preserve_on_delete"]) for nic in nics()] == [("new", False), (None, True)]
    # the event of a deletion is lost; the next look finds out
    plane.client.call("DELETE", f"/ports/{second['port_id']}")
    agents.external_events(server["host"], [changed])
    wait_for(lambda: [nic["port_id"] for nic in nics()] == [first["port_id"]], "one port is left")
    facts = agents.diagnostics(CONTEXT, server["host"], server_id)
    wait_for(
        lambda: agents.diagnostics(CONTEXT, server["host"], server_id)["num_nics"] == 1,
        "the guest has lost its interface",
        describe=lambda: facts,
    )


def test_a_look_at_all_ports_makes_up_for_lost_events(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path, ["h1"], vif_plugging_timeout=20, heal_instance_info_cache_interval=1)
    plane = cloud.with_networks()
    cloud.start()
    try:
        server_id = cloud.create()
        cloud.wait_state(server_id, "active")
        plane.client.call("PUT", f"/networks/{plane.network['id']}", {"network": {"name": "renamed"}})
        wait_for(
            lambda: {nic["label"] for nic in cloud.server(server_id)["network_info"]} == {"renamed"},
            "the new name is known",
            40,
        )
    finally:
        cloud.stop()
