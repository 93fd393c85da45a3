"""Boot a server as the ordinary user 'demo', look at it, and delete it again."""

from __future__ import annotations

import argparse
import time

from cli import cloud, settings
from cli.progress import Progress
from cli.state import StateFolder
from core.errors import Unavailable

EXAMPLES = """\
examples:
  haneul demo                one server
  haneul demo --count 5      five in one request
  haneul demo --keep         leave them
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=1, help="servers to boot in one request (default 1)")
    parser.add_argument("--keep", action="store_true", help="do not delete them")
    parser.add_argument("--flavor", default="m1.nano", help="flavor of the servers (default m1.nano)")
    parser.add_argument("--image", default="tiny", help="image of the servers (default tiny)")


def run(options: argparse.Namespace) -> int:
    state, progress = StateFolder(options.state), Progress()
    if not state.exists():
        raise Unavailable(f"there is no cloud in {state.path}: 'haneul up' makes one")
    connection = cloud.connect(state, f"{settings.CLOUD}-demo")
    name = f"demo-{int(time.time())}"
    with progress.step(f"{options.count} servers of {options.flavor}") as say:
        flavor = connection.compute.find_flavor(options.flavor, ignore_missing=False)
        image = next(iter(connection.image.images(name=options.image)), None)
        if image is None:
            raise Unavailable(f"there is no image {options.image!r}")
        body = {"name": name, "flavor_id": flavor.id, "image_id": image.id, "config_drive": True}
        connection.compute.create_server(
            **body, networks="none", min_count=options.count, max_count=options.count
        )
        servers = list(connection.compute.servers(name=name))
        for server in servers:
            cloud.wait_for_server(connection, server.id)
        say(f"{len(servers)} ACTIVE")
    if settings.Addresses(state).driver == "libvirt":
        with progress.step(f"Console of {servers[0].name}"):
            for line in cloud.console_lines(connection, servers[0].id, cloud.READY_WORD, 300):
                progress.line(f"    | {line}")
    if not options.keep:
        with progress.step("Deleted"):
            for server in servers:
                connection.compute.delete_server(server)
            for server in servers:
                connection.compute.wait_for_delete(server)
    return 0
