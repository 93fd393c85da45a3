"""The cache of the embedded Keystone: bounded, in memory, and of copies.

oslo.cache's dictionary hands out the cached objects themselves, which Keystone
changes in places (a role list grew a role that its user does not have), walks
over every key at each write, and never shrinks.  This one keeps pickles, drops
what was not used for longest, and takes constant time.
"""

from __future__ import annotations

import importlib
import pickle
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dogpile.cache import api, register_backend

NAME = "oslo_cache.dict"
"""Keystone takes only names that it knows: ours stands in for the dictionary."""


class LruBackend(api.CacheBackend):
    """dogpile backend; ``size`` (argument): most entries kept."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self._size = int(arguments.get("size", 20_000))
        self._items: OrderedDict[Any, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: api.KeyType) -> Any:
        with self._lock:
            kept = self._items.get(key)
            if kept is None:
                return api.NO_VALUE
            self._items.move_to_end(key)
        return pickle.loads(kept)  # noqa: S301 - our own process wrote it, nobody else can

    def get_multi(self, keys: Iterable[api.KeyType]) -> Sequence[Any]:
        return [self.get(key) for key in keys]

    def set(self, key: api.KeyType, value: Any) -> None:
        self.set_multi({key: value})

    def set_multi(self, mapping: Mapping[api.KeyType, Any]) -> None:
        packed = {key: pickle.dumps(value) for key, value in mapping.items()}
        with self._lock:
            for key, value in packed.items():
                self._items[key] = value
                self._items.move_to_end(key)
            while len(self._items) > self._size:
                self._items.popitem(last=False)

    def delete(self, key: api.KeyType) -> None:
        with self._lock:
            self._items.pop(key, None)

    def delete_multi(self, keys: Iterable[api.KeyType]) -> None:
        for key in keys:
            self.delete(key)


def register() -> None:
    """Put ours in the place of oslo.cache's dictionary, which registers itself when imported."""
    importlib.import_module("oslo_cache.core")
    register_backend(NAME, "cli.keystone_cache", "LruBackend")
