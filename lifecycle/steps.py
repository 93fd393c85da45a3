"""Steps and actions: what a long operation is made of.

An *action* is the list of steps that carries out one kind of intent
(``server.create``).  A *step* has a name, an idempotent ``do`` and, unless it
leaves nothing behind, an ``undo``.  The engine (``lifecycle.engine``) runs the
steps, records what each returned and undoes them in reverse on failure.

Rules for who writes a step:

* ``do(run)`` may be called again after a crash at any point inside it, also by
  another process; it must come to the same end.  Ids are made before the first
  step and stand in ``run.arguments``.
* ``undo(run)`` may be called when ``do`` never ran, ran half or ran whole.
* what ``do`` returns (JSON-able, or None) is stored; later steps find it in
  ``run.results[step_name]``.
* a missing undo says why in ``no_undo``.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping
from typing import Any, Self


class Cancelled(Exception):
    """The intent was overtaken (deleted) and stops at this step boundary."""


class Fenced(Exception):
    """The intent is not this attempt's any more (or the process ends). Stop; undo nothing."""


@dataclasses.dataclass
class Run:
    """One attempt to carry out one intent: what a step gets to see.

    ``worker`` is the object that the role supplies (the compute agent with its
    driver, for example); steps reach the outside world only through it.
    """

    intent_id: str
    kind: str
    attempt: int
    resource_id: str
    arguments: dict[str, Any]
    results: dict[str, Any]
    worker: Any
    context: dict[str, Any] = dataclasses.field(default_factory=dict)
    cancelled: threading.Event = dataclasses.field(default_factory=threading.Event)
    fenced: threading.Event = dataclasses.field(default_factory=threading.Event)
    """set when the journal has taken the intent away, or the process is to end"""

    @classmethod
    def of(cls, row: Mapping[str, Any], worker: Any) -> Self:
        """The next attempt at an intent whose row a journal in this process has leased."""
        return cls(
            intent_id=row["id"],
            kind=row["kind"],
            attempt=row["attempts"],
            resource_id=row["resource_id"],
            arguments=row["arguments"],
            results=dict(row["results"] or {}),
            worker=worker,
            context={key: row[key] for key in ("request_id", "project_id", "user_id")},
        )

    def check_cancelled(self) -> None:
        """Call inside a step that lasts long, between harmless points."""
        if self.fenced.is_set():
            raise Fenced(self.intent_id)
        if self.cancelled.is_set():
            raise Cancelled(self.intent_id)

    def check_fenced(self) -> None:
        """The same in a step that only goes forward: it is not stopped half-way."""
        if self.fenced.is_set():
            raise Fenced(self.intent_id)


StepFunction = Callable[[Run], Any]


@dataclasses.dataclass(frozen=True)
class Step:
    """One step. ``durable``: the checkpoint is written before the next step starts,
    because a repeat of this step's effect would not be harmless or is costly.
    ``shows_as`` is the task_state (or the like) that the resource shows while it runs.
    ``forward``: the point of no return; from here what fails is tried again instead of undone.
    """

    name: str
    do: StepFunction
    undo: StepFunction | None = None
    no_undo: str = ""
    durable: bool = False
    shows_as: str | None = None
    forward: bool = False

    def __post_init__(self) -> None:
        if self.undo is None and not self.no_undo:
            raise ValueError(f"step {self.name}: an undo is missing and no_undo does not say why")


@dataclasses.dataclass(frozen=True)
class Action:
    """The steps of one kind of intent.

    ``undo_on_failure`` is False for kinds that only go forward (delete): what
    failed is tried again by the sweeper until it succeeds or is given up.
    """

    kind: str
    steps: tuple[Step, ...]
    undo_on_failure: bool = True

    def __post_init__(self) -> None:
        names = [step.name for step in self.steps]
        if len(set(names)) != len(names):
            raise ValueError(f"action {self.kind}: step names repeat: {names}")


class Registry:
    """The actions that a role can carry out, by kind."""

    def __init__(self, *actions: Action) -> None:
        self._actions: dict[str, Action] = {}
        for action in actions:
            self.add(action)

    def add(self, action: Action) -> None:
        if action.kind in self._actions:
            raise ValueError(f"action {action.kind} is registered twice")
        self._actions[action.kind] = action

    def __getitem__(self, kind: str) -> Action:
        return self._actions[kind]

    def __contains__(self, kind: str) -> bool:
        return kind in self._actions

    def kinds(self) -> list[str]:
        return sorted(self._actions)
