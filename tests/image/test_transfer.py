"""An upload is hashed, bounded and stored as it streams, whole or not at all."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pytest

from core.errors import DriverError, TooLarge
from image import transfer
from image.drivers.file import FileStore
from image.inspect import Inspection

MIB = 1 << 20


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore("file", tmp_path / "images", fsync=False)


def leftovers(store: FileStore) -> list[Path]:
    return [path for path in store._root.rglob("*") if path.is_file()]


def test_sizes_and_hashes(store: FileStore) -> None:
    data = os.urandom(3 * MIB + 5)
    seen: list[int] = []
    got = transfer.receive(
        io.BytesIO(data), store, "n", limit=len(data), declared=len(data), progress=seen.append
    )
    assert got == transfer.Received(
        len(data), hashlib.md5(data).hexdigest(), "sha512", hashlib.sha512(data).hexdigest()
    )
    assert b"".join(store.get("n")) == data
    assert seen == [MIB, 2 * MIB, 3 * MIB, 3 * MIB + 5]


def test_empty(store: FileStore) -> None:
    got = transfer.receive(io.BytesIO(b""), store, "n", limit=10)
    assert (got.size, got.checksum) == (0, hashlib.md5(b"").hexdigest())
    assert store.exists("n")


class Broken(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if not data:
            raise ConnectionResetError("gone")
        return data


@pytest.mark.parametrize(
    ("body", "limit", "declared", "error"),
    [
        (io.BytesIO(b"x" * 3 * MIB), 2 * MIB, None, TooLarge),
        (io.BytesIO(b"x"), 2, 3, TooLarge),
        (io.BytesIO(b"x" * MIB), 9 * MIB, 2 * MIB, transfer.Interrupted),
        (Broken(b"x" * 7 * MIB), 9 * MIB, None, transfer.Interrupted),
    ],
)
def test_what_fails_leaves_nothing(
    store: FileStore, body: io.BytesIO, limit: int, declared: int | None, error: type[Exception]
) -> None:
    with pytest.raises(error):
        transfer.receive(body, store, "n", limit=limit, declared=declared)
    assert leftovers(store) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("image-")]


def test_a_store_that_fails_ends_the_upload(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def put(chunks: Iterable[bytes], name: str) -> int:
        next(iter(chunks))
        raise DriverError("the disk is gone")

    monkeypatch.setattr(store, "put", put)
    body = io.BytesIO(b"x" * 40 * MIB)
    with pytest.raises(DriverError):
        transfer.receive(body, store, "n", limit=100 * MIB)
    assert body.tell() < 40 * MIB
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("image-")]


class Zeros:
    """A long body that is nowhere in memory."""

    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, size: int, /) -> bytes:
        got = min(size, self.left)
        self.left -= got
        return bytes(got)


def test_memory_stays_constant(store: FileStore) -> None:
    tracemalloc.start()
    try:
        got = transfer.receive(Zeros(512 * MIB), store, "n", limit=1 << 40, inspection=Inspection())
        for _chunk in store.get("n"):
            pass
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert got.size == 512 * MIB
    assert peak < 40 * MIB
