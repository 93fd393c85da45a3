"""What each call that changes something tells the conductors: none may be forgotten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from api.network.app import make_api
from api.network.services import NetworkServices
from core.network_changes import NetworkChanges
from db import network_agents
from db.network_base import TABLES
from tests.api.network.conftest import ADMIN, SERVICE, Api

QUIET = {
    # nothing of these reaches a host
    "SubnetPoolsController",
    "AddressScopesController",
    "RbacPoliciesController",
    "QuotasController",
    "TagsController",
    "AgentsController",
    "DefaultSecurityGroupRulesController",
    # no network, group or policy is on a host before something is in it or has it
    "NetworksController.create",
    "NetworksController.delete",
    "SecurityGroupsController.create",
    "QosPoliciesController.create",
    "QosPoliciesController.delete",
    "AddressGroupsController.create",
    "AddressGroupsController.delete",
    # upstream's clients know bandwidth limits by two paths and other kinds of rule by the same code
    "DscpMarkingRulesController",
    "MinimumBandwidthRulesController",
    # no policy that is in use has one
    "PacketRateLimitRulesController",
    "MinimumPacketRateRulesController",
}


class World:
    """A server's port ``port`` on h1 in ``network``; ``router`` on h1 with a gateway; a floating IP to the port."""

    def __init__(self, api: Api, services: NetworkServices) -> None:
        self.api = api
        with services.databases.global_.write() as connection:
            for host in ("h1", "h2"):
                network_agents.report(
                    connection,
                    {"agent_type": network_agents.L2_AGENT, "binary": "b", "host": host, "cell_id": 1},
                )
            l3 = {"agent_type": network_agents.L3_AGENT, "binary": "b", "host": "h1"}
            l3["configurations"] = {"interface_mappings": {}}
            self.l3_agent = network_agents.report(connection, l3)
            self.dhcp_agents = {
                host: network_agents.report(
                    connection, {"agent_type": network_agents.DHCP_AGENT, "binary": "b", "host": host}
                )
                for host in ("h1", "h2")
            }
        outside, _ = api.external()
        self.outside = outside["id"]
        self.network = api.network()["id"]
        self.subnet = api.subnet(self.network)["id"]
        self.group, self.other = (self.new("security-groups", "security_group", name=each) for each in "ab")
        self.rule = self.new(
            "security-group-rules",
            "security_group_rule",
            security_group_id=self.group,
            direction="ingress",
            remote_group_id=self.other,
        )
        self.policy = self.new("qos/policies", "policy", ADMIN, name="slow", shared=True)
        rules = f"/qos/policies/{self.policy}/bandwidth_limit_rules"
        made = api.post(rules, {"bandwidth_limit_rule": {"max_kbps": 100}}, as_=ADMIN)
        self.limit = f"{rules}/{made['bandwidth_limit_rule']['id']}"
        self.addresses = self.new("address-groups", "address_group", name="a", addresses=["192.0.2.1/32"])
        bound = {"binding:host_id": "h1", "device_owner": "compute:nova", "device_id": "server-1"}
        self.port = self.new(
            "ports",
            "port",
            SERVICE,
            network_id=self.network,
            project_id="p1",
            security_groups=[self.group],
            **bound,
        )
        self.router = self.new("routers", "router", external_gateway_info={"network_id": self.outside})
        api.put(f"/routers/{self.router}/add_router_interface", {"subnet_id": self.subnet})
        with services.databases.global_.write() as connection:
            connection.execute(sa.update(TABLES["routers"]).values(host="h1"))
        self.floating_ip = self.new(
            "floatingips", "floatingip", floating_network_id=self.outside, port_id=self.port
        )
        self.free = self.new("floatingips", "floatingip", floating_network_id=self.outside)

    def new(self, path: str, noun: str, as_: str = "member@p1", **values: Any) -> str:
        return str(self.api.post(f"/{path}", {noun: values}, as_=as_)[noun]["id"])

    def put(self, path: str, body: Any, as_: str = "member@p1") -> Any:
        return self.api.put(path, body, as_=as_)

    def forwarding(self) -> str:
        path = f"/floatingips/{self.free}/port_forwardings"
        body = {"internal_port_id": self.port, "protocol": "tcp", "external_port": 80, "internal_port": 80}
        made = self.api.post(path, {"port_forwarding": body})
        return f"{path}/{made['port_forwarding']['id']}"

    def second_binding(self) -> str:
        path = f"/ports/{self.port}/bindings"
        self.api.post(path, {"binding": {"host": "h2"}}, as_=SERVICE)
        return f"{path}/h2"


