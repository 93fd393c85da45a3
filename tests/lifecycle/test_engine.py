"""The engine against a journal that only remembers: forward, resumed, undone, stuck, cancelled, fenced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from core.errors import Rebuildable
from lifecycle.engine import Engine
from lifecycle.steps import Action, Cancelled, Fenced, Registry, Run, Step


class Memory:
    """A journal; ``refuse`` names the method from which on the attempt is another's."""

    def __init__(self, refuse: str = "", cancel_at: str = "") -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.events: list[dict[str, Any]] = []
        self.refuse = refuse
        self.cancel_at = cancel_at

    def _called(self, run: Run, *call: Any) -> None:
        if call[0] == self.refuse:
            raise Fenced(run.intent_id)
        self.calls.append(call)

    def begin(self, run: Run) -> None:
        self._called(run, "begin")
        if self.cancel_at == "begin":
            run.cancelled.set()

    def checkpoint(self, run: Run, step: str, events: list[dict[str, Any]], durable: bool) -> None:
        self._called(run, "checkpoint", step, durable, dict(run.results))
        if self.cancel_at == step:
            raise Cancelled(run.intent_id)

    def undoing(self, run: Run, error: dict[str, Any]) -> None:
        self._called(run, "undoing", error["code"])

    def end(self, run: Run, ending: str, events: list[dict[str, Any]], **facts: Any) -> None:
        self._called(run, "end", ending, facts)
        self.events = events

    def showing(self, run: Run, task_state: str) -> None:
        self._called(run, "showing", task_state)

    @property
    def ending(self) -> Any:
        return self.calls[-1][1:]


class World:
    """What three steps do to the world: ``there`` is what stands."""

    def __init__(self) -> None:
        self.there: set[str] = set()
        self.log: list[str] = []
        self.failures: dict[str, list[Exception]] = {}

    def call(self, what: str) -> None:
        self.log.append(what)
        if self.failures.get(what):
            raise self.failures[what].pop(0)

    def step(self, name: str, **more: Any) -> Step:
        def do(run: Run) -> dict[str, str]:
            self.there.add(name)  # also when it fails: half-done
            self.call(name)
            return {"made": name}

        def undo(run: Run) -> None:
            self.call(f"undo {name}")
            self.there.discard(name)

        return Step(name, do, undo=undo, **more)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def action(world: World) -> Action:
    return Action(
        "thing.make", (world.step("a"), world.step("b", durable=True), world.step("c", shows_as="c…"))
    )


def a_run(**results: Any) -> Run:
    return Run("i", "thing.make", 1, "r", {}, dict(results), worker=None)


def test_forward(world: World, action: Action) -> None:
    journal, run = Memory(), a_run()
    assert Engine().execute(action, run, journal) == "done"
    assert world.log == ["a", "b", "c"]
    assert journal.calls == [
        ("begin",),
        ("checkpoint", "a", False, {"a": {"made": "a"}}),
        ("checkpoint", "b", True, {"a": {"made": "a"}, "b": {"made": "b"}}),
        ("showing", "c…"),
        ("end", "done", {"outcome": {"made": "c"}}),
    ]
    assert [(event["step"], event["result"]) for event in journal.events] == [
        ("a", "Success"),
        ("b", "Success"),
        ("c", "Success"),
    ]


def test_it_goes_on_behind_what_was_recorded(world: World, action: Action) -> None:
    assert Engine().execute(action, a_run(a={"made": "a"}, b=None), Memory()) == "done"
    assert world.log == ["c"]


