"""Rules of ports and their bindings."""

from __future__ import annotations

from api.network.policies.base import (
    ADMIN,
    ADMIN_OR_SERVICE,
    MEMBER,
    NETWORK_OWNER,
    NETWORK_SHARED,
    READER,
    rule,
    rules_of,
)

_BINDING = ("binding:host_id", "binding:profile")
_SEEN = ("binding:host_id", "binding:profile", "binding:vif_type", "binding:vif_details")
_IN_NETWORK = f"{NETWORK_OWNER} or ({NETWORK_SHARED})"
_OWN_DEVICE = f"not rule:network_device or {NETWORK_OWNER}"

RULES = [
    rule("network_device", "True:%(network_device)s", "Ports of routers and the like.", ("GET", "/ports")),
    *rules_of(
        "port",
        "/ports",
        get=f"{READER} or role:reader and project_id:%(network:project_id)s",
        fields={
            "create": {
                "device_owner": _OWN_DEVICE,
                "mac_address": NETWORK_OWNER,
                "fixed_ips": _IN_NETWORK,
                "fixed_ips:ip_address": NETWORK_OWNER,
                "fixed_ips:subnet_id": _IN_NETWORK,
                "port_security_enabled": NETWORK_OWNER,
                "allowed_address_pairs": NETWORK_OWNER,
                **dict.fromkeys(_BINDING, ADMIN_OR_SERVICE),
                "binding:vnic_type": MEMBER,
            },
            "update": {
                "device_owner": _OWN_DEVICE,
                "mac_address": ADMIN_OR_SERVICE,
                "fixed_ips": _IN_NETWORK,
                "fixed_ips:ip_address": NETWORK_OWNER,
                "fixed_ips:subnet_id": _IN_NETWORK,
                "port_security_enabled": NETWORK_OWNER,
                "allowed_address_pairs": NETWORK_OWNER,
                **dict.fromkeys(_BINDING, ADMIN_OR_SERVICE),
                "binding:vnic_type": MEMBER,
            },
            "get": {**dict.fromkeys(_SEEN, ADMIN_OR_SERVICE), "resource_request": ADMIN_OR_SERVICE},
        },
    ),
    *rules_of(
        "port_binding",
        "/ports/{port_id}/bindings",
        get=ADMIN_OR_SERVICE,
        create=f"rule:service_api or {ADMIN}",
        update=None,
        delete=f"rule:service_api or {ADMIN}",
    ),
    rule(
        "activate",
        f"rule:service_api or {ADMIN}",
        "Make a binding the active one.",
        ("PUT", "/ports/{port_id}/bindings/{host}/activate"),
    ),
]
