"""A lab that is ended or killed leaves nothing: no mount, no namespace, no process, no folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.state import CHECKOUT
from tests.lab import leftovers, processes
from tests.lab.hosts import wait_for
from tests.network.drivers.linux import lab

pytestmark = lab.needs_lab
_TEST = """
import time
from tests.network.drivers.linux import lab
from tests.network.drivers.linux.edges import make_subnet, served
from tests.network.drivers.linux.lab import make_network, make_port

def test_goes_on_and_on():
    with lab.underlay() as underlay:
        host = underlay.host("a")
        network = served(make_network(1001), make_subnet("10.0.0.0/24"))
        port = make_port(network, "10.0.0.11/24")
        host.put(network, port)
        host.apply()
        guest = underlay.guest(host, port)
        guest.popen("sleep", "600")
        print("FOLDER", host.folder, flush=True)
        time.sleep(600)
"""


def namespaces_of(pid: int) -> list[str]:
    return [each.name for each in leftovers.RUN.glob(f"hl{pid}-*")]


def living_in(folder: Path) -> list[int]:
    pids = (int(each.name) for each in Path("/proc").glob("[0-9]*"))
    return [pid for pid in pids if str(folder) in processes.command_line(pid) and processes.alive(pid)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """Asked to end, it clears up itself; behind one that was killed the next run does."""
    script = tmp_path / "test_long.py"
    script.write_text(_TEST)
    log = tmp_path / "log"
    options = ["-q", "-s", "-p", "tests.lab.leftovers", "-p", "no:cacheprovider", f"--rootdir={tmp_path}"]
    run = processes.start(
        [sys.executable, "-m", "pytest", *options, script],
        log=log,
        folder=tmp_path,
        environment={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )
    try:
        found = wait_for(
            lambda: run.poll() is not None or re.search(r"FOLDER (\S+)", log.read_text()), "it works"
        )
        assert isinstance(found, re.Match), log.read_text()
        folder = Path(found[1])
        there: dict[str, Callable[[], object]] = {
            "mounts": lambda: leftovers.mounts_below(folder),
            "namespaces": lambda: namespaces_of(run.pid),
            "daemons": lambda: living_in(folder),
            "folder": folder.exists,
        }
        assert all(look() for look in there.values())
        os.kill(run.pid, number)
        run.wait(30)
    finally:
        processes.stop_group(run.pid)
    if number == signal.SIGKILL:
        assert all(look() for look in there.values())
        leftovers.remove_left_behind()
    assert {name: look() for name, look in there.items() if look()} == {}


def test_a_folder_is_unmounted_however_often_it_is_mounted() -> None:
    folder = leftovers.make_folder("hh-host-")
    inner = folder / "with space"
    inner.mkdir()
    for _ in range(2):
        subprocess.run(["mount", "--bind", inner, inner], check=True)
    assert len(leftovers.mounts_below(folder)) == 2
    leftovers.remove(folder)
    assert leftovers.mounts_below(folder) == []
    assert not folder.exists()
