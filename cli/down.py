"""Stop the services of this cloud.

Servers go on running: their disks, consoles and guests are the hypervisor's.
'haneul up' goes on where it was.
"""

from __future__ import annotations

import argparse
import shutil

from cli import data_plane
from cli.state import StateFolder
from core.errors import Conflict

DAEMON = "haneul"
EXAMPLES = """\
examples:
  haneul down              stop the services, keep everything
  haneul down --forget     and remove the state folder and the host's networks (refused while servers exist)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--forget", action="store_true", help="remove the state folder, too: databases, images, passwords"
    )
    parser.add_argument(
        "--force", action="store_true", help="with --forget: also when disks of servers exist"
    )


def run(options: argparse.Namespace) -> int:
    state = StateFolder(options.state)
    print("stopped" if state.stop(DAEMON) else "nothing ran")
    (state / "run" / "roles.json").unlink(missing_ok=True)
    if (state / "libvirt").exists():
        stop_libvirt(state)
    if options.forget and state.path.exists():
        disks = [
            path.name for path in (state / "instances").glob("*") if path.is_dir() and path.name != "_base"
        ]
        if disks and not options.force:
            raise Conflict(
                f"{len(disks)} servers have disks in {state / 'instances'}: delete them first, or use --force"
            )
        if (state / "libvirt").exists():
            end_guests(state)
        if state.config_file.exists() and (said := data_plane.remove(state.config_file)):
            print(said)
        shutil.rmtree(state.path)
        print(f"removed {state.path}")
    return 0


def end_guests(state: StateFolder) -> None:
    """End every guest of the private libvirtd, and the daemon: without the state folder nothing could end them."""
    import libvirt

    from compute.drivers.libvirt import daemon

    try:
        connection = libvirt.open(daemon.private_uri(state.path))
    except libvirt.libvirtError:
        return  # it does not run: its guests ended with it, or it had none
    for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
        domain.destroy()
    connection.close()
    stop_libvirt(state)


def stop_libvirt(state: StateFolder) -> None:
    """End the private libvirtd that ``haneul up`` started, unless guests run: they write their consoles through it."""
    import libvirt

    from compute.drivers.libvirt import daemon

    try:
        connection = libvirt.open(daemon.private_uri(state.path))
    except libvirt.libvirtError:
        return  # it does not run
    guests = connection.numOfDomains()
    connection.close()
    if guests:
        print(f"{guests} guests run on, and libvirt's daemon with them")
        return
    folder = state / "libvirt"
    pid_files = (folder / "virtlogd.pid", folder / "libvirtd.pid")
    daemon.StartedDaemons(daemon.private_uri(state.path), pid_files).stop()
    print("libvirt's daemon stopped: no guest ran")
