"""The engine: runs an action's steps, records them, undoes them on failure.

It knows no table and no transport: a ``Journal`` takes the checkpoints and
says, by raising, when to stop.  Guarantees:

* a step whose result stands in ``run.results`` is not run again;
* a step may run again after a crash inside it, never concurrently with itself
  in the eyes of the journal (attempts fence);
* nothing is touched before the journal has said that the attempt still counts: a
  message that lay in a queue for long, or came twice, does no harm;
* on failure every step that ran or began is undone, newest first; an undo that
  fails leaves the intent unfinished, so that another attempt undoes it again:
  the journal is told before the first undo, so the way back is never forgotten;
* at a step that only goes ``forward`` nothing is undone and nothing cancelled any more: what
  fails is tried again, and said to be stuck, so that who gives it up leaves it to a cleanup;
* ``Fenced`` ends everything at once and undoes nothing: it is another's now.
"""

from __future__ import annotations

import datetime
import logging
import time
import traceback
from collections.abc import Callable
from typing import Any, Protocol

from core import logs, metrics
from core.errors import HaneulError
from lifecycle.steps import Action, Cancelled, Fenced, Run, Step

LOG = logging.getLogger(__name__)

Probe = Callable[[str, str, str], None]
"""(kind, step, "before" | "after" | "undo" | "undone"): crash tests put theirs in ``Engine.probe``."""


class Journal(Protocol):
    """Where progress is written down. Every method may raise Fenced or Cancelled."""

    def begin(self, run: Run) -> None:
        """Does this attempt still count? Asked before the first step; sets ``run.cancelled``."""

    def checkpoint(self, run: Run, step: str, events: list[dict[str, Any]], durable: bool) -> None:
        """``run.results`` holds what is done; ``durable``: return only once it is written."""

    def undoing(self, run: Run, error: dict[str, Any]) -> None:
        """From here the intent goes back; written before the first undo."""

    def end(self, run: Run, ending: str, events: list[dict[str, Any]], **facts: Any) -> None:
        """ "done" (outcome=…), "failed" (error=…), "cancelled", or "retry" (error=…)."""

    def showing(self, run: Run, task_state: str) -> None:
        """The resource now shows this state; may be dropped or arrive late."""


class StepFailed(Exception):
    """A step raised; carries what the fault will say."""

    def __init__(self, step: Step, cause: Exception) -> None:
        super().__init__(f"{step.name}: {cause}")
        self.step = step.name
        self.forward = step.forward
        self.cause = cause

    def facts(self) -> dict[str, Any]:
        """The intent's error: step, stable code, words for the asker, details for admins."""
        known = isinstance(self.cause, HaneulError)
        return {
            "step": self.step,
            "code": self.cause.code if isinstance(self.cause, HaneulError) else "haneul.internal",
            "message": str(self.cause) if known else f"step {self.step} failed unexpectedly",
            "details": "".join(traceback.format_exception(self.cause))[-4000:],
        }


