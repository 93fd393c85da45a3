"""Limits: a project's quotas and usage in one answer, under other names."""

from __future__ import annotations

from typing import Any

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from db import quotas as db_quotas

_MAXIMA = {
    "maxServerMeta": "metadata_items",
    "maxTotalInstances": "instances",
    "maxTotalCores": "cores",
    "maxTotalRAMSize": "ram",
    "maxTotalKeypairs": "key_pairs",
    "maxServerGroups": "server_groups",
    "maxServerGroupMembers": "server_group_members",
}
_USED = {
    "totalInstancesUsed": "instances",
    "totalCoresUsed": "cores",
    "totalRAMUsed": "ram",
    "totalServerGroupsUsed": "server_groups",
}
_UNTIL: tuple[tuple[str, dict[str, str], dict[str, str]], ...] = (
    (
        "2.36",
        {
            "maxTotalFloatingIps": "floating_ips",
            "maxSecurityGroups": "security_groups",
            "maxSecurityGroupRules": "security_group_rules",
        },
        {"totalFloatingIpsUsed": "floating_ips", "totalSecurityGroupsUsed": "security_groups"},
    ),
    ("2.39", {"maxImageMeta": "metadata_items"}, {}),
    ("2.57", {"maxPersonality": "injected_files", "maxPersonalitySize": "injected_file_content_bytes"}, {}),
)
_KEYS = {"reserved": {"type": "string"}, "tenant_id": {"type": "string"}}
QUERY = (
    ("2.1", v.query({"tenant_id": {"type": "string"}})),
    ("2.75", v.query(_KEYS, additional=False)),
)


class LimitsController(Controller):
    """Show."""

    @operation("GET", "/limits", policy="os_compute_api:limits", query=QUERY)
    def index(self, call: Call) -> dict[str, Any]:
        """Show a project's limits and what it uses of them."""
        project_id = call.first("tenant_id") or call.context.project_id or ""
        if project_id != call.context.project_id:
            call.authorize({"project_id": project_id}, "os_compute_api:limits:other_project")
        with self.services.databases.global_.read() as connection:
            limits = self.services.quotas.limits(connection, project_id)
            used = db_quotas.usage(connection, project_id)
        maxima, uses = dict(_MAXIMA), dict(_USED)
        for until, more_maxima, more_uses in _UNTIL:
            if not call.since(until):
                maxima.update(more_maxima)
                uses.update(more_uses)
        absolute = {name: limits[resource] for name, resource in maxima.items()}
        absolute.update({name: used[resource] for name, resource in uses.items()})
        return {"limits": {"rate": [], "absolute": absolute}}
