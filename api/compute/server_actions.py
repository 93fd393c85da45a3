"""POST /servers/{id}/action: power, locks, states, console output."""

from __future__ import annotations

from typing import Any

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.compute import common, host_calls, server_access, server_create
from core.errors import BadRequest
from db import intents, servers
from db.servers import Located
from db.sessions import retrying

_PATH = "/servers/{server_id}/action"
_MAX_CONSOLE_BYTES = 100 * 1024


def _action(name: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    """The body of an action; without a schema anything may stand there, as upstream has it."""
    return v.obj({name: schema if schema is not None else {}}, [name])


_REBOOT = _action(
    "reboot", v.obj({"type": {"enum": ["HARD", "Hard", "hard", "SOFT", "Soft", "soft"]}}, ["type"])
)
_REASON = {"type": "string", "minLength": 1, "maxLength": 255}
_LOCK_273 = _action("lock", {"anyOf": [{"type": "null"}, v.obj({"locked_reason": _REASON})]})
_RESET = _action("os-resetState", v.obj({"state": {"enum": ["active", "error"]}}, ["state"]))
_CONSOLE = _action(
    "os-getConsoleOutput",
    v.obj({"length": {"type": ["integer", "string", "null"], "pattern": r"^-?[0-9]+$", "minimum": -1}}),
)


class ServerActionsController(Controller):
    """What is done to a server that exists."""

    # -- power -----------------------------------------------------------------

    @operation(
        "POST",
        _PATH,
        action="os-start",
        policy="os_compute_api:servers:start",
        status=202,
        body=_action("os-start"),
    )
    def start(self, call: Call) -> None:
        """Start a stopped server."""
        server_access.start(call, "server.start", self._with_guest)

    @operation(
        "POST",
        _PATH,
        action="os-stop",
        policy="os_compute_api:servers:stop",
        status=202,
        body=_action("os-stop"),
    )
    def stop(self, call: Call) -> None:
        """Stop a running server."""
        server_access.start(call, "server.stop")

    @operation(
        "POST", _PATH, action="reboot", policy="os_compute_api:servers:reboot", status=202, body=_REBOOT
    )
    def reboot(self, call: Call) -> None:
        """Reboot a server: SOFT asks the guest, HARD switches off and on."""
        if call.body["reboot"]["type"].upper() == "SOFT":
            server_access.start(call, "server.reboot_soft")
        else:
            server_access.start(call, "server.reboot_hard", self._with_guest)

    def _with_guest(self, call: Call, found: Located) -> dict[str, Any]:
        """The guest anew: what was changed on the host's side is set right by a start."""
        return {"guest": server_create.guest_of(call, found.row).to_dict()}

    # -- locks -----------------------------------------------------------------

    @operation(
        "POST",
        _PATH,
        action="lock",
        policy="os_compute_api:os-lock-server:lock",
        status=202,
        body=(("2.1", _action("lock")), ("2.73", _LOCK_273)),
    )
    def lock(self, call: Call) -> None:
        """Lock a server: only administrators change it then."""
        reason = None
        if call.since("2.73") and call.body["lock"]:
            reason = call.body["lock"].get("locked_reason")

        def change(found: Located) -> dict[str, Any] | None:
            owner = found.row["project_id"] == call.context.project_id
            if found.row["locked_by"] and owner:
                # an owner's lock does not replace an administrator's
                return None
            return {"locked_by": "owner" if owner else "admin", "locked_reason": reason}

        self._at_once(call, "server.lock", change)

    @operation(
        "POST",
        _PATH,
        action="unlock",
        policy="os_compute_api:os-lock-server:unlock",
        status=202,
        body=_action("unlock"),
    )
    def unlock(self, call: Call) -> None:
        """Unlock a server."""

        def change(found: Located) -> dict[str, Any]:
            owner = found.row["project_id"] == call.context.project_id
            if found.row["locked_by"] == "admin" and owner and not common.is_admin(call):
                call.authorize(
                    server_access.target_of(found.row),
                    "os_compute_api:os-lock-server:unlock:unlock_override",
                )
            return {"locked_by": None, "locked_reason": None}

        self._at_once(call, "server.unlock", change)

    @operation(
        "POST",
        _PATH,
        action="os-resetState",
        policy="os_compute_api:os-admin-actions:reset_state",
        status=202,
        body=_RESET,
    )
    def reset_state(self, call: Call) -> None:
        """Declare a server active or in error."""
        state = call.body["os-resetState"]["state"]
        self._at_once(call, "server.reset_state", lambda _found: {"vm_state": state, "task_state": None})

    @retrying
    def _at_once(self, call: Call, kind: str, change: Any) -> None:
        """Change the row and record the action, in one transaction."""
        found = server_access.find(call)
        values = change(found)
        if values is None:
            return
        record = intents.finished_row(kind, "server", found.id, call.context)
        with found.database.write() as connection:
            servers.stay(connection, found)
            servers.change(connection, found.database, found.row, values)
            intents.insert(connection, intents.table(found.database), [record])

    # -- console ---------------------------------------------------------------

    @operation(
        "POST",
        _PATH,
        action="os-getConsoleOutput",
        policy="os_compute_api:os-console-output",
        body=_CONSOLE,
    )
    def console_output(self, call: Call) -> dict[str, Any]:
        """The end of a server's console log."""
        found = server_access.find(call)
        server_access.refuse_unplaced(found)
        length = call.body["os-getConsoleOutput"].get("length")
        lines = None if length is None else int(length)
        if lines is not None and lines < -1:
            raise BadRequest(f"Invalid input for field/attribute length. Value: {length}. At least -1.")
        output = host_calls.console_output(call, found, _MAX_CONSOLE_BYTES)
        if lines is not None and lines >= 0:
            output = "\n".join(output.split("\n")[-lines:]) if lines else ""
        return {"output": output}
