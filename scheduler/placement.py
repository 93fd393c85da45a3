"""The pass: hosts for a batch of requests, in one go over the host table.

Requests are served in their order, each seeing what the ones before took, so a batch never places
more than fits and groups hold within it.  Requests of one kind share a ``Shortlist``; mixed batches
keep one per kind, and each catches up with what the others placed.  The claims in SQL come later
(``scheduler.service``); a claim that fails gives its ``Hold`` back.

Filters run in this order: destination and traits, the enabled vectorised ones in their configured
order, capacity, and then the enabled ones that look host by host, which so see the fewest hosts.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
from oslo_config import cfg
from oslo_log import log as logging

from scheduler import explain
from scheduler.columns import FloatArray
from scheduler.filters.availability_zone import AvailabilityZoneFilter
from scheduler.filters.base import Filter, HostFilter
from scheduler.filters.resources import DestinationFilter, ResourcesFilter, SizeFilter, TraitsFilter
from scheduler.host_state import Hold, HostTable
from scheduler.plugins import load_filters, load_weighers
from scheduler.request import PlacementRequest
from scheduler.shortlist import Positions, Shortlist
from scheduler.weighers.base import Weigher

LOG = logging.getLogger(__name__)

# Shortlists kept during a pass.
MAX_SHORTLISTS = 128


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """A host as the claim needs it."""

    provider_uuid: str
    host: str
    node: str
    cell: str
    zone: str


@dataclasses.dataclass(frozen=True, slots=True)
class Decision:
    """The outcome for one server.

    ``chosen`` None means no valid host.  ``alternates`` are in the cell of ``chosen``, best first, at
    most max_attempts - 1.  ``hold`` is what the pass booked in the table for it.  ``record`` is the
    explanation (see scheduler.explain); decisions share parts of it, so it is only to be read.
    """

    request: PlacementRequest
    chosen: Choice | None
    alternates: tuple[Choice, ...]
    hold: Hold | None
    record: dict[str, Any]

    @property
    def summary(self) -> str:
        """One line for the person who asked."""
        return explain.summary(self.record)


class Pass:
    """Places batches of requests; one object serves many passes of one thread at a time.

    ``filters`` are the enabled ones (what always holds is added here).  ``conf`` needs the options of
    scheduler.options.  ``rng`` makes random choices (host_subset_size, ties, chance).
    """

    def __init__(
        self,
        table: HostTable,
        filters: Sequence[Filter],
        weighers: Sequence[Weigher],
        conf: cfg.ConfigOpts,
        rng: random.Random | None = None,
    ) -> None:
        self.table = table
        always: list[Filter] = [DestinationFilter(conf), TraitsFilter(conf)]
        capacity: list[Filter] = [SizeFilter(conf), ResourcesFilter(conf)]
        filters = list(filters)
        if not any(isinstance(item, AvailabilityZoneFilter) for item in filters):
            filters.insert(0, AvailabilityZoneFilter(conf))
        vectorised = [item for item in filters if not isinstance(item, HostFilter)]
        host_by_host = [item for item in filters if isinstance(item, HostFilter)]
        self._filters = [*always, *vectorised, *capacity, *host_by_host]
        self._forced_filters = [*always, *capacity]
        self._driver = conf.scheduler.driver
        self._weighers = [] if self._driver == "chance" else list(weighers)
        self._personal = any(item.personal for item in self._filters) or any(
            item.personal for item in self._weighers
        )
        self._alternates = conf.scheduler.max_attempts - 1
        self._subset = conf.filter_scheduler.host_subset_size
        self._shuffle = conf.filter_scheduler.shuffle_best_same_weighed_hosts
        self._random = rng or random.Random()  # noqa: S311 - a choice among equals, no secret
        self._numbers = np.random.default_rng(self._random.getrandbits(64))

    @classmethod
    def from_conf(cls, table: HostTable, conf: cfg.ConfigOpts) -> Pass:
        """A pass with the filters and weighers that the options name."""
        return cls(table, load_filters(conf), load_weighers(conf), conf)

    def place(self, requests: Iterable[PlacementRequest], now: float | None = None) -> list[Decision]:
        """One decision per server asked for (``num`` per request), in the order of the requests.

        A filter or weigher that raises costs only the request that it raised on: one odd request
        must not keep all others waiting.
        """
        batch = list(requests)
        moment = time.time() if now is None else now
        with self.table.lock:
            for request in batch:
                if request.group is not None and request.group.hosts:
                    self.table.learn_group(request.group.id, request.group.hosts)
            course = _Course(self, moment)
            return [course.place(request) for request in batch for _ in range(request.num)]

    def shortlist(self, request: PlacementRequest, now: float) -> Shortlist:
        """The hosts that could take a request now, scored."""
        forced = request.forced and bool(request.host or request.node)
        filters = self._forced_filters if forced else self._filters
        return Shortlist(self.table, filters, self._weighers, request, now)

    def key(self, request: PlacementRequest) -> Hashable:
        """Equal for requests that may share a shortlist."""
        return request.personal_profile if self._personal else request.profile

    def pick(self, shortlist: Shortlist) -> tuple[Positions, Positions, FloatArray]:
        """(chosen and alternates, the best for the record, totals) as candidate positions."""
        totals = shortlist.totals
        drawn = None
        if self._driver == "chance":
            totals = drawn = self._numbers.random(len(totals))
        wanted = max(explain.MAX_TOP, self._subset, 1 + self._alternates)
        order = shortlist.best(min(wanted, len(totals)), drawn)
        first = self._first(order, totals)
        cells = self.table.coded["cell"].codes
        cell = cells[shortlist.candidates[first]]
        others = order[order != first]
        fitting = others[cells[shortlist.candidates[others]] == cell]
        if len(fitting) < self._alternates and len(order) < len(totals):
            # The best hosts are of other cells: look at this cell's alone.
            own = np.flatnonzero(cells[shortlist.candidates] == cell)
            own = own[own != first]
            fitting = own[np.argsort(-totals[own], kind="stable")]
        chosen = np.concatenate(([first], fitting[: self._alternates])).astype(np.intp)
        return chosen, order, totals

    def _first(self, order: Positions, totals: FloatArray) -> int:
        size = min(self._subset, len(order))
        pool = order[:size]
        if self._shuffle:
            ties = np.flatnonzero(totals == totals[order[0]])
            if len(ties) > size:
                pool = ties
        return int(pool[self._random.randrange(len(pool))]) if len(pool) > 1 else int(pool[0])


class _Course:
    """The state of one running pass: shortlists, and which slots were touched since when."""

    def __init__(self, owner: Pass, now: float) -> None:
        self._pass = owner
        self._table = owner.table
        self._now = now
        self._touched: list[int] = []
        self._shortlists: dict[Hashable, tuple[Shortlist, int]] = {}

    def place(self, request: PlacementRequest) -> Decision:
        try:
            shortlist = self._current(request)
            if not len(shortlist.candidates):
                return Decision(request, None, (), None, self._record(shortlist, None))
            picked = self._pass.pick(shortlist)
        except Exception as error:  # noqa: BLE001 - plugins may raise anything; the others must go on
            LOG.exception("A filter or weigher failed on intent %s", request.intent_id)
            self._shortlists.pop(self._pass.key(request), None)
            message = (
                f"the scheduler failed on this request ({type(error).__name__}); the operator's log says why"
            )
            record = explain.error_record(self._pass._driver, len(self._table), message)
            return Decision(request, None, (), None, record)
        record = self._record(shortlist, picked)
        slots = shortlist.candidates[picked[0]].tolist()
        chosen, *alternates = (self._choice(slot) for slot in slots)
        hold = self._table.consume(slots[0], request)
        self._touched.append(slots[0])
        return Decision(request, chosen, tuple(alternates), hold, record)

    def _current(self, request: PlacementRequest) -> Shortlist:
        key = self._pass.key(request)
        known = self._shortlists.get(key)
        if known is None:
            if len(self._shortlists) >= MAX_SHORTLISTS:
                self._shortlists.pop(next(iter(self._shortlists)))
            shortlist = self._pass.shortlist(request, self._now)
        else:
            shortlist, seen = known
            shortlist.follow(self._touched[seen:])
        self._shortlists[key] = (shortlist, len(self._touched))
        return shortlist

    def _choice(self, slot: int) -> Choice:
        coded = self._table.coded
        return Choice(
            self._table.uuids[slot],
            coded["host"].get(slot),
            coded["node"].get(slot),
            coded["cell"].get(slot),
            coded["zone"].get(slot),
        )

    def _record(
        self, shortlist: Shortlist, picked: tuple[Positions, Positions, FloatArray] | None
    ) -> dict[str, Any]:
        names = self._table.coded["host"].view
        record: dict[str, Any] = {
            "version": explain.VERSION,
            "driver": self._pass._driver,
            "hosts": len(self._table),
            "candidates": len(shortlist.candidates),
            "filters": shortlist.steps_json(),
            "weighers": [],
            "chosen": None,
            "alternates": [],
        }
        if picked is None:
            return record
        chosen, order, totals = picked
        top = order[: explain.MAX_TOP]
        best = set(top.tolist())
        missing = [position for position in chosen.tolist() if position not in best]
        if missing:  # a random choice may lie below the best
            top = np.concatenate((top[: explain.MAX_TOP - len(missing)], missing)).astype(np.intp)
        record["weighers"] = [
            {"name": score.weigher.name, "low": score.low, "high": score.high} for score in shortlist.scores
        ]
        record["top"] = {
            "hosts": names(shortlist.candidates[top]).tolist(),
            "weights": totals[top].tolist(),
            "raw": [score.raw[top].tolist() for score in shortlist.scores],
            "multipliers": [
                score.multiplier if isinstance(score.multiplier, float) else score.multiplier[top].tolist()
                for score in shortlist.scores
            ],
        }
        record["chosen"], *record["alternates"] = names(shortlist.candidates[chosen]).tolist()
        return record
