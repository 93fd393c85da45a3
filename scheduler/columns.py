"""Columns of the host table: arrays that grow, and values kept once however many hosts share them.

Everything here is plain storage without locks; ``scheduler.host_state.HostTable`` owns it and says
when it may be touched.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Generic, TypeVar, cast

import numpy as np
import numpy.typing as npt

V = TypeVar("V")
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Slots = slice | npt.NDArray[np.intp]

UNBOUNDED = np.iinfo(np.int64).max


def grown(array: npt.NDArray[Any], capacity: int, fill: Any = 0) -> npt.NDArray[Any]:
    """A copy of ``array`` with room for ``capacity`` entries, the new ones set to ``fill``."""
    out = np.full(capacity, fill, dtype=array.dtype)
    out[: len(array)] = array
    return out


class CodedColumn(Generic[V]):
    """A column of any hashable values, each distinct value stored once (dictionary encoding).

    Zones, trait sets, capabilities and the like repeat over thousands of hosts, so a filter asks its
    question once per distinct value and gathers the answers by code.  A value's code is given to
    another value when its last host lets go of it.
    """

    def __init__(self, capacity: int, key: Callable[[V], Hashable] | None = None) -> None:
        self.codes = np.full(capacity, -1, dtype=np.int32)
        self.values: list[V | None] = []
        self._key: Callable[[V], Hashable] = key or (lambda value: value)
        self._keys: list[Hashable] = []
        self._code_of: dict[Hashable, int] = {}
        self._uses: list[int] = []
        self._free: list[int] = []

    def grow(self, capacity: int) -> None:
        self.codes = grown(self.codes, capacity, -1)

    def code(self, value: V) -> int:
        """The code of ``value``, or -1 when no host has it."""
        return self._code_of.get(self._key(value), -1)

    def set(self, slot: int, value: V) -> None:
        key = self._key(value)
        code = self._code_of.get(key)
        if code is not None and code == self.codes[slot]:
            return
        if code is None:
            code = self._new(key, value)
        self._uses[code] += 1
        self.clear(slot)
        self.codes[slot] = code

    def _new(self, key: Hashable, value: V) -> int:
        if self._free:
            code = self._free.pop()
            self._keys[code], self.values[code] = key, value
        else:
            code = len(self.values)
            self._keys.append(key)
            self.values.append(value)
            self._uses.append(0)
        self._code_of[key] = code
        return code

    def clear(self, slot: int) -> None:
        """Forget the value of ``slot`` (and the value itself when this was its last host)."""
        code = int(self.codes[slot])
        self.codes[slot] = -1
        if code < 0:
            return
        self._uses[code] -= 1
        if self._uses[code] == 0:
            del self._code_of[self._keys[code]]
            self._keys[code] = self.values[code] = None
            self._free.append(code)

    def move(self, source: int, target: int) -> None:
        """Move a value from slot ``source`` to the empty slot ``target``."""
        self.codes[target] = self.codes[source]
        self.codes[source] = -1

    def get(self, slot: int) -> V:
        return self.values[self.codes[slot]]

    def view(self, slots: Slots) -> CodedView[V]:
        return CodedView(self, self.codes[slots])


class CodedView(Generic[V]):
    """A coded column restricted to some hosts."""

    __slots__ = ("_column", "codes")

    def __init__(self, column: CodedColumn[V], codes: npt.NDArray[np.int32]) -> None:
        self._column = column
        self.codes = codes

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, position: int) -> V:
        return self._column.values[self.codes[position]]

    def tolist(self) -> list[V]:
        values = self._column.values
        return cast("list[V]", [values[code] for code in self.codes.tolist()])

    def map(self, function: Callable[[V], Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """``function`` of every host's value, called once per distinct value."""
        # A code that a host holds always has a value; None is only left where a code is free.
        values = cast("list[V]", self._column.values)
        if len(self.codes) == 1:
            return np.array([function(values[self.codes[0]])], dtype=dtype)
        if len(self.codes) < len(values):
            seen: dict[int, Any] = {}
            for code in self.codes.tolist():
                if code not in seen:
                    seen[code] = function(values[code])
            return np.array([seen[code] for code in self.codes.tolist()], dtype=dtype)
        used = np.zeros(len(values), dtype=bool)
        used[self.codes] = True
        answers = np.zeros(len(values), dtype=dtype)
        for code in np.flatnonzero(used).tolist():
            answers[code] = function(values[code])
        return answers[self.codes]

    def test(self, predicate: Callable[[V], bool]) -> BoolArray:
        """The hosts for whose value ``predicate`` holds."""
        return self.map(predicate, np.bool_)

    def equals(self, value: V) -> BoolArray:
        return self.codes == self._column.code(value) if len(self.codes) else np.zeros(0, dtype=bool)

    def among(self, values: Any) -> BoolArray:
        """The hosts whose value is one of ``values``."""
        codes = {self._column.code(value) for value in values} - {-1}
        if len(codes) == 1:
            return self.codes == codes.pop()
        return np.isin(self.codes, list(codes))


