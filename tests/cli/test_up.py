"""``haneul up`` with simulated hosts: a whole cloud, by the commands that people type."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from cli import cloud, processes, serve, settings
from cli.state import StateFolder
from tests.lab.processes import alive

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack")]


def haneul(state: StateFolder, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "cli.main", command, "--state", str(state.path), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module", params=["threading", "eventlet"])
def state(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StateFolder]:
    """A cloud of two simulated hosts, brought up by the command, on each of the two backends."""
    state = StateFolder(tmp_path_factory.mktemp("cloud") / "state")
    options = ["--driver", "simulated", "--hosts", "2", "--any-ports", "--backend", request.param]
    done = haneul(state, "up", *options)
    try:
        assert done.returncode == 0, done.stdout + done.stderr + (state / "log" / "haneul.log").read_text()
        assert "The cloud is up" in done.stdout
        yield state
    finally:
        pid = state.pid("haneul")
        below = processes.children(pid) if pid else []
        assert haneul(state, "down").returncode == 0
        assert not [process for process in below if alive(process)], "down leaves processes"


@pytest.fixture
def admin(state: StateFolder) -> Any:
    return cloud.connect(state)


def test_every_role_runs(state: StateFolder) -> None:
    done = haneul(state, "status", "--json")
    assert done.returncode == 0, done.stdout
    report = json.loads(done.stdout)
    assert set(report["roles"].values()) == {"running"}
    assert set(report["roles"]) >= {
        "identity",
        "api-compute",
        "api-image",
        "scheduler",
        "conductor",
        "compute",
    }
    assert sum(report["memory_mib"].values()) > 50


def test_the_first_server_is_there_with_flavors_and_images(admin: Any) -> None:
    assert [(server.name, server.status) for server in admin.compute.servers()] == [("first", "ACTIVE")]
    assert {"m1.nano", "m1.micro", "m1.tiny", "m1.small"} <= {
        flavor.name for flavor in admin.compute.flavors()
    }
    images = {image.name: image for image in admin.image.images()}
    assert set(images) == {"tiny", "tiny-2"}
    assert {image.status for image in images.values()} == {"active"}
    assert len({image.hash_value for image in images.values()}) == 1


def test_the_openstack_command_works_by_env_alone(state: StateFolder) -> None:
    exports = haneul(state, "env").stdout
    openstack = Path(sys.executable).parent / "openstack"
    done = subprocess.run(
        ["bash", "-c", f'eval "$1"; {openstack} server list -f json', "bash", exports],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"], "HOME": str(state.path)},
    )
    assert [row["Name"] for row in json.loads(done.stdout)] == ["first"]


def test_demo_boots_and_deletes_as_an_ordinary_user(state: StateFolder) -> None:
    done = haneul(state, "demo", "--count", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 ACTIVE" in done.stdout
    assert list(cloud.connect(state, f"{settings.CLOUD}-demo").compute.servers()) == []


def test_up_again_changes_nothing(state: StateFolder, admin: Any) -> None:
    before = (state.pid("haneul"), [server.id for server in admin.compute.servers()])
    done = haneul(state, "up")
    assert done.returncode == 0, done.stderr
    assert (state.pid("haneul"), [server.id for server in admin.compute.servers()]) == before


def test_down_and_up_keep_everything(state: StateFolder, admin: Any) -> None:
    servers = [(server.id, server.status) for server in admin.compute.servers()]
    assert haneul(state, "down").stdout == "stopped\n"
    status = haneul(state, "status")
    assert status.returncode == 3
    assert "stopped" in status.stdout
    done = haneul(state, "up")
    assert done.returncode == 0, done.stderr
    assert [(server.id, server.status) for server in cloud.connect(state).compute.servers()] == servers


def test_a_killed_services_process_comes_back_with_up(state: StateFolder) -> None:
    pid = state.pid("haneul")
    assert pid is not None
    below = processes.children(pid)
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while any(alive(process) for process in below):
        assert time.monotonic() < deadline, "children outlive the services' process"
        time.sleep(0.1)
    done = haneul(state, "up")
    assert done.returncode == 0, done.stderr
    assert state.pid("haneul") not in (None, pid)


def test_a_taken_port_is_said_in_one_line(state: StateFolder, tmp_path: Path) -> None:
    port = settings.Addresses(state).value("compute_api", "port")
    other = StateFolder(tmp_path / "other")
    settings.write_configuration(other, settings.Choices(driver="simulated", any_ports=True))
    text = other.config_file.read_text()
    own = settings.Addresses(other).value("compute_api", "port")
    other.config_file.write_text(text.replace(f"port = {own}", f"port = {port}"))
    done = haneul(other, "up")
    assert done.returncode == 1
    assert f"port {port} of compute_api is taken" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_another_driver_is_not_taken_silently(state: StateFolder) -> None:
    done = haneul(state, "up", "--driver", "libvirt")
    assert done.returncode == 1
    assert "made with driver simulated" in done.stderr


def test_doctor_finds_nothing_wrong(state: StateFolder) -> None:
    lines = haneul(state, "doctor").stdout.splitlines()
    wrong = [line for line in lines if line.startswith("WRONG")]
    assert [line for line in wrong if "memory" not in line and "disk" not in line] == []
    running = {line.split()[2].rstrip(":") for line in lines if line.startswith("ok    role ")}
    assert running == set(serve.ROLES)
    answering = [line for line in lines if line.startswith("ok    API ") and line.endswith(" answers")]
    assert len(answering) == 1 + len(settings.CATALOG)


def test_doctor_names_an_api_that_has_stopped_answering(state: StateFolder) -> None:
    pid = state.pid("haneul")
    assert pid is not None
    identity = [child for child in processes.children(pid) if is_keystone(child)]
    for child in identity:
        os.kill(child, signal.SIGSTOP)
    try:
        done = haneul(state, "doctor")
    finally:
        for child in identity:
            os.kill(child, signal.SIGCONT)
    assert done.returncode == 1
    url = settings.Addresses(state).auth_url
    assert f"WRONG API identity: {url} does not answer" in done.stdout
    assert "ok    API compute" in done.stdout


def is_keystone(pid: int) -> bool:
    return "keystone" in Path(f"/proc/{pid}/cmdline").read_text()


def test_metrics_are_served(state: StateFolder) -> None:
    addresses = settings.Addresses(state)
    assert "haneul_api_requests_total" in requests.get(addresses.url("metrics", "/metrics"), timeout=10).text


def test_no_password_reaches_a_log(state: StateFolder) -> None:
    passwords = json.loads((state / "passwords.json").read_text()).values()
    logs = "".join(path.read_text() for path in (state / "log").glob("*.log"))
    assert not [password for password in passwords if password in logs]
