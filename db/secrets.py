"""Secrets of projects. What is stored is sealed by ``core.key_file`` and bound to its row and project.

Every query names the project: nobody reaches another one's secrets through here.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from core.errors import Conflict, NotFound
from core.key_file import KeyFile, Sealed
from db.global_schema import secrets
from db.sessions import Database, retrying
from db.types import now

Row = dict[str, Any]
_SHOWN = [column for column in secrets.columns if column.name not in ("sealed", "sealed_with")]
_BATCH = 500


def _bound_to(identifier: str, project_id: str) -> str:
    return f"{identifier} of {project_id}"


def create(
    connection: sa.Connection, keys: KeyFile, project_id: str, content: bytes, values: Mapping[str, Any]
) -> str:
    """Store ``content``; the new secret's id."""
    identifier = str(uuid.uuid4())
    sealed = keys.seal(content, _bound_to(identifier, project_id))
    row = {
        **values,
        "id": identifier,
        "project_id": project_id,
        "sealed": sealed.data,
        "sealed_with": sealed.key_id,
    }
    connection.execute(secrets.insert(), [row])
    return identifier


def _alive() -> sa.ColumnElement[bool]:
    return sa.or_(secrets.c.expiration.is_(None), secrets.c.expiration > now())


def get(connection: sa.Connection, project_id: str, identifier: str) -> Row:
    """What is known of a secret, without it. :raises NotFound: the project has none of this id."""
    statement = sa.select(*_SHOWN).where(
        secrets.c.id == identifier, secrets.c.project_id == project_id, _alive()
    )
    row = connection.execute(statement).mappings().first()
    if row is None:
        raise NotFound("Secret not found.")
    return dict(row)


def content(connection: sa.Connection, keys: KeyFile, project_id: str, identifier: str) -> bytes:
    """The secret itself. :raises NotFound: :raises Conflict: the key file does not open it."""
    statement = sa.select(secrets.c.sealed, secrets.c.sealed_with).where(
        secrets.c.id == identifier, secrets.c.project_id == project_id, _alive()
    )
    row = connection.execute(statement).first()
    if row is None:
        raise NotFound("Secret not found.")
    return keys.open(Sealed(row.sealed_with, row.sealed), _bound_to(identifier, project_id))


def list_(
    connection: sa.Connection, project_id: str, filters: Mapping[str, Any], limit: int, offset: int
) -> tuple[list[Row], int]:
    """A page of the project's secrets, oldest first, without their content; and how many there are."""
    where = [secrets.c.project_id == project_id, _alive()]
    where += [secrets.c[name] == value for name, value in filters.items()]
    total = connection.execute(sa.select(sa.func.count()).select_from(secrets).where(*where)).scalar_one()
    statement = sa.select(*_SHOWN).where(*where).order_by(secrets.c.created_at, secrets.c.id)
    rows = connection.execute(statement.limit(limit).offset(offset)).mappings()
    return [dict(row) for row in rows], int(total)


def delete(connection: sa.Connection, project_id: str, identifier: str) -> None:
    """:raises NotFound: the project has none of this id."""
    statement = secrets.delete().where(secrets.c.id == identifier, secrets.c.project_id == project_id)
    if connection.execute(statement).rowcount != 1:
        raise NotFound("Secret not found.")


def reseal(database: Database, keys: KeyFile) -> int:
    """Encrypt anew, with the first key, what another key encrypted; how many. May be cut off and repeated."""
    current, done = keys.current(), 0
    while rows := _others(database, current):
        for row in rows:
            done += _reseal_one(database, keys, row)
    return done


def _others(database: Database, current: str) -> Sequence[Row]:
    statement = sa.select(secrets).where(secrets.c.sealed_with != current).order_by(secrets.c.id)
    with database.read() as connection:
        return [dict(row) for row in connection.execute(statement.limit(_BATCH)).mappings()]


@retrying
def _reseal_one(database: Database, keys: KeyFile, row: Row) -> int:
    bound_to = _bound_to(row["id"], row["project_id"])
    sealed = keys.seal(keys.open(Sealed(row["sealed_with"], row["sealed"]), bound_to), bound_to)
    with database.write() as connection:
        changed = connection.execute(
            secrets.update()
            .where(secrets.c.id == row["id"], secrets.c.sealed_with == row["sealed_with"])
            .values(sealed=sealed.data, sealed_with=sealed.key_id)
        )
    return int(changed.rowcount)


def refuse_old(database: Database, keys: KeyFile) -> None:
    """:raises Conflict: there are secrets that the first key does not open."""
    if rows := _others(database, keys.current()):
        more = "or more " if len(rows) == _BATCH else ""
        raise Conflict(f"{len(rows)} {more}secrets take an older key: run 'haneul keys reseal' first")
