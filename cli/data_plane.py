"""Removing what the network agent made on this machine, once the cloud is forgotten."""

from __future__ import annotations

import os
from pathlib import Path

from core.errors import HaneulError


def remove(config_file: Path) -> str | None:
    """Bridges, taps, namespaces, rules: everything that is marked as haneul's. What was done, in a line, or None.

    Not while another cloud's agent works here: it would have its own removed.
    """
    from core import config
    from lifecycle.host_network import Changed, HostNetwork
    from network import agent
    from network.service import load_driver

    conf = config.load([config_file])
    config.register(conf, agent.list_opts())
    if conf.network_agent.driver != "linux" or os.geteuid() != 0:
        return None
    try:
        driver = load_driver(conf, conf.host)
        for name in ("host_gateways", "physical_interfaces"):
            conf.set_override(name, [], group="network_linux")
        driver.start()
    except HaneulError as error:
        return f"the host's networks stay: {error.message}"
    try:
        applied = driver.apply(HostNetwork(), Changed(everything=True))
    finally:
        driver.close()
    return (
        f"not all of the host's networks could be removed: {'; '.join(applied.errors)}"
        if applied.errors
        else None
    )
