"""Count SQL statements: a list must need as many for a thousand rows as for one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import sqlalchemy as sa

from db.sessions import Databases


@contextlib.contextmanager
def statements(*engines: sa.Engine) -> Iterator[list[str]]:
    """The statements that ``engines`` run inside the block, BEGIN not counted."""
    seen: list[str] = []

    def on_execute(_conn: object, _cursor: object, text: str, *_rest: object) -> None:
        if not text.startswith("BEGIN"):
            seen.append(text)

    for engine in engines:
        sa.event.listen(engine, "before_cursor_execute", on_execute)
    try:
        yield seen
    finally:
        for engine in engines:
            sa.event.remove(engine, "before_cursor_execute", on_execute)


def of(databases: Databases) -> contextlib.AbstractContextManager[list[str]]:
    """All databases of a deployment at once."""
    return statements(databases.global_.engine, *(cell.engine for cell in databases.cells()))
