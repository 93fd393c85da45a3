"""Logs: one line per event, with the request that caused it; JSON when it is asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PROGRAM = r"""
import logging, sys
from core import config, logs
from core.context import RequestContext
conf = config.load(sys.argv[1:])
logs.setup(conf, "haneul")
log = logging.getLogger("compute.agent")
with logs.on_behalf_of({"request_id": "req-11111111-2222-4333-8444-555555555555", "project_id": "p1"}):
    log.info("built %s", "one")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        log.exception("it failed")
RequestContext(request_id="req-99999999-2222-4333-8444-555555555555", user_id="u1", auth_token="SECRET")
with logs.on_behalf_of({"request_id": "req-11111111-2222-4333-8444-555555555555"}):
    pass
log.warning("the request of before counts again")
log.debug("not shown")
log.warning("a name:%s", "x\n2026-01-01 00:00:00.000 1 INFO api [-] forged")
"""
REQUEST = "req-11111111-2222-4333-8444-555555555555"
BEFORE = "req-99999999-2222-4333-8444-555555555555"


def run(folder: Path, settings: str) -> list[str]:
    """The lines that a process of this configuration logs."""
    file = folder / "haneul.conf"
    file.write_text(f"[DEFAULT]\n{settings}")
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_lines_carry_the_request(tmp_path: Path) -> None:
    lines = run(tmp_path, "")
    assert f" INFO compute.agent [{REQUEST} " in lines[0]
    assert lines[0].endswith("built one")
    assert lines[1].endswith(r"it failed: ValueError: two\nlines")
    traceback, others = lines[2:-2], lines[-2:]
    assert all(" ERROR compute.agent " in line for line in traceback)
    assert all(f" WARNING compute.agent [{BEFORE} " in line for line in others)


def test_nothing_that_is_logged_can_forge_a_line(tmp_path: Path) -> None:
    lines = run(tmp_path, "")
    assert lines[-1].endswith(r"a name:x\n2026-01-01 00:00:00.000 1 INFO api [-] forged")


def test_json_is_one_line_per_event_tracebacks_included(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = [json.loads(line) for line in run(tmp_path, "use_json = true\n")]
    assert [(event["levelname"], event["message"]) for event in events] == [
        ("INFO", "built one"),
        ("ERROR", "it failed"),
        ("WARNING", "the request of before counts again"),
        ("WARNING", "a name:x\n2026-01-01 00:00:00.000 1 INFO api [-] forged"),
    ]
    assert [event["context"]["request_id"] for event in events] == [REQUEST, REQUEST, BEFORE, BEFORE]
    assert events[0]["name"] == "compute.agent"
    assert "ValueError: two" in events[1]["traceback"]


def test_no_token_is_logged(tmp_path: Path) -> None:
    for settings in ("", "use_json = true\n"):
        assert "SECRET" not in "\n".join(run(tmp_path, settings))
