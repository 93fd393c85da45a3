"""Key pairs: public keys by user (global database). Private keys are never stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exc

from core.errors import BadRequest, Conflict, NotFound
from db.global_schema import keypairs


def list_(
    connection: sa.Connection, user_id: str, marker: str | None = None, limit: int | None = None
) -> Sequence[sa.RowMapping]:
    """A user's key pairs by name. :raises BadRequest: the marker is none of them."""
    statement = sa.select(keypairs).where(keypairs.c.user_id == user_id).order_by(keypairs.c.name)
    if marker is not None:
        known = sa.select(keypairs.c.id).where(keypairs.c.user_id == user_id, keypairs.c.name == marker)
        if connection.execute(known).first() is None:
            raise BadRequest(f"marker [{marker}] not found")
        statement = statement.where(keypairs.c.name > marker)
    if limit is not None:
        statement = statement.limit(limit)
    return connection.execute(statement).mappings().all()


def get(connection: sa.Connection, user_id: str, name: str) -> sa.RowMapping:
    """:raises NotFound:"""
    statement = sa.select(keypairs).where(keypairs.c.user_id == user_id, keypairs.c.name == name)
    row = connection.execute(statement).mappings().first()
    if row is None:
        raise NotFound(f"Keypair {name} not found for user {user_id}")
    return row


def create(connection: sa.Connection, values: Mapping[str, Any]) -> sa.RowMapping:
    """:raises Conflict: the user has one of this name."""
    try:
        connection.execute(keypairs.insert().values(**values))
    except db_exc.DBDuplicateEntry as error:
        raise Conflict(f"Key pair '{values['name']}' already exists.") from error
    return get(connection, values["user_id"], values["name"])


def delete(connection: sa.Connection, user_id: str, name: str) -> None:
    """:raises NotFound:"""
    statement = keypairs.delete().where(keypairs.c.user_id == user_id, keypairs.c.name == name)
    if not connection.execute(statement).rowcount:
        raise NotFound(f"Keypair {name} not found for user {user_id}")