Case = tuple[Callable[[World], Any], Callable[[World, NetworkChanges], bool]]
"""What is done, and what must be said. A first call whose rings don't count is in ``BEFORE``."""
BEFORE: dict[str, Callable[[World], Any]] = {
    "PortForwardingsController.update": World.forwarding,
    "PortForwardingsController.delete": World.forwarding,
    "PortBindingsController.activate": World.second_binding,
    "PortBindingsController.delete": World.second_binding,
    "SecurityGroupsController.delete": lambda w: w.put(f"/ports/{w.port}", {"port": {"security_groups": []}}),
    "AgentSchedulersController.add_router": lambda w: w.api.delete(
        f"/agents/{w.l3_agent}/l3-routers/{w.router}", as_=ADMIN
    ),
    "RoutersController.delete": lambda w: [
        w.api.delete(f"/floatingips/{w.floating_ip}"),
        w.put(f"/routers/{w.router}/remove_router_interface", {"subnet_id": w.subnet}),
    ],
    "RoutersController.remove_router_interface": lambda w: w.api.delete(f"/floatingips/{w.floating_ip}"),
    "RoutersController.remove_extraroutes": lambda w: w.put(
        f"/routers/{w.router}/add_extraroutes", {"router": {"routes": [ROUTE]}}
    ),
    "SubnetsController.delete": lambda w: [
        w.api.delete(f"/floatingips/{w.floating_ip}"),
        w.put(f"/routers/{w.router}/remove_router_interface", {"subnet_id": w.subnet}),
        w.api.delete(f"/ports/{w.port}", as_=SERVICE),
    ],
}
ROUTE = {"destination": "192.0.2.0/24", "nexthop": "10.0.0.200"}
CASES: dict[str, Case] = {
    "AgentSchedulersController.add_network": (
        lambda w: w.api.request(
            "post",
            f"/agents/{w.dhcp_agents['h2']}/dhcp-networks",
            {"network_id": w.network},
            as_=ADMIN,
            status=201,
        ),
        lambda w, said: w.network in said.networks,
    ),
    "AgentSchedulersController.remove_network": (
        lambda w: w.api.delete(f"/agents/{w.dhcp_agents['h1']}/dhcp-networks/{w.network}", as_=ADMIN),
        lambda w, said: w.network in said.networks and w.network in said.hosts["h1"].networks,
    ),
    "AgentSchedulersController.add_router": (
        lambda w: w.api.request(
            "post", f"/agents/{w.l3_agent}/l3-routers", {"router_id": w.router}, as_=ADMIN, status=201
        ),
        lambda w, said: w.router in said.routers,
    ),
    "AgentSchedulersController.remove_router": (
        lambda w: w.api.delete(f"/agents/{w.l3_agent}/l3-routers/{w.router}", as_=ADMIN),
        lambda w, said: w.router in said.routers and w.router in said.hosts["h1"].routers,
    ),
    "NetworksController.update": (
        lambda w: w.put(f"/networks/{w.network}", {"network": {"admin_state_up": False}}),
        lambda w, said: w.network in said.networks,
    ),
    "SubnetsController.create": (
        lambda w: w.api.subnet(w.network, "10.1.0.0/24"),
        lambda w, said: w.network in said.networks,
    ),
    "SubnetsController.update": (
        lambda w: w.put(f"/subnets/{w.subnet}", {"subnet": {"dns_nameservers": ["192.0.2.53"]}}),
        lambda w, said: w.subnet in said.subnets,
    ),
    "SubnetsController.delete": (
        lambda w: w.api.delete(f"/subnets/{w.subnet}"),
        lambda w, said: w.network in said.networks,
    ),
    "PortsController.create": (
        lambda w: w.new("ports", "port", network_id=w.network, security_groups=[w.other]),
        lambda w, said: len(said.ports) == 1 and w.other in said.members,
    ),
    "PortsController.update": (
        lambda w: w.put(f"/ports/{w.port}", {"port": {"binding:host_id": "h2"}}, SERVICE),
        lambda w, said: (
            w.port in said.ports
            and w.port in said.hosts["h1"].ports
            and w.network in said.hosts["h1"].networks
        ),
    ),
    "PortsController.delete": (
        lambda w: w.api.delete(f"/ports/{w.port}", as_=SERVICE),
        lambda w, said: (
            w.port in said.hosts["h1"].ports
            and w.group in said.members
            and w.router in said.routers  # its floating IP leads nowhere
            and ("network-vif-deleted", "server-1", w.port) in said.servers
        ),
    ),
    "PortBindingsController.create": (
        World.second_binding,
        lambda w, said: w.port in said.ports,
    ),
    "PortBindingsController.update": (
        lambda w: w.put(f"/ports/{w.port}/bindings/h1", {"binding": {"profile": {"a": "b"}}}, SERVICE),
        lambda w, said: w.port in said.ports,
    ),
    "PortBindingsController.activate": (
        lambda w: w.put(f"/ports/{w.port}/bindings/h2/activate", None, SERVICE),
        lambda w, said: w.port in said.ports,
    ),
    "PortBindingsController.delete": (
        lambda w: w.api.delete(f"/ports/{w.port}/bindings/h2", as_=SERVICE),
        lambda w, said: w.port in said.hosts["h2"].ports,
    ),
    "SecurityGroupsController.update": (
        lambda w: w.put(f"/security-groups/{w.other}", {"security_group": {"stateful": False}}),
        lambda w, said: w.other in said.groups,
    ),
    "SecurityGroupsController.delete": (
        lambda w: w.api.delete(f"/security-groups/{w.other}"),
        lambda w, said: w.group in said.groups,  # its rule that named the other went with it
    ),
    "SecurityGroupRulesController.create": (
        lambda w: w.new(
            "security-group-rules",
            "security_group_rule",
            security_group_id=w.group,
            direction="ingress",
            protocol="icmp",
        ),
        lambda w, said: w.group in said.groups,
    ),
    "SecurityGroupRulesController.delete": (
        lambda w: w.api.delete(f"/security-group-rules/{w.rule}"),
        lambda w, said: w.group in said.groups,
    ),
    "AddressGroupsController.update": (
        lambda w: w.put(f"/address-groups/{w.addresses}", {"address_group": {"name": "b"}}),
        lambda w, said: not said,  # a name means nothing to a host
    ),
    "AddressGroupsController.add_addresses": (
        lambda w: w.put(f"/address-groups/{w.addresses}/add_addresses", {"addresses": ["192.0.2.2/32"]}),
        lambda w, said: w.addresses in said.address_groups,
    ),
    "AddressGroupsController.remove_addresses": (
        lambda w: w.put(f"/address-groups/{w.addresses}/remove_addresses", {"addresses": ["192.0.2.1/32"]}),
        lambda w, said: w.addresses in said.address_groups,
    ),
    "RoutersController.create": (
        lambda w: w.new("routers", "router", external_gateway_info={"network_id": w.outside}),
        lambda w, said: len(said.routers) == 1 and w.outside in said.networks,
    ),
    "RoutersController.update": (
        lambda w: w.put(f"/routers/{w.router}", {"router": {"admin_state_up": False}}),
        lambda w, said: w.router in said.routers,
    ),
    "RoutersController.delete": (
        lambda w: w.api.delete(f"/routers/{w.router}"),
        lambda w, said: w.router in said.hosts["h1"].routers,
    ),
    "RoutersController.add_router_interface": (
        lambda w: w.put(
            f"/routers/{w.router}/add_router_interface",
            {"subnet_id": w.api.subnet(w.network, "10.2.0.0/24")["id"]},
        ),
        lambda w, said: w.router in said.routers and w.network in said.networks,
    ),
    "RoutersController.remove_router_interface": (
        lambda w: w.put(f"/routers/{w.router}/remove_router_interface", {"subnet_id": w.subnet}),
        lambda w, said: w.router in said.routers and w.network in said.networks,
    ),
    "RoutersController.add_extraroutes": (
        lambda w: w.put(f"/routers/{w.router}/add_extraroutes", {"router": {"routes": [ROUTE]}}),
        lambda w, said: w.router in said.routers,
    ),
    "RoutersController.remove_extraroutes": (
        lambda w: w.put(f"/routers/{w.router}/remove_extraroutes", {"router": {"routes": [ROUTE]}}),
        lambda w, said: w.router in said.routers,
    ),
    "FloatingIpsController.create": (
        lambda w: w.new("floatingips", "floatingip", floating_network_id=w.outside),
        lambda w, said: len(said.floating_ips) == 1,
    ),
    "FloatingIpsController.update": (
        lambda w: w.put(f"/floatingips/{w.floating_ip}", {"floatingip": {"port_id": None}}),
        lambda w, said: w.router in said.routers and w.port in said.shown,
    ),
    "FloatingIpsController.delete": (
        lambda w: w.api.delete(f"/floatingips/{w.floating_ip}"),
        lambda w, said: w.router in said.routers and w.port in said.shown,
    ),
    "PortForwardingsController.create": (
        World.forwarding,
        lambda w, said: w.free in said.floating_ips,
    ),
    "PortForwardingsController.update": (
        lambda w: w.put(last(w), {"port_forwarding": {"external_port": 81, "internal_port": 80}}),
        lambda w, said: w.free in said.floating_ips,
    ),
    "PortForwardingsController.delete": (
        lambda w: w.api.delete(last(w)),
        lambda w, said: w.router in said.routers,
    ),
    "QosPoliciesController.update": (
        lambda w: w.put(f"/qos/policies/{w.policy}", {"policy": {"shared": False}}, ADMIN),
        lambda w, said: w.policy in said.qos_policies,
    ),
    "BandwidthLimitRulesController.create": (
        lambda w: w.api.post(
            f"/qos/policies/{w.policy}/bandwidth_limit_rules",
            {"bandwidth_limit_rule": {"max_kbps": 5, "direction": "ingress"}},
            as_=ADMIN,
        ),
        lambda w, said: w.policy in said.qos_policies,
    ),
    "BandwidthLimitRulesController.update": (
        lambda w: w.put(w.limit, {"bandwidth_limit_rule": {"max_kbps": 5}}, ADMIN),
        lambda w, said: w.policy in said.qos_policies,
    ),
    "BandwidthLimitRulesController.delete": (
        lambda w: w.api.delete(w.limit, as_=ADMIN),
        lambda w, said: w.policy in said.qos_policies,
    ),
}


