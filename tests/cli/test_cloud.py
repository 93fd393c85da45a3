"""What clients see: waiting for services, servers and the words of a console."""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Any

import pytest

from cli import cloud
from core.errors import DriverError, Unavailable
from tests.lab.processes import free_port


class Compute:
    """A compute API of canned states, one more with each call."""

    def __init__(self, outputs: Sequence[str] = (), servers: Sequence[dict[str, Any]] = ()) -> None:
        self._outputs, self._servers = list(outputs), list(servers)

    def get_server_console_output(self, _server_id: str) -> dict[str, str]:
        return {"output": self._outputs.pop(0) if len(self._outputs) > 1 else self._outputs[0]}

    def get_server(self, _server_id: str) -> Any:
        state = self._servers.pop(0) if len(self._servers) > 1 else self._servers[0]
        return types.SimpleNamespace(task_state=None, fault=None, **state)


def console(*outputs: str, timeout_s: float = 30) -> list[str]:
    connection = types.SimpleNamespace(compute=Compute(outputs=outputs))
    return list(cloud.console_lines(connection, "id", "READY", timeout_s))


def test_lines_come_once_and_whole() -> None:
    assert console("a\nb", "a\nbc\n", "a\nbc\nREADY 3\nmore\n") == ["a", "bc", "READY 3"]


def test_a_guest_can_not_steer_the_terminal() -> None:
    assert console("x\x1b[2J\x1b[6ny\x07\r\nREADY\n") == ["xy", "READY"]


def test_a_silent_console_ends_in_one_line() -> None:
    with pytest.raises(Unavailable, match="did not say READY"):
        console("", timeout_s=0)


def test_a_failed_server_gives_its_fault() -> None:
    servers = [{"status": "BUILD"}, {"status": "ERROR"}]
    connection = types.SimpleNamespace(compute=Compute(servers=servers))
    with pytest.raises(DriverError, match="no fault was recorded"):
        cloud.wait_for_server(connection, "id")


def test_a_service_that_does_not_answer_is_named() -> None:
    url = f"http://127.0.0.1:{free_port()}/"
    with pytest.raises(Unavailable, match=f"image \\({url}\\)"):
        cloud.wait_for_answers({"image": url}, lambda: None, timeout_s=0)


def test_waiting_ends_when_the_check_says_so() -> None:
    def check() -> None:
        raise Unavailable("the services ended")

    with pytest.raises(Unavailable, match="the services ended"):
        cloud.wait_for_answers({"image": f"http://127.0.0.1:{free_port()}/"}, check)
