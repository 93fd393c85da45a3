"""Questions to a server's host that wait for the answer, and what failures become."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import oslo_messaging

from api.common.operations import Call
from core.errors import BadRequest, Conflict, HaneulError, Unavailable
from db.servers import Located
from lifecycle.rpc import AgentClient

T = TypeVar("T")


def console_output(call: Call, found: Located, max_bytes: int) -> str:
    """The tail of the serial log. :raises Conflict, Unavailable:"""
    host = found.row["host"]
    return _ask(
        call, found, lambda agent: agent.console_output(call.context, host, found.id, max_bytes=max_bytes)
    )


def diagnostics(call: Call, found: Located) -> dict[str, Any]:
    """In the shape of 2.48. :raises Conflict, Unavailable:"""
    host = found.row["host"]
    return _ask(call, found, lambda agent: agent.diagnostics(call.context, host, found.id))


def vnc(call: Call, found: Located) -> dict[str, Any]:
    """{"host", "port"} of the server's screen. :raises Conflict, BadRequest, Unavailable:"""
    host = found.row["host"]
    return _ask(call, found, lambda agent: agent.vnc(call.context, host, found.id))


def _ask(call: Call, found: Located, question: Callable[[AgentClient], T]) -> T:
    agent = call.services.doorbells.agent(int(found.database.cell_id or 0))
    try:
        return question(agent)
    except oslo_messaging.RemoteError as error:
        raise _translated(found, error, str(error.exc_type), str(error.value)) from error
    except HaneulError as error:
        # within one process what the host raised arrives as it is
        raise _translated(found, error, type(error).__name__, error.message) from error
    except (oslo_messaging.MessagingTimeout, oslo_messaging.MessageDeliveryFailure) as error:
        raise Unavailable(
            "The host of the server does not answer now. Try again later.", cause=error
        ) from error


def _translated(found: Located, error: Exception, kind: str, message: str) -> HaneulError:
    if kind == "Unsupported":
        return BadRequest(message, cause=error)
    if kind in ("NotFound", "Conflict"):
        # it is being built, does not run, or was removed behind our back
        return Conflict(f"Instance {found.id} is not ready", cause=error)
    return HaneulError("The host could not answer the question about the server.", cause=error)
