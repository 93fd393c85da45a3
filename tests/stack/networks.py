"""A Network API for ``tests.stack.cloud``, behind real HTTP, and what network agents do to ports.

The API is the real one over the cloud's own global database; the token names a persona
(``tests.api.identity``).  Its agents are played: each host is reported as alive, and a
thread plugs what is bound to one.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

import sqlalchemy as sa

from api.common.server import ApiRole
from api.network.app import make_app
from api.network.services import GROUP, NetworkServices
from core import config
from db import network_agents, network_quotas
from db.network_base import TABLES
from lifecycle.network_client import NetworkClient
from lifecycle.rpc import AgentClient
from tests.api.identity import authenticate
from tests.stack.credentials import credentials

PROJECT = "project-1"
ports, bindings = TABLES["ports"], TABLES["port_bindings"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class NetworkPlane:
    """Start it once the cloud's databases are there; ``network`` has one subnet."""

    def __init__(self, cloud: Any) -> None:
        self.cloud = cloud
        self.plugs = True
        """False: no port turns ACTIVE"""
        self.tells = True
        """False: no event is sent; whoever waits has to ask"""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._plug_all, name="plugs", daemon=True)
        conf = cloud.conf
        self.services = NetworkServices(conf)
        config.override(conf, f"{GROUP}.port", free_port())
        config.override(conf, f"{GROUP}.agent_down_time", 1_000_000)
        self.url = f"http://127.0.0.1:{conf[GROUP].port}"
        credentials(conf, self.url)
        self.client = NetworkClient(conf)
        self._role = ApiRole("network", conf, GROUP, lambda conf: make_app(conf, self.services, authenticate))

    def start(self) -> None:
        self._role.start()
        for host in self.cloud.hosts:
            self.report(host)
        network = {"name": "net", "project_id": PROJECT}
        self.network = self.client.call("POST", "/networks", {"network": network})["network"]
        subnet = {
            "network_id": self.network["id"],
            "cidr": "10.0.0.0/20",
            "ip_version": 4,
            "project_id": PROJECT,
        }
        self.subnet = self.client.call("POST", "/subnets", {"subnet": subnet})["subnet"]
        quota = {"quota": {"port": -1}}
        self.client.call("PUT", f"/quotas/{PROJECT}", quota, token="admin@p0")
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(10)
        self._role.stop()
        self.services.close()

    def report(self, host: str) -> None:
        """A host's network agent lives."""
        values = {"agent_type": network_agents.L2_AGENT, "binary": "haneul-network", "host": host}
        with self.services.databases.global_.write() as connection:
            network_agents.report(
                connection,
                {**values, "topic": "N/A", "availability_zone": "nova", "configurations": {}},
            )

    def make_port(self, **values: Any) -> str:
        """A port of the project, made by its owner."""
        port = {"network_id": self.network["id"], "project_id": PROJECT, **values}
        return str(self.client.call("POST", "/ports", {"port": port})["port"]["id"])

    def ports(self) -> dict[str, dict[str, Any]]:
        """All ports by id, as the API shows them."""
        return {port["id"]: port for port in self.client.get("/ports")["ports"]}

    def used(self) -> int:
        """Ports that count against the project's quota."""
        with self.services.databases.global_.read() as connection:
            return int(network_quotas.usage(connection, PROJECT)["port"])

    def _plug_all(self) -> None:
        agents = AgentClient(self.cloud.messaging)
        while not self._stopping.wait(0.01):
            for port_id, server_id, host in self._plugged() if self.plugs else ():
                event = {"name": "network-vif-plugged", "server_uuid": server_id, "tag": port_id}
                if self.tells:
                    with contextlib.suppress(Exception):
                        agents.external_events(host, [{**event, "status": "completed"}])

    def _plugged(self) -> list[tuple[str, str, str]]:
        bound = sa.and_(ports.c.status == "DOWN", ports.c.binding_host.in_(self.cloud.hosts))
        with self.services.databases.global_.read() as connection:
            statement = sa.select(ports.c.id, ports.c.device_id, ports.c.binding_host).where(bound)
            found = [tuple(row) for row in connection.execute(statement)]
        if found:
            with self.services.databases.global_.write() as connection:
                ids = [row[0] for row in found]
                connection.execute(sa.update(ports).where(ports.c.id.in_(ids), bound).values(status="ACTIVE"))
        return found  # type: ignore[return-value]
