"""The state folder keeps secrets close and never takes another process for its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from cli.state import ENVIRONMENT, StateFolder, default_folder, write_file


def test_the_environment_names_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "here"))
    assert default_folder() == tmp_path / "here"


def test_passwords_are_made_once_and_private(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state")
    first = state.password("admin")
    assert StateFolder(tmp_path / "state").password("admin") == first
    assert state.password("nova") != first
    assert (state / "passwords.json").stat().st_mode & 0o777 == 0o600


def test_a_private_file_stays_private_when_rewritten(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    write_file(path, "old", 0o644)
    write_file(path, "new", 0o600)
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [item.name for item in tmp_path.iterdir()] == ["secret"]


def test_stop_ends_the_process_of_the_pid_file(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    process = subprocess.Popen(["/bin/sleep", "60"])
    state.write_pid("daemon", process.pid)
    assert state.pid("daemon") == process.pid
    assert state.stop("daemon")
    assert process.wait() == -15
    assert state.pid("daemon") is None
    assert not state.stop("daemon")


def test_a_process_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    process = subprocess.Popen(
        ["/bin/sh", "-c", "trap '' TERM; echo; while :; do sleep 1; done"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    state.write_pid("daemon", process.pid)
    assert state.stop("daemon", timeout_s=0.3)
    assert process.wait() == -9


def test_a_reused_pid_is_spared(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    write_file(tmp_path / "run" / "daemon.pid", f"{os.getpid()} 1\n")
    assert state.pid("daemon") is None
    assert not state.stop("daemon")
