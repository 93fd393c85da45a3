"""``haneul up`` whose APIs serve TLS: services and clients check each other's certificates."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from cli import cloud, settings
from cli.state import StateFolder
from tests.lab.certificates import make_certificate

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack")]


def haneul(state: StateFolder, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "cli.main", command, "--state", str(state.path), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_cloud_over_tls_boots_a_server(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state")
    certificate, key = make_certificate(tmp_path)
    settings.write_configuration(state, settings.Choices(driver="simulated", any_ports=True))
    text = state.config_file.read_text()
    text = re.sub(
        r"(\[(compute|image|network)_api\])",
        rf"\1\nssl_certificate = {certificate}\nssl_key = {key}",
        text,
    )
    text = re.sub(r"(\[(service_credentials|keystone_authtoken)\])", rf"\1\ncafile = {certificate}", text)
    state.config_file.write_text(text)
    try:
        done = haneul(state, "up")
        assert done.returncode == 0, done.stdout + done.stderr
        admin = cloud.connect(state)
        assert [(server.name, server.status) for server in admin.compute.servers()] == [("first", "ACTIVE")]
        assert {admin.endpoint_for(name).partition(":")[0] for name in ("compute", "image", "network")} == {
            "https"
        }
        plain = settings.Addresses(state).url("compute_api").replace("https", "http")
        assert requests.get(plain, timeout=30).status_code == 400
        doctor = haneul(state, "doctor")
        assert "WRONG API" not in doctor.stdout
        assert "ok    API compute: https://" in doctor.stdout
        assert f"OS_CACERT={certificate}" in haneul(state, "env").stdout
    finally:
        assert haneul(state, "down").returncode == 0
