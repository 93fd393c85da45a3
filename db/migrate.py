"""Brings a database to this version's schema, and says how it differs from it.

Alembic's revisions in ``db.migrations`` are run without its command line and
``env.py``: an engine and the kind of database (``global`` or ``cell``) are all it
takes.  A revision may be run again after a crash in its middle (MariaDB commits
each statement that changes a table): every operation in it says IF NOT EXISTS,
and tests cut it off at each statement.  Two upgrades at once wait for each other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError

from core.errors import Conflict, Unavailable

IS_TO_BE_RUN = "is to be run"
"""How a difference ends that an upgrade mends."""
FOLDERS = {"global": "global_", "cell": "cell"}
_LOCK_S = 120
_LOCK_NAME = "haneul-upgrade"
_LOCK_KEY = 0x68616E  # PostgreSQL's advisory locks are numbers


def upgrade(engine: sa.Engine, kind: str) -> None:
    """Bring a ``global`` or ``cell`` database to the newest revision; twice is harmless.

    :raises Conflict: the database was made by a version that this one does not know.
    :raises Unavailable: another upgrade of it has been running for two minutes.
    """
    with engine.execution_options(haneul_write=True).connect() as connection:
        if engine.dialect.name == "postgresql":
            # tables and revision change together or not at all; the lock ends with the transaction
            with connection.begin():
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_KEY)))
                _run(connection, kind)
        elif engine.dialect.name == "sqlite":
            with connection.begin():  # BEGIN IMMEDIATE: one writer
                _run(connection, kind)
        else:
            with _locked(connection):
                _run(connection, kind)
                connection.commit()


@contextlib.contextmanager
def _locked(connection: sa.Connection) -> Iterator[None]:
    """MariaDB: a lock of the session, since each DDL statement commits by itself."""
    # locks are the server's, not the database's
    name = sa.func.concat(sa.func.left(sa.func.database(), 40), ":", _LOCK_NAME)
    if connection.execute(sa.select(sa.func.get_lock(name, _LOCK_S))).scalar_one() != 1:
        raise Unavailable(f"another upgrade of this database has been running for {_LOCK_S} seconds")
    try:
        yield
    finally:
        connection.rollback()
        if not connection.invalidated:  # a connection that was cut took its lock with it
            connection.execute(sa.select(sa.func.release_lock(name)))
            connection.commit()


def _run(connection: sa.Connection, kind: str) -> None:
    script = _script(kind)

    def steps(revision: Any, _context: MigrationContext) -> Any:
        try:
            return script._upgrade_revs("head", revision)
        except (CommandError, RevisionError) as failure:
            raise _unknown(kind, revision, failure) from failure

    context = _context(connection, fn=steps)
    with Operations.context(context):
        context.run_migrations()


def pending(engine: sa.Engine, kind: str) -> list[str]:
    """The revisions that ``upgrade`` would run, oldest first; [] when there are none.

    :raises Conflict: as ``upgrade`` does.
    """
    script = _script(kind)
    with engine.connect() as connection:
        heads = _context(connection).get_current_heads()
    try:
        due = list(script.iterate_revisions("head", heads or "base"))
    except (CommandError, RevisionError) as failure:
        raise _unknown(kind, heads, failure) from failure
    return [f"{revision.revision} ({revision.doc})" for revision in reversed(due)]


def differences(engine: sa.Engine, kind: str) -> list[str]:
    """What an upgrade would run, else how tables differ from the models; [] when all fits."""
    try:
        due = pending(engine, kind)
    except Conflict as failure:
        return [failure.message]
    if due:
        return [f"revision {revision} {IS_TO_BE_RUN}" for revision in due]
    from alembic.autogenerate import compare_metadata

    with engine.connect() as connection:
        context = _context(connection, compare_type=_compare_type)
        return [_sentence(item) for item in compare_metadata(context, metadata_of(kind))]


def metadata_of(kind: str) -> sa.MetaData:
    """The models of a kind of database."""
    if kind == "global":
        from db.global_schema import global_metadata

        return global_metadata
    from db.cell_schema import cell_metadata

    return cell_metadata


def _script(kind: str) -> ScriptDirectory:
    return ScriptDirectory(str(Path(__file__).parent / "migrations" / FOLDERS[kind]))


def _context(connection: sa.Connection, **options: Any) -> MigrationContext:
    # alembic leaves transactions alone: upgrade() has begun its own where the database can roll DDL back
    return MigrationContext.configure(connection, opts={"transactional_ddl": False, **options})


def _unknown(kind: str, revision: Any, cause: Exception) -> Conflict:
    at = revision if isinstance(revision, str) else ", ".join(revision)
    return Conflict(
        f"the {kind} database is at revision {at}, which this version does not know: it was made by "
        "a newer version, by one between releases (then it has to be made anew), or is of another kind",
        cause=cause,
    )


def _compare_type(
    context: MigrationContext, _inspected: Any, inspected: Any, model: sa.Column[Any], model_type: Any
) -> bool | None:
    """Types as the database writes them; booleans and the like come back under other names."""
    implementation = model_type.dialect_impl(context.dialect)
    if isinstance(implementation, sa.types.TypeDecorator):
        implementation = implementation.impl_instance.dialect_impl(context.dialect)
    if isinstance(implementation, sa.Boolean) and isinstance(inspected, (sa.Boolean, sa.Integer)):
        return False
    return None  # alembic's own comparison


def _sentence(item: object) -> str:
    if isinstance(item, list):  # changes of one column come as a list
        return "; ".join(_sentence(part) for part in item)
    assert isinstance(item, tuple)
    names = [
        getattr(part, "name", part) for part in item[1:] if isinstance(part, (str, sa.schema.SchemaItem))
    ]
    return f"{str(item[0]).replace('_', ' ')}: {' '.join(str(name) for name in names if name)}"
