"""Takes intents of some targets from the journal and carries them out in threads of its own.

The volume role has two: one for the intents on volumes, one for those on backups, which may wait for the former.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from conductor.direct_journal import DirectJournal
from core.pools import Periodic, Pool
from lifecycle.engine import Engine
from lifecycle.steps import Registry, Run

_SPACING_S = 0.02
Row = dict[str, Any]


class Taker:
    """``workers``: {target: what its steps see as ``run.worker``}."""

    engine = Engine()

    def __init__(
        self,
        name: str,
        journal: DirectJournal,
        workers: Mapping[str, Any],
        actions: Callable[[], Registry],
        *,
        threads: int,
        interval_s: float,
        lease_s: float,
    ) -> None:
        self.journal = journal
        self._workers = workers
        self._actions = actions
        self._threads = threads
        self._pool = Pool(f"{name}-work", threads)
        self._loop = Periodic(f"{name}-take", interval_s, self.take, _SPACING_S)
        self._renewal = Periodic(f"{name}-leases", lease_s / 3, journal.renew)

    def start(self) -> None:
        self._loop.start()
        self._renewal.start()
        self._loop.ring()

    def end_taking(self) -> None:
        """Nothing new is begun; what runs goes on."""
        self._loop.stop()

    def stop(self, *, interrupt: bool = False) -> None:
        """Returns when nothing runs any more. ``interrupt``: what runs stops at a harmless point."""
        if interrupt:
            self.journal.interrupt()
        self._pool.shutdown()
        self._renewal.stop()

    def ring(self) -> None:
        self._loop.ring()

    def take(self) -> None:
        """Lease what waits and hand it to the pool, as much as there are threads."""
        held = self.journal.held
        if held >= self._threads:
            return
        rows = self.journal.take(list(self._workers), self._actions().kinds(), self._threads - held)
        for row in rows:
            run = Run.of(row, self._workers[row["target"]])
            self.journal.hold(run)
            self._pool.spawn(self.execute, run, row["error"])

    def execute(self, run: Run, error: Row | None) -> None:
        """Carry out one intent; then look for the next."""
        try:
            self.engine.execute(self._actions()[run.kind], run, self.journal, error)
        finally:
            self.journal.release(run)
            self._loop.ring()
