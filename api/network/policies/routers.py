"""Rules of routers, floating IPs and port forwarding."""

from __future__ import annotations

from api.network.policies.base import ADMIN, MEMBER, rule, rules_of

_ADMIN_FIELDS = ("distributed", "ha", "external_gateway_info:enable_snat")
_GATEWAY_IPS = "external_gateway_info:external_fixed_ips"


def _call(name: str, check: str = MEMBER) -> object:
    return rule(name, check, name.replace("_", " ").capitalize() + ".", ("PUT", f"/routers/{{id}}/{name}"))


RULES = [
    *rules_of(
        "router",
        "/routers",
        fields={
            "create": {
                **dict.fromkeys(_ADMIN_FIELDS, ADMIN),
                "external_gateway_info": MEMBER,
                "external_gateway_info:network_id": MEMBER,
                _GATEWAY_IPS: ADMIN,
            },
            "update": {
                **dict.fromkeys(_ADMIN_FIELDS, ADMIN),
                "external_gateway_info": MEMBER,
                "external_gateway_info:network_id": MEMBER,
                _GATEWAY_IPS: ADMIN,
            },
            "get": dict.fromkeys(("distributed", "ha"), ADMIN),
        },
    ),
    _call("add_router_interface"),
    _call("remove_router_interface"),
    _call("add_extraroutes"),
    _call("remove_extraroutes"),
    *rules_of("floatingip", "/floatingips", fields={"create": {"floating_ip_address": ADMIN}}),
    *rules_of("floatingip_port_forwarding", "/floatingips/{floatingip_id}/port_forwardings"),
]
