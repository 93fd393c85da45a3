"""The journal for workers beside the database: leases, fences, overtaking, tries."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from conductor.direct_journal import DirectJournal
from core.context import admin_context
from core.intents import IntentState
from db import intents as db_intents
from db.global_schema import global_metadata, intents
from db.sessions import Database, make_engine
from db.types import now
from lifecycle.steps import Fenced, Run

Row = dict[str, Any]


class Book:
    """A database, journals over it, and what ended there."""

    def __init__(self, url: str) -> None:
        self.database = Database(make_engine(url))
        global_metadata.create_all(self.database.engine)
        self.ended: list[tuple[str, str]] = []

    def journal(self, owner: str, **options: Any) -> DirectJournal:
        return DirectJournal(self.database, owner, self._end, retry_s=0, **options)

    def _end(
        self, connection: Any, row: Row, state: str, outcome: Row, error: Row | None, moment: Any
    ) -> None:
        self.ended.append((row["id"], state))

    def write(self, kind: str = "x.do", resource: str = "r", exclusive: bool = True) -> str:
        row = db_intents.row(
            kind, "x", resource, admin_context("req"), {}, target="t", exclusive=exclusive, project_id="p"
        )
        with self.database.write() as connection:
            db_intents.insert(connection, intents, [row])
        return str(row["id"])

    def expire(self) -> None:
        past = now() - datetime.timedelta(seconds=1)
        with self.database.write() as connection:
            connection.execute(sa.update(intents).values(lease_until=past))

    def state(self, identifier: str) -> str:
        with self.database.read() as connection:
            found = sa.select(intents.c.state).where(intents.c.id == identifier)
            return str(connection.execute(found).scalar_one())


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    made = Book(f"sqlite:///{tmp_path}/global.sqlite")
    yield made
    made.database.dispose()


def run_of(row: Row) -> Run:
    return Run(row["id"], row["kind"], row["attempts"], row["resource_id"], row["arguments"], {}, None)


def take(journal: DirectJournal) -> list[Row]:
    return journal.take(["t"], ["x.do", "x.delete"], 10)


def test_one_of_two_workers_gets_an_intent(book: Book) -> None:
    one, two = book.journal("one"), book.journal("two")
    identifier = book.write()
    (row,) = take(one)
    assert take(two) == []
    one.end(run_of(row), "done", [], outcome={})
    assert book.ended == [(identifier, IntentState.DONE.value)]
    assert book.state(identifier) == "done"


def test_a_worker_whose_lease_was_taken_writes_nothing_more(book: Book) -> None:
    one, two = book.journal("one"), book.journal("two")
    book.write()
    (old,) = take(one)
    late = run_of(old)
    one.hold(late)
    book.expire()
    (new,) = take(two)
    assert new["attempts"] == 2
    for write in (
        lambda: one.begin(late),
        lambda: one.checkpoint(late, "s", [], True),
        lambda: one.end(late, "done", [], outcome={}),
    ):
        with pytest.raises(Fenced):
            write()
    one.renew()
    assert late.fenced.is_set() and book.ended == []
    two.end(run_of(new), "done", [], outcome={})
    assert len(book.ended) == 1


def test_a_lease_that_is_renewed_is_not_taken(book: Book) -> None:
    one, two = book.journal("one"), book.journal("two")
    book.write()
    (row,) = take(one)
    run = run_of(row)
    one.hold(run)
    book.expire()
    one.renew()
    assert take(two) == [] and not run.fenced.is_set()


def test_what_overtakes_waits_for_the_end_of_what_runs(book: Book) -> None:
    journal = book.journal("one")
    first = book.write()
    (row,) = take(journal)
    run = run_of(row)
    journal.hold(run)
    with book.database.write() as connection:
        db_intents.overtake(connection, intents, "r")
    second = book.write("x.delete")
    assert take(journal) == []
    journal.renew()
    assert run.cancelled.is_set()
    journal.end(run, "cancelled", [], error={"code": "haneul.cancelled"})
    (deletion,) = take(journal)
    assert deletion["id"] == second and book.ended == [(first, "cancelled")]


def test_tries_come_to_an_end(book: Book) -> None:
    journal = book.journal("one", max_attempts=3)
    identifier = book.write()
    for attempt in (1, 2, 3):
        (row,) = take(journal)
        assert row["attempts"] == attempt
        journal.end(run_of(row), "retry", [], error={"message": "no"})
    assert take(journal) == []
    assert book.ended == [(identifier, "failed")] and book.state(identifier) == "failed"
