"""Which agents serve a network or a router, and the other way round; routers put on agents by hand.

Conductors place routers (``db.router_placement``); one that an administrator takes off its agent stays nowhere until it
is put on one again. Every host serves DHCP to its own guests; a network that is put on a further agent is served
there, too, and one that is taken off an agent is not, even to guests there (``db.dhcp_placement``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import sqlalchemy as sa
import webob

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.network import attributes as a
from api.network import common
from api.network.agents import AgentsController
from api.network.networks import NetworksController
from api.network.routers import RoutersController
from db import dhcp_placement, network_agents, network_hosts, router_placement
from db import network_base as base
from db import networks as db_networks
from db import routers as db_routers
from db.network_errors import not_found
from db.sessions import retrying

_NETWORK = v.obj({"network_id": a.UUID}, ["network_id"])
_ROUTER = v.obj({"router_id": a.UUID}, ["router_id"])
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
        """List DHCP agents that serve a network: those of its hosts, except where it was taken off."""
        with self.services.databases.global_.read() as connection:
            network = base.find(connection, db_networks.MODEL, call.params["id"], common.viewer_of(call))
            hosts = dhcp_placement.serving(connection, [network["id"]]).get(network["id"], ())
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
                ids = db_networks.networks.c.id
                on_host = ids.in_(network_hosts.network_ids_of(agent["host"]))
                off = ids.in_(dhcp_placement.not_on(agent["host"]))
                rows = base.page(connection, db_networks.MODEL, base.GOD, extra=[on_host, ~off])
            return {"networks": [views.view(call, row) for row in rows]}

    def _of_dhcp_agent(
        self, call: Call, network_id: str, change: Callable[[sa.Connection, Row, Row], None]
    ) -> None:
        """Change whether a host serves a network. :raises NotFound: no such DHCP agent, no such network."""

        def run() -> None:
            with self.services.databases.global_.write() as connection:
                agent = self._agent(call, connection, network_agents.DHCP_AGENT)
                if agent is None:
                    raise not_found("InvalidDHCPAgent", "DHCP Agent", call.params["id"])
                viewer = common.viewer_of(call)
                change(
                    connection, base.find(connection, db_networks.MODEL, network_id, viewer, lock=True), agent
                )

        retrying(run)()

    @operation("POST", "/agents/{id}/dhcp-networks", policy="create_dhcp-network", body=_NETWORK, status=201)
    def add_network(self, call: Call) -> webob.Response:
        """Let a DHCP agent serve a network."""
        down_time_s = self.services.options.agent_down_time

        def change(connection: sa.Connection, network: Row, agent: Row) -> None:
            if not agent["admin_state_up"]:
                raise not_found("InvalidDHCPAgent", "DHCP Agent", agent["id"])
            dhcp_placement.put(connection, network, agent, down_time_s)

        self._of_dhcp_agent(call, call.body["network_id"], change)
        return _created()

    @operation("DELETE", "/agents/{id}/dhcp-networks/{network_id}", policy="delete_dhcp-network", status=204)
    def remove_network(self, call: Call) -> None:
        """Let a DHCP agent not serve a network, even to guests on its host."""
        self._of_dhcp_agent(call, call.params["network_id"], dhcp_placement.take_off)

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

    def _on_agent(
        self, call: Call, router_id: str, change: Callable[[sa.Connection, Row, Row], None]
    ) -> None:
        """Change which host a router is on. :raises NotFound: no such L3 agent, no such router."""

        def run() -> None:
            with self.services.databases.global_.write() as connection:
                agent = self._agent(call, connection, network_agents.L3_AGENT)
                if agent is None:
                    raise not_found("InvalidL3Agent", "L3 Agent", call.params["id"])
                viewer = common.viewer_of(call)
                change(
                    connection, base.find(connection, db_routers.MODEL, router_id, viewer, lock=True), agent
                )

        retrying(run)()

    @operation("POST", "/agents/{id}/l3-routers", policy="create_l3-router", body=_ROUTER, status=201)
    def add_router(self, call: Call) -> webob.Response:
        """Put a router on an L3 agent's host."""
        alive_since = network_agents.alive_since(self.services.options.agent_down_time)

        def change(connection: sa.Connection, router: Row, agent: Row) -> None:
            alive = agent["admin_state_up"] and agent["heartbeat_timestamp"] >= alive_since
            router_placement.put(connection, router, agent, alive)

        self._on_agent(call, call.body["router_id"], change)
        return _created()

    @operation("DELETE", "/agents/{id}/l3-routers/{router_id}", policy="delete_l3-router", status=204)
    def remove_router(self, call: Call) -> None:
        """Take a router off an L3 agent's host."""
        self._on_agent(call, call.params["router_id"], router_placement.take_off)


def _created() -> webob.Response:
    """Upstream's answer; the SDK reads it."""
    return webob.Response(status=201, body=b"null", content_type="application/json", charset=None)
