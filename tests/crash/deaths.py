"""Dying at the n-th statement: what a process that is killed between two statements leaves behind."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa


class Death(BaseException):
    """Not an Exception: nothing on the way may answer it with a second thought."""


class Countdown:
    """Raises ``error`` at the n-th statement (commits count) of these engines; ``happened`` says whether."""

    def __init__(self, at: int, error: type[BaseException]) -> None:
        self._left = at
        self._error = error
        self._lock = threading.Lock()
        self.happened = False

    def tick(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self.happened = True
                raise self._error("killed here")


@contextlib.contextmanager
def dying(engines: list[sa.Engine], at: int, error: type[BaseException] = Death) -> Iterator[Countdown]:
    """Count the statements of ``engines`` inside the block, and die at number ``at``."""
    countdown = Countdown(at, error)

    def on_execute(_conn: Any, _cursor: Any, text: str, *_rest: Any) -> None:
        if not text.startswith("BEGIN"):
            countdown.tick()

    def on_commit(_conn: Any) -> None:
        countdown.tick()

    for engine in engines:
        sa.event.listen(engine, "before_cursor_execute", on_execute)
        sa.event.listen(engine, "commit", on_commit)
    try:
        yield countdown
    finally:
        for engine in engines:
            sa.event.remove(engine, "before_cursor_execute", on_execute)
            sa.event.remove(engine, "commit", on_commit)