def last(world: World) -> str:
    """The path of the port forwarding made before."""
    path = f"/floatingips/{world.free}/port_forwardings"
    (made,) = world.api.get(path)["port_forwardings"]
    return f"{path}/{made['id']}"


@pytest.fixture
def world(api: Api, services: NetworkServices) -> World:
    return World(api, services)


def test_every_call_that_changes_something_is_here(services: NetworkServices) -> None:
    names = {each.name for each in make_api(services).operations if each.method != "GET"}
    loud = {name for name in names if name not in QUIET and name.partition(".")[0] not in QUIET}
    assert loud == {*CASES, "AutoAllocatedTopologyController.delete"}


@pytest.mark.parametrize("name", CASES)
def test_it_says_what_it_has_changed(name: str, world: World, services: NetworkServices) -> None:
    do, expected = CASES[name]
    BEFORE.get(name, lambda _world: None)(world)
    heard: list[NetworkChanges] = services.doorbells.heard  # type: ignore[attr-defined]
    heard.clear()
    do(world)
    said = NetworkChanges()
    for each in heard:
        said.add(each)
    assert expected(world, said), said
    # what goes over the wire says the same
    there = NetworkChanges.from_dict(said.to_dict())
    assert there.to_dict() == said.to_dict() and bool(there) == bool(said)


