"""``haneul doctor``: each of its sentences is true, and what is wrong is named with the way to mend it.

A whole cloud that is up is looked at in ``test_up.py``.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import sqlalchemy as sa

from cli import database, doctor, main, packages, settings
from cli.down import DAEMON
from cli.state import StateFolder


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    """A configured cloud of simulated hosts that has never been started."""
    state = StateFolder(tmp_path / "state")
    settings.write_configuration(state, settings.Choices(driver="simulated", any_ports=True))
    return state


def findings(state: StateFolder, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, str]]:
    """The exit status, and line by line what was looked at: whether it is fine, and what was said."""
    status = main.main(["doctor", "--state", str(state.path)])
    lines = capsys.readouterr().out.splitlines()
    return status, {what[6:]: f"{what[:5].strip()}: {said}" for what, _, said in map(_split, lines)}


def _split(line: str) -> tuple[str, str, str]:
    return line.partition(": ")


def test_without_a_cloud_it_names_the_way_to_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = StateFolder(tmp_path / "none")
    status, said = findings(state, capsys)
    assert status == 1
    assert said["cloud"] == f"WRONG: none in {state.path}: haneul up"
    assert "databases" not in said
    assert not state.path.exists(), "a look must not make anything"


def test_a_stopped_cloud_is_told_from_one_that_runs(
    state: StateFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said = findings(state, capsys)
    assert status == 1
    assert said["services"] == "WRONG: stopped: haneul up"
    assert said["API compute"].startswith("WRONG: http://127.0.0.1:")
    assert said["hypervisor"].startswith("ok: simulated")
    state.write_pid(DAEMON, os.getpid())
    state.write_json("run/roles.json", {"scheduler": "running", "api-compute": "port 1 is taken"})
    _status, said = findings(state, capsys)
    assert said["services"] == f"ok: running, pid {os.getpid()}"
    assert said["role scheduler"] == "ok: running"
    assert said["role api-compute"] == "WRONG: port 1 is taken"


def test_a_pid_that_belongs_to_another_process_by_now_is_no_service(
    state: StateFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    state.write_pid(DAEMON, os.getpid())
    file = state / "run" / f"{DAEMON}.pid"
    file.write_text(f"{os.getpid()} 1\n")
    assert findings(state, capsys)[1]["services"] == "WRONG: stopped: haneul up"


def test_databases_that_are_empty_complete_or_changed(
    state: StateFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    said = findings(state, capsys)[1]["databases"]
    assert said.startswith("WRONG: global: ")
    assert said.endswith(": an upgrade is due: haneul db upgrade")
    assert main.main(["db", "upgrade", "--state", str(state.path)]) == 0
    capsys.readouterr()
    assert findings(state, capsys)[1]["databases"] == "ok: fit this version"
    opened = database.open_databases([state.config_file])
    with opened.global_.write() as connection:
        connection.execute(sa.text("DROP INDEX ix_networks_name"))
    opened.dispose()
    said = findings(state, capsys)[1]["databases"]
    assert "ix_networks_name" in said and "an upgrade does not mend this" in said
    assert main.main(["db", "check", "--state", str(state.path)]) == 1
    assert "haneul db upgrade" not in capsys.readouterr().out


def test_secrets_that_others_may_read(state: StateFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert findings(state, capsys)[1]["mode of haneul.conf"] == "ok: private"
    state.config_file.chmod(0o644)
    status, said = findings(state, capsys)
    assert status == 1
    assert said["mode of haneul.conf"] == f"WRONG: others may read it: chmod 600 {state.config_file}"


def test_a_configuration_that_can_not_be_read_stops_no_other_check(
    state: StateFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    state.config_file.write_text("driver = nowhere\n")
    status, said = findings(state, capsys)
    assert status == 1
    assert said["services"].startswith("WRONG: the configuration can't be read: ")
    assert "python" in said
    assert said["mode of passwords.json"] == "ok: private"


def test_a_hypervisor_whose_programs_are_missing(
    state: StateFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = state.config_file.read_text()
    state.config_file.write_text(text.replace("driver = simulated", "driver = libvirt"))
    monkeypatch.setattr(packages, "HYPERVISOR", {"/nowhere/qemu": "qemu-system-x86"})
    status, said = findings(state, capsys)
    assert status == 1
    assert said["packages of the hypervisor"].startswith("WRONG: missing qemu-system-x86; ")
    assert "qemu-system-x86" in said["packages of the hypervisor"].partition(";")[2]


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ({"usable": False, "reason": "emulation: a kernel hung"}, "emulation: a kernel hung"),
        ({"usable": True, "reason": ""}, "a small kernel booted under KVM: guests run under it"),
        (None, "the agent tries at its start"),
    ],
)
def test_what_the_agent_found_out_about_kvm(
    state: StateFolder, verdict: dict[str, object] | None, words: str
) -> None:
    if verdict is not None:
        state.write_json("cache/kvm-probe.json", {"verdict": verdict})
    assert words in doctor._probe(state)


def test_an_identity_of_others_is_looked_for_where_it_is(state: StateFolder) -> None:
    text = state.config_file.read_text().replace("embedded = true", "embedded = false")
    own = settings.Addresses(state).auth_url
    state.config_file.write_text(text.replace(f"auth_url = {own}", "auth_url = http://keystone.example/v3"))
    assert settings.Addresses(state).auth_url == "http://keystone.example/v3"


def test_an_environment_without_our_libraries_is_said_in_one_line(
    state: StateFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(_files: list[Path]) -> None:
        raise ModuleNotFoundError("No module named 'sqlalchemy'")

    monkeypatch.setattr(database, "open_databases", lacking)
    status, said = findings(state, capsys)
    assert status == 1
    why = "No module named 'sqlalchemy': this is not the environment of 'make up' (.venv)"
    assert said["databases"] == f"WRONG: {why}"
