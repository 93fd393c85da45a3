"""The image role: carries out imports, and ends what died half-way.

Imports are intents of the global database, leased by ``conductor.direct_journal``.
Uploads and deletions are carried out by the API process that was asked; the janitor
repeats what such a process left undone (see ``image.data``).  Any number of them may run.
"""

from __future__ import annotations

import logging
import threading
import uuid
from typing import Any

from oslo_config import cfg

from conductor.direct_journal import DirectJournal
from core.pools import Periodic, Pool
from db import image_imports
from db.sessions import Databases
from image.data import ImageData
from image.imports import ACTIONS, Importer
from lifecycle.engine import Engine
from lifecycle.roles import Role
from lifecycle.steps import Run

LOG = logging.getLogger(__name__)
GROUP = "image"
OPTS: list[cfg.Opt] = [
    cfg.IntOpt("janitor_interval", default=30, min=1, help="Seconds between two rounds of the janitor."),
    cfg.IntOpt("import_threads", default=4, min=1, help="Imports that one worker carries out at once."),
    cfg.FloatOpt("import_interval", default=1, min=0.01, help="Seconds between looks for imports."),
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [(GROUP, OPTS)]


class ImageRole(Role):
    """Runs imports in a pool, and the janitor in a thread."""

    name = "image"

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        conf.register_opts(OPTS, group=GROUP)
        self._databases = Databases(conf)
        self._data = ImageData(conf, self._databases)
        self._importer = Importer(conf, self._databases, self._data)
        self._engine = Engine()
        self._journal = DirectJournal(
            self._databases.global_,
            f"image-{conf.host}-{uuid.uuid4().hex[:8]}",
            image_imports.end,
            lease_s=conf.image.upload_lease,
        )
        self._threads = conf.image.import_threads
        self._pool = Pool("image-import", self._threads)
        self._loop = Periodic("image-take", conf.image.import_interval, self.take)
        self._renewal = Periodic("image-leases", conf.image.upload_lease / 3, self._journal.renew)
        self._runs: dict[str, Run] = {}
        self._interval = conf.image.janitor_interval
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="image-janitor", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._loop.start()
        self._renewal.start()

    def stop(self) -> None:
        self._stopping.set()
        self._loop.stop()
        for run in list(self._runs.values()):
            run.fenced.set()  # another worker begins it again when the lease has run out
        self._pool.shutdown()
        self._renewal.stop()
        self._thread.join(10)
        self._databases.dispose()

    def take(self) -> None:
        """Lease imports that wait, as many as there are threads for."""
        free = self._threads - self._journal.held
        if free <= 0:
            return
        for row in self._journal.take([image_imports.TARGET], ACTIONS.kinds(), free):
            run = Run.of(row, self._importer)
            self._journal.hold(run)
            self._runs[run.intent_id] = run
            self._pool.spawn(self._execute, run, row["error"])

    def _execute(self, run: Run, error: dict[str, Any] | None) -> None:
        try:
            self._engine.execute(ACTIONS[run.kind], run, self._journal, error)
        finally:
            self._journal.release(run)
            # what was staged, or given up; whoever waits for the run waits for this, too
            self._data.remove_soon(run.resource_id)
            self._runs.pop(run.intent_id, None)
        self._loop.ring()

    def _run(self) -> None:
        while True:
            try:
                if done := self._data.sweep() + self._importer.sweep():
                    LOG.info("the image janitor ended %d things", done)
            except Exception as error:  # noqa: BLE001 - the next round may do better
                LOG.warning("the image janitor failed: %s", error)
            if self._stopping.wait(self._interval):
                return


def make_role(conf: cfg.ConfigOpts) -> ImageRole:
    """The janitor as a role of ``haneul serve``."""
    return ImageRole(conf)
