"""``haneul serve``: each role a process of its own, on MariaDB and RabbitMQ, as in a data centre."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli import cloud, seeds, serve, settings
from cli.state import StateFolder
from core import key_file
from core.errors import BadRequest
from tests.lab import processes, servers


def test_an_unknown_role_is_named() -> None:
    with pytest.raises(BadRequest, match="no role 'butler'"):
        serve.load_factory("butler")


@pytest.mark.parametrize("name", serve.ROLES)
def test_every_role_has_a_factory(name: str) -> None:
    assert callable(serve.load_factory(name))


@pytest.mark.parametrize(
    ("text", "backend"),
    [
        ("[DEFAULT]\nservice_backend = eventlet\n", "eventlet"),
        ("service_backend=eventlet\n", "eventlet"),
        ("[DEFAULT]\n# service_backend = eventlet\n", "threading"),
        ("[other]\nservice_backend = eventlet\n", "threading"),
        ("", "threading"),
    ],
)
def test_the_backend_is_read_before_anything_is_imported(text: str, backend: str, tmp_path: Path) -> None:
    file = tmp_path / "haneul.conf"
    file.write_text(text)
    assert serve._backend([file]) == backend


class Deployment:
    """Processes of one cloud, one per role."""

    def __init__(self, state: StateFolder) -> None:
        self.state = state
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, role: str, config: Path) -> None:
        self.running[role] = processes.start(
            [sys.executable, "-W", "ignore", "-m", "cli.main", "serve", role, "--config-file", config],
            log=self.state.folder("log") / f"{role}.log",
            environment={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def stop(self) -> None:
        for process in self.running.values():
            processes.stop_group(process.pid)

    def logs(self) -> str:
        return "\n".join(
            f"== {path.name}\n{processes.tail(path, 20)}" for path in (self.state / "log").iterdir()
        )


@pytest.fixture(scope="module")
def deployment(
    tmp_path_factory: pytest.TempPathFactory,
    mariadb_server: servers.MariaDB,
    rabbitmq_server: servers.RabbitMQ,
) -> Iterator[Deployment]:
    state = StateFolder(tmp_path_factory.mktemp("roles") / "state")
    name = f"serve{os.getpid()}"
    urls = [mariadb_server.create_database(f"{name}_{part}") for part in ("global", "cell1")]
    vhost = rabbitmq_server.create_vhost(name)
    settings.write_configuration(state, settings.Choices(driver="simulated", any_ports=True))
    text = state.config_file.read_text().replace("local:///", vhost)
    text = re.sub(r"(?m)^connection = .*", f"connection = {urls[0]}", text)
    text = re.sub(r"(?m)^cell_connection = .*", f"cell_connection = {urls[1]}", text)
    text = text.replace("[DEFAULT]", "[DEFAULT]\nuse_json = true")
    text = re.sub(r"(?s)\[metrics\].*?(?=\n\[|\Z)", "", text)  # six processes, one port
    state.config_file.write_text(text)
    addresses = settings.Addresses(state)
    settings.write_plan(state, addresses)
    settings.write_client_files(state, addresses)
    key_file.create(addresses.key_file)
    agent = state / "agent.conf"  # what a hypervisor host gets: no database
    agent.write_text(re.sub(r"(?s)\[database\].*?(?=\n\[)", "", text))
    subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "cli.main",
            "db",
            "upgrade",
            "--config-file",
            state.config_file,
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    deployment = Deployment(state)
    try:
        for role in (role for role in serve.ROLES if role != "databases"):
            deployment.start(role, agent if role == "compute" else state.config_file)
        apis = {kind: addresses.url(group, path) for _n, kind, group, path, _t in settings.CATALOG}
        cloud.wait_for_answers({"identity": addresses.auth_url, **apis}, lambda: None, 120)
        yield deployment
    finally:
        deployment.stop()
        rabbitmq_server.drop_vhost(name)
        for part in ("global", "cell1"):
            mariadb_server.drop_database(f"{name}_{part}")


@pytest.fixture
def admin(deployment: Deployment) -> Any:
    connection = cloud.connect(deployment.state)
    deadline = time.monotonic() + 60
    while not [row for row in connection.compute.services() if row.binary == "nova-compute"]:
        assert time.monotonic() < deadline, deployment.logs()
        time.sleep(0.2)
    return connection


def who_logged(deployment: Deployment, request_id: str) -> set[str]:
    """The roles in whose logs a request stands; each line of each log is an event in JSON."""
    found = set()
    for role in set(deployment.running) - {"identity"}:  # Keystone has a configuration of its own
        for line in (deployment.state / "log" / f"{role}.log").read_text().splitlines():
            event = json.loads(line)
            assert event["message"]
            if event["context"].get("request_id") == request_id:
                found.add(role)
    return found


@pytest.mark.stack
@pytest.mark.mariadb
@pytest.mark.rabbitmq
@pytest.mark.xdist_group("stack")
def test_roles_in_processes_of_their_own_boot_a_server(
    deployment: Deployment, admin: Any, tmp_path: Path
) -> None:
    blank = tmp_path / "blank.raw"
    blank.write_bytes(bytes(1 << 20))
    seeds.ensure_flavors(admin)
    seeds.ensure_images(admin, blank)
    server = seeds.ensure_first_server(admin)
    server = cloud.wait_for_server(admin, server.id)
    assert server.compute_host == "sim0001"
    (created,) = admin.compute.server_actions(server)
    assert who_logged(deployment, created.request_id) >= {"api-compute", "compute"}
    admin.compute.delete_server(server)
    admin.compute.wait_for_delete(server)


@pytest.mark.stack
@pytest.mark.mariadb
@pytest.mark.rabbitmq
@pytest.mark.xdist_group("stack")
def test_the_agents_process_has_no_way_to_a_database(deployment: Deployment, admin: Any) -> None:
    assert "[database]" not in (deployment.state / "agent.conf").read_text()
    leader = deployment.running["compute"].pid
    from cli.processes import children

    maps = "".join(Path(f"/proc/{pid}/maps").read_text() for pid in children(leader))
    assert "numpy" not in maps or "sqlalchemy" not in maps
    assert "sqlalchemy" not in maps
