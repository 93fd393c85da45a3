"""A small data centre on one machine: a control plane and two hypervisor hosts, each a namespace.

    control (APIs, Keystone, conductor, scheduler)   h1, h2 (compute and network agents, own libvirtd)
          172.31.0.254 ── underlay ──────────────────── 172.31.0.1, 172.31.0.2
    outside 203.0.113.1 ── the external network's wire ── ext0 of h1 and of h2

Every role is a real ``haneul serve`` process; messages go through RabbitMQ. Nothing of the
machine's own network is touched.
"""

from __future__ import annotations

import concurrent.futures
import configparser
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cli import cloud, settings
from cli.state import CHECKOUT, StateFolder
from core import key_file
from tests.lab import leftovers, processes
from tests.lab.namespaces import Lab, entered

CONTROL_ROLES = (
    "identity", "databases", "conductor", "scheduler", "image", "api-image", "api-network", "api-compute",
    "api-metadata",
)  # fmt: skip
CONTROL = "172.31.0.254"
OUTSIDE = "203.0.113.1"
# in a process of its own: "ip netns exec" gives it the namespace's view of /sys, which libvirt looks at
_LIBVIRTD = """
import sys, pathlib
sys.path.insert(0, sys.argv[1])
from compute.drivers.libvirt.daemon import ensure_libvirtd
ensure_libvirtd(pathlib.Path(sys.argv[2]))
"""
HOSTS = {"h1": "172.31.0.1", "h2": "172.31.0.2"}


