"""Agents, availability zones and how many addresses networks have left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from api.common.operations import Call, Controller, operation
from api.network import attributes as a
from api.network import common
from api.network.attributes import Attr
from api.network.resource import ResourceController, Row
from db import addresses, dhcp_placement, network_agents
from db import network_base as base
from db import networks as db_networks
from db import subnets as db_subnets
from db.rows import select_in

ATTRIBUTES: dict[str, Attr] = {
    "id": a.read_only(),
    "agent_type": a.read_only(),
    "binary": a.read_only(),
    "host": a.read_only(),
    "topic": a.read_only(),
    "availability_zone": a.read_only(),
    "admin_state_up": a.boolean(True, post=False),
    "description": Attr(a.or_null(a.string()), post=False, convert=a.blank),
    "alive": a.read_only(),
    "configurations": a.read_only(),
    "created_at": a.read_only(),
    "started_at": a.read_only(),
    "heartbeat_timestamp": a.read_only(),
    "resources_synced": a.read_only(),
}


class AgentsController(ResourceController):
    """Agents, as they report themselves."""

    name, collection, path = "agent", "agents", "/agents"
    attributes = ATTRIBUTES
    model = network_agents.MODEL
    actions = ("index", "show", "update", "delete")

    def target(self, call: Call, connection: sa.Connection, row: Any) -> Row:
        return dict(row)

    def remove(self, call: Call, connection: sa.Connection, row: Row) -> None:
        if row["agent_type"] == network_agents.DHCP_AGENT:
            dhcp_placement.forget_host(connection, row["host"])
        super().remove(call, connection, row)

    def decorate(self, call: Call, row: Row, view: Row) -> None:
        for key in ("created_at", "started_at", "heartbeat_timestamp"):
            view[key] = row[key].strftime("%Y-%m-%d %H:%M:%S")
        limit = network_agents.alive_since(self.services.options.agent_down_time)
        view["alive"] = row["heartbeat_timestamp"] >= limit
        view["availability_zone"] = (
            row["availability_zone"] or self.services.options.default_availability_zone
        )


class AvailabilityZonesController(Controller):
    """Zones that agents are in."""

    @operation("GET", "/availability_zones", policy="get_availability_zone")
    def index(self, call: Call) -> dict[str, Any]:
        """List zones: one entry for routers and one for networks."""
        agents = network_agents.agents
        since = network_agents.alive_since(self.services.options.agent_down_time)
        usable = sa.and_(agents.c.admin_state_up.is_(True), agents.c.heartbeat_timestamp >= since)
        statement = sa.select(
            agents.c.availability_zone,
            agents.c.agent_type,
            sa.func.max(sa.case((usable, 1), else_=0)),
        ).group_by(agents.c.availability_zone, agents.c.agent_type)
        zones: dict[tuple[str, str], bool] = {}
        default = self.services.options.default_availability_zone
        with self.services.databases.global_.read() as connection:
            for zone, agent_type, alive in connection.execute(statement):
                for resource, prefix in (("network", "DHCP"), ("router", "L3")):
                    if agent_type.startswith(prefix):
                        key = (zone or default, resource)
                        zones[key] = zones.get(key, False) or bool(alive)
        return {
            "availability_zones": [
                {"name": name, "resource": resource, "state": "available" if usable_ else "unavailable"}
                for (name, resource), usable_ in sorted(zones.items())
            ]
        }


class IpAvailabilityController(Controller):
    """How many addresses networks have, and how many are in use."""

    def _views(
        self, connection: sa.Connection, networks: list[Row], versions: Sequence[int] = (4, 6)
    ) -> list[Row]:
        """``versions``: subnets of these alone are counted."""
        counted = sa.select(db_subnets.subnets).where(db_subnets.subnets.c.ip_version.in_(versions))
        ids = [network["id"] for network in networks]
        subnets = [dict(row) for row in select_in(connection, counted, db_subnets.subnets.c.network_id, ids)]
        used = addresses.counts(connection, [subnet["id"] for subnet in subnets])
        result = []
        for network in networks:
            mine = [subnet for subnet in subnets if subnet["network_id"] == network["id"]]
            details = [
                {
                    "subnet_id": subnet["id"],
                    "subnet_name": subnet["name"],
                    "cidr": subnet["cidr"],
                    "ip_version": subnet["ip_version"],
                    "total_ips": addresses.size(subnet),
                    "used_ips": used.get(subnet["id"], 0),
                }
                for subnet in mine
            ]
            result.append(
                {
                    "network_id": network["id"],
                    "network_name": network["name"],
                    "project_id": network["project_id"],
                    "tenant_id": network["project_id"],
                    "total_ips": sum(each["total_ips"] for each in details),
                    "used_ips": sum(each["used_ips"] for each in details),
                    "subnet_ip_availability": details,
                }
            )
        return result

    @operation("GET", "/network-ip-availabilities", policy="get_network_ip_availability")
    def index(self, call: Call) -> dict[str, Any]:
        """List all networks' availabilities."""
        query = common.filters_of(call)
        versions = query.pop("ip_version", [])
        renamed = {"network_id": "id", "network_name": "name"}
        query = {renamed.get(key, key): values for key, values in query.items()}
        extra = []
        numbers = [int(each) for each in versions if each.isdigit()] if versions else [4, 6]
        if versions:
            table = db_subnets.subnets
            extra.append(
                sa.exists().where(
                    table.c.network_id == db_networks.networks.c.id, table.c.ip_version.in_(numbers)
                )
            )
        with self.services.databases.global_.read() as connection:
            rows = base.page(connection, db_networks.MODEL, base.GOD, query, None, extra)
            return {"network_ip_availabilities": self._views(connection, rows, numbers)}

    @operation("GET", "/network-ip-availabilities/{id}", policy="get_network_ip_availability")
    def show(self, call: Call) -> dict[str, Any]:
        """Show one network's."""
        with self.services.databases.global_.read() as connection:
            row = base.find(connection, db_networks.MODEL, call.params["id"], base.GOD)
            return {"network_ip_availability": self._views(connection, [row])[0]}
