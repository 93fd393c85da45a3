"""The password that a guest makes for itself and leaves here, encrypted with its key pair's public key.

The owner reads it at ``/servers/{id}/os-server-password``. It can be left once; the owner may clear it.
"""

from __future__ import annotations

import webob

from core.errors import BadRequest, Conflict
from db import servers
from db.servers import Located
from db.sessions import Databases, retrying

MAX_BYTES = 1020
KEY = "password"
"""In ``system_metadata``."""


def read(found: Located) -> bytes:
    return str(found.row["system_metadata"].get(KEY, "")).encode()


def leave(request: webob.Request, databases: Databases, server_id: str) -> None:
    """Keep the body of a POST.

    :raises BadRequest: empty, too long or no text. :raises Conflict: there is one.
    """
    body = request.body_file.read(MAX_BYTES + 1)
    if len(body) > MAX_BYTES:
        raise BadRequest(f"The password is too long: at most {MAX_BYTES} bytes.")
    try:
        text = body.decode("ascii")
    except UnicodeDecodeError:
        raise BadRequest("The password must be encrypted and encoded as base64.") from None
    if not text or not text.replace("\n", "").replace("\r", "").isprintable():
        raise BadRequest("The password must be encrypted and encoded as base64.")
    _write(databases, server_id, text)


@retrying
def _write(databases: Databases, server_id: str, text: str) -> None:
    found = servers.find(databases, server_id)
    known = found.row["system_metadata"]
    if known.get(KEY):
        raise Conflict("The server has a password already.")
    with found.database.write() as connection:
        servers.stay(connection, found)
        servers.change(connection, found.database, found.row, {"system_metadata": {**known, KEY: text}})
