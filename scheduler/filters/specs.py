"""Reading flavors' extra specs and aggregates' metadata, for the filters that compare them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping

from oslo_utils import specs_matcher


@functools.lru_cache(maxsize=4096)
def match(value: str, wanted: str) -> bool:
    """oslo.utils' specs matcher, remembered: it builds its grammar anew for each call (milliseconds)."""
    return bool(specs_matcher.match(value, wanted))


def specs_in_scope(extra_specs: Mapping[str, str], scope: str) -> Iterator[tuple[list[str], str, str]]:
    """(path, wanted, key) of the extra specs that have ``scope`` or none."""
    for key, wanted in extra_specs.items():
        path = key.split(":")
        if len(path) > 1:
            if path[0] != scope:
                continue
            del path[0]
        yield path, str(wanted), key


def listed(values: set[str]) -> set[str]:
    """The members of comma-separated metadata values."""
    return {part.strip() for value in values for part in value.split(",")}