@pytest.mark.parametrize("name", ["a", "b", "c"])
@pytest.mark.parametrize(
    ("failure", "code", "message"),
    [
        (Rebuildable("no room", cause="secret"), "haneul.driver.host", "no room"),
        (ZeroDivisionError("oops"), "haneul.internal", "failed unexpectedly"),
    ],
)
def test_a_failure_is_undone_in_reverse(
    world: World, action: Action, name: str, failure: Exception, code: str, message: str
) -> None:
    world.failures = {name: [failure]}
    journal = Memory()
    assert Engine().execute(action, a_run(), journal) == "failed"
    assert world.there == set()
    assert world.log[-3:] == ["undo c", "undo b", "undo a"]
    assert ("undoing", code) in journal.calls
    ending, facts = journal.ending
    assert (ending, facts["error"]["step"], facts["error"]["code"]) == ("failed", name, code)
    assert message in facts["error"]["message"]
    assert "oops" not in facts["error"]["message"], "words of unknown errors are for administrators"


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_an_undo_that_fails_is_tried_again(world: World, action: Action, name: str) -> None:
    world.failures = {"c": [Rebuildable("no")], f"undo {name}": [OSError("busy")]}
    journal = Memory()
    assert Engine().execute(action, a_run(), journal) == "retry"
    assert world.there == {name}, "the other undos ran"
    ending, facts = journal.ending
    assert (ending, facts["error"]["stuck"]) == ("retry", [name])

    again = Memory()
    assert Engine().execute(action, a_run(), again, facts["error"]) == "failed"
    assert world.there == set()
    assert world.log.count("a") == 1, "on the way back nothing is done again"


@pytest.mark.parametrize("moment", ["begin", "a", "b"])
def test_cancelled_at_a_boundary(world: World, action: Action, moment: str) -> None:
    journal = Memory(cancel_at=moment)
    assert Engine().execute(action, a_run(), journal) == "cancelled"
    assert world.there == set()
    assert "c" not in world.log
    assert journal.ending[0] == "cancelled"


def test_a_long_step_may_notice_the_cancellation(world: World) -> None:
    run = a_run()

    def do(run: Run) -> None:
        world.there.add("x")
        run.cancelled.set()
        run.check_cancelled()
        raise AssertionError("not reached")

    action = Action("thing.make", (Step("x", do, undo=lambda run: world.there.discard("x")),))
    assert Engine().execute(action, run, Memory()) == "cancelled"
    assert world.there == set()


@pytest.mark.parametrize("method", ["begin", "checkpoint", "end"])
def test_refused_it_stops_and_undoes_nothing(world: World, action: Action, method: str) -> None:
    journal = Memory(refuse=method)
    assert Engine().execute(action, a_run(), journal) == "fenced"
    assert not [entry for entry in world.log if entry.startswith("undo")]
    assert world.log == {"begin": [], "checkpoint": ["a"], "end": ["a", "b", "c"]}[method]


def test_refused_on_the_way_back(world: World, action: Action) -> None:
    world.failures = {"b": [Rebuildable("no")]}
    assert Engine().execute(action, a_run(), Memory(refuse="undoing")) == "fenced"
    assert world.log == ["a", "b"]


def test_taken_away_between_steps(world: World, action: Action) -> None:
    run, engine = a_run(), Engine()
    engine.probe = lambda kind, step, where: run.fenced.set() if (step, where) == ("b", "after") else None
    assert engine.execute(action, run, Memory()) == "fenced"
    assert world.log == ["a", "b"]


def test_an_action_that_only_goes_forward(world: World) -> None:
    action = Action(
        "thing.drop", (Step("a", world.step("a").do, no_undo="gone is gone"),), undo_on_failure=False
    )
    world.failures = {"a": [OSError("busy")]}
    journal = Memory()
    assert Engine().execute(action, a_run(), journal) == "retry"
    ending, facts = journal.ending
    assert Engine().execute(action, a_run(), journal, facts["error"]) == "done"
    assert world.log == ["a", "a"]


def test_probes_see_every_point(world: World, action: Action) -> None:
    seen: list[tuple[str, str]] = []
    engine = Engine()
    engine.probe = lambda kind, step, where: seen.append((step, where))
    world.failures = {"c": [Rebuildable("no")]}
    engine.execute(action, a_run(), Memory())
    forward = [("a", "before"), ("a", "after"), ("b", "before"), ("b", "after"), ("c", "before")]
    back = [(step, where) for step in "cba" for where in ("undo", "undone")]
    assert seen == forward + back


def test_declarations_are_checked(world: World) -> None:
    def nothing(run: Run) -> None: ...

    with pytest.raises(ValueError, match="undo is missing"):
        Step("x", nothing)
    with pytest.raises(ValueError, match="repeat"):
        Action("k", (world.step("a"), world.step("a")))
    with pytest.raises(ValueError, match="twice"):
        Registry(Action("k", (world.step("a"),)), Action("k", (world.step("b"),)))
    make: Callable[[Run], None] = nothing
    assert Registry(Action("k", (Step("s", make, no_undo="why"),))).kinds() == ["k"]
