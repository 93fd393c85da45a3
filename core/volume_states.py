"""State tables of block storage: volumes, snapshots, backups, groups, attachments.

Names of states are upstream's.  The API looks here before it writes an intent;
the journal applies the row's end when the intent ends (``db.volume_ends``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from core.errors import BadRequest, Conflict

PREVIOUS = "<previous>"
"""As the end of a transition: what the resource showed before it began."""
GONE = "<gone>"
"""As the end of a transition: the row goes."""


@dataclasses.dataclass(frozen=True)
class Transition:
    """What one kind of intent needs and does to the status of its resource.

    ``from_``: statuses that allow it (None: every one). ``shows``: the status while it
    waits and runs (None leaves it). ``done``/``failed``: the status at the end (None
    leaves it). ``overtakes``: cancels a running intent instead of being refused.
    ``doing``: in words, for messages.
    """

    kind: str
    doing: str
    from_: tuple[str, ...] | None
    shows: str | None
    done: str | None
    failed: str | None
    overtakes: bool = False


def _table(*transitions: Transition) -> dict[str, Transition]:
    return {each.kind: each for each in transitions}


_DELETABLE = ("available", "error", "error_restoring", "error_extending", "error_managing", "error_deleting")

VOLUME = _table(
    Transition("volume.create", "create", ("creating",), "creating", "available", "error"),
    Transition("volume.manage", "manage", ("managing",), "managing", "available", "error_managing"),
    Transition("volume.delete", "delete", _DELETABLE, "deleting", GONE, "error_deleting"),
    Transition("volume.force_delete", "delete", None, "deleting", GONE, "error_deleting", overtakes=True),
    Transition("volume.unmanage", "unmanage", ("available", "error"), "unmanaging", GONE, "error_unmanaging"),
    Transition("volume.extend", "extend", ("available", "in-use"), "extending", PREVIOUS, "error_extending"),
    Transition("volume.retype", "retype", ("available", "in-use"), "retyping", PREVIOUS, PREVIOUS),
    Transition("volume.migrate", "migrate", ("available", "in-use"), None, PREVIOUS, PREVIOUS),
    Transition(
        "volume.upload_image", "upload to an image", ("available", "in-use"), "uploading", PREVIOUS, PREVIOUS
    ),
    Transition("volume.revert", "revert", ("available",), "reverting", "available", "error"),
    Transition(
        "volume.reimage", "re-image", ("available", "error", "reserved"), "downloading", PREVIOUS, "error"
    ),
)
"""``migrate`` shows itself in migration_status; with lock_volume the status is ``maintenance``."""

SNAPSHOT = _table(
    Transition("snapshot.create", "create", ("creating",), "creating", "available", "error"),
    Transition("snapshot.manage", "manage", ("creating",), "creating", "available", "error"),
    Transition(
        "snapshot.delete",
        "delete",
        ("available", "error", "error_deleting", "error_unmanaging"),
        "deleting",
        GONE,
        "error_deleting",
        # the host that should have taken it says so (os-update_snapshot_status) before the creation has ended
        overtakes=True,
    ),
    Transition("snapshot.force_delete", "delete", None, "deleting", GONE, "error_deleting", overtakes=True),
    Transition(
        "snapshot.unmanage",
        "unmanage",
        ("available", "error", "error_unmanaging"),
        "unmanaging",
        GONE,
        "error_unmanaging",
    ),
)

BACKUP = _table(
    Transition("backup.create", "create", ("creating",), "creating", "available", "error"),
    Transition("backup.restore", "restore", ("available",), "restoring", "available", "available"),
    Transition("backup.delete", "delete", ("available", "error"), "deleting", GONE, "error_deleting"),
    Transition("backup.force_delete", "delete", None, "deleting", GONE, "error_deleting", overtakes=True),
    Transition("backup.import", "import", ("creating",), "creating", "available", "error"),
)
"""While a backup is made its volume is ``backing-up``; while one is restored, ``restoring-backup``."""

GROUP = _table(
    Transition("group.create", "create", ("creating",), "creating", "available", "error"),
    Transition("group.update", "update", ("available",), "updating", "available", "error"),
    Transition("group.delete", "delete", ("available", "error"), "deleting", GONE, "error_deleting"),
)

GROUP_SNAPSHOT = _table(
    Transition("group_snapshot.create", "create", ("creating",), "creating", "available", "error"),
    Transition("group_snapshot.delete", "delete", ("available", "error"), "deleting", GONE, "error_deleting"),
)

TABLES = {
    "volume": VOLUME,
    "snapshot": SNAPSHOT,
    "backup": BACKUP,
    "group": GROUP,
    "group_snapshot": GROUP_SNAPSHOT,
}
"""resource_type of an intent → its table"""


class AttachmentStatus:
    """Attachments move within a request, not by intents: reserved → attaching → attached → gone."""

    RESERVED = "reserved"
    ATTACHING = "attaching"
    ATTACHED = "attached"
    DETACHING = "detaching"
    DETACHED = "detached"
    ERROR_ATTACHING = "error_attaching"
    ERROR_DETACHING = "error_detaching"


ATTACHMENT: dict[str, tuple[str, ...]] = {
    AttachmentStatus.RESERVED: ("attaching",),
    AttachmentStatus.ATTACHING: ("attached", "reserved", "error_attaching"),
    AttachmentStatus.ATTACHED: ("detaching",),
    AttachmentStatus.DETACHING: ("attached", "detached", "error_detaching"),
    AttachmentStatus.DETACHED: ("reserved", "attaching"),
    AttachmentStatus.ERROR_ATTACHING: ("attaching", "detaching"),
    AttachmentStatus.ERROR_DETACHING: ("detaching",),
}


def volume_status_of(attachments: Iterable[str]) -> str:
    """The status of a volume that has attachments in these statuses: the strongest shows."""
    found = set(attachments)
    for attachment, volume in (
        ("attached", "in-use"),
        ("detaching", "detaching"),
        ("attaching", "attaching"),
        ("error_attaching", "error_attaching"),
        ("reserved", "reserved"),
    ):
        if attachment in found:
            return volume
    return "available"


def check(
    resource_type: str, kind: str, resource_id: str, status: str, *, conflict: bool = False
) -> Transition:
    """The transition, if the resource's status allows it.

    ``conflict``: answer 409 instead of 400; upstream uses 400 almost everywhere.

    :raises BadRequest: (or Conflict) the status forbids it.
    """
    transition = TABLES[resource_type][kind]
    if transition.from_ is None or status in transition.from_:
        return transition
    allowed = " or ".join(transition.from_)
    message = (
        f"Invalid {resource_type}: to {transition.doing} {resource_type} {resource_id} its status must be"
        f" {allowed}, but it is {status}."
    )
    raise (Conflict if conflict else BadRequest)(message, code="haneul.volume.status")