class Engine:
    """Runs intents. One per role; stateless apart from the probe for tests."""

    probe: Probe | None = None

    def execute(
        self,
        action: Action,
        run: Run,
        journal: Journal,
        error: dict[str, Any] | None = None,
    ) -> str:
        """Carry an intent to its end; returns the ending ("fenced" if it was taken away).

        ``error``: why an earlier attempt was on its way back; go on undoing (an
        action that only goes forward has no way back, and tries again).
        """
        clock = time.monotonic()
        with logs.on_behalf_of(run.context):
            ending = self._execute(action, run, journal, error)
            LOG.info(
                "%s of %s: %s after %.2f s (intent %s, attempt %d)",
                run.kind,
                run.resource_id,
                ending,
                time.monotonic() - clock,
                run.intent_id,
                run.attempt,
            )
        return ending

    def _execute(self, action: Action, run: Run, journal: Journal, error: dict[str, Any] | None) -> str:
        events: list[dict[str, Any]] = []
        try:
            journal.begin(run)
            if error is not None and action.undo_on_failure and not error.get("forward"):
                return self._back(action, run, journal, events, error)
            try:
                self._forward(action, run, journal, events, begun=error is not None)
            except Cancelled:
                cancelled = {"code": "haneul.cancelled", "message": "overtaken by a deletion", "step": None}
                return self._back(action, run, journal, events, cancelled)
            except StepFailed as failure:
                LOG.warning(
                    "intent %s (%s of %s): step %s failed: %s",
                    run.intent_id,
                    run.kind,
                    run.resource_id,
                    failure.step,
                    failure.cause,
                    exc_info=failure.cause,
                )
                if failure.forward:
                    stuck = {**failure.facts(), "forward": True, "stuck": [failure.step]}
                    journal.end(run, "retry", events, error=stuck)
                    return "retry"
                if not action.undo_on_failure:
                    journal.end(run, "retry", events, error=failure.facts())
                    return "retry"
                return self._back(action, run, journal, events, failure.facts())
            journal.end(run, "done", events, outcome=_outcome(run))
            return "done"
        except Fenced:
            LOG.warning("intent %s attempt %s was refused: left to its owner", run.intent_id, run.attempt)
            return "fenced"

    def _forward(
        self, action: Action, run: Run, journal: Journal, events: list[dict[str, Any]], *, begun: bool
    ) -> None:
        """``begun``: an earlier attempt has begun the step that comes next."""
        for step in action.steps:
            if step.name in run.results:
                continue
            if begun and step.forward:
                run.check_fenced()
            else:
                run.check_cancelled()
            if step.shows_as:
                journal.showing(run, step.shows_as)
            self._call_probe(action, step, "before")
            run.results[step.name] = self._do(action, step, run, events)
            self._call_probe(action, step, "after")
            if step is not action.steps[-1]:
                journal.checkpoint(run, step.name, events, step.durable)

    def _do(self, action: Action, step: Step, run: Run, events: list[dict[str, Any]]) -> Any:
        started, clock = _moment(), time.monotonic()
        event = {"step": step.name, "started_at": started, "attempt": run.attempt}
        try:
            result = step.do(run)
        except (Cancelled, Fenced):
            events.append({**event, "finished_at": _moment(), "result": "Cancelled"})
            raise
        except Exception as failure:  # noqa: BLE001 - any failure of a step is answered by undoing
            events.append(
                {**event, "finished_at": _moment(), "result": "Error", "message": str(failure)[:255]}
            )
            raise StepFailed(step, failure) from failure
        events.append({**event, "finished_at": _moment(), "result": "Success"})
        metrics.STEP_SECONDS.labels(action.kind, step.name).observe(time.monotonic() - clock)
        return result

    def _back(
        self,
        action: Action,
        run: Run,
        journal: Journal,
        events: list[dict[str, Any]],
        error: dict[str, Any],
    ) -> str:
        # what an earlier attempt could not undo may be undone now
        error = {key: value for key, value in error.items() if key != "stuck"}
        journal.undoing(run, error)
        stuck: list[str] = []
        for step in reversed(action.steps):
            # also of steps that have no result: do may have failed half-way, here or before a crash
            if step.undo is None:
                continue
            if run.fenced.is_set():
                raise Fenced(run.intent_id)
            self._call_probe(action, step, "undo")
            try:
                step.undo(run)
                self._call_probe(action, step, "undone")
            except Exception:  # noqa: BLE001 - the other undos still run; the intent stays unfinished
                LOG.exception("intent %s: undo of step %s failed", run.intent_id, step.name)
                stuck.append(step.name)
        if stuck:
            error = {**error, "stuck": stuck}
            journal.end(run, "retry", events, error=error)
            return "retry"
        ending = "cancelled" if error.get("code") == "haneul.cancelled" else "failed"
        journal.end(run, ending, events, error=error)
        return ending

    def _call_probe(self, action: Action, step: Step, where: str) -> None:
        if self.probe is not None:
            self.probe(action.kind, step.name, where)


def _outcome(run: Run) -> dict[str, Any]:
    """What the last step returned, if it is a dictionary: facts for the resource's row."""
    last = list(run.results.values())[-1] if run.results else None
    return last if isinstance(last, dict) else {}


def _moment() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
