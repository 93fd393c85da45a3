"""JsonFilter: the hint ``query`` is a small prefix expression over the host's figures.

``["and", [">=", "$free_ram_mb", 1024], ["=", "$zone", "a"]]`` — a word that begins with ``$`` is an
attribute of the host, with dots going down into mappings (``$capabilities.cpu_info.model``).
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping
from typing import Any

from scheduler.filters.base import HostFilter
from scheduler.host_view import HostView
from scheduler.request import PlacementRequest

# Attributes that a query may read: everything else of a host is none of the asking user's business.
READABLE = frozenset(
    {
        *("host", "node", "zone", "cell", "capabilities", "num_instances", "num_io_ops"),
        *("vcpus_total", "vcpus_used", "total_usable_ram_mb", "free_ram_mb"),
        *("total_usable_disk_gb", "free_disk_mb"),
    }
)
MAX_DEPTH = 20


def _pairwise(compare: Callable[[Any, Any], bool]) -> Callable[[list[Any]], bool]:
    """The first argument compared with each of the others (at least one)."""

    def check(arguments: list[Any]) -> bool:
        try:
            return len(arguments) > 1 and all(compare(arguments[0], other) for other in arguments[1:])
        except TypeError:
            return False  # what can't be compared (a missing figure, text with a number) does not match

    return check


OPERATORS: dict[str, Callable[[list[Any]], bool]] = {
    "=": _pairwise(operator.eq),
    "<": _pairwise(operator.lt),
    ">": _pairwise(operator.gt),
    "<=": _pairwise(operator.le),
    ">=": _pairwise(operator.ge),
    "in": lambda arguments: len(arguments) > 1 and arguments[0] in arguments[1:],
    "not": lambda arguments: not any(arguments),
    "or": lambda arguments: any(arguments),
    "and": lambda arguments: all(arguments),
}


class JsonFilter(HostFilter):
    """Passes hosts for which the query holds; a query that can't be read passes none."""

    personal = False

    def applies(self, request: PlacementRequest) -> bool:
        return bool(request.hints.get("query"))

    def passes(self, host: HostView, request: PlacementRequest) -> bool:
        query = request.hints.get("query")
        if isinstance(query, list) and len(query) == 1 and isinstance(query[0], str):
            query = query[0]  # the API hands hints over as lists
        if isinstance(query, str):
            try:
                query = json.loads(query)
            except ValueError:
                return False
        return bool(self._value(query, host, MAX_DEPTH))

    def _value(self, query: Any, host: HostView, depth: int) -> Any:
        if isinstance(query, str) and query.startswith("$"):
            return self._attribute(query[1:].split("."), host)
        if not isinstance(query, list):
            return query
        if not query:
            return True
        if depth == 0 or not isinstance(query[0], str) or query[0] not in OPERATORS:
            return False
        return OPERATORS[query[0]]([self._value(item, host, depth - 1) for item in query[1:]])

    @staticmethod
    def _attribute(path: list[str], host: HostView) -> Any:
        value = getattr(host, path[0]) if path[0] in READABLE else None
        for step in path[1:]:
            value = value.get(step) if isinstance(value, Mapping) else None
        return value

    def reason(self, request: PlacementRequest) -> str:
        return "outside the hint's query"
