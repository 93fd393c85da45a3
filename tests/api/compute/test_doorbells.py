"""Rings go out behind the request, many as one, and no broker can hold a request up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from api.compute import doorbells
from api.compute.doorbells import Doorbells
from tests.api.compute.conftest import make_services


class Sent:
    """What reached the brokers; ``gate`` closed: a broker that does not answer."""

    def __init__(self) -> None:
        self.messages: list[tuple[Any, ...]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.failures = 0

    def send(self, *message: Any) -> None:
        self.gate.wait(10)
        if self.failures:
            self.failures -= 1
            raise ConnectionError("no broker")
        self.messages.append(message)


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    record = Sent()

    class Scheduler:
        def __init__(self, _messaging: Any) -> None:
            pass

        def ring(self) -> None:
            record.send("scheduler")

    class Conductor:
        def __init__(self, messaging: Any) -> None:
            self.url = messaging.url

        def ring(self, ids: list[str]) -> None:
            record.send("conductor", self.url, ids)

    class Agent:
        def __init__(self, messaging: Any) -> None:
            self.url = messaging.url

        def cancel(self, host: str, ids: list[str]) -> None:
            record.send("cancel", host, ids)

    class Transport:
        def __init__(self, _conf: Any, url: str | None = None) -> None:
            self.url = url

        def close(self) -> None:
            """Nothing is open."""

    for name, stand_in in (
        ("SchedulerClient", Scheduler),
        ("ConductorClient", Conductor),
        ("AgentClient", Agent),
        ("Messaging", Transport),
    ):
        monkeypatch.setattr(doorbells, name, stand_in)
    return record


def test_rings_while_a_broker_hangs_become_few_messages(tmp_path: Path, sent: Sent) -> None:
    services = make_services(tmp_path)
    bells = Doorbells(services.conf, services.databases)
    sent.gate.clear()
    for number in range(50):
        bells.ring_scheduler()
        bells.ring_conductor(1, [f"i{number}"])
        bells.cancel(1, "h1", [f"c{number}"])
    assert sent.messages == []
    sent.gate.set()

    def ids(kind: str) -> list[str]:
        return [each for message in list(sent.messages) if message[0] == kind for each in message[-1]]

    eventually(lambda: len(ids("conductor")) == 50 and len(ids("cancel")) == 50)
    assert ids("conductor") == [f"i{number}" for number in range(50)]
    eventually(lambda: any(message[0] == "scheduler" for message in list(sent.messages)))
    assert len(sent.messages) <= 6
    bells.close()
    services.close()


def test_a_broker_that_fails_loses_a_ring_and_no_more(tmp_path: Path, sent: Sent) -> None:
    services = make_services(tmp_path)
    bells = Doorbells(services.conf, services.databases)
    sent.failures = 1
    bells.ring_scheduler()
    eventually(lambda: sent.failures == 0)
    bells.ring_scheduler()
    eventually(lambda: sent.messages == [("scheduler",)])
    bells.close()
    services.close()
