"""The network role: the agents of this process, one for a real host, many for simulated ones."""

from __future__ import annotations

import concurrent.futures
from typing import Any

from oslo_config import cfg
from stevedore import driver as stevedore_driver

from core import config
from core.errors import BadRequest
from core.messaging import Messaging
from lifecycle.roles import Role
from network import agent as agents
from network.drivers.base import NetworkDriver
from network.reports import Reporter

NAMESPACE = "haneul.network.drivers"


def make_role(conf: cfg.ConfigOpts) -> NetworkRole:
    """The factory that ``haneul serve network`` calls."""
    config.register(conf, agents.list_opts())
    return NetworkRole(conf)


def load_driver(conf: cfg.ConfigOpts, host: str) -> NetworkDriver:
    """The configured driver for one host. :raises BadRequest: there is none of that name."""

    def failed(_manager: Any, _entry_point: Any, error: BaseException) -> None:
        raise error

    try:
        manager: Any = stevedore_driver.DriverManager(
            NAMESPACE,
            conf.network_agent.driver,
            invoke_on_load=True,
            invoke_args=(conf, host),
            on_load_failure_callback=failed,
            warn_on_missing_entrypoint=False,
        )
    except stevedore_driver.NoMatches as error:
        raise BadRequest(
            f"[network_agent] driver: there is no {conf.network_agent.driver!r} in {NAMESPACE}"
        ) from error
    driver: NetworkDriver = manager.driver
    return driver


class NetworkRole(Role):
    """Runs agents; the broker of the cell is ``[DEFAULT]transport_url``."""

    name = "network"

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._messaging = Messaging(conf)
        options = conf.network_agent
        self._reporter = Reporter(self._messaging, options.report_interval_s, options.availability_zone)
        hosts = options.simulated_hosts if options.driver == "simulated" else []
        self.agents = [
            agents.Agent(conf, host, load_driver(conf, host), self._messaging, self._reporter)
            for host in (hosts or [conf.host])
        ]

    def start(self) -> None:
        self._reporter.start()
        try:
            for agent in self.agents:
                agent.start()
        except BaseException:
            self._reporter.stop()
            raise

    def stop(self) -> None:
        with concurrent.futures.ThreadPoolExecutor(16, thread_name_prefix="stop") as pool:
            list(pool.map(lambda agent: agent.stop(), self.agents))
        self._reporter.stop()
        self._messaging.close()
