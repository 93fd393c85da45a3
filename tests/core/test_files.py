"""Small private files: whole or not at all, and the first one's if asked for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from core.files import write_private


def test_only_the_owner_reads_it_and_nothing_else_is_left(tmp_path: Path) -> None:
    file = tmp_path / "new" / "file"
    write_private(file, "one")
    write_private(file, "two")
    assert file.read_text() == "two"
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(file.parent.iterdir()) == [file]


def test_of_several_that_are_first_one_is(tmp_path: Path) -> None:
    file = tmp_path / "key"
    with ThreadPoolExecutor(8) as pool:
        found = list(
            pool.map(lambda n: (write_private(file, str(n), replace=False), file.read_text())[1], range(32))
        )
    assert len(set(found)) == 1
    assert list(tmp_path.iterdir()) == [file]
