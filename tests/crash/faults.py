"""Faults at any step of any action, armed from outside through a file.

``Faults.wrap`` makes the same registry with steps that look whether something is
armed for them.  A file, so that the steps may run in another process.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

from core.errors import DriverError
from lifecycle.steps import Action, Registry, Run, Step

MODES = (
    "driver_error",
    "unexpected",
    "twice",
    "undo_error",
    "kill_before",
    "kill_after",
    "kill_undo",
    "kill_undone",
)


class Faults:
    """What is armed stands in ``folder``/armed/NAME.json: kind, step, mode and how often."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "armed"
        self._folder.mkdir(parents=True, exist_ok=True)

    def arm(self, kind: str, step: str, mode: str, times: int = 1) -> None:
        assert mode in MODES
        path = self._folder / f"{kind}-{step}-{mode}.json"
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(times))
        temporary.replace(path)

    def disarm(self) -> list[str]:
        """Forget all; returns what had not happened (as often as wanted)."""
        left = []
        for path in self._folder.glob("*.json"):
            left.append(path.stem)
            path.unlink()
        return left

    def hit(self, kind: str, step: str, mode: str) -> bool:
        path = self._folder / f"{kind}-{step}-{mode}.json"
        try:
            times = int(path.read_text())
        except (FileNotFoundError, ValueError):
            return False
        if times <= 1:
            path.unlink(missing_ok=True)
        else:
            path.write_text(str(times - 1))
        return True

    # -- what happens ----------------------------------------------------------

    def probe(self, kind: str, step: str, where: str) -> None:
        """For ``Engine.probe``: the process ends here, as if the power had failed."""
        if self.hit(kind, step, f"kill_{where}"):
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(self, registry: Registry) -> Registry:
        actions = [registry[kind] for kind in registry.kinds()]
        return Registry(
            *(
                dataclasses.replace(action, steps=tuple(self._step(action, step) for step in action.steps))
                for action in actions
            )
        )

    def _step(self, action: Action, step: Step) -> Step:
        def do(run: Run) -> Any:
            if self.hit(action.kind, step.name, "driver_error"):
                raise DriverError(f"armed failure of {step.name}")
            result = step.do(run)
            if self.hit(action.kind, step.name, "twice"):
                result = step.do(run)
            if self.hit(action.kind, step.name, "unexpected"):
                raise ZeroDivisionError(f"armed mistake behind {step.name}")
            return result

        def undo(run: Run) -> None:
            assert step.undo is not None
            step.undo(run)
            if self.hit(action.kind, step.name, "undo_error"):
                raise OSError(f"armed failure of the undo of {step.name}")

        return dataclasses.replace(step, do=do, undo=undo if step.undo else None)
