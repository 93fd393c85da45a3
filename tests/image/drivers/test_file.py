"""The file store: whole or not at all, in constant memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import BadRequest, Conflict, NotFound
from image.drivers.file import CHUNK, FileStore

NAME = "3f1c-upload"


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore("file", tmp_path / "images")


def files(store: FileStore) -> list[Path]:
    return [path for path in store._root.rglob("*") if path.is_file()]


def test_put_get_parts_delete(store: FileStore) -> None:
    data = os.urandom(2 * CHUNK + 17)
    assert store.put([data[:CHUNK], data[CHUNK:]], NAME) == len(data)
    assert b"".join(store.get(NAME)) == data
    assert b"".join(store.get(NAME, 5, 10)) == data[5:15]
    assert b"".join(store.get(NAME, CHUNK - 1, CHUNK + 2)) == data[CHUNK - 1 : 2 * CHUNK + 1]
    assert b"".join(store.get(NAME, len(data) - 3)) == data[-3:]
    store.delete(NAME)
    store.delete(NAME)
    assert not store.exists(NAME)
    with pytest.raises(NotFound):
        store.get(NAME)


def test_an_interrupted_put_leaves_nothing_and_shows_nothing(store: FileStore) -> None:
    seen: list[bool] = []

    def chunks() -> Iterator[bytes]:
        yield b"x" * 1000
        seen.append(store.exists(NAME))
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        store.put(chunks(), NAME)
    assert seen == [False]
    assert files(store) == []


def test_what_a_killed_put_left_is_removed_by_delete(store: FileStore) -> None:
    (store._incoming / NAME).write_bytes(b"half")
    assert not store.exists(NAME)
    with pytest.raises(Conflict):
        store.put([b"new"], NAME)
    store.delete(NAME)
    assert files(store) == []
    assert store.put([b"new"], NAME) == 3


def test_an_object_is_never_replaced(store: FileStore) -> None:
    store.put([b"first"], NAME)
    with pytest.raises(Conflict):
        store.put([b"second"], NAME)
    assert b"".join(store.get(NAME)) == b"first"
    assert len(files(store)) == 1


def test_zeros_become_holes(store: FileStore) -> None:
    assert store.put([bytes(CHUNK)] * 8 + [b"end"], NAME) == 8 * CHUNK + 3
    assert store.put([bytes(CHUNK)] * 8, "hole-only") == 8 * CHUNK
    path = store._path(NAME)
    assert path.stat().st_blocks * 512 < CHUNK
    assert b"".join(store.get(NAME)) == bytes(8 * CHUNK) + b"end"
    assert store._path("hole-only").stat().st_size == 8 * CHUNK


@pytest.mark.parametrize("name", ["", "../../etc/passwd", ".incoming", "a/b", "x\0y"])
def test_names_stay_in_the_folder(store: FileStore, name: str) -> None:
    with pytest.raises(BadRequest):
        store.put([b"x"], name)


def test_a_reader_can_be_closed_early(store: FileStore) -> None:
    store.put([b"x" * 3 * CHUNK], NAME)
    reader = store.get(NAME)
    assert len(next(reader)) == CHUNK
    reader.close()  # type: ignore[attr-defined]
    assert list(reader) == []
