"""Tokens that open a server's console for some minutes. Only their hashes are kept."""

from __future__ import annotations

import datetime
import hashlib
import uuid
from typing import Any

import sqlalchemy as sa

from core.errors import NotFound
from db.global_schema import console_tokens
from db.types import now


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def issue(
    connection: sa.Connection, server_id: str, console_type: str, host: str, port: int, ttl_s: float
) -> str:
    """A new token; those that have expired go."""
    moment, token = now(), str(uuid.uuid4())
    connection.execute(console_tokens.delete().where(console_tokens.c.expires_at < moment))
    connection.execute(
        console_tokens.insert().values(
            token_hash=_hash(token),
            server_id=server_id,
            console_type=console_type,
            host=host,
            port=port,
            expires_at=moment + datetime.timedelta(seconds=ttl_s),
        )
    )
    return token


def find(connection: sa.Connection, token: str) -> dict[str, Any]:
    """Where a token led when it was issued. :raises NotFound: unknown, or expired."""
    statement = sa.select(console_tokens).where(
        console_tokens.c.token_hash == _hash(token), console_tokens.c.expires_at >= now()
    )
    found = connection.execute(statement).mappings().first()
    if found is None:
        raise NotFound("Token not found")
    return dict(found)
