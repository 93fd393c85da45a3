"""Bring a cloud up on this machine, or go on where it was.

Makes what is missing, in this order: system packages, configuration, databases,
the services (identity is a real Keystone), the tiny guest image, flavors, files
for clients, and a first server whose console it shows until the guest is ready.
What is there already is kept, so it may be interrupted and repeated.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cli import cloud, packages, seeds, settings
from cli.down import DAEMON
from cli.progress import Progress
from cli.state import CHECKOUT, StateFolder
from core import key_file
from core.errors import Unavailable

# what `up` waits for may fail at first: it tries again
WAITED_FOR = (
    "identity",
    "databases",
    "api-key-manager",
    "api-image",
    "api-compute",
    "api-network",
    "api-volume",
)
SERVER = "openstack server create --flavor m1.nano --image tiny"
EXAMPLES = """\
examples:
  haneul up                                a cloud with real guests (libvirt, QEMU)
  haneul up --driver simulated             servers are only played: no hypervisor needed
  haneul up --no-server                    everything but the first server
  haneul up --any-ports --state /tmp/two   a second cloud beside the first
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--driver", choices=["libvirt", "simulated"], help="hypervisor (default: libvirt)")
    parser.add_argument(
        "--network",
        choices=["linux", "simulated"],
        help="what carries packets (default: linux, which needs root; simulated with simulated servers)",
    )
    parser.add_argument("--hosts", type=int, default=1, help="simulated hosts (default 1)")
    parser.add_argument("--listen", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--any-ports", action="store_true", help="free ports instead of the usual ones")
    parser.add_argument(
        "--backend", choices=["threading", "eventlet"], default="threading", help="what services run on"
    )
    parser.add_argument("--no-server", action="store_true", help="do not boot a first server")
    parser.add_argument("--no-packages", action="store_true", help="install no system packages")


def run(options: argparse.Namespace) -> int:
    state, progress = StateFolder(options.state), Progress()
    choices = settings.Choices(
        driver=options.driver or "libvirt",
        listen=options.listen,
        simulated_hosts=options.hosts,
        network=options.network or "",
        any_ports=options.any_ports,
        backend=options.backend,
    )
    Bringing(state, progress, choices, options).run()
    return 0


class Bringing:
    """One run of ``haneul up``."""

    def __init__(
        self,
        state: StateFolder,
        progress: Progress,
        choices: settings.Choices,
        options: argparse.Namespace,
    ) -> None:
        self.state = state
        self.progress = progress
        self.choices = choices
        self.options = options
        self._daemon: subprocess.Popen[bytes] | None = None
        self._failing_since: dict[str, float] = {}

    def run(self) -> None:
        self.prepare_folder()
        real = self.addresses.driver == "libvirt"
        if real:
            self.prepare_hypervisor()
        with concurrent.futures.ThreadPoolExecutor(max_workers=1) as helper:
            image = helper.submit(self.guest_image, real)
            self.start_services()
            self.wait_for_apis()
            connection = cloud.connect(self.state)
            with self.progress.step("Flavors") as say:
                say(f"{len(seeds.ensure_flavors(connection))} made")
            with self.progress.step("Tiny guest image") as say:
                say(", ".join(seeds.ensure_images(connection, image.result())) or "there already")
            with self.progress.step("Networks") as say:
                demo = connection.identity.find_project("demo", ignore_missing=False)
                say(", ".join(seeds.ensure_networks(connection, demo.id)) or "there already")
        self.report_roles()
        if not self.options.no_server:
            self.first_server(connection, real)
        self.say_what_next()

    # -- parts, in order -----------------------------------------------------

    def prepare_folder(self) -> None:
        with self.progress.step("Configuration") as say:
            self.state.path.mkdir(parents=True, exist_ok=True)
            written = settings.write_configuration(self.state, self.choices)
            say(f"{self.state.config_file}{'' if written else ' (kept)'}")
            self.addresses = settings.Addresses(self.state)
            if self.options.driver and self.options.driver != self.addresses.driver:
                raise Unavailable(
                    f"this cloud was made with driver {self.addresses.driver}: "
                    f"edit [compute]driver in {self.state.config_file}, or use another --state"
                )
            if self.addresses.embedded:
                settings.write_plan(self.state, self.addresses)
            settings.write_client_files(self.state, self.addresses)
            key_file.create(self.addresses.key_file)

    def prepare_hypervisor(self) -> None:
        """Packages, then libvirt's daemon. What is missing is said, with the way to get it."""
        from cli import guest_image

        with self.progress.step("Hypervisor: libvirt and QEMU") as say:
            lacking = packages.missing({**packages.HYPERVISOR, **packages.NETWORK})
            if not self._image_file().exists():
                lacking = sorted({*lacking, *guest_image.missing_packages()})
            if lacking and (self.options.no_packages or not packages.can_install()):
                raise Unavailable(
                    f"missing: {' '.join(lacking)}. To get it: {packages.how_to_install(lacking)} "
                    "(or, without any guests: haneul up --driver simulated)"
                )
            packages.install(lacking, say)
            # imported now: Python's binding needs the library that a package may just have brought
            from compute.drivers.libvirt.daemon import ensure_libvirtd

            say(ensure_libvirtd(self.state.path).uri)
        kernel = self.state / "cache" / "vmlinuz"
        if not kernel.exists():
            with self.progress.step("Kernel of the tiny guest"):
                self._fetch_kernel(kernel)

    def _fetch_kernel(self, target: Path) -> None:
        """Before the services start: the agent tries with it whether KVM really runs guests."""
        from cli import guest_image

        package = guest_image.fetch_kernel_package(self.state.folder("cache/work"))
        with tempfile.TemporaryDirectory(dir=package.parent) as folder:
            kernel, _modules = guest_image.unpack_kernel(package, Path(folder))
            shutil.copyfile(kernel, partial := target.with_suffix(".part"))
        partial.rename(target)

    def _image_file(self) -> Path:
        return self.state / "cache" / "tiny.qcow2"

    def guest_image(self, real: bool) -> Path:
        """The tiny guest's disk, built once (in a thread, while the services start)."""
        if not real:
            # nobody boots it where guests are only played: any disk will do
            blank = self.state.folder("cache") / "blank.raw"
            blank.write_bytes(bytes(1 << 20))
            return blank
        file = self._image_file()
        if file.exists():
            return file
        from cli import guest_image

        return guest_image.build_guest_image(self.state.folder("cache/work"), file, lambda _text: None)

    def start_services(self) -> None:
        if self.state.pid(DAEMON):
            return
        with self.progress.step("Services and databases"):
            self._check_ports()
            self.state.folder("run")
            (self.state / "run" / "roles.json").unlink(missing_ok=True)
            log = self.state.folder("log") / "haneul.log"
            with log.open("ab") as output:
                daemon = subprocess.Popen(
                    [
                        sys.executable,
                        "-m",
                        "cli.main",
                        "serve",
                        "all",
                        "--config-file",
                        self.state.config_file,
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    cwd=self.state.path,
                    env={**os.environ, "PYTHONPATH": _python_path(), "MALLOC_ARENA_MAX": "4"},
                )
            self.state.write_pid(DAEMON, daemon.pid)
            self._daemon = daemon

    def _check_ports(self) -> None:
        for group in settings.PORTS:
            host, port = self.addresses.listens(group)
            if not settings.port_is_free(host, port):
                raise Unavailable(
                    f"port {port} of {group} is taken by another program: "
                    f"end that, or change [{group}]{settings.PORT_OPTIONS.get(group, ('', 'port'))[1]} in {self.state.config_file}"
                )

    def check_daemon(self) -> None:
        """:raises Unavailable: the services' process has ended; names the last line of its log."""
        daemon = self._daemon
        gone = daemon.poll() is not None if daemon else self.state.pid(DAEMON) is None
        if gone:
            from cli.logs import last_lines

            line = (last_lines(self.state / "log" / "haneul.log", 1) or ["(its log is empty)"])[0]
            raise Unavailable(f"the services ended: {line} (more: haneul logs)")
        for name, what in self.state.read_json("run/roles.json").items():
            # these are waited for; they try again, so a first failure is no end
            if what == "running" or name not in WAITED_FOR:
                self._failing_since.pop(name, None)
            elif time.monotonic() - self._failing_since.setdefault(name, time.monotonic()) > 15:
                raise Unavailable(f"{name} can't start: {what}")

    def wait_for_apis(self) -> None:
        with self.progress.step("APIs answer") as say:
            urls = {kind: self.addresses.url(group, path) for _n, kind, group, path, _t in settings.CATALOG}
            cloud.wait_for_answers(
                {"identity": self.addresses.auth_url, **urls}, self.check_daemon, cafile=self.addresses.cafile
            )
            say(", ".join(urls.values()))

    def report_roles(self) -> None:
        """Every role's fate is known a moment after the APIs answer; those that can't start are named."""
        from cli.serve import ROLES

        wanted = [name for name in ROLES if name != "identity" or self.addresses.embedded]
        deadline = time.monotonic() + 60
        while True:
            states = self.state.read_json("run/roles.json")
            if set(wanted) <= set(states) or time.monotonic() > deadline:
                break
            self.check_daemon()
            time.sleep(0.1)
        for name in wanted:
            what = states.get(name, "has said nothing yet")
            if what != "running":
                self.progress.warn(f"{name}: {what}")

    @property
    def networked(self) -> bool:
        """Does an agent carry packets here?"""
        return self.state.read_json("run/roles.json").get("network") == "running"

    def first_server(self, connection: Any, real: bool) -> None:
        with self.progress.step(f"Server {seeds.FIRST_SERVER!r}") as say:
            server = seeds.ensure_first_server(connection, networked=self.networked)
            cloud.wait_for_server(connection, server.id)
            say("ACTIVE")
        if not real:
            self.progress.line("(simulated: there is no guest, so there is no console)")
            return
        with self.progress.step("Its console"):
            for line in cloud.console_lines(connection, server.id, cloud.READY_WORD, 300):
                self.progress.line(f"    | {line}")

    def say_what_next(self) -> None:
        script = Path(sys.argv[0]).resolve()
        folder = script.parent if script.name == "haneul" else Path(sys.executable).parent
        state = "" if self.state.path == StateFolder().path else f" --state {self.state.path}"
        say = self.progress.line
        say()
        say(f"The cloud is up ({self.progress.elapsed():.1f} s). Now type:")
        say()
        say(f"  export PATH={folder}:$PATH")
        say(f"  eval $(haneul env{state} demo)")
        if self.networked:
            say("  openstack keypair create --private-key demo.key demo; chmod 600 demo.key")
            say("  openstack security group rule create --protocol icmp default")
            say("  openstack security group rule create --protocol tcp --dst-port 22 default")
            say(f"  {SERVER} --network private --key-name demo --wait second")
            say("  openstack floating ip create public")
            say("  openstack server add floating ip second ADDRESS; ssh -i demo.key root@ADDRESS")
        else:
            say(f"  {SERVER} --nic none --wait second")
        say("  openstack console log show second")
        say()
        say(f"haneul status, haneul logs -f, haneul down{state}: what runs, what it says, stop it.")


def _python_path() -> str:
    """Where the packages are, for a child with another working directory (a checkout that is not installed)."""
    present = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join([str(CHECKOUT), *([present] if present else [])])
