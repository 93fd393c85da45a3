"""Progress on a terminal (rich) or as plain lines, the same words in both."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any


class Progress:
    """Steps of a command: ``with progress.step("Databases") as say: ... say("two made")``."""

    def __init__(self, fancy: bool | None = None) -> None:
        self.began = time.monotonic()
        self._console: Any = None
        if sys.stdout.isatty() if fancy is None else fancy:
            from rich.console import Console

            self._console = Console(highlight=False)

    def elapsed(self) -> float:
        return time.monotonic() - self.began

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[Any]:
        """Shows that a step runs, and how long it took; ``say`` adds a detail."""
        began, details = time.monotonic(), []

        def say(text: str) -> None:
            details.append(text)
            if self._console is None:
                print(f"       {title}: {text}", flush=True)
            else:
                status.update(f"{title}: {text}")

        if self._console is None:
            print(f"  ...  {title}", flush=True)
        else:
            status = self._console.status(title)
            status.start()
        try:
            yield say
        except BaseException:
            self._end(title, "failed", began, [], status if self._console else None)
            raise
        self._end(title, "ok", began, details, status if self._console else None)

    def _end(self, title: str, outcome: str, began: float, details: list[str], status: Any) -> None:
        seconds = f"{time.monotonic() - began:5.1f} s"
        if self._console is None:
            print(f" {outcome:>5} {title} ({seconds.strip()})", flush=True)
            return
        status.stop()
        color = "green" if outcome == "ok" else "red"
        detail = f" [dim]{details[-1]}[/dim]" if details else ""
        self._console.print(f"[{color}]{outcome:>6}[/{color}] [dim]{seconds}[/dim] {title}{detail}")

    def line(self, text: str = "") -> None:
        """A line of its own."""
        if self._console is None:
            print(text, flush=True)
        else:
            self._console.print(text, markup=False)

    def warn(self, text: str) -> None:
        """Something that the reader should know, but that stops nothing."""
        if self._console is None:
            print(f" note  {text}", flush=True)
        else:
            self._console.print(f"[yellow]  note[/yellow] {text}", markup=True)
