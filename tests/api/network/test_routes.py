"""Neutron's routes: what this API serves of those that Compute, the SDK and the command line call, and what it does not.

What is not served stands in ``NOT_SERVED`` by name, and in ``doc/network-api.md`` with the reason.
"""

from __future__ import annotations

import re
from unittest import mock

import pytest

from api.network.controllers import all_controllers

TAGGED = (
    "networks",
    "subnets",
    "ports",
    "routers",
    "subnetpools",
    "floatingips",
    "security-groups",
    "policies",
)
ROUTES = """
GET POST /address-scopes
DELETE GET PUT /address-scopes/{}
GET /agents
DELETE GET PUT /agents/{}
GET POST /agents/{}/dhcp-networks
DELETE /agents/{}/dhcp-networks/{}
GET POST /agents/{}/l3-routers
DELETE /agents/{}/l3-routers/{}
DELETE GET /auto-allocated-topology/{}
GET /availability_zones
GET POST /default-security-group-rules
DELETE GET /default-security-group-rules/{}
GET /extensions
GET /extensions/{}
GET POST /floatingips
DELETE GET PUT /floatingips/{}
GET POST /floatingips/{}/port_forwardings
DELETE GET PUT /floatingips/{}/port_forwardings/{}
GET /network-ip-availabilities
GET /network-ip-availabilities/{}
GET POST /networks
DELETE GET PUT /networks/{}
GET /networks/{}/dhcp-agents
GET POST /ports
DELETE GET PUT /ports/{}
GET POST /ports/{}/bindings
DELETE GET /ports/{}/bindings/{}
PUT /ports/{}/bindings/{}/activate
DELETE GET PUT /qos/alias_bandwidth_limit_rules/{}
DELETE GET PUT /qos/alias_dscp_marking_rules/{}
DELETE GET PUT /qos/alias_minimum_bandwidth_rules/{}
DELETE GET PUT /qos/alias_minimum_packet_rate_rules/{}
GET POST /qos/policies
DELETE GET PUT /qos/policies/{}
GET POST /qos/policies/{}/bandwidth_limit_rules
DELETE GET PUT /qos/policies/{}/bandwidth_limit_rules/{}
GET POST /qos/policies/{}/dscp_marking_rules
DELETE GET PUT /qos/policies/{}/dscp_marking_rules/{}
GET POST /qos/policies/{}/minimum_bandwidth_rules
DELETE GET PUT /qos/policies/{}/minimum_bandwidth_rules/{}
GET POST /qos/policies/{}/minimum_packet_rate_rules
DELETE GET PUT /qos/policies/{}/minimum_packet_rate_rules/{}
GET POST /qos/policies/{}/packet_rate_limit_rules
DELETE GET PUT /qos/policies/{}/packet_rate_limit_rules/{}
GET /qos/rule-types
GET /qos/rule-types/{}
GET /quotas
DELETE GET PUT /quotas/{}
GET /quotas/{}/default
GET /quotas/{}/details.json
GET POST /rbac-policies
DELETE GET PUT /rbac-policies/{}
GET POST /routers
DELETE GET PUT /routers/{}
PUT /routers/{}/add_extraroutes
PUT /routers/{}/add_router_interface
GET /routers/{}/l3-agents
PUT /routers/{}/remove_extraroutes
PUT /routers/{}/remove_router_interface
GET POST /security-group-rules
DELETE GET /security-group-rules/{}
GET POST /security-groups
DELETE GET PUT /security-groups/{}
GET POST /subnetpools
DELETE GET PUT /subnetpools/{}
PUT /subnetpools/{}/add_prefixes
PUT /subnetpools/{}/onboard_network_subnets
PUT /subnetpools/{}/remove_prefixes
GET POST /subnets
DELETE GET PUT /subnets/{}
"""
NOT_SERVED = """
GET POST /agents/{}/bgp-drinstances
DELETE /agents/{}/bgp-drinstances/{}
PUT /routers/{}/add_external_gateways
GET POST /routers/{}/conntrack_helpers
DELETE GET PUT /routers/{}/conntrack_helpers/{}
PUT /routers/{}/remove_external_gateways
PUT /routers/{}/update_external_gateways
GET POST /segments
DELETE GET PUT /segments/{}
GET POST /trunks
DELETE GET PUT /trunks/{}
PUT /trunks/{}/add_subports
GET /trunks/{}/get_subports
PUT /trunks/{}/remove_subports
"""


def _read(text: str) -> set[tuple[str, str]]:
    """(method, path) of lines such as ``GET POST /networks``."""
    found = set()
    for line in text.strip().splitlines():
        *methods, path = line.split()
        found |= {(method, path) for method in methods}
    return found


@pytest.fixture(scope="module")
def served() -> set[tuple[str, str]]:
    return {
        (operation.method, re.sub(r"\{[^}]*\}", "{}", operation.path))
        for controller in all_controllers(mock.MagicMock())
        for operation in controller.operations()
    }


def test_every_promised_route_is_served(served: set[tuple[str, str]]) -> None:
    tags = {
        (method, f"/{kind}/{{}}/tags{last}")
        for kind in TAGGED
        for last, methods in (("", ("GET", "POST", "PUT", "DELETE")), ("/{}", ("GET", "PUT", "DELETE")))
        for method in methods
    }
    assert (_read(ROUTES) | tags) - served == set()


def test_what_is_named_as_missing_is_missing(served: set[tuple[str, str]]) -> None:
    assert _read(NOT_SERVED) & served == set()
