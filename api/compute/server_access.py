"""Finding the server of a path for who asks, and writing operations on it."""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from api.common.operations import Call
from api.compute import common
from core.block_devices import of_deletion
from core.errors import Conflict
from db import intents, servers
from db.servers import Located, Row
from db.sessions import retrying
from lifecycle.server_ports import kept_ports
from lifecycle.states import SERVER, check_server


def find(call: Call, *, deleted: bool = False, shown: bool = False, authorize: bool = True) -> Located:
    """The server of the path. What the asker may not see is not there. ``shown``: see ``db.servers.find``.

    ``authorize``: False when the caller asks policy itself.

    :raises NotFound: none, or another project's. :raises Forbidden: policy says no.
    """
    server_id = call.params["server_id"]
    try:
        canonical = str(uuid.UUID(server_id))
    except ValueError:
        # clients look up by name first: a name is no id
        raise servers.not_found(server_id) from None
    found = servers.find(call.services.databases, canonical, deleted=deleted, shown=shown)
    if found.row["project_id"] != call.context.project_id and not common.is_admin(call):
        raise servers.not_found(server_id)
    if authorize:
        call.authorize(target_of(found.row))
    return found


def target_of(row: Row) -> dict[str, Any]:
    """What policies look at."""
    return {"project_id": row["project_id"], "user_id": row["user_id"]}


def refuse_locked(call: Call, row: Row) -> None:
    """:raises Conflict: the server is locked and the asker no administrator."""
    if row["locked_by"] and not common.is_admin(call):
        raise Conflict(f"Instance {row['id']} is locked")


def refuse_unplaced(found: Located) -> None:
    """:raises Conflict: the operation needs a host, and the server has none."""
    if not found.placed or not found.row["host"]:
        raise Conflict(f"Instance {found.id} is not ready")


_TURN_S = 20.0
_TURN_PAUSE_S = 0.1
Arguments = Callable[[Call, Located], Mapping[str, Any]]


def _no_arguments(_call: Call, _found: Located) -> Mapping[str, Any]:
    return {}


@dataclasses.dataclass(frozen=True)
class Started:
    """An operation that was written: its intent, and the server as it is now."""

    intent_id: str
    row: Row


def start(
    call: Call, kind: str, arguments: Arguments | None = None, values: Arguments | None = None
) -> Started:
    """Write the intent ``kind`` for the server of the path and ring its conductor.

    ``arguments`` makes the intent's from the server as it is found. ``values``: further columns
    of the server that are written with it.
    :raises Conflict: locked, not placed, or its state does not allow it.
    """
    deadline = time.monotonic() + _TURN_S
    while True:
        try:
            found, started = _write(call, kind, arguments or _no_arguments, values)
            break
        except Conflict as error:
            # a change of its interfaces goes on, which upstream puts in a row, too: soon over
            if error.code != "haneul.intent_running" or time.monotonic() > deadline:
                raise
            time.sleep(_TURN_PAUSE_S)
    call.services.doorbells.ring_conductor(int(found.database.cell_id or 0), [started.intent_id])
    return started


@retrying
def _write(call: Call, kind: str, arguments: Arguments, values: Arguments | None) -> tuple[Located, Started]:
    found = find(call)
    row, database = found.row, found.database
    refuse_locked(call, row)
    transition = check_server(kind, row["id"], row["vm_state"], row["task_state"])
    refuse_unplaced(found)
    table = intents.table(database)
    intent = intents.row(
        kind,
        "server",
        row["id"],
        call.context,
        arguments(call, found),
        target=row["host"],
        project_id=row["project_id"],
    )
    with database.write() as connection:
        more = values(call, found) if values else {}
        new = servers.change(connection, database, row, {"task_state": transition.task_state, **more})
        if row["task_state"] is not None:
            # a hard reboot goes over a soft one that hangs
            overtaken = intents.overtake(connection, table, row["id"])
        else:
            overtaken = []
        intents.insert(connection, table, [intent])
    _cancel(call, found, overtaken)
    return found, Started(intent["id"], new)


def ports_of(row: Row) -> dict[str, Any]:
    """What a deletion says of the server's ports: nothing if it never had any."""
    if not (row["networks"] or row["network_info"]):
        return {}
    return {"ports": {"kept": kept_ports(row["networks"], row["network_info"])}}


def parts_of(row: Row) -> dict[str, Any]:
    """What a deletion says of what the server has at other services."""
    return {**ports_of(row), **of_deletion(row["block_devices"] or [])}


def delete(call: Call) -> None:
    """Delete the server of the path, wherever it is. Again while it goes on: nothing more happens.

    :raises Conflict: locked.
    """
    moved = 0
    while not _delete_once(call):
        # it moved to its cell between our look and our transaction
        moved += 1
        if moved > 5:
            raise Conflict("The server is being placed. Try again.")


@retrying
def _delete_once(call: Call) -> bool:
    """False: the server moved meanwhile; look again."""
    found = find(call)
    row, database = found.row, found.database
    refuse_locked(call, row)
    if not found.placed:
        record = intents.finished_row("server.delete", "server", row["id"], call.context)
        with database.write() as connection:
            return servers.delete_unplaced(connection, database, row, record) != "moved"
    if row["task_state"] == SERVER["server.delete"].task_state:
        return True
    intent = intents.row(
        "server.delete",
        "server",
        row["id"],
        call.context,
        parts_of(row),
        target=row["host"],
        project_id=row["project_id"],
    )
    table = intents.table(database)
    with database.write() as connection:
        servers.change(connection, database, row, {"task_state": SERVER["server.delete"].task_state})
        overtaken = intents.overtake(connection, table, row["id"])
        intents.insert(connection, table, [intent])
    _cancel(call, found, overtaken)
    call.services.doorbells.ring_conductor(int(database.cell_id or 0), [intent["id"]])
    return True


def _cancel(call: Call, found: Located, overtaken: list[intents.Row]) -> None:
    """Tell the hosts that work on something that was overtaken."""
    by_host: dict[str, list[str]] = {}
    for each in overtaken:
        if each["target"]:
            by_host.setdefault(each["target"], []).append(each["id"])
    for host, ids in by_host.items():
        call.services.doorbells.cancel(int(found.database.cell_id or 0), host, ids)
