"""Which agents serve a network or a router, and the other way round: lists only.

haneul places routers itself, and every host serves DHCP to its own guests: so nothing is put on an agent
or taken from it by hand, and upstream's extensions that promise this are not among ``/extensions``.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from api.common.operations import Call, Controller, operation
from api.network import common
from api.network.agents import AgentsController
from api.network.networks import NetworksController
from api.network.routers import RoutersController
from db import network_agents, network_hosts
from db import network_base as base
from db import networks as db_networks
from db import routers as db_routers

Row = dict[str, Any]
agents = network_agents.agents


class AgentSchedulersController(Controller):
    """Agents of a network or router; networks and routers of an agent."""

    def _agents(self, call: Call, connection: sa.Connection, kind: str, hosts: Collection[str]) -> Row:
        wanted = [agents.c.agent_type == kind, agents.c.host.in_(sorted(hosts))]
        rows = base.page(connection, network_agents.MODEL, base.GOD, extra=wanted)
        views = AgentsController(self.services)
        return {"agents": [views.view(call, row) for row in rows]}

    def _agent(self, call: Call, connection: sa.Connection, kind: str) -> Row | None:
        """The agent, if it is of this kind. :raises NotFound:"""
        row = base.find(connection, network_agents.MODEL, call.params["id"], common.viewer_of(call))
        return row if row["agent_type"] == kind else None

    @operation("GET", "/networks/{id}/dhcp-agents", policy="get_dhcp-agents")
    def dhcp_agents(self, call: Call) -> Row:
        """List DHCP agents that serve a network: those of its hosts."""
        with self.services.databases.global_.read() as connection:
            network = base.find(connection, db_networks.MODEL, call.params["id"], common.viewer_of(call))
            hosts = network_hosts.hosts_of(connection, [network["id"]]).get(network["id"], ())
            return self._agents(call, connection, network_agents.DHCP_AGENT, hosts)

    @operation("GET", "/routers/{id}/l3-agents", policy="get_l3-agents")
    def l3_agents(self, call: Call) -> Row:
        """List L3 agents that have a router: the one of its host."""
        with self.services.databases.global_.read() as connection:
            router = base.find(connection, db_routers.MODEL, call.params["id"], common.viewer_of(call))
            hosts = [router["host"]] if router["host"] else []
            found = self._agents(call, connection, network_agents.L3_AGENT, hosts)
        return {"agents": [{**agent, "ha_state": None} for agent in found["agents"]]}

    @operation("GET", "/agents/{id}/dhcp-networks", policy="get_dhcp-networks")
    def dhcp_networks(self, call: Call) -> Row:
        """List networks that a DHCP agent serves."""
        views = NetworksController(self.services)
        with self.services.databases.global_.read() as connection:
            agent = self._agent(call, connection, network_agents.DHCP_AGENT)
            rows: list[Row] = []
            if agent is not None:
                on_host = db_networks.networks.c.id.in_(network_hosts.network_ids_of(agent["host"]))
                rows = base.page(connection, db_networks.MODEL, base.GOD, extra=[on_host])
            return {"networks": [views.view(call, row) for row in rows]}

    @operation("GET", "/agents/{id}/l3-routers", policy="get_l3-routers")
    def l3_routers(self, call: Call) -> Row:
        """List routers that are on an L3 agent's host."""
        views = RoutersController(self.services)
        with self.services.databases.global_.read() as connection:
            agent = self._agent(call, connection, network_agents.L3_AGENT)
            rows: list[Row] = []
            if agent is not None:
                mine = db_routers.MODEL.table.c.host == agent["host"]
                rows = base.page(connection, db_routers.MODEL, base.GOD, extra=[mine])
            return {"routers": [views.view(call, row) for row in rows]}