class TwoHosts:
    """``start`` brings everything up; ``close`` leaves nothing behind."""

    def __init__(self, transport_url: str) -> None:
        self.lab = Lab()
        self.folder = leftovers.make_folder("hh")
        self.state = StateFolder(self.folder / "c")
        self._transport = transport_url
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.spaces: dict[str, str] = {}

    def start(self) -> None:
        self._wire()
        with entered(self.spaces["control"]):
            self._configure()
        self.serve("control", self.state, *CONTROL_ROLES)
        with entered(self.spaces["control"]):
            addresses = settings.Addresses(self.state)
            urls = {name: addresses.url(group, path) for name, _kind, group, path, _text in settings.CATALOG
                    if name in ("nova", "glance", "neutron")}  # fmt: skip
            cloud.wait_for_answers({"identity": addresses.auth_url, **urls}, lambda: self._check("control"))
        for host in HOSTS:
            self.start_agents(host)

    def start_agents(self, host: str) -> None:
        """The agents of a host: one process, as systemd would start it, beside a libvirtd."""
        state = self._host_state(host)
        self.lab.run(
            self.spaces[host], sys.executable, "-c", _LIBVIRTD, str(CHECKOUT), str(state.path), timeout=90
        )
        self.serve(host, state, "network", "compute")

    def kill(self, name: str) -> None:
        """``kill -9`` the agents of a host; libvirtd, guests and the data plane live on."""
        process = self._processes.pop(name)
        processes.stop_group(process.pid, first=signal.SIGKILL)

    def close(self) -> None:
        # together: one that ends waits ten seconds and more for its consumers of messages
        with concurrent.futures.ThreadPoolExecutor(len(HOSTS) + 1) as pool:
            list(pool.map(lambda each: processes.stop_group(each.pid), self._processes.values()))
        # libvirtd, QEMU, dnsmasq outlive agents on purpose: they name our folder
        leftovers.remove(self.folder)
        self.lab.close()

    def connect(self, name: str = settings.CLOUD) -> Any:
        """openstacksdk; to be used with the calling thread in the control's namespace."""
        return cloud.connect(self.state, name)

    # -- wires ---------------------------------------------------------------

    def _wire(self) -> None:
        lab = self.lab
        for name in ("underlay", "control", *HOSTS, "wire", "outside"):
            self.spaces[name] = lab.make(name)
        ends = []
        for name, address in {"control": CONTROL, **HOSTS}.items():
            lab.cable(self.spaces[name], "ul0", self.spaces["underlay"], f"p-{name}")
            lab.address(self.spaces[name], "ul0", f"{address}/24")
            ends.append(f"p-{name}")
        lab.bridge(self.spaces["underlay"], "br0", ends)
        for name, device in (("h1", "ext0"), ("h2", "ext0"), ("outside", "eth0")):
            lab.cable(self.spaces[name], device, self.spaces["wire"], f"w-{name}", mtu=1500)
        lab.bridge(self.spaces["wire"], "br0", ["w-h1", "w-h2", "w-outside"])
        lab.address(self.spaces["outside"], "eth0", f"{OUTSIDE}/24")
        broker = urllib.parse.urlsplit(self._transport)
        lab.relay(self.spaces["control"], (CONTROL, 5672), ("127.0.0.1", broker.port or 5672))
        user = broker.netloc.rpartition("@")[0]
        self._transport = broker._replace(netloc=f"{user}@{CONTROL}:5672").geturl()

    # -- configuration -------------------------------------------------------

    def _configure(self) -> None:
        self.state.path.mkdir(parents=True)
        settings.write_configuration(self.state, settings.Choices(listen=CONTROL))
        self._edit(self.state, {"DEFAULT": {"transport_url": self._transport, "host": "control"}})
        addresses = settings.Addresses(self.state)
        settings.write_plan(self.state, addresses)
        settings.write_client_files(self.state, addresses)
        key_file.create(addresses.key_file)

    def _host_state(self, host: str) -> StateFolder:
        state = StateFolder(self.folder / host)
        if state.exists():
            return state
        state.path.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.state.config_file, state.config_file)
        address = HOSTS[host]
        self._edit(
            state,
            {
                "DEFAULT": {"host": host, "my_ip": address, "state_path": str(state.path)},
                "metrics": {"port": ""},
                "database": {"connection": "", "cell_connection": ""},
                "metadata_proxy": {"url": settings.Addresses(self.state).url("metadata_api")},
                "network_linux": {
                    "tunnel_address": address,
                    "physical_interfaces": "public:ext0",
                    "host_gateways": "",
                    # both hosts have the same /run
                    "netns_folder": str(state.path / "netns"),
                },
            },
        )
        return state

    def _edit(self, state: StateFolder, changes: dict[str, dict[str, str]]) -> None:
        config = configparser.RawConfigParser(default_section="\0", strict=False)
        config.read(state.config_file)
        for section, values in changes.items():
            if not config.has_section(section):
                config.add_section(section)
            for name, value in values.items():
                if value:
                    config.set(section, name, value)
                else:
                    config.remove_option(section, name)
        with state.config_file.open("w") as file:
            config.write(file)

    # -- processes -----------------------------------------------------------

    def serve(self, name: str, state: StateFolder, *roles: str) -> None:
        """``haneul serve`` in a namespace."""
        log = state.folder("log") / "haneul.log"
        self._processes[name] = processes.start(
            [
                # not "ip netns exec": namespaces that an agent makes must outlive its mount namespace
                "nsenter", f"--net=/run/netns/{self.spaces[name]}",
                sys.executable, "-m", "cli.main", "serve", *roles,
                "--state", str(state.path), "--config-file", str(state.config_file),
            ],
            log=log,
            folder=state.path,
            environment={**os.environ, "PYTHONPATH": str(CHECKOUT), "MALLOC_ARENA_MAX": "4"},
        )  # fmt: skip

    def log_of(self, name: str) -> Path:
        folder = self.state.path if name == "control" else self.folder / name
        return folder / "log" / "haneul.log"

    def _check(self, name: str) -> None:
        if self._processes[name].poll() is not None:
            raise AssertionError(f"{name} ended: {processes.tail(self.log_of(name))}")


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float = 120) -> Any:
    """Wait until ``condition`` gives something true; returns it."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s} s in vain: {what}")
        time.sleep(0.1)
