"""Migrations end where the models are, on each kind of database; again, half-way and at once are harmless."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from core.errors import Conflict
from db import migrate
from db.sessions import make_engine

KINDS = sorted(migrate.FOLDERS)


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    engine = make_engine(database_url)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("kind", KINDS)
def test_from_empty_it_equals_the_models(engine: sa.Engine, kind: str) -> None:
    assert len(migrate.pending(engine, kind)) >= 1
    assert "is to be run" in migrate.differences(engine, kind)[0]
    migrate.upgrade(engine, kind)
    assert migrate.pending(engine, kind) == []
    assert migrate.differences(engine, kind) == [], (
        "a table has changed: run 'python -m db.migrations.write --initial' (doc/developing.md)"
    )
    expected = set(migrate.metadata_of(kind).tables) | {"alembic_version"}
    assert set(sa.inspect(engine).get_table_names()) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_twice_is_harmless(engine: sa.Engine, kind: str) -> None:
    migrate.upgrade(engine, kind)
    with engine.begin() as connection:
        connection.execute(
            sa.insert(migrate.metadata_of(kind).tables["server_tags"]).values(server_id="s", tag="t")
        )
    migrate.upgrade(engine, kind)
    assert migrate.differences(engine, kind) == []
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT tag FROM server_tags")).scalars().all() == ["t"]


@pytest.mark.parametrize("kind", KINDS)
def test_cut_off_at_every_statement(engine: sa.Engine, kind: str) -> None:
    """One database whose upgrade dies at its first statement, then at its second, and so on.

    Further on some are left out: each still runs again, many times, over what it left.
    """
    count, dies_at = 0, 0

    def on_execute(_conn: object, _cursor: object, text: str, *_rest: object) -> None:
        nonlocal count
        if text.lstrip().upper().startswith(("CREATE", "INSERT", "ALTER")):
            count += 1
            if count == dies_at:
                raise KeyboardInterrupt("killed here")

    sa.event.listen(engine, "before_cursor_execute", on_execute)
    for dies_at in (*range(1, 10), *range(10, 2000, 23)):  # noqa: B007 - the listener reads it
        count = 0
        try:
            migrate.upgrade(engine, kind)
            break
        except KeyboardInterrupt:
            continue
    assert dies_at > 10
    assert migrate.differences(engine, kind) == []


def test_several_at_once(engine: sa.Engine) -> None:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            migrate.upgrade(engine, "cell")
        except BaseException as failure:  # noqa: BLE001 - shown by the assertion below
            failures.append(failure)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert migrate.differences(engine, "cell") == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("ALTER TABLE servers ADD COLUMN colour VARCHAR(8)", "colour"),
        ("ALTER TABLE services DROP COLUMN disabled_reason", "disabled_reason"),
        ("DROP TABLE server_tags", "server_tags"),
        ("CREATE INDEX ix_new ON servers (node)", "ix_new"),
    ],
)
def test_differences_are_seen(engine: sa.Engine, change: str, said: str) -> None:
    migrate.upgrade(engine, "cell")
    with engine.begin() as connection:
        connection.execute(sa.text(change))
    assert said in "\n".join(migrate.differences(engine, "cell"))


def test_a_database_of_another_version_or_kind_is_refused(engine: sa.Engine) -> None:
    migrate.upgrade(engine, "cell")
    with pytest.raises(Conflict, match="does not know"):
        migrate.upgrade(engine, "global")
    assert "does not know" in migrate.differences(engine, "global")[0]


def test_writing_anew_changes_nothing() -> None:
    """The revisions are what the command would write from the models."""
    from db.migrations import write

    for kind in KINDS:
        if len(list(migrate._script(kind).walk_revisions())) > 1:
            continue  # after the first release the first revision stays as it is
        path, text = write.rendered(kind, f"The first {kind} tables", initial=True)
        assert path.read_text() == text, "run: python -m db.migrations.write --initial"
