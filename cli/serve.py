"""Run one role, several, or all of them in the foreground, until SIGTERM or Ctrl-C.

A role that can't start says why in one line of the log and is tried again; the
others run meanwhile.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core import backend
from core.errors import BadRequest, HaneulError, Unavailable

EXAMPLES = """\
examples:
  haneul serve all                                          everything, as 'haneul up' starts it
  haneul serve api-compute --config-file /etc/haneul.conf   one role, for systemd or a container
  haneul serve scheduler conductor                          two roles in one process
"""

# "databases" upgrades them and is done; of use with "all" on one machine only.
# role → the factory (conf) -> lifecycle.roles.Role that makes it; in the order of starting
ROLES = {
    "identity": "cli.identity:make",
    "databases": "cli.database:make_role",
    "conductor": "conductor.service:make_role",
    "scheduler": "scheduler.service:make_role",
    "image": "image.service:make_role",
    "api-image": "api.image.app:make_role",
    "api-network": "api.network.app:make_role",
    "api-compute": "api.compute.app:make_role",
    "compute": "compute.service:make_role",
}
RETRY_S = 5.0
METRICS_GROUP = "metrics"


def list_opts() -> list[tuple[str, list[Any]]]:
    """Options of the metrics listener; every process that serves roles has one."""
    from oslo_config import cfg

    return [
        (
            METRICS_GROUP,
            [
                cfg.HostAddressOpt("listen", default="127.0.0.1", help="Address of GET /metrics."),
                cfg.PortOpt("port", help="Port of GET /metrics, for Prometheus; none: not served."),
            ],
        )
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "roles", nargs="+", choices=[*ROLES, "all"], metavar="ROLE", help=f"all, {', '.join(ROLES)}"
    )
    parser.add_argument(
        "--config-file",
        type=Path,
        action="append",
        dest="config_files",
        help="configuration (default: haneul.conf in the state folder); may be repeated",
    )


def run(options: argparse.Namespace) -> int:
    from cli.state import StateFolder

    files = options.config_files or [StateFolder(options.state).config_file]
    for file in files:
        if not file.exists():
            raise Unavailable(
                f"there is no configuration {file}: 'haneul up' writes one, or use --config-file"
            )
    backend.select(_backend(files))
    return _launch(options.roles, files)


def _backend(files: list[Path]) -> str:
    """[DEFAULT]service_backend, read by hand: oslo.config would import what eventlet has to patch first."""
    found = "threading"
    for file in files:
        section = "DEFAULT"
        for line in file.read_text().splitlines():
            header = re.match(r"\s*\[(.+)\]", line)
            section = header[1] if header else section
            value = re.match(r"service_backend\s*=\s*(\S+)", line)
            if value and section == "DEFAULT":
                found = value[1]
    return found


def _launch(names: list[str], files: list[Path]) -> int:
    from oslo_service import service as oslo_service

    from cli.identity import GROUP, OPTS
    from core import config, logs

    conf = config.load(files)
    logs.setup(conf, "haneul")
    conf.register_opts(OPTS, group=GROUP)
    config.register(conf, list_opts())
    if "all" in names:
        names = [name for name in ROLES if name != "identity" or conf.identity.embedded]
    launcher = oslo_service.launch(conf, make_service(conf, names), workers=1)
    status = launcher.wait()
    return int(status or 0)


def load_factory(name: str) -> Callable[[Any], Any]:
    """The factory of a role.

    :raises BadRequest: there is no such role.
    """
    if name not in ROLES:
        raise BadRequest(f"there is no role {name!r}: {', '.join(ROLES)}")
    module, _, attribute = ROLES[name].partition(":")
    factory: Callable[[Any], Any] = getattr(importlib.import_module(module), attribute)
    return factory


def _calm_collector() -> None:
    """What is loaded by now stays: the garbage collector need not walk through it again and again.

    A page of 300 servers makes tens of thousands of objects, and every full collection on the
    way walked through all modules too: a third of the time of such a page.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def make_service(conf: Any, names: list[str]) -> Any:
    """One oslo.service service that runs these roles.

    Roles are made in ``start``, not before: with threads oslo.service runs
    services in a forked worker, which must not inherit threads, locks or
    database connections (and the parent stays small).
    """
    from oslo_log import log as oslo_logging
    from oslo_service import service as oslo_service

    log = oslo_logging.getLogger(__name__)

    class Roles(oslo_service.ServiceBase):
        def __init__(self) -> None:
            self.running: list[Any] = []
            self.states: dict[str, str] = {}
            self.stopping = threading.Event()
            self.lock = threading.Lock()

        def start(self) -> None:
            self.serve_metrics()
            waiting = [name for name in names if not self.try_start(name)]
            _calm_collector()
            if waiting:
                threading.Thread(target=self.retry, args=(waiting,), daemon=True, name="retry").start()

        def serve_metrics(self) -> None:
            if not conf.metrics.port:
                return
            from prometheus_client import start_http_server

            try:
                start_http_server(conf.metrics.port, conf.metrics.listen)
            except OSError as failure:
                log.error("metrics can't be served on port %s: %s", conf.metrics.port, failure)

        def try_start(self, name: str) -> bool:
            """Start one role; False, with one line in the log, if it can't be."""
            try:
                role = load_factory(name)(conf)
                role.start()
            except HaneulError as error:
                self.failed(name, error.message, with_traceback=False)
                return False
            except Exception as error:  # noqa: BLE001 - a fault in one role must not take the others down
                self.failed(name, f"{type(error).__name__}: {error}", with_traceback=True)
                return False
            with self.lock:
                self.running.append(role)
            log.info("%s runs", name)
            self.record(name, "running")
            return True

        def failed(self, name: str, why: str, with_traceback: bool) -> None:
            """One line, and once only as long as the reason stays the same."""
            why = " ".join(why.split())
            if self.states.get(name) != why:
                log.error("%s can't start: %s", name, why, exc_info=with_traceback)
            self.record(name, why)

        def retry(self, waiting: list[str]) -> None:
            while waiting and not self.stopping.wait(RETRY_S):
                waiting = [name for name in waiting if not self.try_start(name)]

        def record(self, name: str, state: str) -> None:
            """Say in run/roles.json what came of each role: for 'haneul up' and 'haneul status'."""
            from cli.state import write_file

            self.states[name] = state
            path = Path(conf.state_path) / "run" / f"roles-{'-'.join(names)}.json"
            if len(names) > 1 and set(names) >= set(ROLES) - {"identity"}:
                path = path.with_name("roles.json")
            try:
                write_file(path, json.dumps(self.states))
            except OSError as failure:
                log.warning("%s can't be written: %s", path, failure)

        def stop(self, graceful: bool = False) -> None:
            self.stopping.set()
            with self.lock:
                for role in reversed(self.running):
                    role.stop()
                self.running.clear()

        def wait(self) -> None:
            self.stopping.wait()

        def reset(self) -> None:
            """SIGHUP: options that can change at run time are read where they are used."""

    return Roles()


if __name__ == "__main__":
    sys.exit("use: haneul serve")
