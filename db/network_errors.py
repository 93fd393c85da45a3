"""Errors of the Network API: haneul's few classes, with upstream's type names as codes.

``code`` is ``network.`` and the name that clients find in ``NeutronError.type``
(see ``api.network.common.neutron_format``).
"""

from __future__ import annotations

from core.errors import BadRequest, Conflict, Forbidden, NotFound

PREFIX = "network."


def bad_request(type_: str, message: str) -> BadRequest:
    return BadRequest(message, code=PREFIX + type_)


def invalid_input(message: str) -> BadRequest:
    return bad_request("InvalidInput", f"Invalid input for operation: {message}.")


def conflict(type_: str, message: str, cause: object = None) -> Conflict:
    return Conflict(message, code=PREFIX + type_, cause=cause)


def forbidden(type_: str, message: str) -> Forbidden:
    return Forbidden(message, code=PREFIX + type_)


def not_found(type_: str, noun: str, identifier: str) -> NotFound:
    """:param type_: "NetworkNotFound"; ``noun``: how the message calls it."""
    return NotFound(f"{noun} {identifier} could not be found.", code=PREFIX + type_)
