"""The compute role: the agents of this process, one for a real host, many for simulated ones."""

from __future__ import annotations

import concurrent.futures
from typing import Any

from oslo_config import cfg
from stevedore import driver as stevedore_driver

from compute import agent as agents
from compute.reports import Reporter
from core import config
from core.messaging import Messaging
from lifecycle.roles import Role
from lifecycle.rpc import ConductorClient


def make_role(conf: cfg.ConfigOpts) -> ComputeRole:
    """The factory that ``haneul serve compute`` calls."""
    config.register(conf, agents.list_opts())
    return ComputeRole(conf)


def load_driver(conf: cfg.ConfigOpts, host: str) -> Any:
    """The configured driver for one host."""
    manager: Any = stevedore_driver.DriverManager(
        "haneul.compute.drivers", conf.compute.driver, invoke_on_load=True, invoke_args=(conf, host)
    )
    return manager.driver


class ComputeRole(Role):
    """Runs agents; the broker of the cell is ``[DEFAULT]transport_url``."""

    name = "compute"

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf
        self._messaging = Messaging(conf)
        self._reporter = Reporter(ConductorClient(self._messaging), conf.host)
        hosts = conf.compute.simulated_hosts if conf.compute.driver == "simulated" else []
        self.agents = [
            agents.Agent(conf, host, load_driver(conf, host), self._messaging, self._reporter)
            for host in (hosts or [conf.host])
        ]

    def start(self) -> None:
        self._reporter.start()
        for agent in self.agents:
            agent.start()

    def stop(self) -> None:
        with concurrent.futures.ThreadPoolExecutor(16, thread_name_prefix="stop") as pool:
            list(pool.map(lambda agent: agent.stop(), self.agents))
        self._reporter.stop()
        self._messaging.close()
