"""An API behind a WSGI server that is not ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from api import wsgi
from cli import main, settings
from cli.state import StateFolder
from core.errors import BadRequest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import threading, webtest
from api.wsgi import application
before = threading.active_count()
app = webtest.TestApp(application)
print(before, app.get("/", status="*").status_int, app.get(PATH, status="*").status_int)
"""


def test_every_api_is_known() -> None:
    assert set(wsgi.APIS) == {path.parent.name for path in (ROOT / "api").glob("*/app.py")} - {"common"}


@pytest.mark.parametrize(
    ("name", "root", "path"), [("compute", 200, "/v2.1/servers"), ("image", 300, "/v2/images")]
)
def test_the_environment_chooses(name: str, root: int, path: str, tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    settings.write_configuration(state, settings.Choices(driver="simulated", any_ports=True))
    assert main.main(["db", "upgrade", "--state", str(state.path)]) == 0
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM.replace("PATH", repr(path))],
        env={"HANEUL_API": name, "HANEUL_CONFIG_FILE": str(state.config_file), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    # no thread before the first request; then versions for everybody, the rest with a token
    assert done.stdout.splitlines()[-1:] == [f"1 {root} 401"], done.stdout + done.stderr


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "HANEUL_API is ''"),
        ({"HANEUL_API": "butler"}, "compute, image, network"),
        ({"HANEUL_API": "image"}, "HANEUL_CONFIG_FILE"),
        ({"HANEUL_API": "image", "HANEUL_CONFIG_FILE": "/nowhere.conf"}, "nowhere.conf"),
    ],
)
def test_what_is_missing_is_said(
    environment: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HANEUL_API", "HANEUL_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadRequest, match=words):
        wsgi.make()
