"""Who asks: the server that the proxy on its host has signed for, in the words of OpenStack's metadata agent.

A guest can't reach this service: it speaks to the proxy on its host, which throws away what
the guest says about itself. What arrives here without a valid signature comes from somebody else.
"""

from __future__ import annotations

import logging
import uuid

import webob

from core import metadata as signing
from core.errors import BadRequest, Forbidden, NotFound
from db import servers
from db.servers import Located
from db.sessions import Databases

LOG = logging.getLogger(__name__)
INSTANCE_ID = "X-Instance-ID"
TENANT_ID = "X-Tenant-ID"
SIGNATURE = "X-Instance-ID-Signature"


def server_of(request: webob.Request, databases: Databases, secret: str) -> Located:
    """The server that asks.

    :raises BadRequest: a header is missing or ambiguous. :raises Forbidden: not signed by a proxy of ours.
    :raises NotFound: there is no such server in this project.
    """
    server_id, project_id = _one(request, INSTANCE_ID), _one(request, TENANT_ID)
    claimed = request.headers.get(SIGNATURE, "")
    if not secret:
        LOG.error("[%s] shared_secret is empty: no guest is answered", signing.GROUP)
    if not claimed.isascii() or not signing.vouched(secret, server_id, claimed):
        LOG.warning("a request for server %s from %s is not signed", server_id, request.remote_addr)
        raise Forbidden("Invalid proxy request signature.")
    try:
        found = servers.find(databases, str(uuid.UUID(server_id)))
    except (NotFound, ValueError):
        raise _nothing() from None
    if found.row["project_id"] != project_id:
        LOG.warning("server %s is asked for with project %s, not its own", server_id, project_id)
        raise _nothing()
    return found


def _one(request: webob.Request, name: str) -> str:
    value = str(request.headers.get(name, "")).strip()
    if not value:
        raise BadRequest(f"{name} header is missing from request.")
    if "," in value:
        # two headers of one name arrive joined: whose is it?
        raise BadRequest(f"Multiple {name} headers found within request.")
    return value


def _nothing() -> NotFound:
    return NotFound("There is no metadata for this server.")
