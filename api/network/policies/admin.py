"""Rules of agents and of what the API says of itself."""

from __future__ import annotations

from api.network.policies.base import ADMIN, ANYONE, rule, rules_of

RULES = [
    *rules_of("agent", "/agents", get=ADMIN, create=None, update=ADMIN, delete=ADMIN),
    rule("get_dhcp-agents", ADMIN, "List a network's DHCP agents.", ("GET", "/networks/{id}/dhcp-agents")),
    rule("get_l3-agents", ADMIN, "List a router's L3 agents.", ("GET", "/routers/{id}/l3-agents")),
    rule("get_dhcp-networks", ADMIN, "List a DHCP agent's networks.", ("GET", "/agents/{id}/dhcp-networks")),
    rule(
        "create_dhcp-network", ADMIN, "Put a network on a DHCP agent.", ("POST", "/agents/{id}/dhcp-networks")
    ),
    rule(
        "delete_dhcp-network",
        ADMIN,
        "Take a network off a DHCP agent.",
        ("DELETE", "/agents/{id}/dhcp-networks/{network_id}"),
    ),
    rule("get_l3-routers", ADMIN, "List an L3 agent's routers.", ("GET", "/agents/{id}/l3-routers")),
    rule("create_l3-router", ADMIN, "Put a router on an L3 agent.", ("POST", "/agents/{id}/l3-routers")),
    rule(
        "delete_l3-router",
        ADMIN,
        "Take a router off an L3 agent.",
        ("DELETE", "/agents/{id}/l3-routers/{router_id}"),
    ),
    rule("get_port_trace", ADMIN, "Show the path of a port's packets.", ("GET", "/ports/{id}/trace")),
    rule("get_extension", ANYONE, "List extensions.", ("GET", "/extensions")),
    rule("get_service_provider", ANYONE, "List providers of services.", ("GET", "/service-providers")),
]
