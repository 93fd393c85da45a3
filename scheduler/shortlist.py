"""The hosts that one kind of request may go to, scored, and kept up to date during a pass.

Building a shortlist asks all filters and weighers about all hosts.  After each placement (of any
kind of request) only the touched hosts are asked again, and only by what watches a host; whatever
watches ALL makes it build anew.  A shortlist that followed equals one built afresh: a test holds it.

Hosts are addressed twice here: by slot in the table, and by position in ``candidates``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from scheduler.columns import BoolArray, FloatArray
from scheduler.explain import MAX_HOSTS_PER_FILTER, FilterStep
from scheduler.filters.base import Filter, Watch
from scheduler.host_state import HostTable
from scheduler.host_view import Hosts
from scheduler.request import PlacementRequest
from scheduler.weighers.base import Weigher

Positions = npt.NDArray[np.intp]

# The best hosts are looked for among this many, as long as none outside can be better.
POOL = 256


@dataclasses.dataclass(slots=True)
class Score:
    """One weigher's raw numbers over the candidates, with their least and greatest."""

    weigher: Weigher
    raw: FloatArray
    multiplier: float | FloatArray
    low: float = 0.0
    high: float = 0.0

    def bound(self) -> None:
        if len(self.raw):
            self.low, self.high = float(self.raw.min()), float(self.raw.max())

    def add_to(self, totals: FloatArray, chosen: Any) -> None:
        """Add the weighted, normalised numbers of the chosen positions to their totals."""
        span = self.high - self.low
        if not span:
            return
        part = self.raw[chosen] - self.low
        factor = self.multiplier if isinstance(self.multiplier, float) else self.multiplier[chosen]
        # Element by element and not as a matrix product, whose rounding depends on the position: equal
        # hosts must get equal totals, or ties would not be ties.
        part *= factor / span
        totals[chosen] += part

    def change(self, positions: Positions, numbers: FloatArray) -> bool:
        """Put in new raw numbers; True when the bounds moved and all totals are void."""
        old = self.raw[positions]
        self.raw[positions] = numbers
        before = (self.low, self.high)
        if old.max() >= self.high or old.min() <= self.low:
            self.bound()
        else:
            self.low, self.high = min(self.low, float(numbers.min())), max(self.high, float(numbers.max()))
        return before != (self.low, self.high)


