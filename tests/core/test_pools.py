"""Pools are bounded and loud; periodic work outlives its failures."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from core.pools import Periodic, Pool
from tests.stack.cloud import wait_for


def test_a_pool_runs_no_more_than_its_size() -> None:
    pool, running, most, lock = Pool("p", 3), [0], [0], threading.Lock()

    def job() -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.01)
        with lock:
            running[0] -= 1

    for future in [pool.spawn(job) for _ in range(20)]:
        future.result()
    assert most[0] == 3
    pool.shutdown()


def test_a_failure_that_nobody_waits_for_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    pool = Pool("p", 1)
    with caplog.at_level(logging.ERROR):
        pool.spawn(lambda: 1 / 0)
        pool.shutdown()
    assert "a job of pool p failed" in caplog.text


def test_periodic_work_goes_on_after_a_failure_and_folds_rings() -> None:
    calls: list[int] = []

    def work() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("first")
        time.sleep(0.05)

    periodic = Periodic("w", 3600, work)
    periodic.start()
    periodic.ring()
    wait_for(lambda: len(calls) == 1, "first call")
    periodic.ring()
    wait_for(lambda: len(calls) == 2, "second call")
    for _ in range(10):
        periodic.ring()
    time.sleep(0.3)
    periodic.stop()
    assert 3 <= len(calls) <= 4


def test_periodic_work_comes_by_itself() -> None:
    calls: list[int] = []
    periodic = Periodic("w", 0.02, lambda: calls.append(1))
    periodic.start()
    wait_for(lambda: len(calls) > 3, "calls without a ring")
    periodic.stop()
