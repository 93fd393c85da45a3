"""State tables: which operation a resource allows in which state, and where it leads.

One table per resource type, as data: the API checks it before it writes an
intent, the journal applies it when the intent ends.  Names of states are
upstream's (vm_state, task_state).
"""

from __future__ import annotations

import dataclasses

from core.errors import Conflict
from core.intents import FINISHED, UNFINISHED, IntentState


class VmState:
    """vm_state of servers, upstream's names."""

    BUILDING = "building"
    ACTIVE = "active"
    STOPPED = "stopped"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    RESCUED = "rescued"
    RESIZED = "resized"
    SHELVED = "shelved"
    SHELVED_OFFLOADED = "shelved_offloaded"
    SOFT_DELETED = "soft-delete"
    DELETED = "deleted"
    ERROR = "error"


@dataclasses.dataclass(frozen=True)
class Transition:
    """What one kind of intent needs and does to its server.

    ``from_``: vm_states that allow it (None: every one). ``task_state``: shown while
    it waits; steps may show their own. ``done``/``failed``: (vm_state, power_state)
    at the end, None leaves them. ``action``: the name in server actions.
    ``overtakes``: cancels a running intent instead of being refused.
    ``when_locked``: allowed for the owner of a locked server.
    ``unreachable_ok``: may be written while the server's host is down.
    """

    kind: str
    action: str
    from_: tuple[str, ...] | None
    task_state: str | None
    done: tuple[str | None, int | None] = (None, None)
    failed: tuple[str | None, int | None] = (None, None)
    overtakes: bool = False
    when_locked: bool = False


_RUNNING, _SHUTDOWN, _NOSTATE = 1, 4, 0

SERVER = {
    transition.kind: transition
    for transition in (
        Transition(
            "server.create",
            "create",
            (VmState.BUILDING,),
            "scheduling",
            done=(VmState.ACTIVE, _RUNNING),
            failed=(VmState.ERROR, _NOSTATE),
        ),
        Transition(
            "server.start",
            "start",
            (VmState.STOPPED,),
            "powering-on",
            done=(VmState.ACTIVE, _RUNNING),
        ),
        Transition(
            "server.stop",
            "stop",
            (VmState.ACTIVE, VmState.ERROR, VmState.PAUSED),
            "powering-off",
            done=(VmState.STOPPED, _SHUTDOWN),
        ),
        Transition(
            "server.reboot_soft",
            "reboot",
            (VmState.ACTIVE,),
            "rebooting",
            done=(VmState.ACTIVE, _RUNNING),
            failed=(VmState.ERROR, None),
        ),
        Transition(
            "server.reboot_hard",
            "reboot",
            (VmState.ACTIVE, VmState.STOPPED, VmState.PAUSED, VmState.SUSPENDED, VmState.ERROR),
            "rebooting_hard",
            done=(VmState.ACTIVE, _RUNNING),
            failed=(VmState.ERROR, None),
        ),
        Transition(
            "server.create_image",
            "createImage",
            (VmState.ACTIVE, VmState.STOPPED, VmState.PAUSED, VmState.SUSPENDED),
            "image_snapshot_pending",
        ),
        Transition(
            "server.attach_interface",
            "attach_interface",
            (VmState.ACTIVE, VmState.PAUSED, VmState.STOPPED),
            None,
        ),
        Transition(
            "server.detach_interface",
            "detach_interface",
            (VmState.ACTIVE, VmState.PAUSED, VmState.STOPPED),
            None,
        ),
        Transition(
            "server.attach_volume",
            "attach_volume",
            (VmState.ACTIVE, VmState.PAUSED, VmState.STOPPED, VmState.RESIZED),
            None,
        ),
        Transition(
            "server.detach_volume",
            "detach_volume",
            (VmState.ACTIVE, VmState.PAUSED, VmState.STOPPED, VmState.SUSPENDED, VmState.RESIZED),
            None,
        ),
        Transition("server.swap_volume", "swap_volume", (VmState.ACTIVE, VmState.PAUSED), None),
        Transition("server.extend_volume", "extend_volume", None, None),
        Transition("server.snapshot_volume", "snapshot_volume", None, None),
        Transition(
            "server.delete",
            "delete",
            None,
            "deleting",
            done=(VmState.DELETED, _NOSTATE),
            failed=(VmState.ERROR, None),
            overtakes=True,
        ),
    )
}


def check_server(kind: str, server_id: str, vm_state: str, task_state: str | None) -> Transition:
    """The transition, if the server's state allows it.

    :raises Conflict: in upstream's words, which clients look for.
    """
    transition = SERVER[kind]
    if transition.from_ is not None and vm_state not in transition.from_:
        raise Conflict(
            f"Cannot '{transition.action}' instance {server_id} while it is in vm_state {vm_state}"
        )
    overtakable = kind == "server.reboot_hard" and task_state in ("rebooting", "rebooting_hard")
    if task_state is not None and not transition.overtakes and not overtakable:
        raise Conflict(
            f"Cannot '{transition.action}' instance {server_id} while it is in task_state {task_state}"
        )
    return transition


__all__ = ["FINISHED", "SERVER", "UNFINISHED", "IntentState", "Transition", "VmState", "check_server"]
