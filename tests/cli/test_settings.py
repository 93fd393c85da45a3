"""What up writes: a configuration that is kept when edited, and private files for clients."""

from __future__ import annotations

import shlex
import socket
from pathlib import Path

import pytest
import yaml

from cli import settings
from cli.plan import Plan
from cli.state import StateFolder
from core import config
from core.errors import BadRequest, Unavailable


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    return StateFolder(tmp_path / "state")


def test_an_edited_configuration_is_kept(state: StateFolder) -> None:
    choices = settings.Choices(driver="simulated", any_ports=True)
    assert settings.write_configuration(state, choices)
    edited = state.config_file.read_text().replace("sim0001", "mine")
    state.config_file.write_text(edited)
    assert not settings.write_configuration(state, choices)
    assert state.config_file.read_text() == edited


def test_a_configuration_older_than_a_service_gets_its_section(state: StateFolder) -> None:
    """A cloud of yesterday did not come up again: newer services had no port and no secret."""
    settings.write_configuration(state, settings.Choices(driver="simulated", simulated_hosts=3))
    old = settings.read(state.config_file)
    newer = ("metadata", "metadata_proxy", "metadata_api", "volume_api", "network_agent")
    kept = [name for name in old if name not in newer]
    text = "".join(
        f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in old[name].items()) for name in kept
    )
    state.config_file.write_text(text)
    assert not settings.write_configuration(state, settings.Choices())
    now = settings.read(state.config_file)
    assert set(now) == set(old)
    assert now["metadata"] == old["metadata"], "the secret is the state folder's"
    assert now["network_agent"]["simulated_hosts"] == "sim0001,sim0002,sim0003"
    assert now["compute"] == old["compute"]
    assert now["network_api"] == old["network_api"]
    before = state.config_file.read_text()
    settings.write_configuration(state, settings.Choices())
    assert state.config_file.read_text() == before


def test_the_configuration_is_private_and_read_by_oslo_config(state: StateFolder) -> None:
    settings.write_configuration(
        state, settings.Choices(driver="simulated", simulated_hosts=3, any_ports=True)
    )
    assert state.config_file.stat().st_mode & 0o777 == 0o600
    from compute import agent
    from db import sessions

    conf = config.load([state.config_file])
    config.register(conf, [*agent.list_opts(), *sessions.list_opts()])
    assert conf.state_path == str(state.path)
    assert conf.compute.simulated_hosts == ["sim0001", "sim0002", "sim0003"]
    assert conf.database.connection == f"sqlite:///{state.path}/db/global.sqlite"


def test_the_network_agent_plays_or_is_real_as_the_hypervisor_is(tmp_path: Path) -> None:
    simulated = settings.new_configuration(
        StateFolder(tmp_path / "a"), settings.Choices(driver="simulated", simulated_hosts=2, any_ports=True)
    )
    assert dict(simulated["network_agent"])["simulated_hosts"] == "sim0001,sim0002"
    assert not simulated.has_section("network_linux")
    real = settings.new_configuration(StateFolder(tmp_path / "b"), settings.Choices(any_ports=True))
    assert real["network_agent"]["driver"] == "linux"
    assert real["network_linux"]["host_gateways"] == "public:172.24.4.1/24"
    played = settings.new_configuration(
        StateFolder(tmp_path / "c"), settings.Choices(network="simulated", any_ports=True)
    )
    assert played["network_agent"]["driver"] == "simulated" and played["compute"]["driver"] == "libvirt"


def test_a_taken_usual_port_is_avoided() -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", settings.PORTS["compute_api"]))
            taken.listen()
        except OSError:
            pass  # someone else has it: as good
        ports = settings.choose_ports("127.0.0.1", any_ports=False)
    assert ports["compute_api"] != settings.PORTS["compute_api"]
    assert len(set(ports.values())) == len(ports)


def test_a_broken_configuration_names_file_and_line(state: StateFolder) -> None:
    state.path.mkdir()
    state.config_file.write_text("[DEFAULT]\nx = 1\nnonsense\n")
    with pytest.raises(BadRequest, match=r"haneul.conf.*\n?.*line.*3"):
        settings.Addresses(state)


def test_the_plan_reads_back_as_it_was_written(state: StateFolder) -> None:
    settings.write_configuration(state, settings.Choices(driver="simulated", any_ports=True))
    addresses = settings.Addresses(state)
    settings.write_plan(state, addresses)
    path = state / "identity" / "plan.json"
    assert path.stat().st_mode & 0o777 == 0o600
    plan = Plan.from_file(path)
    assert plan.url == addresses.auth_url
    assert {endpoint.type: endpoint.url for endpoint in plan.endpoints} == {
        "compute": addresses.url("compute_api", "/v2.1"),
        "image": addresses.url("image_api"),
        "network": addresses.url("network_api"),
        "block-storage": addresses.url("volume_api", "/v3"),
        "volumev3": addresses.url("volume_api", "/v3"),
        "key-manager": addresses.url("key_manager_api"),
    }
    assert {user.name for user in plan.users} >= {"nova", "glance", "demo"}
    assert len({user.password for user in plan.users}) == len(plan.users)


@pytest.mark.parametrize(
    "content", ["", "[]", '{"url": "x"}', '{"users": [], "endpoints": [], "projects": []}']
)
def test_an_unusable_plan_is_said_in_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(Unavailable, match="no usable plan"):
        Plan.from_file(tmp_path / "plan.json")


def test_client_files_are_private_and_agree(state: StateFolder) -> None:
    settings.write_configuration(state, settings.Choices(driver="simulated", any_ports=True))
    addresses = settings.Addresses(state)
    settings.write_client_files(state, addresses)
    for name in ("clouds.yaml", "admin-openrc"):
        assert (state / name).stat().st_mode & 0o777 == 0o600
    clouds = yaml.safe_load((state / "clouds.yaml").read_text())["clouds"]
    lines = (state / "admin-openrc").read_text().splitlines()
    exported = dict(shlex.split(line)[1].split("=", 1) for line in lines)
    assert clouds["haneul"]["auth"]["password"] == exported["OS_PASSWORD"]
    assert clouds["haneul"]["auth"]["auth_url"] == exported["OS_AUTH_URL"] == addresses.auth_url
    assert clouds["haneul-demo"]["auth"]["username"] == "demo"
