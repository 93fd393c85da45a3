"""What every store of image data must do; test files subclass ``Contract`` and offer a fixture ``store``."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest

from core.errors import BadRequest, Conflict, NotFound
from image.drivers.base import Store

MIB = 1 << 20


def new_name() -> str:
    return f"{uuid.uuid4()}.{uuid.uuid4().hex[:8]}"


def content(mib: int = 9) -> list[bytes]:
    """Chunks: data, zeros, data, zeros, a short end."""
    return [os.urandom(MIB), bytes(MIB), os.urandom(MIB), *[bytes(MIB)] * (mib - 3), b"the end"]


class Contract:
    """Each test on a store of its own subject."""

    def test_whole_and_in_parts(self, store: Store) -> None:
        name, chunks = new_name(), content()
        data = b"".join(chunks)
        assert store.put(iter(chunks), name) == len(data)
        assert store.exists(name)
        assert b"".join(store.get(name)) == data
        assert b"".join(store.get(name, MIB - 5, 10)) == data[MIB - 5 : MIB + 5]
        assert b"".join(store.get(name, len(data) - 3)) == b"end"
        assert b"".join(store.get(name, 7, 0)) == b""
        store.delete(name)
        store.delete(name)
        assert not store.exists(name)
        with pytest.raises(NotFound):
            store.get(name)

    @pytest.mark.parametrize("chunks", [[], [b"x"], [bytes(MIB), bytes(17)]])
    def test_small_ones(self, store: Store, chunks: list[bytes]) -> None:
        name = new_name()
        assert store.put(chunks, name) == len(b"".join(chunks))
        assert b"".join(store.get(name)) == b"".join(chunks)
        store.delete(name)

    @pytest.mark.parametrize("mib", [1, 8])
    def test_a_put_that_breaks_off_leaves_nothing(self, store: Store, mib: int) -> None:
        name = new_name()
        seen: list[bool] = []

        def chunks() -> Iterator[bytes]:
            for _ in range(mib):
                yield os.urandom(MIB)
            seen.append(store.exists(name))
            raise ConnectionError("gone")

        with pytest.raises(ConnectionError):
            store.put(chunks(), name)
        assert seen == [False]
        assert not store.exists(name)
        # and the name can be used again
        store.put([b"whole"], name)
        assert b"".join(store.get(name)) == b"whole"
        store.delete(name)

    def test_an_object_is_never_replaced(self, store: Store) -> None:
        name = new_name()
        store.put([b"first"], name)
        with pytest.raises(Conflict):
            store.put([b"second"], name)
        assert b"".join(store.get(name)) == b"first"
        store.delete(name)

    def test_a_reader_can_be_closed_early(self, store: Store) -> None:
        name = new_name()
        store.put(content(), name)
        reader = store.get(name)
        assert next(reader)
        reader.close()  # type: ignore[attr-defined]
        store.delete(name)
        assert not store.exists(name)

    @pytest.mark.parametrize("name", ["", "../../etc/passwd", ".hidden", "a/b", "x\0y"])
    def test_no_name_leads_elsewhere(self, store: Store, name: str) -> None:
        with pytest.raises(BadRequest):
            store.put([b"x"], name)

    def test_what_the_api_tells_has_no_secrets(self, store: Store) -> None:
        name = new_name()
        assert name in store.url(name)
        assert "secret" not in f"{store.url(name)}{store.properties()}"
