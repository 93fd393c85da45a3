"""The states of an intent: known to the tables, the journal and whoever runs steps."""

from __future__ import annotations

import enum


class IntentState(enum.StrEnum):
    """waiting → running → done | failed | cancelled.

    ``ending``: the worker has undone its work and the end is being written in
    several databases; whoever finds it so goes on with that.
    """

    WAITING = "waiting"
    RUNNING = "running"
    ENDING = "ending"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINISHED = (IntentState.DONE, IntentState.FAILED, IntentState.CANCELLED)
UNFINISHED = (IntentState.WAITING, IntentState.RUNNING, IntentState.ENDING)

CLEANUP_OF = {
    "server.create": "server.cleanup",
    "server.create_image": "server.forget_image",
    "server.attach_volume": "server.forget_volume",
    "server.detach_volume": "server.forget_volume",
    "server.swap_volume": "server.settle_swap",
}
"""Kind → what removes its leavings when its own undo can't, or can't any more."""
CLEANUPS = frozenset(CLEANUP_OF.values())
"""Nobody waits for these: they hold nothing up, and go on until they work."""

RELEASE_VOLUMES, CONDUCTOR = "server.release_volumes", "conductor"
"""An intent of the global database, and its target: a server was deleted that never had a host."""