def test_topologies_that_are_made_when_asked_for(api: Api, services: NetworkServices) -> None:
    """Asking is a GET, and makes a network with subnets and a router."""
    api.external()
    network = next(iter(api.get("/networks", as_=ADMIN)["networks"]))["id"]
    api.put(f"/networks/{network}", {"network": {"is_default": True}}, as_=ADMIN)
    pool = {"name": "p", "prefixes": ["10.128.0.0/16"], "default_prefixlen": 26, "is_default": True}
    api.post("/subnetpools", {"subnetpool": {**pool, "shared": True}}, as_=ADMIN)
    services.doorbells.heard.clear()  # type: ignore[attr-defined]
    api.get("/auto-allocated-topology/p1")
    (said,) = services.doorbells.heard  # type: ignore[attr-defined]
    assert said.networks and said.routers
    with services.databases.global_.write() as connection:
        connection.execute(sa.update(TABLES["routers"]).values(host="h1"))
    services.doorbells.heard.clear()  # type: ignore[attr-defined]
    api.delete("/auto-allocated-topology/p1")
    (gone,) = services.doorbells.heard  # type: ignore[attr-defined]
    assert gone.hosts["h1"].routers == said.routers


def test_a_call_that_fails_says_nothing(world: World, services: NetworkServices) -> None:
    services.doorbells.heard.clear()  # type: ignore[attr-defined]
    world.api.request("put", f"/ports/{world.port}", {"port": {"mac_address": None}}, status=403)
    world.api.request("delete", f"/subnets/{world.subnet}", status=409)
    assert not services.doorbells.heard  # type: ignore[attr-defined]
