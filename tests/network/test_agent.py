"""Agents against a conductor: rings, resyncs, restarts, failures, and statuses that come back."""

from __future__ import annotations

from typing import Any

from cli.network import lines_of
from lifecycle.host_network import Changed
from tests.api.network.conftest import ADMIN, SERVICE
from tests.network.plane import Conductor, Plane, wait_for


def test_a_bound_port_turns_active(plane: Plane) -> None:
    network = plane.api.network()["id"]
    plane.api.subnet(network)
    port = plane.bound(network, "h1")
    assert port["status"] == "DOWN" and port["binding:vif_type"] == "bridge"
    plane.wait_active(port["id"])
    held = plane.hosts["h1"].driver.ports
    assert list(held) == [port["id"]] and held[port["id"]]["network_id"] == network
    assert not plane.hosts["h2"].driver.ports
    wait_for(
        lambda: ("network-vif-plugged", port["device_id"], port["id"]) in plane.compute.events,
        "Compute is told",
    )


def test_what_is_deleted_goes(plane: Plane) -> None:
    network = plane.api.network()["id"]
    plane.api.subnet(network)
    port = plane.bound(network, "h1")
    plane.wait_active(port["id"])
    plane.api.delete(f"/ports/{port['id']}")
    agent = plane.hosts["h1"].agent
    wait_for(lambda: not plane.hosts["h1"].driver.ports, "port unplugged")
    wait_for(lambda: not agent.state.networks and not agent.state.groups, "nothing is kept for it")
    event = ("network-vif-deleted", port["device_id"], port["id"])
    wait_for(lambda: event in plane.compute.events, "Compute is told")


def test_the_hosts_of_a_network_know_one_another(plane: Plane) -> None:
    network = plane.api.network()["id"]
    first = plane.bound(network, "h1")
    plane.wait_active(first["id"])
    assert plane.hosts["h1"].agent.state.networks[network].peers == ()
    second = plane.bound(network, "h2")
    addresses = {name: host.driver.configurations()["tunneling_ip"] for name, host in plane.hosts.items()}

    def peers(host: str) -> Any:
        found = plane.hosts[host].agent.state.networks.get(network)
        return found and found.peers

    wait_for(lambda: peers("h1") == (addresses["h2"],), "h1 floods to h2")
    wait_for(lambda: peers("h2") == (addresses["h1"],), "h2 floods to h1")
    plane.api.delete(f"/ports/{second['id']}")
    wait_for(lambda: peers("h1") == (), "h1 floods to nobody")
    wait_for(lambda: peers("h2") is None, "the network has left h2")


def test_a_port_that_moves(plane: Plane) -> None:
    network = plane.api.network()["id"]
    port = plane.bound(network, "h1")
    plane.wait_active(port["id"])
    path = f"/ports/{port['id']}"
    moved = plane.api.put(path, {"port": {"binding:host_id": "h2"}}, as_=ADMIN)["port"]
    assert moved["status"] == "DOWN"
    wait_for(lambda: port["id"] in plane.hosts["h2"].driver.ports, "plugged on h2")
    wait_for(lambda: port["id"] not in plane.hosts["h1"].driver.ports, "unplugged on h1")
    plane.wait_active(port["id"])


