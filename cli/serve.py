"""Run one role, several, or all of them in the foreground, until SIGTERM or Ctrl-C.

A role that can't start says why in one line of the log and is tried again; the
others run meanwhile.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cli import arguments
from core import backend
from core.errors import BadRequest, Unavailable

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
    "api-key-manager": "api.key_manager.app:make_role",
    "image": "image.service:make_role",
    "api-image": "api.image.app:make_role",
    "api-network": "api.network.app:make_role",
    "api-volume": "api.volume.app:make_role",
    "api-compute": "api.compute.app:make_role",
    "api-metadata": "api.metadata.app:make_role",
    "volume": "volume.service:make_role",
    "novncproxy": "api.compute.console_proxy:make_role",
    "compute": "compute.service:make_role",
    "network": "network.service:make_role",
}
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
    arguments.add_config_file(parser)


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
    from cli.roles_service import RolesService
    from core import config, logs

    conf = config.load(files)
    logs.setup(conf, "haneul")
    conf.register_opts(OPTS, group=GROUP)
    config.register(conf, list_opts())
    if "all" in names:
        names = [name for name in ROLES if name != "identity" or conf.identity.embedded]
    roles = RolesService(conf, names, load_factory, record_file(Path(conf.state_path), names))
    launcher = oslo_service.launch(conf, roles, workers=1)
    status = launcher.wait()
    return int(status or 0)


def record_file(state_path: Path, names: list[str]) -> Path:
    """Where a process says what came of its roles: ``run/roles.json`` when they are a whole cloud."""
    whole = len(names) > 1 and set(names) >= set(ROLES) - {"identity"}
    return state_path / "run" / ("roles.json" if whole else f"roles-{'-'.join(names)}.json")


def load_factory(name: str) -> Callable[[Any], Any]:
    """The factory of a role.

    :raises BadRequest: there is no such role.
    """
    if name not in ROLES:
        raise BadRequest(f"there is no role {name!r}: {', '.join(ROLES)}")
    module, _, attribute = ROLES[name].partition(":")
    factory: Callable[[Any], Any] = getattr(importlib.import_module(module), attribute)
    return factory


if __name__ == "__main__":
    sys.exit("use: haneul serve")
