"""``haneul up`` with a real guest in QEMU: boots, outlives ``haneul down``, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from cli import cloud, packages
from cli.state import StateFolder
from compute.drivers.libvirt import daemon
from tests.lab.websockets import WebSocketClient

pytestmark = [
    pytest.mark.libvirt,
    pytest.mark.stack,
    pytest.mark.xdist_group("libvirt"),
    pytest.mark.timeout(900),
]


def haneul(state: StateFolder, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", command, "--state", str(state.path), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def processes_of(folder: Path) -> list[str]:
    """Command lines of all processes that name the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it ended meanwhile
        if str(folder) in command and entry.parent.name != str(os.getpid()):
            found.append(command)
    return found


@pytest.fixture
def state() -> Iterator[StateFolder]:
    if os.geteuid() != 0:
        pytest.skip("a private libvirtd can be started by root only")
    lacking = packages.missing(packages.HYPERVISOR)
    if lacking:
        pytest.skip(f"missing: {' '.join(lacking)} ({packages.how_to_install(lacking)})")
    # libvirt's socket needs a short path
    folder = Path(tempfile.mkdtemp(prefix="hu"))
    state = StateFolder(folder)
    yield state
    haneul(state, "down", "--forget", "--force")
    shutil.rmtree(folder, ignore_errors=True)


def test_forgetting_a_cloud_by_force_ends_its_guests(state: StateFolder) -> None:
    daemon.ensure_libvirtd(state.path)
    disk = state.folder("instances/some-server") / "config.iso"
    disk.write_bytes(bytes(1 << 20))
    connection = libvirt.open(daemon.private_uri(state.path))
    connection.createXML(
        "<domain type='qemu'><name>left</name><memory unit='MiB'>32</memory>"
        "<os><type arch='x86_64'>hvm</type></os><devices><disk type='file' device='cdrom'>"
        f"<source file='{disk}'/><target dev='hdc'/></disk></devices></domain>"
    )
    connection.close()
    assert haneul(state, "down", "--forget").returncode == 1
    assert [command for command in processes_of(state.path) if "qemu-system" in command]
    done = haneul(state, "down", "--forget", "--force")
    assert done.returncode == 0, done.stderr
    assert not state.path.exists()
    assert processes_of(state.path) == []


def screen_of(connection: Any, server: Any) -> bytes:
    """What the server's screen says first to a browser that opens the console."""
    console = connection.compute.create_console(server, "novnc")
    url = urllib.parse.urlsplit(console["url"])
    (path,) = urllib.parse.parse_qs(url.query)["path"]
    browser = WebSocketClient(url.netloc, f"/{path}")
    try:
        return browser.recv()
    finally:
        browser.close()


def test_the_first_server_boots_outlives_down_and_goes_without_a_trace(state: StateFolder) -> None:
    done = haneul(state, "up", "--any-ports")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "GUEST-READY" in done.stdout

    connection = cloud.connect(state)
    (server,) = connection.compute.servers()
    assert screen_of(connection, server).startswith(b"RFB 003.")

    down = haneul(state, "down")
    assert "1 guests run on" in down.stdout
    assert [command for command in processes_of(state.path) if "qemu-system" in command]

    # it is the same guest that goes on, not one that was booted anew
    again = haneul(state, "up")
    assert again.returncode == 0, again.stdout + again.stderr
    connection = cloud.connect(state)
    (server,) = connection.compute.servers()
    assert server.status == "ACTIVE"
    assert connection.compute.get_server_console_output(server.id)["output"].count("GUEST-READY") == 1

    assert haneul(state, "down", "--forget").returncode == 1, "disks of servers are not thrown away"
    assert haneul(state, "up").returncode == 0
    connection.compute.delete_server(server)
    connection.compute.wait_for_delete(server)
    down = haneul(state, "down", "--forget")
    assert down.returncode == 0, down.stderr
    assert not state.path.exists()
    assert processes_of(state.path) == []