def test_groups_and_their_members_reach_the_hosts(plane: Plane) -> None:
    network = plane.api.network()["id"]
    plane.api.subnet(network)
    first = plane.bound(network, "h1")
    (group,) = first["security_groups"]
    second = plane.bound(network, "h2")

    def members(host: str) -> set[str]:
        return set(plane.hosts[host].agent.state.members.get(group, ()))

    both = {port["fixed_ips"][0]["ip_address"] for port in (first, second)}
    for host in ("h1", "h2"):  # the default group lets its members in
        wait_for(lambda host=host: members(host) == both, f"{host} knows both members")
    rule = {"security_group_id": group, "direction": "ingress", "protocol": "tcp", "port_range_min": 22}
    plane.api.post("/security-group-rules", {"security_group_rule": {**rule, "port_range_max": 22}})
    for host in ("h1", "h2"):
        wait_for(
            lambda host=host: any(
                each.port_range_min == 22 for each in plane.hosts[host].agent.state.groups[group].rules
            ),
            f"{host} has the rule",
        )
    plane.api.put(f"/ports/{second['id']}", {"port": {"security_groups": []}})
    wait_for(lambda: members("h1") == {first["fixed_ips"][0]["ip_address"]}, "one member is left")
    wait_for(lambda: group not in plane.hosts["h2"].agent.state.groups, "h2 has forgotten the group")


def test_members_of_a_group_that_is_named_later(plane: Plane) -> None:
    """The group was known before, without members, as no rule named it."""
    network = plane.api.network()["id"]
    plane.api.subnet(network)

    def group(name: str) -> str:
        made = plane.api.post("/security-groups", {"security_group": {"name": name}})
        return str(made["security_group"]["id"])

    web, clients = group("web"), group("clients")
    server = plane.bound(network, "h1", security_groups=[web])
    client = plane.bound(network, "h1", security_groups=[clients])
    plane.wait_active(server["id"], client["id"])
    state = plane.hosts["h1"].agent.state
    assert clients not in state.members
    rule = {"security_group_id": web, "direction": "ingress", "remote_group_id": clients}
    plane.api.post("/security-group-rules", {"security_group_rule": rule})
    expected = {client["fixed_ips"][0]["ip_address"]}
    wait_for(lambda: set(state.members.get(clients, ())) == expected, "its members are known")


def test_of_a_groups_members_only_those_that_changed_travel(plane: Plane, monkeypatch: Any) -> None:
    """The cost of a port must not grow with the number of those that are there."""
    network = plane.api.network()["id"]
    plane.api.subnet(network)
    first = [plane.bound(network, "h1") for _ in range(5)]
    (group,) = first[0]["security_groups"]
    plane.wait_active(*(port["id"] for port in first))
    agent = plane.hosts["h1"].agent
    wait_for(lambda: len(set(agent.state.members[group])) == 5, "h1 knows all")
    told: list[dict[str, Any]] = []
    applied: list[Changed] = []
    ask, apply = agent._conductor.state, agent.driver.apply

    def asks(host: str, changed: Changed) -> Any:
        part = ask(host, changed)
        told.append(part.to_dict())
        return part

    monkeypatch.setattr(agent._conductor, "state", asks)
    monkeypatch.setattr(
        agent.driver, "apply", lambda state, changed: applied.append(changed) or apply(state, changed)
    )
    for host in ("h1", "h2"):  # the member may be on another host
        port = plane.bound(network, host)
        address = port["fixed_ips"][0]["ip_address"]
        wait_for(lambda address=address: address in agent.state.members[group], "it is known")
        pairs = {"port": {"allowed_address_pairs": [{"ip_address": "192.0.2.0/28"}]}}
        plane.api.put(f"/ports/{port['id']}", pairs, as_=SERVICE)
        wait_for(lambda: "192.0.2.0/28" in agent.state.members[group], "what it may use besides, too")
        plane.api.delete(f"/ports/{port['id']}")
        wait_for(
            lambda address=address: not {address, "192.0.2.0/28"} & set(agent.state.members[group]),
            "it has gone",
        )
        assert not any(changed.everything or changed.named for changed in applied)
        touched = {each for changed in applied for each in changed.addresses.get(group, ())}
        assert touched == {address, "192.0.2.0/28"}
        assert {pid for part in told for pid in part["members"].get(group, {})} == {port["id"]}
        assert not any(part["groups"] for part in told)
        told.clear()
        applied.clear()


