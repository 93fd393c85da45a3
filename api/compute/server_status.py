"""What a server's vm_state and task_state are called in the API's ``status``, and back."""

from __future__ import annotations

from collections.abc import Iterable

from db.server_list import StateFilter
from lifecycle.states import VmState

UNKNOWN = "UNKNOWN"
_REBUILDING = dict.fromkeys(("rebuilding", "rebuild_block_device_mapping", "rebuild_spawning"), "REBUILD")
_RESIZING = dict.fromkeys(("resize_prep", "resize_migrating", "resize_migrated", "resize_finish"), "RESIZE")
_BY_STATE: dict[str, tuple[str, dict[str, str]]] = {
    VmState.ACTIVE: (
        "ACTIVE",
        {
            **dict.fromkeys(("rebooting", "reboot_pending", "reboot_started"), "REBOOT"),
            **dict.fromkeys(("rebooting_hard", "reboot_pending_hard", "reboot_started_hard"), "HARD_REBOOT"),
            "updating_password": "PASSWORD",
            "migrating": "MIGRATING",
            **_REBUILDING,
            **_RESIZING,
        },
    ),
    VmState.BUILDING: ("BUILD", {}),
    VmState.STOPPED: (
        "SHUTOFF",
        {
            # a stopped server may be rebooted hard
            **dict.fromkeys(("rebooting_hard", "reboot_pending_hard", "reboot_started_hard"), "HARD_REBOOT"),
            **_REBUILDING,
            **_RESIZING,
        },
    ),
    VmState.RESIZED: ("VERIFY_RESIZE", {"resize_reverting": "REVERT_RESIZE"}),
    VmState.PAUSED: ("PAUSED", {"migrating": "MIGRATING"}),
    VmState.SUSPENDED: ("SUSPENDED", {}),
    VmState.RESCUED: ("RESCUE", {}),
    VmState.ERROR: (
        "ERROR",
        {
            **dict.fromkeys(("rebooting_hard", "reboot_pending_hard", "reboot_started_hard"), "HARD_REBOOT"),
            **_REBUILDING,
        },
    ),
    VmState.DELETED: ("DELETED", {}),
    VmState.SOFT_DELETED: ("SOFT_DELETED", {}),
    VmState.SHELVED: ("SHELVED", {}),
    VmState.SHELVED_OFFLOADED: ("SHELVED_OFFLOADED", {}),
}


def status_of(vm_state: str, task_state: str | None) -> str:
    """``active``, ``rebooting`` → ``REBOOT``."""
    default, by_task = _BY_STATE.get(vm_state, (UNKNOWN, {}))
    return by_task.get(task_state, default) if task_state else default


def states_of(statuses: Iterable[str]) -> list[StateFilter]:
    """The states that are shown as one of ``statuses``; empty for unknown ones."""
    wanted = {status.upper() for status in statuses}
    found = []
    for vm_state, (default, by_task) in _BY_STATE.items():
        if default in wanted:
            others = tuple(task for task, status in by_task.items() if status not in wanted)
            found.append(StateFilter(vm_state, but=others))
        else:
            tasks = tuple(task for task, status in by_task.items() if status in wanted)
            if tasks:
                found.append(StateFilter(vm_state, only=tasks))
    return found