class ResourceColumns:
    """Inventory and usage of one resource class over all hosts.

    ``limit`` is derived: (total - reserved) * ratio, what may be used at most; a host without
    inventory of the class has limit 0 and ``total`` 0.
    """

    _INTS = {"total": 0, "reserved": 0, "used": 0, "min_unit": 1, "max_unit": UNBOUNDED, "step_size": 1}
    _FLOATS = {"ratio": 1.0, "limit": 0.0}

    def __init__(self, capacity: int) -> None:
        self.total: IntArray = np.zeros(capacity, dtype=np.int64)
        self.reserved: IntArray = np.zeros(capacity, dtype=np.int64)
        self.used: IntArray = np.zeros(capacity, dtype=np.int64)
        self.min_unit: IntArray = np.ones(capacity, dtype=np.int64)
        self.max_unit: IntArray = np.full(capacity, UNBOUNDED, dtype=np.int64)
        self.step_size: IntArray = np.ones(capacity, dtype=np.int64)
        self.stepped = False  # whether any host ever had a step_size above 1; spares a division per pass
        self.ratio: FloatArray = np.ones(capacity, dtype=np.float64)
        self.limit: FloatArray = np.zeros(capacity, dtype=np.float64)

    def _defaults(self) -> dict[str, float]:
        return {**self._INTS, **self._FLOATS}

    def grow(self, capacity: int) -> None:
        for name, fill in self._defaults().items():
            setattr(self, name, grown(getattr(self, name), capacity, fill))

    def clear(self, slot: int) -> None:
        for name, fill in self._defaults().items():
            getattr(self, name)[slot] = fill

    def move(self, source: int, target: int) -> None:
        for name in self._defaults():
            column = getattr(self, name)
            column[target] = column[source]
        self.clear(source)

    def set_ratio(self, slot: int, ratio: float) -> None:
        self.ratio[slot] = ratio
        self.limit[slot] = (self.total[slot] - self.reserved[slot]) * ratio


class SparseCounts:
    """Numbers per key and host, for keys that touch few hosts (server groups, projects).

    Hosts are named by provider uuid and not by slot, so that a removal has nothing to renumber.
    """

    def __init__(self) -> None:
        self._by_key: dict[str, dict[str, int]] = {}
        self._keys_of: dict[str, set[str]] = {}

    def of(self, key: str) -> Mapping[str, int]:
        """The hosts of a key, with their numbers (all above zero)."""
        return self._by_key.get(key, _NONE)

    def add(self, key: str, uuid: str, change: int) -> None:
        self.set(key, uuid, self.of(key).get(uuid, 0) + change)

    def set(self, key: str, uuid: str, number: int) -> None:
        if number > 0:
            self._by_key.setdefault(key, {})[uuid] = number
            self._keys_of.setdefault(uuid, set()).add(key)
            return
        hosts = self._by_key.get(key)
        if hosts is None or hosts.pop(uuid, None) is None:
            return
        if not hosts:
            del self._by_key[key]
        self._keys_of[uuid].discard(key)

    def forget(self, uuid: str) -> None:
        """Drop all numbers of a host."""
        for key in list(self._keys_of.get(uuid, ())):
            self.set(key, uuid, 0)
        self._keys_of.pop(uuid, None)

    def copy(self) -> SparseCounts:
        other = SparseCounts()
        other._by_key = {key: dict(hosts) for key, hosts in self._by_key.items()}
        other._keys_of = {uuid: set(keys) for uuid, keys in self._keys_of.items()}
        return other


_NONE: Mapping[str, int] = {}