def test_lost_rings_are_found_by_the_next_look_at_everything(plane: Plane, monkeypatch: Any) -> None:
    network = plane.api.network()["id"]
    host = plane.hosts["h1"]
    monkeypatch.setattr(plane.services.doorbells, "changed", lambda changes: None)
    port = plane.bound(network, "h1")
    host.agent.ring(Changed())  # a ring that names nothing is no look at everything
    assert port["id"] not in host.agent.state.ports
    host.agent._resync_at = 0
    host.agent._work.ring()
    plane.wait_active(port["id"])


def test_an_agent_that_was_away(plane: Plane) -> None:
    network = plane.api.network()["id"]
    kept, gone = plane.bound(network, "h1"), plane.bound(network, "h1")
    plane.wait_active(kept["id"], gone["id"])
    host = plane.hosts["h1"]
    host.stop()
    plane.api.delete(f"/ports/{gone['id']}")
    new = plane.bound(network, "h1")
    host.start()
    plane.wait_active(new["id"])
    assert set(host.driver.ports) == {kept["id"], new["id"]}


def test_without_a_conductor_it_goes_on_later(plane: Plane) -> None:
    network = plane.api.network()["id"]
    plane.conductors.pop().stop()
    port = plane.bound(network, "h1")
    plane.conductors.append(Conductor(plane))
    plane.hosts["h1"].agent.ring(Changed(ports={port["id"]}))
    plane.wait_active(port["id"])


def test_what_fails_is_tried_again(plane: Plane) -> None:
    host = plane.hosts["h1"]
    host.driver._failures._nths["ports"] = {1}
    network = plane.api.network()["id"]
    port = plane.bound(network, "h1")
    wait_for(lambda: plane.port(port["id"])["status"] == "ERROR", "its failure is shown")
    plane.wait_active(port["id"])


def test_trace(plane: Plane) -> None:
    """From the API to the port's host and back, for administrators."""
    network = plane.api.network()["id"]
    port = plane.bound(network, "h1")
    plane.wait_active(port["id"])
    path = f"/ports/{port['id']}/trace"
    trace = plane.api.get(path, as_=ADMIN)["trace"]
    assert trace["host"] == "h1" and trace["port_id"] == port["id"]
    assert [hop["hop"] for hop in trace["hops"]] == ["tap", "bridge", "tunnel"]
    assert all(hop["ok"] for hop in trace["hops"])
    assert lines_of(trace)[1] == f"  1  ok   tap     tap{port['id'][:11]}"
    plane.api.request("get", path, status=403)
    unbound = plane.api.port(network)["id"]
    plane.api.request("get", f"/ports/{unbound}/trace", as_=ADMIN, status=409)
    # a router's port is on the router's host
    subnet = plane.api.subnet(network)["id"]
    router = plane.api.post("/routers", {"router": {}})["router"]["id"]
    leg = plane.api.put(f"/routers/{router}/add_router_interface", {"subnet_id": subnet})["port_id"]
    wait_for(lambda: plane.api.get(f"/ports/{leg}", as_=ADMIN)["port"]["status"] == "ACTIVE", "it is there")
    hops = plane.api.get(f"/ports/{leg}/trace", as_=ADMIN)["trace"]["hops"]
    assert [hop["hop"] for hop in hops] == ["router", "bridge", "tunnel"] and hops[0]["ok"]
    # bound, but its agent does not have it: the agent's word, not the database's
    monkey = plane.hosts["h1"].agent
    del monkey.state.ports[port["id"]]
    plane.api.request("get", path, as_=ADMIN, status=409)


