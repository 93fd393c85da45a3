"""System packages: what is missing is named, and installed only by root on Debian."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli import packages
from core.errors import Unavailable


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for apt-get on PATH, which writes down how it was called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "apt-get"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nls {tmp_path}/policy >> {tmp_path}/calls\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(packages, "POLICY", tmp_path / "policy")
    return tmp_path / "calls"


def test_missing_looks_for_programs_and_files(tmp_path: Path) -> None:
    needed = {"sh": "dash", "no-such-program-here": "b", str(tmp_path): "c", f"{tmp_path}/none": "a"}
    assert packages.missing(needed) == ["a", "b"]


def test_who_can_not_install_reads_what_to_type(apt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(Unavailable, match=r"missing: one two\. To get it: sudo apt-get install one two"):
        packages.install(["one", "two"], print)
    assert not apt.exists()


def test_services_are_kept_from_starting_and_the_policy_goes_away(
    apt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    said: list[str] = []
    packages.install(["one"], said.append, start_services=False)
    calls = apt.read_text()
    assert "install --no-install-recommends one" in calls
    assert str(packages.POLICY) in calls  # it was there while apt ran
    assert not packages.POLICY.exists()
    assert "apt-get install one" in said


def test_what_apt_says_reaches_the_reader(apt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    (apt.parent / "bin" / "apt-get").write_text("#!/bin/sh\necho noise\necho 'E: no such thing'\nexit 100\n")
    with pytest.raises(Unavailable, match="could not install one: E: no such thing"):
        packages.install(["one"], lambda _text: None, start_services=False)
