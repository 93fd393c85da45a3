"""The image role: the janitor, who ends what died half-way.

Uploads and deletions are carried out by the API process that was asked; this role
repeats what such a process left undone (see ``image.data``).  It takes no input, so
any number of them may run.
"""

from __future__ import annotations

import logging
import threading

from oslo_config import cfg

from db.sessions import Databases
from image.data import ImageData
from lifecycle.roles import Role

LOG = logging.getLogger(__name__)
GROUP = "image"
OPTS: list[cfg.Opt] = [
    cfg.IntOpt("janitor_interval", default=30, min=1, help="Seconds between two rounds of the janitor."),
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [(GROUP, OPTS)]


class ImageRole(Role):
    """Runs the janitor in a thread."""

    name = "image"

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        conf.register_opts(OPTS, group=GROUP)
        self._databases = Databases(conf)
        self._data = ImageData(conf, self._databases)
        self._interval = conf.image.janitor_interval
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="image-janitor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(10)
        self._databases.dispose()

    def _run(self) -> None:
        while True:
            try:
                if done := self._data.sweep():
                    LOG.info("the image janitor ended %d things", done)
            except Exception as error:  # noqa: BLE001 - the next round may do better
                LOG.warning("the image janitor failed: %s", error)
            if self._stopping.wait(self._interval):
                return


def make_role(conf: cfg.ConfigOpts) -> ImageRole:
    """The janitor as a role of ``haneul serve``."""
    return ImageRole(conf)