class Shortlist:
    """Candidates and scores for one kind of request; valid while the table's lock is held."""

    def __init__(
        self,
        table: HostTable,
        filters: Sequence[Filter],
        weighers: Sequence[Weigher],
        request: PlacementRequest,
        now: float,
    ) -> None:
        self.table = table
        self.request = request
        self.now = now
        self._filters = [(item, item.applies(request)) for item in filters]
        self._weighers = [item for item in weighers if item.applies(request)]
        watches = [item.watch(request) for item, applies in self._filters if applies]
        watches += [item.watch(request) for item in self._weighers]
        self._watch = max(watches, default=Watch.NOTHING)
        self.candidates: Positions = np.zeros(0, dtype=np.intp)
        self.steps: list[FilterStep] = []
        self.scores: list[Score] = []
        self.totals: FloatArray = np.zeros(0)
        self._pool: Positions | None = None
        self._pool_bound = -np.inf
        self._pool_void = True
        self._steps_json: list[dict[str, Any]] | None = None
        self._build()

    # Building

    def _build(self) -> None:
        self.steps = [FilterStep(item.name) for item, _ in self._filters]
        self._steps_json = None
        view = self.table.view(now=self.now)
        for step, (item, applies) in zip(self.steps, self._filters, strict=True):
            if applies and len(view):
                passed = _mask(item, view, self.request)
                if not passed.all():
                    self._note(step, item, view.narrow(~passed))
                    view = view.narrow(passed)
        self.candidates = view.slot_array()
        self._pool = None
        self.scores = []
        for weigher in self._weighers if len(view) else ():
            multiplier = weigher.multipliers(view)
            if not np.any(multiplier):
                continue
            score = Score(weigher, _weights(weigher, view, self.request), multiplier)
            score.bound()
            self.scores.append(score)
        self._total()

    def _note(self, step: FilterStep, item: Filter, rejected: Hosts) -> None:
        """Count what a filter removed, per reason."""
        self._steps_json = None
        step.removed += len(rejected)
        for slot in rejected.slot_array()[: MAX_HOSTS_PER_FILTER - len(step.hosts)].tolist():
            step.hosts.append(self.table.coded["host"].get(slot))
        left = np.ones(len(rejected), dtype=bool)
        for text, fitting in item.reasons(rejected, self.request):
            count = int(np.count_nonzero(left & fitting))
            if count:
                step.reasons[text] = step.reasons.get(text, 0) + count
                left &= ~fitting
        count = int(np.count_nonzero(left))
        if count:
            text = item.reason(self.request)
            step.reasons[text] = step.reasons.get(text, 0) + count

    def steps_json(self) -> list[dict[str, Any]]:
        """The steps as they go into records, shared by all records until a step changes."""
        if self._steps_json is None:
            self._steps_json = [step.to_json() for step in self.steps]
        return self._steps_json

    def _total(self) -> None:
        self.totals = np.zeros(len(self.candidates))
        everything = slice(None)
        for score in self.scores:
            score.add_to(self.totals, everything)
        self._pool_void = True

    # Following

    def follow(self, touched: Sequence[int]) -> None:
        """Take in that servers were placed on the hosts in the slots ``touched``."""
        if not touched or self._watch == Watch.NOTHING:
            return
        if self._watch == Watch.ALL:
            self._build()
            return
        slots = np.asarray(sorted(set(touched)), dtype=np.intp)
        positions = np.searchsorted(self.candidates, slots)
        known = positions < len(self.candidates)
        known[known] = self.candidates[positions[known]] == slots[known]
        if not known.any():
            return
        positions, slots = positions[known], slots[known]
        # A slice costs a tenth of an index array, and one host at a time is the rule.
        one = slice(int(slots[0]), int(slots[0]) + 1)
        view = self.table.view(one if len(slots) == 1 else slots, now=self.now)
        passed = self._ask_again(view)
        self._rescore(view, positions)
        if not passed.all():
            self._drop(positions[~passed])

    def _ask_again(self, view: Hosts) -> BoolArray:
        """Which of some candidates still pass; those that don't are noted."""
        passed = np.ones(len(view), dtype=bool)
        for step, (item, applies) in zip(self.steps, self._filters, strict=True):
            if not applies or item.watch(self.request) == Watch.NOTHING:
                continue
            fallen = passed & ~_mask(item, view, self.request)
            if fallen.any():
                self._note(step, item, view.narrow(fallen))
                passed &= ~fallen
        return passed

    def _rescore(self, view: Hosts, positions: Positions) -> None:
        void = False
        for score in self.scores:
            if score.weigher.watch(self.request) != Watch.NOTHING:
                void |= score.change(positions, _weights(score.weigher, view, self.request))
        if void:
            self._total()
            return
        self.totals[positions] = 0.0
        for score in self.scores:
            score.add_to(self.totals, positions)
        if self._pool is not None:
            for position in positions[self.totals[positions] > self._pool_bound].tolist():
                if position not in self._pool:
                    self._pool_void = True

    def _drop(self, positions: Positions) -> None:
        self.candidates = np.delete(self.candidates, positions)
        if self._pool is not None:
            pool = self._pool[~np.isin(self._pool, positions)]
            self._pool = pool - np.searchsorted(np.sort(positions), pool)
        for score in self.scores:
            score.raw = np.delete(score.raw, positions)
            if not isinstance(score.multiplier, float):
                score.multiplier = np.delete(score.multiplier, positions)
            score.bound()
        self._total()

    # Choosing

    def best(self, number: int, totals: FloatArray | None = None) -> Positions:
        """The positions of the ``number`` best candidates, best first.

        ``totals`` takes the place of the own totals (random ones, for the chance scheduler).
        """
        if totals is not None:
            return _largest(totals, number)
        if len(self.totals) <= max(POOL, number):
            return _largest(self.totals, number)
        pool = self._pool
        if pool is not None and not self._pool_void:
            order = pool[_largest(self.totals[pool], number)]
            if len(order) == number and self.totals[order[-1]] >= self._pool_bound:
                return order
        pool = self._fill_pool(number)
        return pool[_largest(self.totals[pool], number)]

    def _fill_pool(self, number: int) -> Positions:
        """Gather at least ``number`` candidates such that no other one has a greater total."""
        size = max(POOL, 2 * number)
        totals, pool = self.totals, self._pool
        self._pool_void = False
        if pool is not None and len(pool) >= number + size // 4:
            # The former pool tells what is good now: all that are no worse than one of its better members
            # are the best there are, whatever happened to the totals. One comparison, no partitioning.
            members = np.sort(totals[pool])
            self._pool_bound = float(members[-(number + size // 4)])
            self._pool = np.flatnonzero(totals >= self._pool_bound)
            if len(self._pool) <= 4 * size:
                return self._pool
        # Empty clouds are full of equal hosts: when the best ones are that many, the first of them will do.
        equal = np.flatnonzero(totals == totals.max())
        pool = equal[:size] if len(equal) >= size else np.sort(_largest(totals, size))
        self._pool = pool
        self._pool_bound = float(totals[pool].min())
        return pool


def _largest(totals: FloatArray, number: int) -> Positions:
    """Positions of the largest entries, largest first, the earlier one on a tie."""
    if number == 1:
        return np.array([totals.argmax()]) if len(totals) else np.zeros(0, dtype=np.intp)
    if number < len(totals) and len(totals) > 2 * POOL:
        least = np.partition(totals, len(totals) - number)[-number]
        above = np.flatnonzero(totals > least)
        equal = np.flatnonzero(totals == least)[: number - len(above)]
        chosen = np.sort(np.concatenate((above, equal)))
    else:
        chosen = np.arange(len(totals))
    return chosen[np.argsort(-totals[chosen], kind="stable")[:number]]


def _mask(item: Filter, view: Hosts, request: PlacementRequest) -> BoolArray:
    passed = np.asarray(item.mask(view, request))
    if passed.shape != (len(view),) or passed.dtype != np.bool_:
        raise ValueError(
            f"{item.name}.mask must return {len(view)} booleans, not {passed.shape} {passed.dtype}"
        )
    return passed


def _weights(weigher: Weigher, view: Hosts, request: PlacementRequest) -> FloatArray:
    # A copy: raw numbers are kept, and a weigher may hand out a column itself.
    numbers = np.array(weigher.weights(view, request), dtype=np.float64)
    if numbers.shape != (len(view),) or not np.isfinite(numbers).all():
        raise ValueError(f"{weigher.name}.weights must return {len(view)} finite numbers")
    return numbers