def test_who_serves_what(plane: Plane) -> None:
    network = plane.api.network()["id"]
    assert plane.api.get(f"/networks/{network}")["network"]["availability_zones"] == []
    subnet = plane.api.subnet(network)["id"]
    router = plane.api.post("/routers", {"router": {}})["router"]["id"]
    plane.api.put(f"/routers/{router}/add_router_interface", {"subnet_id": subnet})
    port = plane.bound(network, "h1")
    plane.wait_active(port["id"])

    def hosts(path: str) -> set[str]:
        return {agent["host"] for agent in plane.api.get(path, as_=ADMIN)["agents"]}

    found = wait_for(lambda: hosts(f"/routers/{router}/l3-agents"), "the router is placed")
    assert hosts(f"/networks/{network}/dhcp-agents") == {"h1"} | found
    agents = plane.api.get("/agents", as_=ADMIN)["agents"]
    (dhcp,) = [each["id"] for each in agents if each["agent_type"] == "DHCP agent" and each["host"] == "h1"]
    served = plane.api.get(f"/agents/{dhcp}/dhcp-networks", as_=ADMIN)["networks"]
    assert [each["id"] for each in served] == [network]
    (l3,) = [each for each in agents if each["agent_type"] == "L3 agent" and each["host"] in found]
    there = plane.api.get(f"/agents/{l3['id']}/l3-routers", as_=ADMIN)["routers"]
    assert [each["id"] for each in there] == [router]
    assert plane.api.get(f"/agents/{dhcp}/l3-routers", as_=ADMIN)["routers"] == []
    wait_for(
        lambda: plane.api.get(f"/networks/{network}")["network"]["availability_zones"] == ["nova"], "zones"
    )
    assert plane.api.get(f"/routers/{router}")["router"]["availability_zones"] == ["nova"]
    plane.api.request("get", f"/routers/{router}/l3-agents", status=403)


def test_a_router_is_put_on_another_host_by_hand(plane: Plane) -> None:
    network = plane.api.network()["id"]
    subnet = plane.api.subnet(network)["id"]
    router = plane.api.post("/routers", {"router": {}})["router"]["id"]
    leg = plane.api.put(f"/routers/{router}/add_router_interface", {"subnet_id": subnet})["port_id"]

    def host() -> str | None:
        found = plane.api.get(f"/routers/{router}/l3-agents", as_=ADMIN)["agents"]
        return found[0]["host"] if found else None

    old = wait_for(host, "the router is placed")
    (new,) = {"h1", "h2"} - {old}
    agents = {
        agent["host"]: agent["id"]
        for agent in plane.api.get("/agents?agent_type=L3 agent", as_=ADMIN)["agents"]
    }
    port = plane.api.get(f"/ports/{leg}", as_=ADMIN)["port"]
    assert (port["binding:host_id"], port["binding:vif_type"]) == (old, "bridge")
    wait_for(lambda: router in plane.hosts[old].agent.state.routers, "it is there")
    there, elsewhere = f"/agents/{agents[old]}/l3-routers", f"/agents/{agents[new]}/l3-routers"
    body = {"router_id": router}
    plane.api.refused("post", elsewhere, body, 409, "RouterHostedByL3Agent", as_=ADMIN)
    plane.api.refused("delete", f"{elsewhere}/{router}", None, 409, "RouterNotHostedByL3Agent", as_=ADMIN)
    plane.api.request("post", elsewhere, body, status=403)
    plane.api.request("delete", f"{there}/{router}", status=204, as_=ADMIN)
    wait_for(lambda: router not in plane.hosts[old].agent.state.routers, "it has left")
    # the conductor looks at this router, and leaves it where it is: nowhere
    plane.api.put(f"/routers/{router}", {"router": {"admin_state_up": False}})
    assert plane.api.get(f"/ports/{leg}", as_=ADMIN)["port"]["binding:host_id"] == ""
    assert host() is None
    assert plane.api.request("post", elsewhere, body, status=201, as_=ADMIN).json is None
    wait_for(lambda: router in plane.hosts[new].agent.state.routers, "it is on the other host")
    assert host() == new
    found = plane.api.get(f"/ports?binding:host_id={new}&device_id={router}", as_=ADMIN)["ports"]
    assert [each["id"] for each in found] == [leg]
    (dhcp,) = plane.api.get(f"/ports?network_id={network}&device_owner=network:dhcp", as_=ADMIN)["ports"]
    assert (dhcp["status"], dhcp["binding:vif_type"], dhcp["binding:host_id"]) == (
        "ACTIVE",
        "distributed",
        "",
    )
    l2 = plane.api.get("/agents?agent_type=DHCP agent", as_=ADMIN)["agents"][0]["id"]
    plane.api.refused("post", f"/agents/{l2}/l3-routers", body, 404, "InvalidL3Agent", as_=ADMIN)


