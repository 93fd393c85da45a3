"""Rules of agents and of what the API says of itself."""

from __future__ import annotations

from api.network.policies.base import ADMIN, ANYONE, rule, rules_of

RULES = [
    *rules_of("agent", "/agents", get=ADMIN, create=None, update=ADMIN, delete=ADMIN),
    rule("get_extension", ANYONE, "List extensions.", ("GET", "/extensions")),
    rule("get_service_provider", ANYONE, "List providers of services.", ("GET", "/service-providers")),
]
