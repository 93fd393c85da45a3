"""Rules of networks, subnets, subnet pools and address scopes."""

from __future__ import annotations

from api.network.policies.base import (
    ADMIN,
    ADMIN_OR_SERVICE,
    ANYONE,
    MEMBER,
    NETWORK_OWNER,
    READER,
    SHARED,
    rule,
    rules_of,
)

_PROVIDER = ("provider:network_type", "provider:physical_network", "provider:segmentation_id")
_NETWORK = "/networks"

RULES = [
    rule("context_is_advsvc", "role:service", "Another service of the cloud.", ("GET", _NETWORK)),
    *rules_of(
        "network",
        _NETWORK,
        get=f"{READER} or {SHARED} or True:%(external)s",
        fields={
            "create": {
                **dict.fromkeys(("shared", "router:external", "is_default"), ADMIN),
                "port_security_enabled": MEMBER,
                **dict.fromkeys(_PROVIDER, ADMIN),
            },
            "update": {
                **dict.fromkeys(("shared", "router:external", "is_default"), ADMIN),
                "port_security_enabled": MEMBER,
                **dict.fromkeys(_PROVIDER, ADMIN),
            },
            "get": dict.fromkeys(_PROVIDER, ADMIN_OR_SERVICE),
        },
    ),
    *rules_of(
        "subnet",
        "/subnets",
        get=f"{READER} or {SHARED}",
        create=NETWORK_OWNER,
        update=f"{MEMBER} or {NETWORK_OWNER}",
        delete=f"{MEMBER} or {NETWORK_OWNER}",
        fields={
            "create": {"segment_id": ADMIN, "service_types": ADMIN},
            "update": {"service_types": ADMIN},
            "get": {"segment_id": ADMIN},
        },
    ),
    *rules_of(
        "subnetpool",
        "/subnetpools",
        get=f"{READER} or {SHARED}",
        fields={
            "create": {"shared": ADMIN, "is_default": ADMIN},
            "update": {"is_default": ADMIN},
        },
    ),
    rule(
        "onboard_network_subnets",
        MEMBER,
        "Take a network's subnets into a subnet pool.",
        ("PUT", "/subnetpools/{id}/onboard_network_subnets"),
    ),
    rule("add_prefixes", MEMBER, "Add prefixes to a subnet pool.", ("PUT", "/subnetpools/{id}/add_prefixes")),
    rule(
        "remove_prefixes",
        MEMBER,
        "Take prefixes out of a subnet pool.",
        ("PUT", "/subnetpools/{id}/remove_prefixes"),
    ),
    *rules_of(
        "address_scope",
        "/address-scopes",
        get=f"{READER} or {SHARED}",
        fields={"create": {"shared": ADMIN}, "update": {"shared": ADMIN}},
    ),
    rule(
        "get_network_ip_availability",
        ADMIN,
        "How many addresses are left.",
        ("GET", "/network-ip-availabilities"),
    ),
    rule("get_availability_zone", ANYONE, "List zones.", ("GET", "/availability_zones")),
]