def test_a_network_is_put_on_hosts_by_hand_and_taken_off(plane: Plane) -> None:
    network = plane.api.network()["id"]
    plane.api.subnet(network)
    plane.wait_active(plane.bound(network, "h1")["id"])
    dhcp = {
        agent["host"]: f"/agents/{agent['id']}/dhcp-networks"
        for agent in plane.api.get("/agents?agent_type=DHCP Agent", as_=ADMIN)["agents"]
    }

    def hosts() -> set[str]:
        return {
            agent["host"] for agent in plane.api.get(f"/networks/{network}/dhcp-agents", as_=ADMIN)["agents"]
        }

    def served(host: str) -> bool:
        there = plane.hosts[host].agent.state.networks.get(network)
        return there is not None and there.dhcp is not None

    body = {"network_id": network}
    wait_for(lambda: served("h1"), "its guest's host serves it")
    assert hosts() == {"h1"}
    plane.api.refused("post", dhcp["h1"], body, 409, "NetworkHostedByDHCPAgent", as_=ADMIN)
    plane.api.refused(
        "delete", f"{dhcp['h2']}/{network}", None, 409, "NetworkNotHostedByDhcpAgent", as_=ADMIN
    )
    plane.api.request("post", dhcp["h2"], body, status=403)
    assert plane.api.request("post", dhcp["h2"], body, status=201, as_=ADMIN).json is None
    wait_for(lambda: served("h2"), "the other host serves it, too")
    assert hosts() == {"h1", "h2"}
    # an agent that is started anew finds it again
    plane.hosts["h2"].stop()
    plane.hosts["h2"].start()
    wait_for(lambda: served("h2"), "the other host serves it still")
    plane.api.request("delete", f"{dhcp['h1']}/{network}", status=204, as_=ADMIN)
    wait_for(lambda: not served("h1"), "the guest's host does not serve it any more")
    assert network in plane.hosts["h1"].agent.state.networks and served("h2")
    assert plane.api.get(dhcp["h1"], as_=ADMIN)["networks"] == []
    assert [each["id"] for each in plane.api.get(dhcp["h2"], as_=ADMIN)["networks"]] == [network]
    plane.api.request("delete", f"{dhcp['h2']}/{network}", status=204, as_=ADMIN)
    wait_for(lambda: network not in plane.hosts["h2"].agent.state.networks, "it has left the other host")
    l3 = plane.api.get("/agents?agent_type=L3 agent", as_=ADMIN)["agents"][0]["id"]
    plane.api.refused("post", f"/agents/{l3}/dhcp-networks", body, 404, "InvalidDHCPAgent", as_=ADMIN)


def test_a_network_whose_ports_are_nowhere_is_served_by_a_host(plane: Plane) -> None:
    network = plane.api.network()["id"]
    plane.api.subnet(network)
    port = plane.api.port(network)["id"]
    agents = wait_for(
        lambda: plane.api.get(f"/networks/{network}/dhcp-agents", as_=ADMIN)["agents"], "it is placed"
    )
    (host,) = [agent["host"] for agent in agents]
    wait_for(lambda: network in plane.hosts[host].agent.state.networks, "it is there")
    plane.api.request("delete", f"/ports/{port}", status=204)
    plane.api.request("delete", f"/networks/{network}", status=204)
    wait_for(lambda: network not in plane.hosts[host].agent.state.networks, "it has left")
