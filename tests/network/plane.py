"""The Network API, a conductor's networks and agents with the simulated driver, in one process.

``plane.api`` speaks as in ``tests.api.network.conftest``; what is made there reaches the agents by
itself. Compute is a recorder: ``plane.events``.
"""

from __future__ import annotations

import concurrent.futures
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import webtest

from api.network.app import make_app
from api.network.doorbells import Doorbells
from conductor import networks as conductor_networks
from conductor.compute_events import ComputeEvents
from core import config
from core.messaging import Messaging
from db.sessions import Database
from lifecycle.rpc import CONDUCTOR_TOPIC
from network import agent as agents
from network.drivers.simulated import SimulatedDriver
from network.reports import Reporter
from tests.api.identity import authenticate
from tests.api.network.conftest import SERVICE, Api, make_services


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float = 120) -> Any:
    """The condition's value once it is true."""
    end = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < end, f"never happened: {what}"
        time.sleep(0.01)
    return found


class Compute:
    """Takes events; ``failures`` answers 503 so many times first."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, str]] = []
        self.failures = 0
        self.calls = 0

    def post(self, path: str, json: Any, raise_exc: bool) -> Any:
        assert path == "/os-server-external-events" and not raise_exc
        self.calls += 1
        if self.failures:
            self.failures -= 1
            return type("Answer", (), {"status_code": 503})
        for event in json["events"]:
            assert event["status"] == "completed"
            self.events.append((event["name"], event["server_uuid"], event["tag"]))
        return type("Answer", (), {"status_code": 200})


class Host:
    """An agent that can be ended and started again; its driver stays, as a host's data plane does."""

    def __init__(self, plane: Plane, name: str) -> None:
        self._plane = plane
        self.name = name
        self.driver = SimulatedDriver(plane.conf, name)
        self.start()

    def start(self) -> None:
        self.messaging = Messaging(self._plane.conf)
        self.reporter = Reporter(self.messaging, 1)
        self.agent = agents.Agent(self._plane.conf, self.name, self.driver, self.messaging, self.reporter)
        self.reporter.start()
        self.agent.start()

    def stop(self) -> None:
        self.agent.stop()
        self.reporter.stop()
        self.messaging.close()


class Conductor:
    """A cell's conductor, as far as networks go."""

    def __init__(self, plane: Plane, cell_id: int = 1) -> None:
        self.messaging = Messaging(plane.conf)
        cell = Database(plane.services.databases.global_.engine, f"cell{cell_id}", cell_id)
        self.networks = conductor_networks.Networks(
            plane.conf,
            plane.services.databases,
            cell,
            self.messaging,
            self.messaging,
            ComputeEvents(plane.conf, plane.compute),  # type: ignore[arg-type]
        )
        name = f"conductor-{uuid.uuid4().hex[:6]}"
        self._server = self.messaging.server(
            CONDUCTOR_TOPIC, name, [conductor_networks.Endpoint(self.networks)]
        )
        self.networks.start()
        self._server.start()

    def stop(self) -> None:
        self._server.stop()
        self._server.wait()
        self.networks.stop()
        self.messaging.close()


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    """Two hosts, over SQLite."""
    made = Plane(f"sqlite:///{tmp_path}/global.sqlite", "h1", "h2")
    yield made
    made.stop()


class Plane:
    """``hosts``: names of agents to start; more with ``add_host``."""

    def __init__(self, url: str, *hosts: str, transport: str | None = None, **overrides: Any) -> None:
        self.services = make_services(url)
        self.conf = self.services.conf
        for options in (agents.list_opts(), conductor_networks.list_opts()):
            config.register(self.conf, options)
        Messaging(self.conf, "local:///none").close()  # registers transport_url
        values = {
            "transport_url": transport or f"local:///{uuid.uuid4().hex}",
            "network_agent.driver": "simulated",
            "conductor_networks.interval_s": 0.5,
            **overrides,
        }
        for name, value in values.items():
            config.override(self.conf, name, value)
        self.compute = Compute()
        self.services.doorbells = Doorbells(
            self.conf,
            self.services.databases,
            ComputeEvents(self.conf, self.compute),  # type: ignore[arg-type]
        )
        self.api = Api(webtest.TestApp(make_app(self.conf, self.services, authenticate)))
        self.conductors = [Conductor(self)]
        self.hosts: dict[str, Host] = {}
        for name in hosts:
            self.add_host(name)
        self._lock = threading.Lock()

    def add_host(self, name: str) -> Host:
        """Start an agent, and wait until it is known and has asked for its state."""
        self.hosts[name] = host = Host(self, name)
        wait_for(lambda: name in self.known_hosts(), f"agent of {name} known")
        return host

    def known_hosts(self) -> set[str]:
        found = self.api.get("/agents", as_="admin@p0")["agents"]
        return {each["host"] for each in found if each["alive"]}

    def bound(self, network_id: str, host: str, **values: Any) -> dict[str, Any]:
        """A server's port on a host."""
        body = {
            "project_id": "p1",
            "device_owner": "compute:nova",
            "device_id": str(uuid.uuid4()),
            "binding:host_id": host,
            **values,
        }
        return self.api.port(network_id, as_=SERVICE, **body)

    def port(self, port_id: str) -> dict[str, Any]:
        return dict(self.api.get(f"/ports/{port_id}", as_="admin@p0")["port"])

    def wait_active(self, *port_ids: str) -> None:
        for port_id in port_ids:
            wait_for(lambda port_id=port_id: self.port(port_id)["status"] == "ACTIVE", f"{port_id} ACTIVE")

    def stop(self) -> None:
        running = [*self.hosts.values(), *self.conductors]
        with concurrent.futures.ThreadPoolExecutor(len(running) or 1) as pool:
            list(pool.map(lambda each: each.stop(), running))
        self.services.close()
